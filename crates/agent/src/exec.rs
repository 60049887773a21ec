//! One command, from its request to its exit record: decide, put on record, launch, supervise.

use crate::admission::refusals::with_left_out;
use crate::admission::{Held, HeldByRule};
use crate::audit::text::Text;
use crate::audit::{Caller, Event};
use crate::authorize::{Refused, authorize};
use crate::environment::Origin;
use crate::heir::{Heir, Terms};
use crate::jobs::meta::{End, Ending};
use crate::jobs::{Attendance, Controls, Job};
use crate::keeper::{LaunchError, Running};
use crate::ledger::Ledger;
use crate::log::now_ms;
use crate::policy::Permit;
use crate::server::Agent;
use crate::supervisor::{Leftovers, Supervisor, Watched};
use rexec_guard::holds;
use rexec_net::Identity;
use rexec_protocol::message::{Channel, Command, ExecSpec, Exit};
use rexec_protocol::outcome::{printable, shorten};
use rexec_protocol::{JobId, NeverStarted, Outcome};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How long to wait before trying again to record an end.
const RETRY: Duration = Duration::from_secs(1);
/// How much of a command, or of why it was refused, is in the log; the audit log has more. In bytes.
const LOGGED: usize = 300;

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
    terms: Terms,
    /// What it is counted against, until its end.
    places: Places,
}

/// A command that runs, by whichever agent it was started.
pub struct Begun {
    /// Its job.
    pub job: Arc<Job>,
    /// What its supervisor will listen to.
    pub controls: Controls,
    /// Its process.
    pub pid: u32,
    /// The rest of it.
    pub watched: Watched,
    /// What it is counted against, until its end.
    pub places: Places,
}

/// Places among the commands of an identity, and among those of a rule.
pub type Places = (Held, Option<HeldByRule>);

impl Request {
    /// Runs the command; returns once it has ended and its log is complete.
    pub async fn run(self, agent: &Agent) {
        let job = Arc::clone(&self.job);
        if agent.is_leaving() && job.is_acknowledged() {
            // Its client asks the next agent, which knows that it was not begun.
            return agent.jobs.withdraw(&job.id);
        }
        match self.launch(agent).await {
            Ok(launched) => return self.begin(agent, launched).await.supervise(agent).await,
            Err(outcome) => {
                let exit = Exit::of_nothing(outcome, job.algorithm);
                if job.log.disk().is_some() {
                    let end = End { pid: 0, ended_ms: now_ms(), exit: Ending::from(&exit) };
                    put_end(&job, &end).await;
                }
                agent.jobs.ended(&job, &exit).await;
                job.not_started(exit);
            }
        }
    }

    /// `Err`: the outcome of a command that did not start, which is on record.
    async fn launch(&self, agent: &Agent) -> Result<Launched, Outcome> {
        let permit = self.permit(agent).await?;
        let places = self.places(agent, &permit)?;
        if let Err(too_many) = agent.admission.may_fail(self.identity.name()) {
            return Err(self.reject(agent, NeverStarted::Busy, too_many));
        }
        let (id, user) = (&self.job.id, &self.job.owner.name);
        let command = brief(self.spec.command.to_string());
        tracing::info!(job = %id, user, command, "command requested");
        self.job.permitted(&permit.account().name, &permit.spec().command);
        if let Err(error) = agent.jobs.commit(&self.job).await {
            let message = format!("the agent cannot put the job on its disk: {error}");
            return Err(self.reject(agent, NeverStarted::Resource, message));
        }
        let peer = agent.jobs.arrival(&permit.spec().command);
        let intent = Event::exec(&self.job.id, &self.identity, self.from, &permit, peer);
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
        let terms = Terms {
            timeout_ms: permit.spec().timeout_ms,
            leftovers: Leftovers::of(&permit),
            limited_by: places.1.is_some().then(|| permit.rule().to_owned()),
        };
        let (identity, job) = (&*self.identity, &self.job.id);
        let origin = Origin { identity, job, from: self.from, to: self.to };
        match agent.zygote.launch(permit, &origin).await {
            Ok(running) => Ok(Launched { running, terms, places }),
            Err(error) => Err(self.failed(agent, error)),
        }
    }

    /// Whether the command may run at all. A no is on record.
    async fn permit(&self, agent: &Agent) -> Result<Permit, Outcome> {
        if agent.is_stopping() || agent.is_leaving() {
            return Err(self.reject(agent, NeverStarted::Busy, "this agent is shutting down"));
        }
        if agent.is_draining() {
            let message = "this agent is being drained and takes no new commands; try again later";
            return Err(self.reject(agent, NeverStarted::Busy, message));
        }
        if let Some(fault) = self.spec.fault() {
            return Err(self.reject(agent, NeverStarted::Invalid, fault));
        }
        if self.job.is_connection && !holds("connect.detach", !self.job.is_kept()) {
            let message = "a connection, or a port, cannot be detached from its client";
            return Err(self.reject(agent, NeverStarted::Invalid, message));
        }
        if matches!(self.spec.command, Command::Files(_)) && self.job.is_kept() {
            let message = "a transfer of files cannot be detached from its client";
            return Err(self.reject(agent, NeverStarted::Invalid, message));
        }
        // One version of the policy for all of this decision.
        let policy = agent.policy.current();
        let permit = authorize(agent, &policy, &self.identity, self.from.ip(), &self.spec).await;
        permit.map_err(|refused| {
            let rule = match &refused {
                Refused::Denied(denied) => denied.rule.as_deref(),
                Refused::Account(_) | Refused::NoPort(_) => None,
            };
            let caller = Caller::new(&self.identity, self.from);
            if let Some(left_out) = agent.admission.may_record_denial(&self.identity) {
                let words = with_left_out(refused.to_string(), left_out);
                self.log_refusal(&words);
                agent.audit.record(&Event::denied(&self.job.id, caller, &self.spec, rule, &words));
            }
            refused.outcome()
        })
    }

    fn places(&self, agent: &Agent, permit: &Permit) -> Result<Places, Outcome> {
        let admission = &agent.admission;
        let held = admission.command(&self.identity, &permit.spec().command);
        let places =
            held.and_then(|held| Ok((held, admission.under_rule(&self.identity, permit)?)));
        places.map_err(|full| self.reject(agent, NeverStarted::Busy, full))
    }

    /// The outcome of a command that is not started for a reason that is not the policy's.
    fn reject(&self, agent: &Agent, reason: NeverStarted, message: impl ToString) -> Outcome {
        let message = message.to_string();
        if let Some(left_out) = agent.admission.may_record_denial(&self.identity) {
            let caller = Caller::new(&self.identity, self.from);
            let words = with_left_out(message.clone(), left_out);
            self.log_refusal(&words);
            let text = Text::of(words);
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
        agent.admission.has_failed(self.identity.name());
        tracing::info!(job = %job.id, user = job.owner.name, %outcome, "command ended");
        let exit = Exit::of_nothing(outcome, job.algorithm);
        let ended = Event::ended(&job.id, &job.owner.name, None, &exit, job.algorithm);
        agent.audit.record(&ended);
        exit.outcome
    }

    /// As seldom as refusals go on record: whoever may run nothing must not fill the log.
    fn log_refusal(&self, words: &str) {
        let (id, user) = (&self.job.id, &self.job.owner.name);
        let command = brief(self.spec.command.to_string());
        let reason = brief(printable(words));
        tracing::info!(job = %id, user, command, reason, "command refused");
    }

    async fn begin(self, agent: &Agent, launched: Launched) -> Begun {
        let Launched { mut running, terms, places } = launched;
        let Self { job, controls, .. } = self;
        let heir = leave(agent, &job, &mut running, &terms).await;
        let heir = heir.inspect_err(|error| {
            tracing::warn!(job = %job.id, %error, "a command would end with this agent");
        });
        job.keeper_knows(heir.is_ok());
        // Only now: who hears it may take it that the job outlives this agent.
        job.started(running.pid);
        let heir = heir.ok();
        let Running { pid, stdin, stdout, stderr, terminal, keeper } = running;
        let stdin = stdin.zip(job.feed.clone());
        let (stdout, started) = (Some(stdout), Instant::now());
        let (cause, is_ending) = (None, false);
        let watched = Watched {
            stdin,
            stdout,
            stderr,
            terminal,
            keeper,
            terms,
            started,
            cause,
            is_ending,
            heir,
        };
        Begun { job, controls, pid, watched, places }
    }
}

/// As much of a text as a line of the log has of it.
fn brief(mut text: String) -> String {
    if text.len() > LOGGED {
        let length = text.len();
        text.truncate(text.floor_char_boundary(LOGGED));
        text.push_str(&format!("… ({length} bytes)"));
    }
    text
}

/// Leaves a command to the next agent. If it is to end with this one, the time to wait for another is
/// none: that may change while it runs.
async fn leave(
    agent: &Agent,
    job: &Arc<Job>,
    running: &mut Running,
    terms: &Terms,
) -> io::Result<Heir> {
    let ledger = Ledger::new(job.algorithm)?;
    let grace = agent.config.limits.kill_grace;
    let heir = Heir::new(&agent.config.state_dir, ledger, agent.jobs.leases(), grace);
    let mut ends = vec![(Channel::Out, running.stdout.as_fd())];
    ends.extend(running.stdin.as_ref().map(|stdin| (Channel::In, stdin.as_fd())));
    ends.extend(running.stderr.as_ref().map(|stderr| (Channel::Err, stderr.as_fd())));
    let will = heir.will(job, terms, None);
    running.keeper.leave(&will, &ends, heir.ledger.as_fd()).await?;
    Ok(heir)
}

impl Begun {
    /// Runs it to its end, or leaves it to the next agent.
    pub async fn supervise(self, agent: &Agent) {
        let Self { job, controls, pid, watched, places } = self;
        let (limits, leaving) = (agent.config.limits.clone(), agent.leaving());
        let watch = agent.unstick.watch(&job.id, watched.keeper.reach());
        let supervisor =
            Supervisor::new(watched, Arc::clone(&job), controls, limits, leaving, watch);
        let exit = tokio::select! {
            biased;
            never = ports_on_record(agent, &job) => match never {},
            exit = supervisor.run() => exit,
        };
        // It may have been opened in the last moment.
        port_on_record(agent, &job);
        let Some(exit) = exit else {
            return tracing::info!(job = %job.id, "left to the next agent");
        };
        let (id, user, outcome) = (&job.id, &job.owner.name, &exit.outcome);
        tracing::info!(job = %id, user, %outcome, "command ended");
        let ended = Event::ended(&job.id, &job.owner.name, Some(pid), &exit, job.algorithm);
        agent.audit.record(&ended);
        // Nothing of it runs any more. That its output may still be on its way costs no process.
        drop(places);
        let end = End { pid, ended_ms: now_ms(), exit: Ending::from(&exit) };
        let is_recorded = put_end(&job, &end).await;
        job.ended(end.ended_ms);
        agent.jobs.ended(&job, &exit).await;
        // Last: who reads it finds all the rest as it says.
        job.log.exit(exit.clone());
        settle(agent, &job, end, is_recorded).await;
    }
}

/// Puts on record which port a job opens, as soon as it does: its client may have left the choice to this machine.
async fn ports_on_record(agent: &Agent, job: &Job) -> Infallible {
    if let Some(heard) = job.heard() {
        heard.opened().await;
        port_on_record(agent, job);
    }
    std::future::pending().await
}

fn port_on_record(agent: &Agent, job: &Job) {
    if let Some(port) = job.heard().and_then(|heard| heard.to_be_recorded()) {
        let user = &job.owner.name;
        agent.audit.record(&Event::Listening { job: &job.id, user, port });
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
            () = agent.has_left() => return,
        }
        if job.log.is_removed() {
            return;
        }
        is_recorded = put_end(job, &end).await;
    }
    // Most jobs: no thread is woken for nothing.
    if job.log.disk().is_none() {
        return;
    }
    let log = Arc::clone(&job.log);
    // One that is deleted meanwhile has nothing to lose.
    if let Ok(Err(error)) = spawn_blocking(move || log.shelve()).await
        && !job.log.is_removed()
    {
        tracing::warn!(job = %job.id, %error, "the output of a job may not survive a loss of power");
    }
}

/// A new id, in the order of time (UUID version 7, RFC 9562).
pub fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_a_few_words_of_a_long_command() {
        assert_eq!(brief("true".to_owned()), "true");
        let logged = brief("é".repeat(1000));
        assert!(logged.len() < LOGGED + 20 && logged.ends_with("é… (2000 bytes)"), "{logged}");
    }
}
