//! What a certificate revocation list says (RFC 5280, section 5).

use super::summary::system_time;
use rexec_protocol::outcome::printable;
use std::time::SystemTime;
use x509_parser::der_parser::asn1_rs::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// What one list says, but for its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The authority whose list it is.
    pub issuer: String,
    /// Counts the lists of an authority; decimal.
    pub number: Option<String>,
    /// When it was made.
    pub this_update: SystemTime,
    /// When it must have been replaced: from then on it says nothing.
    pub next_update: SystemTime,
    /// How many certificates it revokes.
    pub entries: usize,
}

impl RevocationList {
    /// Reads a list in DER. One without an end of its validity is refused: it would be good for ever.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        Self::from_parsed(&parse(der)?)
    }

    pub(crate) fn from_parsed(list: &CertificateRevocationList<'_>) -> Result<Self, String> {
        let next_update = list.next_update().ok_or("it does not say when it ends (nextUpdate)")?;
        Ok(Self {
            issuer: printable(&list.issuer().to_string()),
            number: list.crl_number().map(ToString::to_string),
            this_update: system_time(list.last_update()),
            next_update: system_time(next_update),
            entries: list.iter_revoked_certificates().count(),
        })
    }
}

pub(crate) fn parse(der: &[u8]) -> Result<CertificateRevocationList<'_>, String> {
    let (rest, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| format!("not an X.509 revocation list: {error}"))?;
    if rest.is_empty() { Ok(list) } else { Err("there are bytes after its end".to_owned()) }
}
