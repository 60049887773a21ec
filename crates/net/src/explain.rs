//! Why TLS refused a peer, in words for the one who has to mend it: which certificate, what is
//! wrong with it, and what to do.
//!
//! Most of what can go wrong with TLS is a certificate of one side and a demand of the other, and
//! each side sees only half of it. The side that refuses knows the reason and names it in full; the
//! other receives a one-byte alert, so it adds what its own certificate says.

mod list;
mod summary;

use crate::credentials::{self, Files};
pub use list::RevocationList;
pub(crate) use list::parse as parse_list;
use rexec_protocol::outcome::printable;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::io;
use std::time::{Duration, SystemTime};
pub use summary::{Summary, moment};

/// Who explains.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// The agent, about a client.
    Agent,
    /// The client, about the agent at this host name or address.
    Client(&'a str),
}

/// Plain words for a handshake that failed, or for an alert that ended a read: in TLS 1.3 a client
/// learns from its first read that the agent did not accept its certificate.
///
/// `presented` is the certificate from [`crate::tls::observe`].
pub fn refusal(
    side: Side<'_>,
    error: &io::Error,
    presented: Option<&CertificateDer<'_>>,
    files: &Files,
    now: SystemTime,
) -> String {
    let scene = Scene::of(side, presented, files, now);
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => scene.tls(error),
        None => scene.socket(error),
    }
}

/// Plain words for a client's certificate that this agent accepted once, and does not any more.
pub(crate) fn rejection(
    error: &Error,
    presented: &CertificateDer<'_>,
    files: &Files,
    now: SystemTime,
) -> String {
    Scene::of(Side::Agent, Some(presented), files, now).tls(error)
}

/// Whether a certificate was refused because this side's own revocation lists do not say enough.
pub(crate) fn is_unjudged(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. }
    )
}

struct Scene<'a> {
    side: Side<'a>,
    presented: Option<Summary>,
    files: &'a Files,
    now: SystemTime,
}

impl<'a> Scene<'a> {
    fn of(
        side: Side<'a>,
        presented: Option<&CertificateDer<'_>>,
        files: &'a Files,
        now: SystemTime,
    ) -> Self {
        let presented = presented.and_then(|certificate| Summary::of(certificate).ok());
        Self { side, presented, files, now }
    }

    fn socket(&self, error: &io::Error) -> String {
        let peer = self.peer();
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                format!("{peer} closed the connection before TLS was set up")
            }
            _ => format!("the connection to {peer} failed before TLS was set up: {error}"),
        }
    }

    fn tls(&self, error: &Error) -> String {
        let peer = self.peer();
        match error {
            Error::InvalidCertificate(error) => self.certificate(error),
            Error::InvalidCertRevocationList(error) => self.unknown(&format!(
                "the revocation list in {} cannot be used ({error:?})",
                self.list()
            )),
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::NoCertificatesPresented => {
                format!("{peer} presented no certificate; {}", self.remedy())
            }
            Error::NoApplicationProtocol => {
                format!("{peer} speaks TLS, but not rexec: it offered other protocols only")
            }
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => format!("{peer} does not speak TLS 1.3, and nothing older is spoken here"),
            Error::PeerIncompatible(what) => {
                format!("{peer} and this machine have no TLS parameters in common ({what:?})")
            }
            Error::InvalidMessage(_) => match self.side {
                Side::Agent => {
                    format!("{peer} sent something that is not TLS; HTTP, or a port scan, perhaps")
                }
                Side::Client(_) => format!(
                    "{peer} answered with something that is not TLS; is it the port of an agent?"
                ),
            },
            other => format!("TLS with {peer} failed: {other}"),
        }
    }

    /// This side refused the peer's certificate.
    fn certificate(&self, error: &CertificateError) -> String {
        let (whose, remedy) = (self.theirs(), self.remedy());
        let (clock, authority) = (moment(self.now), self.files.authority.display());
        match error {
            CertificateError::ExpiredContext { not_after, .. } => format!(
                "{whose} expired on {}, and this machine's clock says {clock}; {remedy}",
                moment(system_time(*not_after))
            ),
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "{whose} is not valid before {}, and this machine's clock says {clock}; set the clock that is wrong",
                moment(system_time(*not_before))
            ),
            CertificateError::UnknownIssuer => format!(
                "{whose} is {}; {remedy}, or add its authority to that file",
                self.issuer(&authority.to_string())
            ),
            CertificateError::BadSignature => format!(
                "{whose} is not signed by the authority in {authority}, but by another one of the same name; {remedy}"
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                let found = self.presented.as_ref().map_or("unknown".to_owned(), Summary::purposes);
                format!(
                    "{whose} is not for {}: extended key usage {} is needed, there is {found}; {remedy}",
                    self.role(),
                    self.purpose()
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                self.wrong_name()
            }
            CertificateError::Revoked => {
                format!("{whose} was revoked by its authority (list: {}); {remedy}", self.list())
            }
            CertificateError::UnknownRevocationStatus => self.unknown(&format!(
                "{} has no revocation list of the authority that signed it; append one, made with `rexec ca crl`",
                self.list()
            )),
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                self.unknown(&format!(
                    "the revocation list in {} was to be replaced by {}, and this machine's clock says {clock}; {RENEW_LIST}",
                    self.list(),
                    moment(system_time(*next_update))
                ))
            }
            CertificateError::ExpiredRevocationList => self.unknown(&format!(
                "the revocation list in {} was to be replaced before now, {clock}; {RENEW_LIST}",
                self.list()
            )),
            CertificateError::BadEncoding => format!("{whose} is malformed; {remedy}"),
            // webpki's words, such as CaUsedAsEndEntity.
            CertificateError::Other(other) => {
                format!("{whose} cannot be accepted: {other}; {remedy}")
            }
            other => format!("{whose} cannot be accepted: {other}; {remedy}"),
        }
    }

    fn unknown(&self, why: &str) -> String {
        format!("whether {} was revoked is not known: {why}", self.theirs())
    }

    /// The file of the revocation lists.
    fn list(&self) -> String {
        let list = self.files.revocations.as_ref();
        list.map_or("no file".to_owned(), |path| path.display().to_string())
    }

    fn issuer(&self, authority: &str) -> String {
        match &self.presented {
            Some(Summary { subject, issuer, .. }) if subject == issuer => {
                format!("signed by itself and not by the authority in {authority}")
            }
            Some(Summary { issuer, .. }) => {
                format!("signed by '{}' and not by the authority in {authority}", printable(issuer))
            }
            None => format!("not signed by the authority in {authority}"),
        }
    }

    fn wrong_name(&self) -> String {
        let dialled = match self.side {
            Side::Client(host) => printable(host),
            Side::Agent => "the name that was dialled".to_owned(),
        };
        let hosts = self.presented.as_ref().map_or(&[][..], |summary| summary.hosts.as_slice());
        let has = if hosts.is_empty() {
            "has neither DNS names nor addresses in its subjectAltName (the common name does not count)".to_owned()
        } else {
            format!("is for {}", printable(&hosts.join(", ")))
        };
        format!(
            "the agent's certificate {has}, and not for {dialled}; dial one of its names, or issue one with `rexec ca issue-agent NAME --san {dialled}`"
        )
    }

    /// The peer refused something of this side and says so with one byte.
    fn alert(&self, alert: AlertDescription) -> String {
        let peer = self.peer();
        let clock = moment(self.now);
        let reason = match alert {
            AlertDescription::CertificateExpired => format!(
                "by its clock the certificate has expired or is not valid yet; this machine's clock says {clock}; {}",
                self.own_remedy()
            ),
            AlertDescription::UnknownCA => {
                "it does not know the authority that signed the certificate, or has no current revocation list of it; its administrator finds in its log which, and can bring it the authority or the list; otherwise use a certificate that its authority signed".to_owned()
            }
            AlertDescription::UnsupportedCertificate => {
                format!("the certificate is not for this use; {}", self.own_remedy())
            }
            AlertDescription::CertificateRevoked => {
                format!("its authority has revoked the certificate; {}", self.own_remedy())
            }
            AlertDescription::DecryptError => {
                "its signature cannot be verified: perhaps it was signed by an authority of the same name, but with another key".to_owned()
            }
            AlertDescription::BadCertificate => match self.side {
                Side::Client(_) => "the certificate is malformed".to_owned(),
                Side::Agent => "the certificate is malformed, or not for the name that the client dialled".to_owned(),
            },
            AlertDescription::CertificateRequired => "it received none".to_owned(),
            AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
                "its own log says why".to_owned()
            }
            AlertDescription::NoApplicationProtocol => {
                return format!("{peer} speaks TLS, but not rexec: it accepts other protocols only");
            }
            AlertDescription::ProtocolVersion => {
                return format!("{peer} does not speak TLS 1.3, and nothing older is spoken here");
            }
            other => return format!("{peer} ended the TLS handshake with the alert {other:?}"),
        };
        format!("{peer} refused {}: {reason}", self.ours())
    }

    fn peer(&self) -> String {
        match self.side {
            Side::Agent => "the client".to_owned(),
            Side::Client(host) => format!("the agent at {}", printable(host)),
        }
    }

    fn theirs(&self) -> String {
        let names = self.presented.as_ref().map(|summary| format!(" ({})", summary.names()));
        let names = names.unwrap_or_default();
        match self.side {
            Side::Agent => format!("the client's certificate{names}"),
            Side::Client(_) => format!("the agent's certificate{names}"),
        }
    }

    /// This side's certificate, read again: an error is worth a file.
    fn ours(&self) -> String {
        let who = match self.side {
            Side::Agent => "this agent's certificate",
            Side::Client(_) => "this client's certificate",
        };
        let file = self.files.identity.display();
        match credentials::peek(&self.files.identity) {
            Some(own) => format!(
                "{who} ({file}: {}, valid from {} to {}, signed by '{}')",
                own.names(),
                moment(own.not_before),
                moment(own.not_after),
                printable(&own.issuer)
            ),
            None => format!("{who} ({file})"),
        }
    }

    fn role(&self) -> &'static str {
        match self.side {
            Side::Agent => "clients",
            Side::Client(_) => "agents",
        }
    }

    fn purpose(&self) -> &'static str {
        match self.side {
            Side::Agent => summary::CLIENT,
            Side::Client(_) => summary::SERVER,
        }
    }

    /// What makes the certificate that the peer should have.
    fn remedy(&self) -> &'static str {
        match self.side {
            Side::Agent => ISSUE_USER,
            Side::Client(_) => ISSUE_AGENT,
        }
    }

    /// What makes the certificate that this side should have.
    fn own_remedy(&self) -> &'static str {
        match self.side {
            Side::Agent => ISSUE_AGENT,
            Side::Client(_) => ISSUE_USER,
        }
    }
}

pub(crate) const ISSUE_USER: &str = "issue a new one with `rexec ca issue-user NAME`";
const RENEW_LIST: &str =
    "make a new one with `rexec ca crl` and copy it there, or set the clock that is wrong";
pub(crate) const ISSUE_AGENT: &str = "issue a new one with `rexec ca issue-agent NAME`";

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(time.as_secs()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
