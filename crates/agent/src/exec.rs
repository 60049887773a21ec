//! One command, from its request to its exit record: decide, put on record, launch, supervise.

use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::environment;
use crate::job::{Control, Job};
use crate::keeper::{LaunchError, Running};
use crate::log::Log;
use crate::policy::{self, Permit};
use crate::pump;
use crate::server::Agent;
use crate::stdin::{self, Feed};
use rexec_net::credit::SendCredit;
use rexec_net::{Identity, Outbox};
use rexec_protocol::message::{ExecSpec, Exit, Started};
use rexec_protocol::outcome::shorten;
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Frame, JobId, NeverStarted, Outcome, StreamId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// What a session hands over to run a command.
pub struct Request {
    /// Where the answers go.
    pub stream: StreamId,
    /// Where the client is.
    pub from: SocketAddr,
    /// What to run.
    pub spec: ExecSpec,
    /// The digest of the streams.
    pub algorithm: Algorithm,
    /// How much output may be sent.
    pub credit: Arc<SendCredit>,
    /// What comes in for stdin, if it will be sent.
    pub stdin: Option<Arc<Feed>>,
    /// What the client wants done to the command while it runs.
    pub control: mpsc::Receiver<Control>,
    /// The connection.
    pub outbox: Outbox,
}

impl Request {
    /// Runs the command; returns once its last frame is on its way, or the connection is gone.
    pub async fn run(self, agent: &Agent, identity: &Identity) {
        let job = new_job_id();
        let user = identity.name();
        tracing::info!(%job, user, command = self.spec.command.to_string(), "command requested");
        let outcome = match self.start(agent, identity, &job).await {
            Ok(outcome) | Err(outcome) => outcome,
        };
        tracing::info!(%job, user, %outcome, "command ended");
    }

    /// `Err`: the outcome of a command that did not start; the client was told.
    async fn start(
        self,
        agent: &Agent,
        identity: &Identity,
        job: &JobId,
    ) -> Result<Outcome, Outcome> {
        match self.launch(agent, identity, job).await {
            Ok(running) => Ok(self.supervise(running, agent, identity, job).await),
            Err(outcome) => {
                let exit = Exit::of_nothing(outcome.clone(), self.algorithm);
                // If the connection is gone, there is nobody left to tell.
                let _ = self.outbox.data(Frame::new(self.stream, exit.into())).await;
                Err(outcome)
            }
        }
    }

    async fn launch(
        &self,
        agent: &Agent,
        identity: &Identity,
        job: &JobId,
    ) -> Result<Running, Outcome> {
        let permit = self.permit(agent, identity, job)?;
        let intent = Event::exec(job, identity, self.from, &permit, None);
        if let Err(unavailable) = agent.audit.commit(&intent).await {
            return Err(self.reject(agent, identity, job, NeverStarted::Busy, unavailable));
        }
        let spec = environment::launch_spec(&permit, identity, job);
        let launched = agent.zygote.launch(permit, job, spec).await;
        launched.map_err(|error| {
            let outcome = match error {
                LaunchError::NeverStarted { reason, message } => never(reason, message),
                LaunchError::Unknown { message } => Outcome::Lost { message: shorten(message) },
            };
            let exit = Exit::of_nothing(outcome, self.algorithm);
            let ended = Event::ended(job, identity.name(), None, &exit, self.algorithm);
            agent.audit.record(&ended);
            exit.outcome
        })
    }

    /// Whether the command may run at all. A no is on record.
    fn permit(&self, agent: &Agent, identity: &Identity, job: &JobId) -> Result<Permit, Outcome> {
        if agent.is_stopping() {
            let message = "this agent is shutting down";
            return Err(self.reject(agent, identity, job, NeverStarted::Busy, message));
        }
        if let Some(fault) = self.spec.fault() {
            return Err(self.reject(agent, identity, job, NeverStarted::Invalid, fault));
        }
        policy::decide(identity, &agent.account, self.spec.clone()).map_err(|denied| {
            let message = denied.to_string();
            let caller = Caller::new(identity, self.from);
            agent.audit.record(&Event::denied(job, caller, &self.spec, None, &message));
            Outcome::Denied { message: shorten(message) }
        })
    }

    fn reject(
        &self,
        agent: &Agent,
        identity: &Identity,
        job: &JobId,
        reason: NeverStarted,
        message: impl ToString,
    ) -> Outcome {
        let message = message.to_string();
        let (caller, text) = (Caller::new(identity, self.from), Text::of(&message));
        agent.audit.record(&Event::Rejected { job: Some(job), caller, reason: text });
        never(reason, message)
    }

    async fn supervise(
        self,
        mut running: Running,
        agent: &Agent,
        identity: &Identity,
        job: &JobId,
    ) -> Outcome {
        let Self { stream, outbox, .. } = self;
        let pid = running.pid;
        let started = Started { job: job.clone(), pid };
        let log = Arc::new(Log::new(stream, self.algorithm));
        // Should the connection be gone already, the session's end tells the job.
        let _ = outbox.data(Frame::new(stream, started.into())).await;
        let pump = AbortOnDropHandle::new(tokio::spawn(pump::run(
            Arc::clone(&log),
            self.credit,
            outbox.clone(),
        )));
        let feed = self.stdin;
        let _stdin = running.stdin.take().zip(feed.clone()).map(|(pipe, feed)| {
            AbortOnDropHandle::new(tokio::spawn(stdin::run(feed, pipe, stream, outbox)))
        });
        let nothing = Tally::nothing(self.algorithm);
        let timeout = self.spec.timeout_ms.map(Duration::from_millis);
        let limits = agent.config.limits.clone();
        let supervisor = Job::new(running, Arc::clone(&log), limits, timeout, self.control);
        let exit = supervisor.run(|| feed.map_or(nothing, |feed| feed.tally())).await;
        let ended = Event::ended(job, identity.name(), Some(pid), &exit, self.algorithm);
        agent.audit.record(&ended);
        // Without a reader the pump would wait for credit, or for the exit record, for ever.
        if !log.is_abandoned()
            && let Err(error) = pump.await
        {
            tracing::error!(%error, "the task that sends a command's output failed");
        }
        exit.outcome
    }
}

fn never(reason: NeverStarted, message: String) -> Outcome {
    Outcome::NeverStarted { reason, message: shorten(message) }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}
