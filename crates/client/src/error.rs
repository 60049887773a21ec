//! The one error of this crate: an outcome that is no exit status.

use rexec_net::NetError;
use rexec_protocol::message::Exit;
use rexec_protocol::{ErrorCode, NeverStarted, Outcome};

/// A command has no proven exit status. [`Error::outcome`] tells why, and whether it may have run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}")]
pub struct Error {
    outcome: Outcome,
    kind: Kind,
}

/// What a caller may want to know besides the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Busy,
    UnknownJob,
    UnknownHost,
    Refused,
}

impl Error {
    /// What is known; one of those that [`Outcome`] has besides the ways a command can end.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// True if the agent is at a limit just now, and has done nothing: the same may be asked again
    /// after a while. Lines that are said too fast, for one.
    pub fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }

    /// True if the agent has answered that it knows nothing of the job, so that there is nothing to come
    /// back to; [`Outcome::Lost`] says that the command may have run.
    pub fn is_unknown_job(&self) -> bool {
        self.kind == Kind::UnknownJob
    }

    /// True if the host's name could not be resolved.
    pub fn is_unknown_host(&self) -> bool {
        self.kind == Kind::UnknownHost
    }

    /// True if one side has refused the other, mostly for its certificate: the next attempt would be refused
    /// as well, and agents bar the addresses from which that comes again and again.
    pub fn is_refused(&self) -> bool {
        self.kind == Kind::Refused
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
        Self { kind: Kind::Busy, ..Self::local(message) }
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
        let kind = if exit.unknown { Kind::UnknownJob } else { Kind::Plain };
        Self { kind, ..exit.outcome.clone().into() }
    }

    /// The same, of a connection that ended so.
    pub(crate) fn after(self, end: &NetError) -> Self {
        Self { kind: Kind::of(end), ..self }
    }

    pub(crate) fn invalid(message: &str) -> Self {
        let reason = NeverStarted::Invalid;
        Outcome::NeverStarted { reason, message: message.to_owned() }.into()
    }
}

impl From<Outcome> for Error {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, kind: Kind::Plain }
    }
}

impl From<NetError> for Error {
    /// Before any request was sent, a failed connection means that nothing ran.
    fn from(error: NetError) -> Self {
        Self::unreachable(error.to_string()).after(&error)
    }
}

impl Kind {
    fn of(end: &NetError) -> Self {
        match end {
            NetError::Unresolved { .. } => Self::UnknownHost,
            NetError::Refused(_)
            | NetError::Untrusted { .. }
            | NetError::Peer { code: ErrorCode::Identity, .. } => Self::Refused,
            _ => Self::Plain,
        }
    }
}
