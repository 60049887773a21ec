//! The two ends of one byte stream: its offset, its digest, and its end.

use crate::digest::{Algorithm, Digest, Hasher, Verified, Verifier};
use crate::error::ProtocolError;
use crate::frame::{Frame, MAX_DATA};
use crate::ids::StreamId;
use crate::message::{Channel, Data, Eof, Message};
use bytes::Bytes;
use rexec_guard::holds;
use serde::{Deserialize, Serialize};

/// How long a byte stream is, and what its digest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Bytes from offset 0.
    pub size: u64,
    /// Digest of those bytes, by the stream's algorithm.
    pub hash: Digest,
}

impl Tally {
    /// No byte at all.
    pub fn nothing(algorithm: Algorithm) -> Self {
        Self { size: 0, hash: Digest::of(algorithm, b"") }
    }
}

/// The sending end: turns bytes into `data` frames and, once, into an `eof` frame.
#[derive(Debug)]
pub struct Sender {
    channel: Channel,
    offset: u64,
    hasher: Hasher,
}

impl Sender {
    /// Starts `channel` at offset 0.
    pub fn new(channel: Channel, algorithm: Algorithm) -> Self {
        Self { channel, offset: 0, hasher: Hasher::new(algorithm) }
    }

    /// Goes on at `offset`, after the bytes that `hasher` has seen.
    pub fn after(channel: Channel, offset: u64, hasher: Hasher) -> Self {
        Self { channel, offset, hasher }
    }

    /// How many bytes were sent so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The running digest.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The frame for the next `body` of the byte stream; at most [`crate::frame::MAX_DATA`] bytes,
    /// and at least one.
    pub fn data(&mut self, stream: StreamId, body: Bytes) -> Frame {
        let message =
            Message::Data(Data { channel: self.channel, offset: self.offset, time_ms: None });
        self.offset = self.offset.saturating_add(body.len() as u64);
        self.hasher.update(&body);
        Frame { stream, message, body, hash: Some(self.hasher.prefix()) }
    }

    /// The frame that ends the byte stream.
    pub fn eof(&self, stream: StreamId) -> Frame {
        let Tally { size, hash } = self.tally();
        Frame::new(stream, Message::Eof(Eof { channel: self.channel, size, hash }))
    }

    /// What was sent so far.
    pub fn tally(&self) -> Tally {
        Tally { size: self.offset, hash: self.hasher.prefix() }
    }
}

/// The receiving end: takes frames in order, verifies each, and knows whether the end was reached.
#[derive(Debug)]
pub struct Receiver {
    offset: u64,
    /// `None` once bytes are missing: a prefix digest proves nothing without the whole prefix.
    verifier: Option<Verifier>,
    /// How many bytes were skipped.
    missing: u64,
    ended: bool,
}

/// The body of a `data` frame, at its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Its digest matched.
    Verified(Verified),
    /// Bytes are missing before it, so nothing but the connection speaks for it.
    Unverified(Bytes),
}

impl Received {
    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Verified(verified) => verified.into_bytes(),
            Self::Unverified(bytes) => bytes,
        }
    }
}

impl Receiver {
    /// Expects offset 0.
    pub fn new(algorithm: Algorithm) -> Self {
        Self::after(0, Hasher::new(algorithm))
    }

    /// Expects `offset`, after the bytes that `hasher` has seen.
    pub fn after(offset: u64, hasher: Hasher) -> Self {
        Self { offset, verifier: Some(Verifier::after(hasher)), missing: 0, ended: false }
    }

    /// Takes a `gap`: the stream goes on at `to`, and cannot be verified any more.
    pub fn gap(&mut self, to: u64) -> Result<(), ProtocolError> {
        if self.ended {
            return Err(ProtocolError::AfterEof);
        }
        let missing = to.checked_sub(self.offset);
        let missing = missing.ok_or(ProtocolError::Offset { expected: self.offset, found: to })?;
        self.missing = self.missing.saturating_add(missing);
        self.offset = to;
        self.verifier = None;
        Ok(())
    }

    /// Whether every byte from offset 0 came, and its digest matched.
    pub fn is_verified(&self) -> bool {
        self.verifier.is_some()
    }

    /// How many bytes were skipped by gaps.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The place in the stream: the offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The running digest, unless bytes are missing.
    pub fn hasher(&self) -> Option<&Hasher> {
        self.verifier.as_ref().map(Verifier::hasher)
    }

    /// Takes the body of a `data` frame.
    pub fn data(
        &mut self,
        offset: u64,
        body: Bytes,
        hash: Option<Digest>,
    ) -> Result<Received, ProtocolError> {
        if !holds("stream.after_eof", !self.ended) {
            return Err(ProtocolError::AfterEof);
        }
        if body.is_empty() {
            return Err(ProtocolError::EmptyData);
        }
        let length = body.len() as u64;
        if body.len() > MAX_DATA {
            return Err(ProtocolError::BodyLength(length));
        }
        self.expect_offset(offset)?;
        let next = self.offset.checked_add(length).ok_or(ProtocolError::BodyLength(length))?;
        let received = match &mut self.verifier {
            Some(verifier) => Received::Verified(verifier.verify(body, hash)?),
            None => Received::Unverified(body),
        };
        self.offset = next;
        Ok(received)
    }

    /// Takes an `eof` frame.
    pub fn eof(&mut self, tally: Tally) -> Result<(), ProtocolError> {
        if self.ended {
            return Err(ProtocolError::AfterEof);
        }
        self.expect_offset(tally.size)?;
        let is_right = |verifier: &Verifier| tally.hash == verifier.prefix();
        if !holds("stream.tally", self.verifier.as_ref().is_none_or(is_right)) {
            return Err(ProtocolError::HashMismatch);
        }
        self.ended = true;
        Ok(())
    }

    /// True once the end was reached.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What was received and verified so far; `None` if bytes are missing.
    pub fn tally(&self) -> Option<Tally> {
        let verifier = self.verifier.as_ref()?;
        Some(Tally { size: self.offset, hash: verifier.prefix() })
    }

    fn expect_offset(&self, found: u64) -> Result<(), ProtocolError> {
        let expected = self.offset;
        if holds("stream.offset", found == expected) {
            Ok(())
        } else {
            Err(ProtocolError::Offset { expected, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(frame: Frame) -> (u64, Bytes, Option<Digest>) {
        let Message::Data(Data { offset, .. }) = frame.message else { panic!("not data") };
        (offset, frame.body, frame.hash)
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_received(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20)) {
            let mut sender = Sender::new(Channel::Out, Algorithm::Blake3);
            let mut receiver = Receiver::new(Algorithm::Blake3);
            for chunk in &chunks {
                let (offset, body, hash) = parts(sender.data(StreamId(1), chunk.clone().into()));
                let verified = receiver.data(offset, body, hash).unwrap();
                prop_assert_eq!(&verified.into_bytes(), chunk);
            }
            receiver.eof(sender.tally()).unwrap();
            prop_assert_eq!(receiver.tally().unwrap().hash, Digest::of(Algorithm::Blake3, &chunks.concat()));
        }
    }

    #[test]
    fn gaps_overlaps_and_late_bytes_are_refused() {
        let mut sender = Sender::new(Channel::Out, Algorithm::Sha256);
        let (offset, body, hash) = parts(sender.data(StreamId(1), Bytes::from_static(b"abc")));
        let mut receiver = Receiver::new(Algorithm::Sha256);
        for wrong in [1, u64::MAX] {
            let error = receiver.data(wrong, body.clone(), hash).unwrap_err();
            assert_eq!(error, ProtocolError::Offset { expected: 0, found: wrong });
        }
        assert_eq!(receiver.data(0, Bytes::new(), hash), Err(ProtocolError::EmptyData));
        assert!(receiver.data(offset, body.clone(), hash).is_ok());
        assert_eq!(
            receiver.data(0, body.clone(), hash),
            Err(ProtocolError::Offset { expected: 3, found: 0 })
        );
        assert!(receiver.eof(sender.tally()).is_ok());
        assert_eq!(receiver.data(3, body, hash), Err(ProtocolError::AfterEof));
        assert_eq!(receiver.eof(sender.tally()), Err(ProtocolError::AfterEof));
    }

    /// Bytes after a gap are taken at their place, but nothing vouches for them any more.
    #[test]
    fn after_a_gap_nothing_is_verified() {
        let mut sender = Sender::new(Channel::Out, Algorithm::Sha256);
        sender.data(StreamId(1), Bytes::from_static(b"lost"));
        let (offset, body, hash) = parts(sender.data(StreamId(1), Bytes::from_static(b"kept")));
        let mut receiver = Receiver::new(Algorithm::Sha256);
        assert!(receiver.data(offset, body.clone(), hash).is_err());
        receiver.gap(4).unwrap();
        assert_eq!(receiver.gap(3), Err(ProtocolError::Offset { expected: 4, found: 3 }));
        assert_eq!(receiver.data(offset, body.clone(), hash), Ok(Received::Unverified(body)));
        assert_eq!(
            (receiver.is_verified(), receiver.missing(), receiver.tally()),
            (false, 4, None)
        );
        receiver.eof(sender.tally()).unwrap();
        assert_eq!(receiver.gap(9), Err(ProtocolError::AfterEof));
    }

    #[test]
    fn an_end_at_the_wrong_place_is_refused() {
        let mut receiver = Receiver::new(Algorithm::Sha256);
        let mut tally = receiver.tally().unwrap();
        tally.size = 1;
        assert_eq!(receiver.eof(tally), Err(ProtocolError::Offset { expected: 0, found: 1 }));
        let wrong = Tally { size: 0, hash: [0; 32].into() };
        assert_eq!(receiver.eof(wrong), Err(ProtocolError::HashMismatch));
    }
}
