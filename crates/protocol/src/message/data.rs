use super::exec::is_zero;
use crate::stream::Tally;
use crate::text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

use crate::digest::Digest;

/// One of the three byte streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Standard input, from the client to the agent.
    In,
    /// Standard output, from the agent to the client.
    Out,
    /// Standard error, from the agent to the client.
    Err,
}

impl Channel {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text::parse(d, "a channel", |name| match name {
            "in" => Some(Self::In),
            "out" => Some(Self::Out),
            "err" => Some(Self::Err),
            _ => None,
        })
    }
}

/// The next bytes of a channel; they are the frame's body, never empty, at most
/// [`crate::frame::MAX_DATA`] long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Which byte stream.
    pub channel: Channel,
    /// How many bytes of it came before.
    pub offset: u64,
    /// When the agent read them, in milliseconds since 1970, UTC; only for a client that attached
    /// with `times`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
}

/// Bytes of a channel that this reader will never get: those from where it is to `to`. They were
/// dropped because it was too slow, or came too late, or they were lost with the agent's memory.
/// From here on it cannot check the channel's digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which byte stream.
    pub channel: Channel,
    /// The offset at which it goes on; equal to where the reader is if only the digest is lost.
    pub to: u64,
}

/// The end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eof {
    /// Which byte stream.
    pub channel: Channel,
    /// Its length.
    pub size: u64,
    /// Its digest.
    pub hash: Digest,
}

impl Eof {
    /// Length and digest together.
    pub fn tally(&self) -> Tally {
        Tally { size: self.size, hash: self.hash }
    }
}

/// Credit for the other side: body bytes of `data` frames on this stream, all channels of that
/// direction together, counted from the stream's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The new limit; below an earlier one it changes nothing.
    pub limit: u64,
    /// How many of those bytes the sender of this is done with. The other side may forget them:
    /// they will not be asked for again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub consumed: u64,
}

/// The sender of this wants no more bytes of the channel: its consumer is gone. The other side
/// ends the channel as soon as it can; what is under way is ignored, but still digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which byte stream.
    pub channel: Channel,
}
