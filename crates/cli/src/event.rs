//! What a renderer hears of: the start of a command, and its end. Output reaches it through
//! [`crate::render::Sink`]s, because one stream may have to wait while the other goes on.

use crate::stdio::Output;
use rexec_client::{ExitStatus, JobId, Outcome};
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
    /// The user does not wait: nothing after this may take time.
    pub left: bool,
}

impl Ended {
    /// The end of something that did not reach a host.
    pub fn local(host: Option<String>, message: impl Into<String>) -> Self {
        let outcome = Outcome::Local { message: message.into() };
        Self { host, job: None, outcome, status: None, closed: Vec::new(), left: false }
    }
}
