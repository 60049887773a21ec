//! What a certificate says, for checks and for people.
//!
//! The certificate may come from a stranger, so nothing in here is proof of anything.

use rexec_protocol::outcome::printable;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::{Any, FromDer};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::time::ASN1Time;

/// The longest list of names that is shown.
const SHOWN_NAMES: usize = 8;

/// What one certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The URIs of its subjectAltName, as they are.
    pub uris: Vec<String>,
    /// The DNS names and addresses of its subjectAltName.
    pub hosts: Vec<String>,
    /// The whole subject, which proves nothing.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// The extended key usages by their short names, others by their number.
    pub purposes: Vec<String>,
    /// The certificate may sign others.
    pub authority: bool,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// May act as a client.
pub(crate) const CLIENT: &str = "clientAuth";
/// May act as a server.
pub(crate) const SERVER: &str = "serverAuth";

impl Summary {
    /// Reads a certificate in DER. A name that can't be read is an error and never passed over.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("not X.509: {error}"))?;
        if !rest.is_empty() {
            return Err("there are bytes after its end".to_owned());
        }
        certificate.extensions().iter().try_for_each(check_extension)?;
        let twice = |error| format!("an extension is there twice ({error})");
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().map_err(twice)?;
        for name in names.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    hosts.push(address(bytes).ok_or("an address in its subjectAltName")?);
                }
                GeneralName::Invalid(tag, _) => {
                    return Err(format!("a name of kind {} in its subjectAltName", tag.0));
                }
                _ => {}
            }
        }
        let usage = certificate.extended_key_usage().map_err(twice)?;
        let constraints = certificate.basic_constraints().map_err(twice)?;
        Ok(Self {
            uris,
            hosts,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            purposes: usage.map(|usage| purposes(usage.value)).unwrap_or_default(),
            authority: constraints.is_some_and(|constraints| constraints.value.ca),
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
        })
    }

    /// Whether the certificate is for acting as a client.
    pub fn is_for_clients(&self) -> bool {
        self.purposes.iter().any(|purpose| purpose == CLIENT)
    }

    /// Whether the certificate is for acting as a server, that is, an agent.
    pub fn is_for_agents(&self) -> bool {
        self.purposes.iter().any(|purpose| purpose == SERVER)
    }

    /// The names that count, or the subject when there are none.
    pub fn names(&self) -> String {
        let mut names: Vec<_> = self.uris.iter().chain(&self.hosts).map(String::as_str).collect();
        let more = names.len().saturating_sub(SHOWN_NAMES);
        names.truncate(SHOWN_NAMES);
        match (names.is_empty(), more) {
            (true, _) => format!("without names, subject '{}'", printable(&self.subject)),
            (_, 0) => printable(&names.join(", ")),
            _ => format!("{} and {more} more", printable(&names.join(", "))),
        }
    }

    /// The purposes, for a sentence.
    pub(crate) fn purposes(&self) -> String {
        if self.purposes.is_empty() { "none".to_owned() } else { self.purposes.join(", ") }
    }
}

/// A moment as `2026-11-22 19:04:00 UTC`.
pub fn moment(time: SystemTime) -> String {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    match ASN1Time::from_timestamp(seconds) {
        Ok(time) => {
            let time = time.to_datetime();
            let (hour, minute, second) = time.to_hms();
            format!("{} {hour:02}:{minute:02}:{second:02} UTC", time.date())
        }
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// The parser takes an extension that it can't parse for one that is not there, and does not mind
/// bytes after the end of one; in those that decide something neither can be let pass.
fn check_extension(extension: &X509Extension<'_>) -> Result<(), String> {
    let deciding = [
        OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_BASIC_CONSTRAINTS,
    ];
    if !deciding.contains(&extension.oid) {
        return Ok(());
    }
    let whole = Any::from_der(extension.value).is_ok_and(|(rest, _)| rest.is_empty());
    match extension.parsed_extension() {
        ParsedExtension::ParseError { error } => {
            Err(format!("extension {}: {error}", extension.oid))
        }
        _ if whole => Ok(()),
        _ => Err(format!("extension {}: bytes after its end", extension.oid)),
    }
}

fn purposes(usage: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> Vec<String> {
    let known = [
        (usage.any, "any"),
        (usage.server_auth, SERVER),
        (usage.client_auth, CLIENT),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let known = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    known.chain(usage.other.iter().map(ToString::to_string)).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_string())
}

pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
