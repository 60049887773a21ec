//! What can go wrong with a connection, by fault.

use rexec_protocol::outcome::printable;
use rexec_protocol::{ErrorCode, ProtocolError};
use std::io;
use std::time::Duration;

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The host's name could not be resolved.
    #[error("cannot reach {target}: {source}")]
    Unresolved {
        /// Host and port as dialled.
        target: String,
        /// The system's words.
        source: io::Error,
    },
    /// Nothing answered there.
    #[error("cannot reach {target}: {source}{}", so(source))]
    Dial {
        /// Host and port as dialled.
        target: String,
        /// The system's words.
        source: io::Error,
    },
    /// TLS failed, on either side; the text says whose certificate is wrong and how.
    #[error("{0}")]
    Refused(String),
    /// Whether the peer may come in is not known: this side's revocation lists are out of date.
    #[error("{0}")]
    Unjudged(String),
    /// The peer went, or sent an alert, before TLS was set up.
    #[error("{0}")]
    Left(String),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The peer says that this side did something wrong, or that it cannot serve.
    #[error("the peer closed the connection: {message} ({code})", message = printable(message))]
    Peer {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// The peer's certificate, with which the connection began, is accepted no more.
    #[error("{message}")]
    Untrusted {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// The connection ended between two frames, in good order.
    #[error("the connection was closed")]
    Closed,
    /// The connection ended in the middle of a frame, or without TLS saying so.
    #[error("the connection was cut{}", detail(.0))]
    Cut(Option<io::Error>),
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// A phase of connecting took longer than allowed.
    #[error("{phase} took longer than {} s", .limit.as_secs_f32())]
    Deadline {
        /// What was under way.
        phase: &'static str,
        /// The limit.
        limit: Duration,
    },
}

fn detail(error: &Option<io::Error>) -> String {
    match error {
        Some(error) if error.kind() != io::ErrorKind::UnexpectedEof => format!(": {error}"),
        _ => String::new(),
    }
}

/// What an error of the system means here, for the one that most people meet first.
fn so(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ", so no agent listens there",
        _ => "",
    }
}
