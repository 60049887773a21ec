//! Frames: `u32` header length, header, body.
//!
//! The [`Decoder`] has three answers: a frame, "more bytes", or an error that ends the connection.
//! Lengths are checked before anything is allocated for them.

use crate::digest::{Algorithm, Digest, Verified, Verifier};
use crate::error::ProtocolError;
use crate::ids::StreamId;
use crate::message::{self, Message};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rexec_guard::holds;

/// The longest header, in bytes.
pub const MAX_HEADER: u32 = 64 * 1024;
/// The longest body, in bytes.
pub const MAX_BODY: u64 = 1024 * 1024;
/// The longest body of a `data` frame, in bytes. Every window is at least this large, so a sender
/// that waits for room for one whole body never waits for ever.
pub const MAX_DATA: usize = 256 * 1024;

const LENGTH: usize = size_of::<u32>();

/// One message with its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What it is about.
    pub stream: StreamId,
    /// What it says.
    pub message: Message,
    /// The bytes that go with it; empty for most verbs.
    pub body: Bytes,
    /// The digest of the body's stream up to the end of the body, as sent.
    pub hash: Option<Digest>,
}

impl Frame {
    /// A frame without a body.
    pub fn new(stream: StreamId, message: Message) -> Self {
        Self { stream, message, body: Bytes::new(), hash: None }
    }

    /// A frame whose body is itself a message, with its SHA-256.
    pub fn with_body(stream: StreamId, message: Message, body: Vec<u8>) -> Self {
        let hash = Some(Digest::of(Algorithm::Sha256, &body));
        Self { stream, message, body: body.into(), hash }
    }

    /// The body of [`Frame::with_body`], if its SHA-256 matches.
    pub fn verified_body(&self) -> Result<Verified, ProtocolError> {
        Verifier::new(Algorithm::Sha256).verify(self.body.clone(), self.hash)
    }

    /// Appends the length and the header to `out`; the body follows them on the wire.
    pub fn encode_head(&self, out: &mut BytesMut) {
        let header = message::encode_header(self);
        out.reserve(LENGTH + header.len());
        out.put_u32(header.len() as u32);
        out.put_slice(&header);
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// The header of a frame whose body is not complete yet.
    header: Option<message::Header>,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the caller puts bytes as they come; append only.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// True between frames: the connection may end here without anything being cut.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty() && self.header.is_none()
    }

    /// How many bytes are known to be missing before [`Decoder::next`] can answer; at least one,
    /// and never more than a legal frame could need, so that room for them may be made.
    pub fn missing(&self) -> usize {
        let wanted = match &self.header {
            Some(header) => header.size,
            None => match self.buffer.first_chunk::<LENGTH>() {
                Some(length) => LENGTH + u32::from_be_bytes(*length).min(MAX_HEADER) as usize,
                None => LENGTH,
            },
        };
        wanted.saturating_sub(self.buffer.len()).max(1)
    }

    /// The next frame, or `None` if more bytes are needed. After an error the connection is over.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not tell 'more' from 'end'"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let header = match self.header.take() {
            Some(header) => header,
            None => match self.next_header()? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        if self.buffer.len() < header.size {
            self.header = Some(header);
            return Ok(None);
        }
        let body = self.buffer.split_to(header.size).freeze();
        Ok(Some(header.into_frame(body)))
    }

    fn next_header(&mut self) -> Result<Option<message::Header>, ProtocolError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if !holds("frame.header_length", (1..=MAX_HEADER).contains(&length)) {
            return Err(ProtocolError::HeaderLength(length));
        }
        let end = LENGTH + length as usize;
        let Some(bytes) = self.buffer.get(LENGTH..end) else { return Ok(None) };
        let header = message::decode_header(bytes)?;
        self.buffer.advance(end);
        Ok(Some(header))
    }
}
