//! Coming to a job that is there already.

use crate::child::Child;
use crate::error::Error;
use crate::remote::{Opening, WINDOW};
use crate::session::Session;
use rexec_protocol::message::{self, From};
use rexec_protocol::{Algorithm, JobId};

/// A client's place at a job that is there already, built up as a [`crate::Command`] is.
///
/// Who comes late may miss output that is kept no more, and who reads slowly may be left behind, unless
/// it controls the job: [`crate::ChildStdout::missing`] counts such bytes, and
/// [`crate::ExitStatus::is_verified`] tells if there were none.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before it is joined"]
pub struct Attach {
    session: Session,
    attach: message::Attach,
}

impl Attach {
    pub(crate) fn new(session: Session, job: JobId) -> Self {
        let attach = message::Attach {
            window: WINDOW,
            job,
            from: From::Start {},
            output: true,
            follow: true,
            control: false,
            times: false,
        };
        Self { session, attach }
    }

    /// Where in the output to begin: by default at its start, or with the oldest that is kept.
    pub fn from(mut self, place: From) -> Self {
        self.attach.from = place;
        self
    }

    /// Whether output is wanted at all; it is by default.
    pub fn output(mut self, output: bool) -> Self {
        self.attach.output = output;
        self
    }

    /// Whether to stay to the end of the job, as is the default, or to leave where its output ends
    /// now.
    pub fn follow(mut self, follow: bool) -> Self {
        self.attach.follow = follow;
        self
    }

    /// Whether the agent is to say when it read each piece of output: see [`crate::Chunk::time`].
    pub fn times(mut self, times: bool) -> Self {
        self.attach.times = times;
        self
    }

    /// Whether to be able to signal and end the job. One who also follows its output gets its stdin,
    /// and whoever had that loses it; the command then waits for this client to read.
    pub fn control(mut self, control: bool) -> Self {
        self.attach.control = control;
        self
    }

    /// Joins the job.
    pub async fn join(self) -> Result<Child, Error> {
        let Self { session, attach } = self;
        let has_stdin = attach.control && attach.output && attach.follow;
        let remote = session.open(Opening::Attach(attach), Algorithm::Sha256).await?;
        let started = remote.wait_started().await?;
        Ok(Child::new(session, remote, started, has_stdin, false))
    }
}
