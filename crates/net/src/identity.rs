//! Who a client is: the one place where a certificate becomes a name.
//!
//! Names come from the URIs of the certificate's subjectAltName and from nowhere else; the common
//! name is never looked at. The rules, all of them checked before there is an [`Identity`]:
//!
//! - A user is exactly one `rexec:user:NAME`, with up to [`MAX_GROUPS`] of `rexec:group:NAME`. The
//!   name of the identity is then `NAME`.
//! - Or a workload is exactly one `spiffe://TRUST-DOMAIN/PATH`. As SPIFFE demands, such a
//!   certificate has no other URI, so it is in no group. The name is the whole id.
//! - `NAME` is a letter or a digit, then up to 127 of letters, digits, `.`, `_`, `@` and `-`, all of
//!   them ASCII. So a name is one word in a shell, in a log line and in a policy, and can't be taken
//!   for an option. Names are compared byte for byte; `Alice` is not `alice`.
//! - Any other `rexec:` URI is refused: it may be a restriction that this version does not know.
//! - URIs of other schemes (`https:`, or the `tag:` with which Active Directory marks its
//!   certificates) are ignored, and so are names that are not URIs. A URI that is malformed is
//!   refused whatever its scheme, as is a scheme of ours in another case.

use crate::explain::Summary;
use rexec_guard::holds;
use rexec_protocol::outcome::printable;
use rexec_protocol::{Algorithm, Digest};
use rustls::pki_types::CertificateDer;
use std::time::SystemTime;

/// The most groups in one certificate.
pub const MAX_GROUPS: usize = 64;
/// The longest user or group name, in bytes.
pub const MAX_NAME: usize = 128;
/// The longest SPIFFE id, in bytes, and the longest trust domain in it, as SPIFFE sets them.
const MAX_SPIFFE: (usize, usize) = (2048, 255);

const USER: &str = "rexec:user:";
const GROUP: &str = "rexec:group:";
const SPIFFE: &str = "spiffe://";

/// Who the peer is, proven by a certificate chain that rustls has verified. Only this crate makes
/// one, and only from such a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    groups: Vec<String>,
    fingerprint: Digest,
    not_after: SystemTime,
}

impl Identity {
    /// The identity in a chain that rustls has verified, the peer's own certificate first.
    pub(crate) fn from_verified(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let certificate = chain.first().ok_or(IdentityError::NoCertificate)?;
        let summary = Summary::of(certificate).map_err(IdentityError::Malformed)?;
        let (name, groups) = subject(&summary.uris)?;
        let fingerprint = Digest::of(Algorithm::Sha256, certificate);
        Ok(Self { name, groups, fingerprint, not_after: summary.not_after })
    }

    /// Whether a certificate that says this would name exactly one user.
    pub(crate) fn check(summary: &Summary) -> Result<(), IdentityError> {
        subject(&summary.uris).map(drop)
    }

    /// The user's name, or a SPIFFE id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The groups, in the order of the certificate, each once.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// When the certificate ends to be valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Why a certificate proves no usable identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is none.
    #[error("no certificate was presented")]
    NoCertificate,
    /// It, or a name in it, can't be read.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// No URI that names a user.
    #[error(
        "the certificate names no user: there is no rexec:user:NAME and no spiffe:// id among the URIs of its subjectAltName (the common name does not count)"
    )]
    Nobody,
    /// More than one URI that names a user.
    #[error("the certificate names several users: {}", list(.0))]
    Several(Vec<String>),
    /// A SPIFFE id beside other URIs.
    #[error("a certificate with a SPIFFE id may have no other URI, but there is {}", list(.0))]
    MixedSpiffe(Vec<String>),
    /// Not a name of a user or a group.
    #[error(
        "{what} '{}' is not a legal name: a letter or digit, then up to 127 of A-Z a-z 0-9 . _ @ -",
        printable(name)
    )]
    Name {
        /// "user" or "group".
        what: &'static str,
        /// What was found.
        name: String,
    },
    /// Not a SPIFFE id.
    #[error("'{}' is not a legal SPIFFE id: spiffe://TRUST-DOMAIN/PATH", printable(.0))]
    Spiffe(String),
    /// Not a URI, or one that this version must not ignore.
    #[error("the certificate has a URI that cannot be accepted: '{}'", printable(.0))]
    Uri(String),
    /// More groups than anybody needs.
    #[error("the certificate has {0} groups; {MAX_GROUPS} are allowed")]
    Groups(usize),
}

/// Whether `name` may stand in `rexec:user:NAME`.
pub fn check_user_name(name: &str) -> Result<(), IdentityError> {
    check_name("user", name)
}

/// Whether `name` may stand in `rexec:group:NAME`.
pub fn check_group_name(name: &str) -> Result<(), IdentityError> {
    check_name("group", name)
}

/// The URI by which a certificate names this user.
pub fn user_uri(name: &str) -> Result<String, IdentityError> {
    check_user_name(name).map(|()| format!("{USER}{name}"))
}

/// The URI by which a certificate names this group.
pub fn group_uri(name: &str) -> Result<String, IdentityError> {
    check_group_name(name).map(|()| format!("{GROUP}{name}"))
}

fn subject(uris: &[String]) -> Result<(String, Vec<String>), IdentityError> {
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for uri in uris {
        match Kind::of(uri)? {
            Kind::User(name) => users.push(name),
            Kind::Group(name) => groups.push(name),
            Kind::Spiffe => users.push(uri),
            Kind::Foreign => {}
        }
    }
    let name = match users.as_slice() {
        [] => return Err(IdentityError::Nobody),
        [name, ..] if holds("identity.one_user", users.len() == 1) => *name,
        _ => return Err(IdentityError::Several(users.into_iter().map(str::to_owned).collect())),
    };
    if name.starts_with(SPIFFE) && !holds("identity.spiffe_alone", uris.len() == 1) {
        let others = uris.iter().filter(|uri| *uri != name).cloned().collect();
        return Err(IdentityError::MixedSpiffe(others));
    }
    if !holds("identity.groups", groups.len() <= MAX_GROUPS) {
        return Err(IdentityError::Groups(groups.len()));
    }
    let mut distinct = Vec::new();
    for group in groups {
        if !distinct.iter().any(|known| known == group) {
            distinct.push(group.to_owned());
        }
    }
    Ok((name.to_owned(), distinct))
}

enum Kind<'a> {
    User(&'a str),
    Group(&'a str),
    Spiffe,
    Foreign,
}

impl<'a> Kind<'a> {
    fn of(uri: &'a str) -> Result<Self, IdentityError> {
        let refused = || IdentityError::Uri(uri.to_owned());
        let (scheme, _) = uri.split_once(':').ok_or_else(refused)?;
        let is_ours = ["rexec", "spiffe"].iter().any(|ours| scheme.eq_ignore_ascii_case(ours));
        let is_uri = uri.bytes().all(|c| c.is_ascii_graphic()) && is_scheme(scheme);
        if !holds("identity.uri", is_uri) {
            return Err(refused());
        }
        if let Some(name) = uri.strip_prefix(USER) {
            check_user_name(name).map(|()| Self::User(name))
        } else if let Some(name) = uri.strip_prefix(GROUP) {
            check_group_name(name).map(|()| Self::Group(name))
        } else if uri.starts_with(SPIFFE) {
            check_spiffe(uri).map(|()| Self::Spiffe)
        } else if !holds("identity.unknown_uri", !is_ours) {
            Err(refused())
        } else {
            Ok(Self::Foreign)
        }
    }
}

/// RFC 3986, section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'))
}

fn check_name(what: &'static str, name: &str) -> Result<(), IdentityError> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'@' | b'-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if holds("identity.name", starts_well && name.len() <= MAX_NAME && name.bytes().all(legal)) {
        Ok(())
    } else {
        Err(IdentityError::Name { what, name: name.to_owned() })
    }
}

/// The SPIFFE-ID standard, section 2; and the path that it demands of certificates that are not an
/// authority's.
fn check_spiffe(id: &str) -> Result<(), IdentityError> {
    let legal_domain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
    let legal_path = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    let legal_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(legal_path);
    let legal = id.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')).is_some_and(
        |(domain, path)| {
            (1..=MAX_SPIFFE.1).contains(&domain.len())
                && domain.bytes().all(legal_domain)
                && path.split('/').all(legal_segment)
        },
    );
    if holds("identity.spiffe", legal && id.len() <= MAX_SPIFFE.0) {
        Ok(())
    } else {
        Err(IdentityError::Spiffe(id.to_owned()))
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
