//! Penalties: a source whose connections keep failing is not served for a while.
//!
//! As OpenSSH's PerSourcePenalties (sshd_config(5)): each fault adds seconds to a sum that shrinks
//! with time, second by second. Once the sum exceeds `min`, the source is refused until it is 0; it
//! never exceeds `max`. A mistyped path costs nothing, a guess per second does.

use super::expiring::Expiring;
use super::settings;
use super::source::Source;
use rexec_net::NetError;
use rexec_protocol::ProtocolError;
use std::fmt;
use std::time::{Duration, Instant};

/// Sources that are remembered; beyond, those are forgotten whose penalty would end first.
const SOURCES: usize = 65_536;

/// What a source did before anybody knew who it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// TLS failed, or the certificate proves no identity.
    Failed,
    /// The first frame was none, or the wrong one.
    Protocol,
    /// The deadline passed.
    Timeout,
    /// The peer left before it had said who it is.
    Left,
}

impl Fault {
    /// What a handshake that ended with `error` is to be blamed for. A client of an incompatible
    /// version is old, not hostile.
    pub fn of(error: &NetError) -> Option<Self> {
        match error {
            NetError::Refused(_) | NetError::Peer { .. } => Some(Self::Failed),
            NetError::Protocol(ProtocolError::Version { .. }) => None,
            NetError::Protocol(_) => Some(Self::Protocol),
            NetError::Deadline { .. } | NetError::Silent(_) => Some(Self::Timeout),
            NetError::Left(_) | NetError::Closed | NetError::Cut(_) => Some(Self::Left),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed handshakes",
            Self::Protocol => "violations of the protocol",
            Self::Timeout => "handshakes that were not finished in time",
            Self::Left => "connections without a handshake",
        })
    }
}

/// The penalties of all sources.
#[derive(Debug)]
pub struct Penalties {
    settings: settings::Penalties,
    /// The value says whether the source is refused.
    sources: Expiring<bool>,
}

impl Penalties {
    /// No penalties yet.
    pub fn new(settings: settings::Penalties) -> Self {
        Self { settings, sources: Expiring::new(SOURCES) }
    }

    /// How long a source is still refused, if it is.
    pub fn left(&self, source: Source, now: Instant) -> Option<Duration> {
        let (until, is_refused) = self.sources.get(source, now)?;
        is_refused.then(|| until - now)
    }

    /// Adds the penalty for a fault; if the source is refused from now on, for how long.
    pub fn add(&mut self, source: Source, fault: Fault, now: Instant) -> Option<Duration> {
        let settings = &self.settings;
        let more = match fault {
            Fault::Failed => settings.failed,
            Fault::Protocol => settings.protocol,
            Fault::Timeout => settings.timeout,
            Fault::Left => settings.left,
        };
        let (until, was_refused) = self.sources.get(source, now).unwrap_or((now, false));
        let sum = (until - now).saturating_add(more).min(settings.max);
        let is_refused = was_refused || sum > settings.min;
        self.sources.set(source, now + sum, is_refused, now);
        (is_refused && !was_refused).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(n: u32) -> Source {
        Source::of(Ipv4Addr::from(n).into())
    }

    fn penalties() -> Penalties {
        Penalties::new(settings::Penalties::default())
    }

    #[test]
    fn a_source_is_refused_once_its_sum_is_above_the_minimum_and_until_it_is_gone() {
        let (mut penalties, now) = (penalties(), Instant::now());
        for _ in 0..3 {
            assert_eq!(penalties.add(source(1), Fault::Failed, now), None);
        }
        assert_eq!(penalties.left(source(1), now), None, "15 s are not above 15 s");
        assert_eq!(penalties.add(source(1), Fault::Failed, now), Some(20 * SECOND));
        assert_eq!(penalties.left(source(1), now + 19 * SECOND), Some(SECOND));
        assert_eq!(penalties.left(source(1), now + 20 * SECOND), None);
        assert_eq!(penalties.left(source(2), now), None, "others are served");
    }

    #[test]
    fn sums_shrink_with_time() {
        let (mut penalties, start) = (penalties(), Instant::now());
        for n in 0..100 {
            assert_eq!(penalties.add(source(1), Fault::Failed, start + n * 5 * SECOND), None);
            assert_eq!(penalties.add(source(2), Fault::Left, start + n * SECOND), None);
        }
    }

    #[test]
    fn a_sum_never_exceeds_the_maximum() {
        let (mut penalties, now) = (penalties(), Instant::now());
        for _ in 0..1_000 {
            penalties.add(source(1), Fault::Timeout, now);
        }
        assert_eq!(penalties.left(source(1), now), Some(600 * SECOND));
    }

    #[test]
    fn each_end_of_a_handshake_has_its_fault() {
        let version = ProtocolError::Version { ours: "1".to_owned(), theirs: "2".to_owned() };
        for (error, fault) in [
            (NetError::Refused("bad certificate".to_owned()), Some(Fault::Failed)),
            (NetError::Left("gone".to_owned()), Some(Fault::Left)),
            (NetError::Closed, Some(Fault::Left)),
            (NetError::Cut(None), Some(Fault::Left)),
            (NetError::Deadline { phase: "hello", limit: SECOND }, Some(Fault::Timeout)),
            (ProtocolError::HeaderLength(0).into(), Some(Fault::Protocol)),
            (version.into(), None),
        ] {
            assert_eq!(Fault::of(&error), fault, "{error}");
        }
    }

    #[test]
    fn a_flood_of_sources_does_not_grow_the_table() {
        let (mut penalties, now) = (penalties(), Instant::now());
        for n in 0..(SOURCES as u32 + 1_000) {
            penalties.add(source(n), Fault::Left, now + Duration::from_nanos(n.into()));
        }
        assert_eq!(penalties.sources.len(), SOURCES);
    }
}
