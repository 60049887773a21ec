//! Prefix digests: the digest of all bytes of a stream from offset 0 to the end of one body.
//!
//! One hashing pass proves each body and the whole stream, and the last digest of a stream equals
//! what `sha256sum` prints of the output.

mod tree;

use crate::error::ProtocolError;
use crate::text;
use bytes::Bytes;
use rexec_guard::holds;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState;
use std::fmt;
use std::str::FromStr;
use tree::Tree;

/// A digest function. Every peer has [`Algorithm::Sha256`]; others are named in the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// SHA-256 (FIPS 180-4).
    #[default]
    Sha256,
    /// BLAKE3 with its default output of 32 bytes.
    Blake3,
}

impl Algorithm {
    /// All that this build knows, in order of preference.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Blake3];

    /// The name on the wire and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or(())
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text::parse(d, "a digest algorithm", |name| name.parse().ok())
    }
}

/// 32 bytes of digest; displayed in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes` alone.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.prefix()
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<32>::deserialize(d).map(|bytes| Self(bytes.into_array()))
    }
}

/// A running digest over a stream.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Blake3(Tree),
}

impl Hasher {
    /// The longest state that [`Hasher::save`] gives, in bytes: that of BLAKE3 after 2^63 bytes.
    pub const MAX_SAVED: usize = tree::MAX_SAVED;

    /// A digest of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Blake3 => State::Blake3(Tree::default()),
        })
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Blake3(tree) => tree.update(bytes),
        }
    }

    /// The digest of everything so far; the stream may go on.
    pub fn prefix(&self) -> Digest {
        Digest(match &self.0 {
            State::Sha256(hasher) => hasher.clone().finalize().into(),
            State::Blake3(tree) => tree.finish(),
        })
    }

    /// The running state, to go on with in another process by [`Hasher::restore`]; at most
    /// [`Hasher::MAX_SAVED`] bytes.
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(hasher) => hasher.serialize().to_vec(),
            State::Blake3(tree) => tree.save(),
        }
    }

    /// What [`Hasher::save`] saved; `None` if it is no such thing.
    pub fn restore(algorithm: Algorithm, saved: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => {
                let saved = saved.try_into().ok()?;
                sha2::Sha256::deserialize(saved).ok().map(|hasher| Self(State::Sha256(hasher)))
            }
            Algorithm::Blake3 => Tree::restore(saved).map(|tree| Self(State::Blake3(tree))),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.prefix())
    }
}

/// Bytes whose digest matched the one that came with them. Only [`Verifier::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Bytes);

impl Verified {
    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, without their proof.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Follows one stream and checks the digest of each body.
#[derive(Debug, Clone)]
pub struct Verifier {
    hasher: Hasher,
}

impl Verifier {
    /// Starts at offset 0.
    pub fn new(algorithm: Algorithm) -> Self {
        Self::after(Hasher::new(algorithm))
    }

    /// Goes on after the bytes that `hasher` has seen.
    pub fn after(hasher: Hasher) -> Self {
        Self { hasher }
    }

    /// The running digest.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Takes the next body of the stream with the digest its frame carried.
    pub fn verify(
        &mut self,
        body: Bytes,
        claimed: Option<Digest>,
    ) -> Result<Verified, ProtocolError> {
        self.hasher.update(&body);
        match claimed {
            Some(claimed) if holds("digest.matches", claimed == self.hasher.prefix()) => {
                Ok(Verified(body))
            }
            Some(_) => Err(ProtocolError::HashMismatch),
            None if holds("digest.present", false) => Ok(Verified(body)),
            None => Err(ProtocolError::HashMissing),
        }
    }

    /// The digest of all bytes so far.
    pub fn prefix(&self) -> Digest {
        self.hasher.prefix()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 example of more than one block, and the empty input of the BLAKE3 test vectors.
    #[test]
    fn known_answers() {
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(
            Digest::of(Algorithm::Sha256, two_blocks).to_string(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            Digest::of(Algorithm::Blake3, b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn a_prefix_digest_does_not_end_the_stream() {
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"one");
            assert_eq!(hasher.prefix(), Digest::of(algorithm, b"one"));
            hasher.update(b"two");
            assert_eq!(hasher.prefix(), Digest::of(algorithm, b"onetwo"));
        }
    }

    /// What a restarted agent does in the middle of a stream, at every place of a block.
    #[test]
    fn a_saved_digest_goes_on() {
        let text: Vec<u8> = (0..200).collect();
        for algorithm in Algorithm::ALL {
            for cut in 0..text.len() {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&text[..cut]);
                let mut restored = Hasher::restore(algorithm, &hasher.save()).unwrap();
                restored.update(&text[cut..]);
                assert_eq!(restored.prefix(), Digest::of(algorithm, &text));
            }
            assert!(Hasher::restore(algorithm, b"").is_none());
        }
    }

    #[test]
    fn only_a_matching_digest_verifies() {
        let mut verifier = Verifier::new(Algorithm::Sha256);
        let right = Digest::of(Algorithm::Sha256, b"body");
        let body = Bytes::from_static(b"body");
        assert_eq!(verifier.clone().verify(body.clone(), None), Err(ProtocolError::HashMissing));
        assert_eq!(
            verifier.clone().verify(Bytes::from_static(b"bodx"), Some(right)),
            Err(ProtocolError::HashMismatch)
        );
        assert!(verifier.verify(body, Some(right)).is_ok());
    }
}
