//! One command, from its request to its exit record: decide, put on record, launch, supervise.

use crate::admission::refusals::with_left_out;
use crate::admission::{Held, HeldByRule};
use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::authorize::{Refused, authorize};
use crate::environment::Origin;
use crate::jobs::meta::{End, Ending};
use crate::jobs::{Attendance, Controls, Job};
use crate::keeper::{LaunchError, Running};
use crate::log::now_ms;
use crate::policy::Permit;
use crate::server::Agent;
use crate::stdin;
use crate::supervisor::{Leftovers, Supervisor};
use rexec_guard::holds;
use rexec_net::Identity;
use rexec_protocol::message::{ExecSpec, Exit};
use rexec_protocol::outcome::shorten;
use rexec_protocol::{JobId, NeverStarted, Outcome};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

/// How long to wait before trying again to record an end.
const RETRY: Duration = Duration::from_secs(1);

/// A submission to be carried out.
pub struct Request {
    /// The job that it became.
    pub job: Arc<Job>,
    /// What its supervisor will listen to.
    pub controls: Controls,
    /// Who submitted it, by a certificate.
    pub identity: Arc<Identity>,
    /// Where the client is.
    pub from: SocketAddr,
    /// Where it reached this agent.
    pub to: SocketAddr,
    /// What to run.
    pub spec: ExecSpec,
}

/// A command that was started.
struct Launched {
    running: Running,
    /// How long it may run.
    timeout: Option<Duration>,
    leftovers: Leftovers,
    /// What it is counted against, until its end.
    places: Places,
}

type Places = (Held, Option<HeldByRule>);

impl Request {
    /// Runs the command; returns once it has ended and its log is complete.
    pub async fn run(self, agent: &Agent) {
        let job = Arc::clone(&self.job);
        let (id, user) = (&job.id, &job.owner.name);
        tracing::info!(job = %id, user, command = self.spec.command.to_string(), "command requested");
        let outcome = match self.launch(agent).await {
            Ok(launched) => self.supervise(agent, launched).await,
            Err(outcome) => {
                let exit = Exit::of_nothing(outcome.clone(), job.algorithm);
                if job.log.disk().is_some() {
                    let end = End { pid: 0, ended_ms: now_ms(), exit: Ending::from(&exit) };
                    put_end(&job, &end).await;
                }
                agent.jobs.ended(&job, &exit);
                job.not_started(exit);
                outcome
            }
        };
        tracing::info!(job = %id, user, %outcome, "command ended");
    }

    /// `Err`: the outcome of a command that did not start, which is on record.
    async fn launch(&self, agent: &Agent) -> Result<Launched, Outcome> {
        let permit = self.permit(agent).await?;
        let places = self.places(agent, &permit)?;
        self.job.set_user(&permit.account().name);
        if let Err(error) = agent.jobs.commit(&self.job).await {
            let message = format!("the agent cannot put the job on its disk: {error}");
            return Err(self.reject(agent, NeverStarted::Resource, message));
        }
        let intent = Event::exec(&self.job.id, &self.identity, self.from, &permit);
        if let Err(unavailable) = agent.audit.commit(&intent).await
            && !holds("audit.on_record_first", false)
        {
            return Err(self.reject(agent, NeverStarted::AuditUnavailable, unavailable));
        }
        // The user database and the disk may have taken their time.
        let is_unwanted = *self.controls.attended.borrow() == Attendance::Gone;
        if agent.is_stopping() || is_unwanted {
            let message = "its client left, or the agent was stopped, before it began".to_owned();
            let reason = NeverStarted::Busy;
            return Err(self.failed(agent, LaunchError::NeverStarted { reason, message }));
        }
        let timeout = permit.spec().timeout_ms.map(Duration::from_millis);
        let leftovers = Leftovers::of(&permit);
        let (identity, job) = (&*self.identity, &self.job.id);
        let origin = Origin { identity, job, from: self.from, to: self.to };
        match agent.zygote.launch(permit, &origin).await {
            Ok(running) => Ok(Launched { running, timeout, leftovers, places }),
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
                agent.audit.record(&Event::denied(&self.job.id, caller, &self.spec, rule, &words));
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
            agent.audit.record(&Event::Rejected { job: Some(&self.job.id), caller, reason: text });
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
        let job = &self.job;
        let exit = Exit::of_nothing(outcome, job.algorithm);
        let ended = Event::ended(&job.id, &job.owner.name, None, &exit, job.algorithm);
        agent.audit.record(&ended);
        exit.outcome
    }

    async fn supervise(self, agent: &Agent, launched: Launched) -> Outcome {
        let Launched { mut running, timeout, leftovers, places } = launched;
        let Self { job, controls, .. } = self;
        let pid = running.pid;
        job.started(pid);
        let _stdin = running
            .stdin
            .take()
            .zip(job.feed.clone())
            .map(|(pipe, feed)| AbortOnDropHandle::new(tokio::spawn(stdin::run(feed, pipe))));
        let limits = agent.config.limits.clone();
        let watched = Arc::clone(&job);
        let supervisor = Supervisor::new(running, watched, controls, limits, timeout, leftovers);
        let exit = supervisor.run().await;
        let ended = Event::ended(&job.id, &job.owner.name, Some(pid), &exit, job.algorithm);
        agent.audit.record(&ended);
        // Nothing of it runs any more. That its output may still be on its way costs no process.
        drop(places);
        let end = End { pid, ended_ms: now_ms(), exit: Ending::from(&exit) };
        let is_recorded = put_end(&job, &end).await;
        job.ended(end.ended_ms);
        agent.jobs.ended(&job, &exit);
        // Last: who reads it finds all the rest as it says.
        job.log.exit(exit.clone());
        settle(agent, &job, end, is_recorded).await;
        exit.outcome
    }
}

/// True if the end of a job is where its output is kept.
async fn put_end(job: &Arc<Job>, end: &End) -> bool {
    if !job.is_kept() && job.log.disk().is_none() {
        return true;
    }
    let (watched, end) = (Arc::clone(job), end.clone());
    let put = spawn_blocking(move || watched.put_end(&end)).await;
    match put {
        Ok(Ok(())) => true,
        Ok(Err(full)) => {
            tracing::warn!(job = %job.id, %full, "the end of a job is not on disk yet");
            false
        }
        Err(_) => false,
    }
}

/// Sees to it that what is kept of a job outlives the agent and the machine.
async fn settle(agent: &Agent, job: &Arc<Job>, end: End, mut is_recorded: bool) {
    while !is_recorded {
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            // What it knows goes with the agent.
            () = agent.stopping() => return,
        }
        if job.log.is_removed() {
            return;
        }
        is_recorded = put_end(job, &end).await;
    }
    let log = Arc::clone(&job.log);
    if let Ok(Err(error)) = spawn_blocking(move || log.sync()).await {
        tracing::warn!(job = %job.id, %error, "the output of a job may not survive a loss of power");
    }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
pub fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}
