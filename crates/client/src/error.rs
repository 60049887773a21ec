//! The one error of this crate: an outcome that is no exit status.

use rexec_net::NetError;
use rexec_protocol::{NeverStarted, Outcome};

/// A command has no proven exit status. [`Error::outcome`] tells why, and whether it may have run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(Outcome);

impl Error {
    /// What is known; one of those that [`Outcome`] has besides the ways a command can end.
    pub fn outcome(&self) -> &Outcome {
        &self.0
    }

    /// True if it is certain that the command was not started, so that a retry is safe.
    pub fn nothing_ran(&self) -> bool {
        matches!(
            self.0,
            Outcome::NeverStarted { .. } | Outcome::Denied { .. } | Outcome::Unreachable { .. }
        )
    }

    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self(Outcome::Local { message: message.into() })
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self(Outcome::Unreachable { message: message.into() })
    }

    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self(Outcome::Lost { message: message.into() })
    }

    pub(crate) fn incomplete(message: impl Into<String>) -> Self {
        Self(Outcome::Incomplete { message: message.into() })
    }

    pub(crate) fn invalid(message: &str) -> Self {
        let reason = NeverStarted::Invalid;
        Self(Outcome::NeverStarted { reason, message: message.to_owned() })
    }
}

impl From<Outcome> for Error {
    fn from(outcome: Outcome) -> Self {
        Self(outcome)
    }
}

impl From<NetError> for Error {
    /// Before any request was sent, a failed connection means that nothing ran.
    fn from(error: NetError) -> Self {
        Self::unreachable(error.to_string())
    }
}
