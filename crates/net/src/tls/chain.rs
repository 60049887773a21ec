//! What a peer presented, kept to be verified again.

use crate::explain::Summary;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::{Duration, SystemTime};

/// The certificates of a peer, its own first, that were verified when the connection began.
#[derive(Debug, Clone)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Chain {
    pub(crate) fn of(certificates: &[CertificateDer<'static>]) -> Self {
        let own = certificates.first().and_then(|own| Summary::of(own).ok());
        let validity = own.map(|own| (own.not_before, own.not_after));
        let (not_before, not_after) =
            validity.unwrap_or((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
        Self { certificates: certificates.to_vec(), not_before, not_after }
    }

    /// The first moment at which the peer's own certificate is not valid any more. The second that
    /// it names is still part of its validity (RFC 5280, section 4.1.2.5).
    pub fn expiry(&self) -> SystemTime {
        self.not_after.checked_add(Duration::from_secs(1)).unwrap_or(self.not_after)
    }

    /// The last second in which the peer's own certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// `now`, or the nearest moment at which the peer's own certificate is valid.
    pub(super) fn valid_moment(&self, now: SystemTime) -> UnixTime {
        let moment = now.min(self.not_after).max(self.not_before);
        UnixTime::since_unix_epoch(
            moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        )
    }
}
