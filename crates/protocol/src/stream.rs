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

    /// The frame for the next `body` of the byte stream; at most [`crate::frame::MAX_DATA`] bytes,
    /// and at least one.
    pub fn data(&mut self, stream: StreamId, body: Bytes) -> Frame {
        let message = Message::Data(Data { channel: self.channel, offset: self.offset });
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
    verifier: Verifier,
    ended: bool,
}

impl Receiver {
    /// Expects offset 0.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { offset: 0, verifier: Verifier::new(algorithm), ended: false }
    }

    /// Takes the body of a `data` frame.
    pub fn data(
        &mut self,
        offset: u64,
        body: Bytes,
        hash: Option<Digest>,
    ) -> Result<Verified, ProtocolError> {
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
        let verified = self.verifier.verify(body, hash)?;
        self.offset = next;
        Ok(verified)
    }

    /// Takes an `eof` frame.
    pub fn eof(&mut self, tally: Tally) -> Result<(), ProtocolError> {
        if self.ended {
            return Err(ProtocolError::AfterEof);
        }
        self.expect_offset(tally.size)?;
        if !holds("stream.tally", tally.hash == self.verifier.prefix()) {
            return Err(ProtocolError::HashMismatch);
        }
        self.ended = true;
        Ok(())
    }

    /// True once the end was reached.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What was received and verified so far.
    pub fn tally(&self) -> Tally {
        Tally { size: self.offset, hash: self.verifier.prefix() }
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
                prop_assert_eq!(verified.as_bytes(), chunk);
            }
            receiver.eof(sender.tally()).unwrap();
            prop_assert_eq!(receiver.tally().hash, Digest::of(Algorithm::Blake3, &chunks.concat()));
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

    #[test]
    fn an_end_at_the_wrong_place_is_refused() {
        let mut receiver = Receiver::new(Algorithm::Sha256);
        let mut tally = receiver.tally();
        tally.size = 1;
        assert_eq!(receiver.eof(tally), Err(ProtocolError::Offset { expected: 0, found: 1 }));
        let wrong = Tally { size: 0, hash: [0; 32].into() };
        assert_eq!(receiver.eof(wrong), Err(ProtocolError::HashMismatch));
    }
}
