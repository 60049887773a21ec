//! One entry of a spool's index: 64 bytes, so that any is found by its number.
//!
//! ```text
//!  0  time        u64   milliseconds since 1970
//!  8  out         u64   bytes of stdout before this record
//! 16  err         u64   bytes of stderr before this record
//! 24  length      u32   bytes of this record; 0 for an end
//! 28  kind        u8    1 data of stdout, 2 data of stderr, 3 end of stdout, 4 end of stderr
//! 29  ended       u8    which channels had ended before: bit 0 stdout, bit 1 stderr
//! 30  zero        u16
//! 32  hash        32 bytes, the digest of the channel up to the end of this record
//! ```
//!
//! Numbers are big-endian. All that is before a record can be told from its entry alone, so a place is
//! found by bisection.

use super::mark::{Ended, Mark};
use bytes::{Buf, BufMut, Bytes};
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::{Channel, Data, Eof, Message, Offsets};
use rexec_protocol::{Digest, Frame, StreamId};

/// How long an entry is.
pub const ENTRY: u64 = 64;

/// What is known of a record without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When it was read.
    pub time_ms: u64,
    /// What was before it.
    pub at: Offsets,
    /// Which channels had ended.
    pub ended: Ended,
    /// Whose it is.
    pub channel: Channel,
    /// How many bytes it has; 0 for the end of the channel.
    pub length: u32,
    /// The digest of the channel up to its end.
    pub hash: Digest,
}

impl Entry {
    /// The entry of `frame`, a `data` or `eof`, if it comes after `mark`; `None` for other verbs.
    pub fn of(frame: &Frame, time_ms: u64, mark: &Mark) -> Option<Self> {
        let (channel, hash) = match &frame.message {
            Message::Data(data) => (data.channel, frame.hash?),
            Message::Eof(eof) => (eof.channel, eof.hash),
            _ => return None,
        };
        let length = u32::try_from(frame.body.len()).ok()?;
        Some(Self { time_ms, at: mark.at, ended: mark.ended, channel, length, hash })
    }

    /// The record, given its bytes.
    pub fn frame(&self, body: Bytes) -> Frame {
        let (channel, offset, hash) = (self.channel, self.at.of(self.channel), self.hash);
        if self.length == 0 {
            let eof = Eof { channel, size: offset, hash };
            return Frame::new(StreamId::CONNECTION, eof.into());
        }
        let data = Data { channel, offset, time_ms: None };
        Frame { stream: StreamId::CONNECTION, message: data.into(), body, hash: Some(hash) }
    }

    /// The place before this record, whose number that is.
    pub fn before(&self, number: u64) -> Mark {
        Mark { number, at: self.at, ended: self.ended }
    }

    /// The place after it.
    pub fn after(&self, number: u64) -> Mark {
        let mut mark = self.before(number + 1);
        if self.length == 0 {
            mark.ended.set(self.channel);
        }
        *mark.at.of_mut(self.channel) += u64::from(self.length);
        mark
    }

    /// Appends the 64 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let is_err = u8::from(self.channel == Channel::Err);
        out.put_u64(self.time_ms);
        out.put_u64(self.at.out);
        out.put_u64(self.at.err);
        out.put_u32(self.length);
        out.put_u8(if self.length > 0 { 1 } else { 3 } + is_err);
        out.put_u8(u8::from(self.ended.out) | u8::from(self.ended.err) << 1);
        out.put_u16(0);
        out.put_slice(self.hash.as_bytes());
    }

    /// Reads 64 bytes; `None` if they are none that this build has written, as zeros are not.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 != ENTRY {
            return None;
        }
        let time_ms = bytes.get_u64();
        let at = Offsets { out: bytes.get_u64(), err: bytes.get_u64() };
        let (length, kind, ended, zero) =
            (bytes.get_u32(), bytes.get_u8(), bytes.get_u8(), bytes.get_u16());
        let hash = <[u8; 32]>::try_from(bytes).ok()?.into();
        let channel = if matches!(kind, 2 | 4) { Channel::Err } else { Channel::Out };
        let is_data = matches!(kind, 1 | 2) && length > 0 && length as usize <= MAX_DATA;
        let is_end = matches!(kind, 3 | 4) && length == 0;
        let is_sane = (is_data || is_end) && ended <= 3 && zero == 0;
        let ended = Ended { out: ended & 1 != 0, err: ended & 2 != 0 };
        // Nothing follows the end of a channel.
        let follows = !ended.has(channel) && at.of(channel).checked_add(length.into()).is_some();
        (is_sane && follows).then_some(Self { time_ms, at, ended, channel, length, hash })
    }
}
