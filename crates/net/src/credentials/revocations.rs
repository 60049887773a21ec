//! Certificate revocation lists (RFC 5280, section 5): what an authority has withdrawn.
//!
//! A list that cannot be used refuses everybody, so everything that can be known about it is asked
//! when it is read, while an older one is still in force, and not in the next handshake.

use super::{CredentialError, Fault, file};
use crate::explain::{RevocationList, moment, parse_list};
use crate::pem;
use rexec_guard::holds;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::path::Path;
use std::time::SystemTime;
use webpki::EndEntityCert;
use x509_parser::parse_x509_certificate;
use x509_parser::revocation_list::CertificateRevocationList;

/// The largest file that is read. An entry takes about 60 bytes, so this is a million of them.
const MAX_SIZE: u64 = 64 << 20;

/// The lists of one file; they were current when they were read.
#[derive(Debug)]
pub struct Revocations {
    der: Vec<CertificateRevocationListDer<'static>>,
    lists: Vec<RevocationList>,
}

impl Revocations {
    /// Reads the lists, and checks them against the authorities that they should come from.
    pub(super) fn read(
        path: &Path,
        authorities: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Self, CredentialError> {
        Self::load(path, authorities, now).map_err(|fault| fault.of(path))
    }

    /// What the lists say.
    pub fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// From when on at least one of them says nothing any more.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.lists.iter().map(|list| list.next_update).min()
    }

    /// Fails if one of these is older than what is known of the same authority.
    pub(crate) fn demand_newer(&self, known: &[RevocationList]) -> Result<(), Fault> {
        for list in &self.lists {
            let before = known.iter().find(|known| known.issuer == list.issuer);
            let numbers =
                before.and_then(|before| before.number.as_ref()).zip(list.number.as_ref());
            // Decimal, without zeros in front.
            let rank = |number: &String| (number.len(), number.clone());
            if let Some((known, number)) = numbers
                && !holds("crl.newest", rank(number) >= rank(known))
            {
                let (issuer, number, known) = (list.issuer.clone(), number.clone(), known.clone());
                return Err(Fault::OlderRevocations { issuer, number, known });
            }
        }
        Ok(())
    }

    pub(crate) fn der(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.der
    }

    fn load(
        path: &Path,
        authorities: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Self, Fault> {
        let (bytes, access) = file::read(path, MAX_SIZE).map_err(|fault| match fault {
            Fault::Read(error) => Fault::NoRevocationFile(error),
            other => other,
        })?;
        access.demand_unchangeable()?;
        let contents = pem::parse(&bytes).map_err(Fault::Pem)?;
        if contents.lists.is_empty() {
            return Err(Fault::NoRevocations(contents.found()));
        }
        let authorities = authorities.iter().map(Authority::of).collect::<Result<Vec<_>, _>>();
        let mut authorities = authorities.map_err(Fault::BadCertificate)?;
        let mut lists = Vec::new();
        for der in &contents.lists {
            let parsed = parse_list(der).map_err(Fault::BadRevocations)?;
            let list = RevocationList::from_parsed(&parsed).map_err(Fault::BadRevocations)?;
            if !holds("crl.current", now < list.next_update) {
                let (until, now) = (moment(list.next_update), moment(now));
                return Err(Fault::StaleRevocations { issuer: list.issuer, until, now });
            }
            match attribute(&parsed, &mut authorities) {
                Maker::Forger if !holds("crl.signed", false) => {
                    return Err(Fault::ForgedRevocations(list.issuer));
                }
                // Only the first of them would be asked.
                Maker::Again if !holds("crl.one_of_each", false) => {
                    return Err(Fault::TwoRevocations(list.issuer));
                }
                _ => {}
            }
            lists.push(list);
        }
        match authorities.into_iter().find(|authority| !authority.has_list) {
            Some(without) => Err(Fault::MissingRevocations(without.name)),
            None => Ok(Self { der: contents.lists, lists }),
        }
    }
}

/// One that is trusted, and whether it has a list.
struct Authority<'a> {
    certificate: &'a CertificateDer<'a>,
    name: String,
    subject: Vec<u8>,
    has_list: bool,
}

impl<'a> Authority<'a> {
    fn of(certificate: &'a CertificateDer<'a>) -> Result<Self, String> {
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
        let (name, subject) = (parsed.subject().to_string(), parsed.subject().as_raw().to_vec());
        Ok(Self { certificate, name, subject, has_list: false })
    }

    fn signed(&self, list: &CertificateRevocationList<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(self.certificate) else { return false };
        let (signed, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let verified = |algorithm| certificate.verify_signature(algorithm, signed, signature);
        algorithms.iter().any(|algorithm| verified(*algorithm).is_ok())
    }
}

/// Who made a list.
enum Maker {
    /// An authority that is trusted, or one in between, which is left to the handshakes.
    Somebody,
    /// One that has made another of these lists as well.
    Again,
    /// One that bears the name of an authority, and is none.
    Forger,
}

/// Finds the authority that made a list.
fn attribute(list: &CertificateRevocationList<'_>, authorities: &mut [Authority<'_>]) -> Maker {
    let issuer = list.issuer().as_raw();
    let mut namesakes = authorities.iter_mut().filter(|a| a.subject == issuer).peekable();
    if namesakes.peek().is_none() {
        return Maker::Somebody;
    }
    match namesakes.find(|authority| authority.signed(list)) {
        Some(authority) if authority.has_list => Maker::Again,
        Some(authority) => {
            authority.has_list = true;
            Maker::Somebody
        }
        None => Maker::Forger,
    }
}
