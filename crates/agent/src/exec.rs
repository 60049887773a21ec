//! One command, from its request to its exit record: decide, launch, supervise.

use crate::account::Account;
use crate::config::Limits;
use crate::environment;
use crate::job::{Control, Job};
use crate::keeper::{LaunchError, Running};
use crate::log::Log;
use crate::policy::{self, Policy};
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
            Ok((running, timeout)) => {
                Ok(self.supervise(running, job, agent.config.limits.clone(), timeout).await)
            }
            Err(outcome) => {
                let exit = Exit::of_nothing(outcome.clone(), self.algorithm);
                // If the connection is gone, there is nobody left to tell.
                let _ = self.outbox.data(Frame::new(self.stream, exit.into())).await;
                Err(outcome)
            }
        }
    }

    /// Decides, and starts the command; with it comes how long it may run.
    async fn launch(
        &self,
        agent: &Agent,
        identity: &Identity,
        job: &JobId,
    ) -> Result<(Running, Option<Duration>), Outcome> {
        let never = |reason, message| Outcome::NeverStarted { reason, message: shorten(message) };
        if agent.is_stopping() {
            return Err(never(NeverStarted::Busy, "this agent is shutting down".to_owned()));
        }
        if let Some(fault) = self.spec.fault() {
            return Err(never(NeverStarted::Invalid, fault.to_owned()));
        }
        let denied = |message| Outcome::Denied { message: shorten(message) };
        // One version of the policy for all of this decision.
        let policy = agent.policy.current();
        let account = self.account(agent, identity, &policy).map_err(denied)?;
        let permit = policy::decide(&policy, identity, self.from, account, self.spec.clone())
            .map_err(|error| denied(error.message))?;
        let timeout = permit.spec().timeout_ms.map(Duration::from_millis);
        let spec = environment::launch_spec(&permit, identity, job);
        let launched = agent.zygote.launch(permit, job, spec).await;
        launched.map(|running| (running, timeout)).map_err(|error| match error {
            LaunchError::NeverStarted { reason, message } => never(reason, message),
            LaunchError::Unknown { message } => Outcome::Lost { message: shorten(message) },
        })
    }

    /// The account that the command is for, which can only be the agent's own.
    fn account<'a>(
        &self,
        agent: &'a Agent,
        identity: &Identity,
        policy: &Policy,
    ) -> Result<&'a Arc<Account>, String> {
        let own = &agent.account;
        match policy::local_user(policy, identity, self.from, &self.spec) {
            Some(user) if user != own.name => Err(format!(
                "{} may not run commands as '{user}': this agent runs everything as '{}'",
                identity.name(),
                own.name,
            )),
            // Where policy has nobody for this caller, it will say why.
            _ => Ok(own),
        }
    }

    async fn supervise(
        self,
        mut running: Running,
        job: &JobId,
        limits: Limits,
        timeout: Option<Duration>,
    ) -> Outcome {
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
        // Without a reader the pump would wait for credit, or for the exit record, for ever.
        if !log.is_abandoned()
            && let Err(error) = pump.await
        {
            tracing::error!(%error, "the task that sends a command's output failed");
        }
        outcome
    }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}
