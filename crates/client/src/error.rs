//! The one error of this crate: an outcome that is no exit status.

use rexec_net::NetError;
use rexec_protocol::message::Exit;
use rexec_protocol::{NeverStarted, Outcome};

/// A command has no proven exit status. [`Error::outcome`] tells why, and whether it may have run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}")]
pub struct Error {
    outcome: Outcome,
    is_busy: bool,
    is_unknown_job: bool,
}

impl Error {
    /// What is known; one of those that [`Outcome`] has besides the ways a command can end.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// True if the agent is at a limit just now, and has done nothing: the same may be asked again
    /// after a while. Lines that are said too fast, for one.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// True if the agent has answered that it knows nothing of the job, so that there is nothing to come
    /// back to; [`Outcome::Lost`] says that the command may have run.
    pub fn is_unknown_job(&self) -> bool {
        self.is_unknown_job
    }

    /// True if it is certain that the command was not started, so that a retry is safe.
    pub fn nothing_ran(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::NeverStarted { .. } | Outcome::Denied { .. } | Outcome::Unreachable { .. }
        )
    }

    pub(crate) fn local(message: impl Into<String>) -> Self {
        Outcome::Local { message: message.into() }.into()
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self { is_busy: true, ..Self::local(message) }
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Outcome::Unreachable { message: message.into() }.into()
    }

    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Outcome::Lost { message: message.into() }.into()
    }

    pub(crate) fn incomplete(message: impl Into<String>) -> Self {
        Outcome::Incomplete { message: message.into() }.into()
    }

    /// Of the end of a job that never started, for all that is known here.
    pub(crate) fn of_exit(exit: &Exit) -> Self {
        Self { is_unknown_job: exit.unknown, ..exit.outcome.clone().into() }
    }

    pub(crate) fn invalid(message: &str) -> Self {
        let reason = NeverStarted::Invalid;
        Outcome::NeverStarted { reason, message: message.to_owned() }.into()
    }
}

impl From<Outcome> for Error {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, is_busy: false, is_unknown_job: false }
    }
}

impl From<NetError> for Error {
    /// Before any request was sent, a failed connection means that nothing ran.
    fn from(error: NetError) -> Self {
        Self::unreachable(error.to_string())
    }
}
