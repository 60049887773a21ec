//! One command, from its request to its exit record: decide, put on record, launch, supervise.

use crate::admission::refusals::with_left_out;
use crate::admission::{Held, HeldByRule};
use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::authorize::{Refused, authorize};
use crate::job::{Control, Job};
use crate::keeper::{LaunchError, Running};
use crate::log::Log;
use crate::policy::Permit;
use crate::pump;
use crate::server::Agent;
use crate::stdin::{self, Feed};
use rexec_guard::holds;
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
    /// The agent's name for the command.
    pub job: JobId,
    /// Who wants it.
    pub identity: Arc<Identity>,
    /// Where the client is.
    pub from: SocketAddr,
    /// Where the answers go.
    pub stream: StreamId,
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

/// A command that was started.
struct Launched {
    running: Running,
    /// How long it may run.
    timeout: Option<Duration>,
    /// Its rule's limits hold for what it leaves behind, too.
    is_contained: bool,
    /// What it is counted against, until its end.
    places: Places,
}

type Places = (Held, Option<HeldByRule>);

impl Request {
    /// Runs the command; returns once its last frame is on its way, or the connection is gone.
    pub async fn run(self, agent: &Agent) {
        let (job, identity) = (self.job.clone(), Arc::clone(&self.identity));
        let user = identity.name();
        tracing::info!(%job, user, command = self.spec.command.to_string(), "command requested");
        let outcome = match self.launch(agent).await {
            Ok(launched) => self.supervise(agent, launched).await,
            Err(outcome) => {
                let exit = Exit::of_nothing(outcome.clone(), self.algorithm);
                // If the connection is gone, there is nobody left to tell.
                let _ = self.outbox.data(Frame::new(self.stream, exit.into())).await;
                outcome
            }
        };
        tracing::info!(%job, user, %outcome, "command ended");
    }

    /// `Err`: the outcome of a command that did not start, which is on record.
    async fn launch(&self, agent: &Agent) -> Result<Launched, Outcome> {
        let permit = self.permit(agent).await?;
        let places = self.places(agent, &permit)?;
        let intent = Event::exec(&self.job, &self.identity, self.from, &permit);
        if let Err(unavailable) = agent.audit.commit(&intent).await
            && !holds("audit.on_record_first", false)
        {
            return Err(self.reject(agent, NeverStarted::AuditUnavailable, unavailable));
        }
        // The user database and the disk may have taken their time.
        if agent.is_stopping() || self.control.is_closed() {
            let message = "its client left, or the agent was stopped, before it began".to_owned();
            let reason = NeverStarted::Busy;
            return Err(self.failed(agent, LaunchError::NeverStarted { reason, message }));
        }
        let timeout = permit.spec().timeout_ms.map(Duration::from_millis);
        let is_contained = permit.grant().limits.are_of_the_tree();
        match agent.zygote.launch(permit, &self.identity, &self.job).await {
            Ok(running) => Ok(Launched { running, timeout, is_contained, places }),
            Err(error) => Err(self.failed(agent, error)),
        }
    }

    /// Whether the command may run at all. A no is on record.
    async fn permit(&self, agent: &Agent) -> Result<Permit, Outcome> {
        if agent.is_stopping() {
            return Err(self.reject(agent, NeverStarted::Busy, "this agent is shutting down"));
        }
        if let Some(fault) = self.spec.fault() {
            return Err(self.reject(agent, NeverStarted::Invalid, fault));
        }
        // One version of the policy for all of this decision.
        let policy = agent.policy.current();
        let permit = authorize(agent, &policy, &self.identity, self.from.ip(), &self.spec).await;
        permit.map_err(|refused| {
            let rule = match &refused {
                Refused::Denied(denied) => denied.rule.as_deref(),
                Refused::Account(_) => None,
            };
            let caller = Caller::new(&self.identity, self.from);
            if let Some(left_out) = agent.admission.may_record_denial(&self.identity) {
                let words = with_left_out(refused.to_string(), left_out);
                agent.audit.record(&Event::denied(&self.job, caller, &self.spec, rule, &words));
            }
            refused.outcome()
        })
    }

    fn places(&self, agent: &Agent, permit: &Permit) -> Result<Places, Outcome> {
        let admission = &agent.admission;
        let held = admission.command(&self.identity);
        let places =
            held.and_then(|held| Ok((held, admission.under_rule(&self.identity, permit)?)));
        places.map_err(|full| self.reject(agent, NeverStarted::Busy, full))
    }

    /// The outcome of a command that is not started for a reason that is not the policy's.
    fn reject(&self, agent: &Agent, reason: NeverStarted, message: impl ToString) -> Outcome {
        let message = message.to_string();
        if let Some(left_out) = agent.admission.may_record_denial(&self.identity) {
            let caller = Caller::new(&self.identity, self.from);
            let text = Text::of(with_left_out(message.clone(), left_out));
            agent.audit.record(&Event::Rejected { job: Some(&self.job), caller, reason: text });
        }
        Outcome::NeverStarted { reason, message: shorten(message) }
    }

    /// The outcome of a command whose start is on record, and that did not start for all is known.
    fn failed(&self, agent: &Agent, error: LaunchError) -> Outcome {
        let outcome = match error {
            LaunchError::NeverStarted { reason, message } => {
                Outcome::NeverStarted { reason, message: shorten(message) }
            }
            LaunchError::Unknown { message } => Outcome::Lost { message: shorten(message) },
        };
        let exit = Exit::of_nothing(outcome, self.algorithm);
        let ended = Event::ended(&self.job, self.identity.name(), None, &exit, self.algorithm);
        agent.audit.record(&ended);
        exit.outcome
    }

    async fn supervise(self, agent: &Agent, launched: Launched) -> Outcome {
        let Launched { mut running, timeout, is_contained, places } = launched;
        let Self { job, identity, stream, outbox, algorithm, .. } = self;
        let pid = running.pid;
        let started = Started { job: job.clone(), pid };
        let log = Arc::new(Log::new(stream, algorithm));
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
        let nothing = Tally::nothing(algorithm);
        let limits = agent.config.limits.clone();
        let (log_of_job, control) = (Arc::clone(&log), self.control);
        let supervisor = Job::new(running, log_of_job, limits, timeout, is_contained, control);
        let exit = supervisor.run(|| feed.map_or(nothing, |feed| feed.tally())).await;
        agent.audit.record(&Event::ended(&job, identity.name(), Some(pid), &exit, algorithm));
        // Nothing of it runs any more. That its output may still be on its way costs no process.
        drop(places);
        // Without a reader the pump would wait for credit, or for the exit record, for ever.
        if !log.is_abandoned()
            && let Err(error) = pump.await
        {
            tracing::error!(%error, "the task that sends a command's output failed");
        }
        exit.outcome
    }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
pub fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}
