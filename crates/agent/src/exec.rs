//! One command, from its request to its exit record: decide, launch, supervise.

use crate::admission::{Full, Held, HeldByRule};
use crate::authorize::authorize;
use crate::config::Limits;
use crate::environment;
use crate::job::{Control, Job};
use crate::keeper::{LaunchError, Running};
use crate::log::Log;
use crate::pump;
use crate::server::Agent;
use crate::stdin::{self, Feed};
use rexec_net::credit::SendCredit;
use rexec_net::{Identity, Outbox};
use rexec_protocol::message::{ExecSpec, Exit, Started};
use rexec_protocol::outcome::shorten;
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Frame, JobId, NeverStarted, Outcome, StreamId};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// What a session hands over to run a command.
pub struct Request {
    /// Where the answers go.
    pub stream: StreamId,
    /// Where the client connects from.
    pub from: IpAddr,
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
            Ok(launched) => Ok(self.supervise(launched, job, agent.config.limits.clone()).await),
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
    ) -> Result<Launched, Outcome> {
        if agent.is_stopping() {
            return Err(never(NeverStarted::Busy, "this agent is shutting down"));
        }
        if let Some(fault) = self.spec.fault() {
            return Err(never(NeverStarted::Invalid, fault));
        }
        let busy = |full: Full| never(NeverStarted::Busy, full);
        let place = agent.admission.command(identity).map_err(busy)?;
        // One version of the policy for all of this decision.
        let policy = agent.policy.current();
        let permit = authorize(agent, &policy, identity, self.from, &self.spec).await;
        let permit = permit.map_err(|refused| refused.outcome())?;
        let of_rule = agent.admission.under_rule(identity, &permit).map_err(busy)?;
        let timeout = permit.spec().timeout_ms.map(Duration::from_millis);
        let switch = agent.accounts.own().is_root();
        let spec = environment::launch_spec(&permit, identity, job, switch);
        match agent.zygote.launch(permit, job, spec).await {
            Ok(running) => Ok(Launched { running, timeout, places: (place, of_rule) }),
            Err(LaunchError::NeverStarted { reason, message }) => Err(never(reason, message)),
            Err(LaunchError::Unknown { message }) => {
                Err(Outcome::Lost { message: shorten(message) })
            }
        }
    }

    async fn supervise(self, launched: Launched, job: &JobId, limits: Limits) -> Outcome {
        let Launched { mut running, timeout, places } = launched;
        let Self { stream, outbox, .. } = self;
        let started = Started { job: job.clone(), pid: running.pid };
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
        let job = Job::new(running, Arc::clone(&log), limits, timeout, self.control);
        let outcome = job.run(|| feed.map_or(nothing, |feed| feed.tally())).await;
        // Nothing of it runs any more. That its output may still be on its way costs no process.
        drop(places);
        // Without a reader the pump would wait for credit, or for the exit record, for ever.
        if !log.is_abandoned()
            && let Err(error) = pump.await
        {
            tracing::error!(%error, "the task that sends a command's output failed");
        }
        outcome
    }
}

/// A command that was started.
struct Launched {
    running: Running,
    /// How long it may run.
    timeout: Option<Duration>,
    /// What it is counted against, until its end.
    places: (Held, Option<HeldByRule>),
}

fn never(reason: NeverStarted, message: impl ToString) -> Outcome {
    Outcome::NeverStarted { reason, message: shorten(message.to_string()) }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}
