//! How a command ended: one vocabulary for the wire, the client library, `--json`, `--status-fd`
//! and the exit code.

pub use crate::printable::{is_harmless, printable};
use crate::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a command ended, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The command ended with this status.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended the command.
    Signaled {
        /// Which.
        signal: Signal,
        /// The kernel sent it, because the command wanted more memory than the agent's policy
        /// allows it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        out_of_memory: bool,
    },
    /// The command ran longer than it was allowed to and was ended.
    TimedOut,
    /// The client asked for the command to be ended, and it was.
    Cancelled,
    /// The command could not be started.
    NeverStarted {
        /// Why.
        reason: NeverStarted,
        /// The system's words for it.
        message: String,
    },
    /// Policy does not allow it; nothing was started.
    Denied {
        /// What is not allowed, and what would be.
        message: String,
    },

    /// Client only: the agent could not be reached, or refused; nothing was started.
    Unreachable {
        /// What failed, and what to do.
        message: String,
    },
    /// How the command ended is not known, and it may be running: the connection is gone, or what
    /// watched over the command on the agent's side died.
    Lost {
        /// What is known.
        message: String,
    },
    /// Client only: the command ended, but its output is not all here or not what was sent.
    Incomplete {
        /// What is missing or wrong.
        message: String,
    },
    /// Client only: this side failed, for instance to write the output.
    Local {
        /// What failed.
        message: String,
    },
}

/// Why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeverStarted {
    /// There is no such program.
    NotFound,
    /// It is there, but may not be executed, or is no program.
    NotExecutable,
    /// The working directory cannot be entered.
    Cwd,
    /// There is no such user, or it may not log in.
    User,
    /// The arguments and environment are larger than the kernel takes.
    TooLarge,
    /// The request is not one that could be run anywhere.
    Invalid,
    /// Another command was submitted under the same id before.
    Conflict,
    /// The agent is at its limit of running commands, or is shutting down.
    Busy,
    /// The agent could not put it on record.
    AuditUnavailable,
    /// The machine lacks processes, memory or descriptors, or the agent failed.
    Resource,
    /// A reason that this build does not know.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// True for exit status 0 and nothing else.
    pub fn success(&self) -> bool {
        *self == Self::Exited { code: 0 }
    }

    /// The name in `--json` and on `--status-fd`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Signaled { .. } => "signaled",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::NeverStarted { .. } => "never_started",
            Self::Denied { .. } => "denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Lost { .. } => "lost",
            Self::Incomplete { .. } => "incomplete",
            Self::Local { .. } => "local",
        }
    }

    /// The exit status of `rexec`: the one table from outcome to code. A command's own status
    /// passes through, so programs that must tell it from rexec's own use [`Outcome::name`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { code } => *code,
            Self::Signaled { signal, .. } => 128_u8.saturating_add(signal.number()),
            Self::TimedOut => 124,
            Self::Denied { .. } | Self::Local { .. } => 125,
            Self::NeverStarted { reason: NeverStarted::NotFound, .. } => 127,
            Self::NeverStarted { .. } => 126,
            Self::Cancelled => 130,
            Self::Incomplete { .. } => 254,
            Self::Unreachable { .. } | Self::Lost { .. } => 255,
        }
    }

    /// Whether an agent may say this; the rest only a client can know.
    pub fn is_from_agent(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Incomplete { .. } | Self::Local { .. })
    }
}

impl fmt::Display for Outcome {
    /// One line for people. Messages from the other machine are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with status {code}"),
            Self::Signaled { signal, out_of_memory: false } => {
                write!(f, "was ended by signal {signal}")
            }
            Self::Signaled { signal, .. } => write!(
                f,
                "was ended by signal {signal}: out of memory (it wanted more than the agent's policy allows)"
            ),
            Self::TimedOut => f.write_str("timed out, and was ended with all it had started"),
            Self::Cancelled => f.write_str("was cancelled, and ended with all it had started"),
            Self::NeverStarted { message, .. } => {
                write!(f, "the command was not started: {}", printable(message))
            }
            Self::Denied { message } => write!(f, "denied: {}", printable(message)),
            Self::Unreachable { message }
            | Self::Lost { message }
            | Self::Incomplete { message }
            | Self::Local { message } => f.write_str(&printable(message)),
        }
    }
}

/// The longest text that travels in a header: messages quote what was asked for, and that may be
/// longer than a whole header.
const MAX_TEXT: usize = 2048;

/// `text`, cut to what fits into a header with everything else.
pub fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
        // What is kept of a job for a while is not to keep all of the request.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_table() {
        let message = String::new;
        let never = |reason| Outcome::NeverStarted { reason, message: message() };
        for (outcome, code) in [
            (Outcome::Exited { code: 7 }, 7),
            (Outcome::Signaled { signal: Signal::KILL, out_of_memory: true }, 137),
            (Outcome::TimedOut, 124),
            (never(NeverStarted::NotExecutable), 126),
            (never(NeverStarted::NotFound), 127),
            (Outcome::Denied { message: message() }, 125),
            (Outcome::Local { message: message() }, 125),
            (Outcome::Unreachable { message: message() }, 255),
            (Outcome::Lost { message: message() }, 255),
            (Outcome::Incomplete { message: message() }, 254),
            (Outcome::Cancelled, 130),
        ] {
            assert_eq!(outcome.exit_code(), code, "{outcome:?}");
        }
    }

    #[test]
    fn what_was_cut_off_takes_no_memory() {
        let short = shorten("x".repeat(1 << 20));
        assert!(short.len() < 4096 && short.capacity() < 4096, "{}", short.capacity());
    }

    /// An agent whose keeper of the command died says so; a client that took this for a violation
    /// would close the connection, and lose all other commands on it.
    #[test]
    fn an_agent_may_say_that_a_command_is_lost() {
        let message = String::new;
        assert!(Outcome::Lost { message: message() }.is_from_agent());
        assert!(!Outcome::Unreachable { message: message() }.is_from_agent());
        assert!(!Outcome::Incomplete { message: message() }.is_from_agent());
        assert!(!Outcome::Local { message: message() }.is_from_agent());
    }
}
