//! What a peer did wrong, and the one code it is told for it.

use crate::ids::StreamId;
use crate::text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A violation of the protocol by the peer. Every one of them ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The header length is 0 or above [`crate::frame::MAX_HEADER`].
    #[error("a frame header of {0} bytes; 1 to {max} are allowed", max = crate::frame::MAX_HEADER)]
    HeaderLength(u32),
    /// The header's `size` is above [`crate::frame::MAX_BODY`].
    #[error("a frame body of {0} bytes; at most {max} are allowed", max = crate::frame::MAX_BODY)]
    BodyLength(u64),
    /// The header, or a body that is a message, is not the MessagePack that it should be.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A body came without its digest.
    #[error("a body without its hash")]
    HashMissing,
    /// The digest of a body is not the one in its header.
    #[error("the hash of a body does not match its bytes")]
    HashMismatch,
    /// A verb that this sender may not send now.
    #[error("'{verb}' is not allowed {when}")]
    WrongState {
        /// The verb.
        verb: &'static str,
        /// The situation, to follow "not allowed".
        when: &'static str,
    },
    /// A frame for a stream that was never opened.
    #[error("'{verb}' for stream {stream}, which was never opened")]
    UnknownStream {
        /// The verb.
        verb: &'static str,
        /// The stream.
        stream: StreamId,
    },
    /// A stream id that is not greater than all before it.
    #[error("stream {0} was used before")]
    StreamReused(StreamId),
    /// Bytes that do not follow the ones before.
    #[error("bytes at offset {found} where {expected} was next")]
    Offset {
        /// What was next.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A body after the end of its stream, or a second end.
    #[error("more after the end of a byte stream")]
    AfterEof,
    /// A `data` frame without bytes.
    #[error("an empty data frame")]
    EmptyData,
    /// More bytes than the credit given.
    #[error("more bytes than the window allows")]
    Flow,
    /// The two sides have no protocol version in common.
    #[error(
        "no common protocol version: this side speaks {ours}, the other {theirs}; upgrade the older side"
    )]
    Version {
        /// Our versions.
        ours: String,
        /// Their versions.
        theirs: String,
    },
    /// More frames, or more errors, than any honest peer sends.
    #[error("too many {0}")]
    Flood(&'static str),
}

impl ProtocolError {
    /// The code the peer is told: the one table from fault to wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::HeaderLength(_) | Self::BodyLength(_) => ErrorCode::TooLarge,
            Self::Malformed(_) | Self::EmptyData => ErrorCode::Malformed,
            Self::HashMissing | Self::HashMismatch => ErrorCode::HashMismatch,
            Self::WrongState { .. } | Self::AfterEof => ErrorCode::WrongState,
            Self::UnknownStream { .. } | Self::StreamReused(_) => ErrorCode::BadStream,
            Self::Offset { .. } => ErrorCode::BadOffset,
            Self::Flow => ErrorCode::FlowControl,
            Self::Version { .. } => ErrorCode::VersionMismatch,
            Self::Flood(_) => ErrorCode::Flood,
        }
    }
}

/// The codes of the `error` verb. A peer that meets a code it does not know treats it as
/// [`ErrorCode::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A header or body above its limit.
    TooLarge,
    /// Not the MessagePack that was expected.
    Malformed,
    /// A digest that does not match.
    HashMismatch,
    /// A verb at the wrong time or from the wrong side.
    WrongState,
    /// A stream id that was never opened, or was used before.
    BadStream,
    /// A gap or an overlap.
    BadOffset,
    /// More bytes than the window allows.
    FlowControl,
    /// No version in common.
    VersionMismatch,
    /// Too many frames or errors.
    Flood,
    /// A verb that this peer does not have. The connection goes on.
    UnknownVerb,
    /// The certificate proves no usable identity.
    Identity,
    /// The peer's certificate was accepted once, and is not any more: revoked, or its authority is
    /// no longer known.
    Revoked,
    /// The peer's certificate has expired since the connection began.
    CertificateExpired,
    /// An administrator has ended the connection.
    Kicked,
    /// The peer is at a limit; try again later.
    Busy,
    /// The peer is shutting down.
    ShuttingDown,
    /// Nothing was heard for too long, or the hello did not come in time.
    Timeout,
    /// A fault of the side that sends this.
    Internal,
    /// A code this build does not know.
    Other,
}

const CODES: [(ErrorCode, &str); 18] = [
    (ErrorCode::TooLarge, "too_large"),
    (ErrorCode::Malformed, "malformed"),
    (ErrorCode::HashMismatch, "hash_mismatch"),
    (ErrorCode::WrongState, "wrong_state"),
    (ErrorCode::BadStream, "bad_stream"),
    (ErrorCode::BadOffset, "bad_offset"),
    (ErrorCode::FlowControl, "flow_control"),
    (ErrorCode::VersionMismatch, "version_mismatch"),
    (ErrorCode::Flood, "flood"),
    (ErrorCode::UnknownVerb, "unknown_verb"),
    (ErrorCode::Identity, "identity"),
    (ErrorCode::Revoked, "revoked"),
    (ErrorCode::CertificateExpired, "certificate_expired"),
    (ErrorCode::Kicked, "kicked"),
    (ErrorCode::Busy, "busy"),
    (ErrorCode::ShuttingDown, "shutting_down"),
    (ErrorCode::Timeout, "timeout"),
    (ErrorCode::Internal, "internal"),
];

impl ErrorCode {
    /// Every code with a name of its own.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES.iter().map(|(code, _)| *code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CODES.iter().find(|(code, _)| code == self).map_or("other", |(_, name)| name))
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text::parse(d, "an error code", |name| {
            let known = CODES.iter().find(|(_, known)| *known == name);
            Some(known.map_or(Self::Other, |(code, _)| *code))
        })
    }
}
