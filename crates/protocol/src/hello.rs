//! Negotiation: what two peers that greeted each other have in common.

use crate::digest::Algorithm;
use crate::error::ProtocolError;
use crate::message::Hello;

/// The name of the protocol in TLS ALPN (RFC 7301).
pub const ALPN: &[u8] = b"rexec/1";
/// The versions of the protocol that this build speaks.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;

/// What two peers agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The newest version both speak.
    pub version: u16,
    /// The digest algorithms both have; `sha256` is always among them.
    pub digests: Vec<Algorithm>,
    /// What the peer calls its software.
    pub software: String,
    /// Whether the peer takes `notice` frames.
    pub notices: bool,
}

impl Terms {
    /// The fastest digest that both have.
    pub fn fastest(&self) -> Algorithm {
        let has_blake3 = self.digests.contains(&Algorithm::Blake3);
        if has_blake3 { Algorithm::Blake3 } else { Algorithm::Sha256 }
    }
}

/// This build's hello.
pub fn ours(software: &str) -> Hello {
    Hello {
        min: *VERSIONS.start(),
        max: *VERSIONS.end(),
        software: software.to_owned(),
        digests: Algorithm::ALL.to_vec(),
        notices: false,
    }
}

/// Compares two hellos.
pub fn negotiate(ours: &Hello, theirs: &Hello) -> Result<Terms, ProtocolError> {
    let version = ours.max.min(theirs.max);
    if version < ours.min.max(theirs.min) {
        return Err(ProtocolError::Version { ours: range(ours), theirs: range(theirs) });
    }
    let common = |a: &Algorithm| *a == Algorithm::Sha256 || theirs.digests.contains(a);
    let mut digests: Vec<_> = ours.digests.iter().copied().filter(common).collect();
    if !digests.contains(&Algorithm::Sha256) {
        digests.push(Algorithm::Sha256);
    }
    Ok(Terms { version, digests, software: theirs.software.clone(), notices: theirs.notices })
}

fn range(hello: &Hello) -> String {
    if hello.min == hello.max {
        format!("version {} ({})", hello.max, hello.software)
    } else {
        format!("versions {} to {} ({})", hello.min, hello.max, hello.software)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(min: u16, max: u16) -> Hello {
        Hello { min, max, ..ours("test/1") }
    }

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(negotiate(&hello(1, 3), &hello(2, 5)).unwrap().version, 3);
        assert_eq!(negotiate(&hello(1, 1), &hello(1, 9)).unwrap().version, 1);
    }

    #[test]
    fn a_mismatch_names_both() {
        let error = negotiate(&hello(1, 1), &hello(2, 3)).unwrap_err().to_string();
        assert!(error.contains("version 1 (test/1)"), "{error}");
        assert!(error.contains("versions 2 to 3 (test/1)"), "{error}");
    }

    #[test]
    fn sha256_is_always_there() {
        let theirs = Hello { digests: vec![], ..hello(1, 1) };
        assert_eq!(negotiate(&hello(1, 1), &theirs).unwrap().digests, [Algorithm::Sha256]);
        assert_eq!(negotiate(&theirs, &hello(1, 1)).unwrap().digests, [Algorithm::Sha256]);
    }
}
