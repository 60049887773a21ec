//! What a renderer hears of: the start of a command, and its end. Output reaches it through
//! [`crate::render::Sink`]s, because one stream may have to wait while the other goes on.

use crate::stdio::Output;
use rexec_client::{ExitStatus, JobId, Outcome, Signal};
use std::time::SystemTime;

/// A command runs.
#[derive(Debug, Clone)]
pub struct Started {
    /// The host as dialled.
    pub host: String,
    /// The agent's name for this run.
    pub job: JobId,
    /// The process id there.
    pub pid: u32,
    /// When it was heard of.
    pub time: SystemTime,
}

/// How a client's place at a job came to an end.
#[derive(Debug, Clone)]
pub enum End {
    /// The job is over, or it is not known what becomes of it.
    Over(Box<Ended>),
    /// The client has left, and the job goes on.
    Left(Left),
}

/// A command is over, or never was.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The host as dialled, if it came to that.
    pub host: Option<String>,
    /// The agent's name for this run, if there was one.
    pub job: Option<JobId>,
    /// How.
    pub outcome: Outcome,
    /// What the agent reported and what was verified, if it came to that.
    pub status: Option<ExitStatus>,
    /// Which outputs were closed on this side before their end.
    pub closed: Vec<Output>,
    /// The user does not wait, nothing after this may take time; and what becomes of the job.
    pub left: Option<Parting>,
    /// The agent knows nothing of the job, so that there is nothing to come back to.
    pub is_unknown: bool,
    /// What to type to come back to it, where that may be of use.
    pub again: Option<String>,
    /// It was about a job that was there already, so there was nothing to start.
    pub is_visit: bool,
}

/// What becomes of a job whose client has left without waiting for an answer, as far as is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It was told to end.
    Told,
    /// It goes on without this client.
    GoesOn,
    /// Somebody else sends what it reads.
    InOtherHands,
    /// It is ended now.
    Ends,
    /// The same, unless it was to go on without a client, which is not known here.
    MayGoOn,
    /// There is no connection: it is ended when its lease is over.
    EndsWithLease,
    /// The same, unless it was to go on without a client, which is not known here.
    MayGoOnWithoutLease,
}

impl Parting {
    /// Whether there is something to come back to, as far as is known.
    pub fn may_be_there(self) -> bool {
        !matches!(self, Self::Told | Self::Ends)
    }
}

/// A client has left a job on purpose.
#[derive(Debug, Clone)]
pub struct Left {
    /// The host as dialled.
    pub host: String,
    /// The job.
    pub job: JobId,
    /// What made it leave, if it was not to stay from the start.
    pub signal: Option<Signal>,
    /// What to type to come back to it, where the user has left in the middle.
    pub again: Option<String>,
}

impl Ended {
    /// The end of something that did not reach a host.
    pub fn local(host: Option<String>, message: impl Into<String>) -> Self {
        Self::of(host, Outcome::Local { message: message.into() })
    }

    /// An end of which no more than this is known.
    pub fn of(host: Option<String>, outcome: Outcome) -> Self {
        Self {
            host,
            job: None,
            outcome,
            status: None,
            closed: Vec::new(),
            left: None,
            is_unknown: false,
            again: None,
            is_visit: false,
        }
    }
}
