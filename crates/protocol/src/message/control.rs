use crate::signal;
use crate::text;
use serde::{Deserialize, Serialize};

/// Sends a signal to the command's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Which.
    pub signal: signal::Signal,
}

/// Ends the command and everything it started: `signal` to the process group now, `KILL` to the
/// whole tree after `grace_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The first, polite signal.
    pub signal: signal::Signal,
    /// How long it has to work, in milliseconds; the agent caps it.
    pub grace_ms: u64,
}

/// Asks for a [`Pong`] with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Chosen by the sender.
    pub nonce: u64,
}

/// Answers a [`Ping`]. If several are unanswered, only the last needs an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The number of the ping.
    pub nonce: u64,
    /// What the sender's clock shows, in milliseconds since 1970, UTC. For people who look for a
    /// clock that is wrong: nothing may be decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
}

/// This side is about to close the connection on purpose. From an agent: it takes no new commands,
/// and closes once the running ones have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why, in words.
    #[serde(deserialize_with = "text::string")]
    pub reason: String,
}
