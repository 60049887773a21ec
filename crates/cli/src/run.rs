//! A plan carried out: connect, start, carry the streams, wait for the end; and again, if that is safe.

use crate::args;
use crate::attend::{OnSignal, Stop, Streams, Told, Visit};
use crate::event::{End, Ended, Left, Started};
use crate::exit::Notes;
use crate::forward::Route;
use crate::plan::{Plan, Terminal, Work};
use crate::render::Renderer;
use crate::tty;
use rexec_client::{
    Algorithm, Command, ExitStatus, JobId, NeverStarted, OnDisconnect, Outcome, Session, Stdio,
    new_job_id, printable,
};
use std::time::{Duration, SystemTime};

/// How long to wait before the second attempt; it doubles from then on …
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs the plan to its end, whatever that is.
pub async fn run(plan: Plan, renderer: &mut Renderer, notes: Notes) -> End {
    run_telling(plan, renderer, notes, || ()).await
}

/// The same, with something to do once the ports are open and the command runs.
pub async fn run_telling(
    mut plan: Plan,
    renderer: &mut Renderer,
    notes: Notes,
    ready: impl FnOnce(),
) -> End {
    let host = plan.endpoint.host.clone();
    let on_signal = match plan.on_disconnect {
        Some(OnDisconnect::Keep {}) => OnSignal::CtrlC,
        _ => OnSignal::Cancel,
    };
    let mut visit = match Visit::new(&host, notes, on_signal) {
        Ok(visit) => visit,
        Err(outcome) => return End::Over(Box::new(Ended::of(Some(host), outcome))),
    };
    visit.is_kept = Some(on_signal == OnSignal::CtrlC);
    if plan.retries > 0 {
        // An id that the agent has on its disk before it starts anything.
        plan.id.get_or_insert_with(new_job_id);
    }
    let (again, is_there) = (plan.again.clone(), !plan.detach);
    let several = matches!(&plan.work, Work::Argv(_, args) if !args.is_empty());
    let mut run = Run { plan, notes, visit, job: None, asked_for: None, ready: Some(ready) };
    let end = run.attempts(renderer).await;
    // The connection was just dropped, and its writer has a goodbye to say: the agent shall not take
    // this for a broken line.
    tokio::task::yield_now().await;
    let Run { visit, job, asked_for, .. } = run;
    let mut told = match (Told::of(end), &job) {
        (Ok(told), _) => told,
        (Err(signal), Some(job)) => {
            let again = is_there.then(|| format!("{again} {job}"));
            return End::Left(Left { host, job: job.clone(), signal, again });
        }
        (Err(_), None) => Outcome::Cancelled.into(),
    };
    if several {
        told.outcome = with_hint(told.outcome);
    }
    let job = job.or(asked_for.filter(|_| told.is_lost()));
    let Visit { closed, left, is_unknown_host, .. } = visit;
    if is_unknown_host {
        told.outcome = with_subcommand(told.outcome, &host);
    }
    let is_there = told.may_be_there(left);
    let again = job.as_ref().filter(|_| is_there).map(|job| format!("{again} {job}"));
    let Told { outcome, status, is_unknown } = told;
    let known = Ended::of(Some(host), outcome);
    End::Over(Box::new(Ended { job, status, closed, left, is_unknown, again, ..known }))
}

struct Run<F> {
    plan: Plan,
    notes: Notes,
    visit: Visit,
    /// The job, once it runs.
    job: Option<JobId>,
    /// The id that was asked for.
    asked_for: Option<JobId>,
    /// What is to be done once it runs.
    ready: Option<F>,
}

impl<F: FnOnce()> Run<F> {
    /// Tries until it is known what became of the command, or no attempt is left. The id is always the
    /// same, so it runs at most once.
    async fn attempts(&mut self, renderer: &mut Renderer) -> Result<ExitStatus, Stop> {
        let (mut pause, mut attempt) = (FIRST_PAUSE, 0);
        let retries = self.plan.retries;
        // What was said of an attempt that may have started the command.
        let mut lost = None;
        loop {
            let end = self.whole(renderer).await;
            // Once it runs, output was shown and stdin was read, and neither can be had again: from
            // then on the library makes the connection again.
            let may_retry = self.job.is_none() && self.visit.asked.is_none() && attempt < retries;
            let Err(Stop::Outcome(outcome)) = end else { return end };
            let is_transient =
                matches!(outcome, Outcome::Unreachable { .. } | Outcome::Lost { .. });
            if !(may_retry && is_transient) {
                return Err(at_last(lost, outcome).into());
            }
            if let Outcome::Lost { message } = &outcome {
                lost = Some(message.clone());
            }
            let host = printable(&self.plan.endpoint.host);
            attempt += 1;
            let time = humantime::format_duration(pause);
            self.notes.inform(&format!(
                "{host}: {outcome}; trying again in {time} ({attempt} of {retries})"
            ));
            if let Err(Stop::Outcome(outcome)) = self.visit.pause(pause).await {
                return Err(at_last(lost, outcome).into());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn whole(&mut self, renderer: &mut Renderer) -> Result<ExitStatus, Stop> {
        if self.plan.terminal_in_vain {
            self.notes
                .inform("no terminal, because stdin is not one; -tt asks for one all the same");
        }
        let session = self.visit.connect(&self.plan.endpoint).await?;
        let Plan { user, hash, forwards, .. } = &self.plan;
        let route = Route { session: session.clone(), user: user.clone(), hash: *hash };
        let serving = async {
            let served = forwards.serve(&route, self.notes).await;
            served.map_err(|message| Outcome::Local { message })
        };
        let mut served = self.visit.prepare(serving).await?;
        let Some(mut command) = command(&session, &self.plan) else {
            self.ready.take().into_iter().for_each(|tell| tell());
            return tokio::select! {
                end = self.visit.stay(&session) => end,
                message = served.lost() => Err(Outcome::Local { message }.into()),
            };
        };
        let _served = served.beside(self.notes);
        self.asked_for = Some(command.job_id());
        if self.plan.detach {
            self.job = Some(self.visit.ask(command.detach()).await?);
            return Err(Stop::Left(None));
        }
        let child = self.visit.start(command.spawn()).await?;
        let host = self.plan.endpoint.host.clone();
        let started =
            Started { host, job: child.job().clone(), pid: child.id(), time: SystemTime::now() };
        self.notes.detail(|| {
            let (job, pid, host) = (&started.job, started.pid, printable(&started.host));
            let what = if child.attached() { "came to" } else { "started" };
            format!("{host}: {what} job {job}, process {pid}")
        });
        self.job = Some(started.job.clone());
        self.ready.take().into_iter().for_each(|tell| tell());
        let stdin = self.plan.stdin;
        let streams = renderer.started(&started).await.map(|(stdout, stderr)| Streams {
            stdout: Some(stdout),
            stderr: Some(stderr),
            stdin,
            ends_at_gap: self.plan.ends_at_gap,
            keys: self.plan.terminal.as_ref().map(|terminal| terminal.keys),
        });
        self.visit.attend(child, streams).await
    }
}

/// Who types several words as for ssh may have meant a line.
fn with_hint(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::NeverStarted { reason: NeverStarted::NotFound, message } => {
            let message = format!(
                "{message}; several words are a program and its arguments, and a line for the shell is one word, \
                 or has --shell before the host"
            );
            Outcome::NeverStarted { reason: NeverStarted::NotFound, message }
        }
        other => other,
    }
}

/// Whoever mistypes a subcommand names a host, as far as can be told; but hardly one that is there.
fn with_subcommand(outcome: Outcome, host: &str) -> Outcome {
    match (outcome, args::subcommand_like(host)) {
        (Outcome::Unreachable { message }, Some(name)) => {
            let message = format!("{message}; did you mean 'rexec {name}'?");
            Outcome::Unreachable { message }
        }
        (other, _) => other,
    }
}

/// With the digest that was asked for, or else the fastest.
pub fn digest(command: Command, hash: Option<Algorithm>) -> Command {
    match hash {
        Some(algorithm) => command.digest(algorithm),
        None => command.any_digest(),
    }
}

/// `None` if there is nothing to run.
fn command(session: &Session, plan: &Plan) -> Option<Command> {
    let command = match &plan.work {
        Work::Login => session.login(),
        Work::Line(line) => session.shell(line),
        Work::Argv(program, args) => session.command(program).args(args),
        Work::Subsystem(name) => session.subsystem(name),
        Work::Nothing => return None,
        Work::Connect { host, port } => session.connect_to(host, *port),
        Work::Script { text, args } => session.script(text.clone()).args(args),
    };
    let stdin = if plan.stdin { Stdio::Piped } else { Stdio::Null };
    let variables = plan.env.iter().map(|(name, value)| (name, value));
    let command = match &plan.terminal {
        Some(Terminal { term, locale, .. }) => {
            let locale = locale.iter().map(|(name, value)| (name, value));
            command.terminal(term, tty::size()).locale(locale)
        }
        None => command,
    };
    let command = command.drain(plan.drain).ssh_env(plan.ssh_env);
    let command = digest(command, plan.hash);
    let mut command = command.envs(variables).stdin(stdin).on_full(plan.on_full);
    if let Some(user) = &plan.user {
        command = command.user(user);
    }
    if let Some(dir) = &plan.cwd {
        command = command.current_dir(dir);
    }
    if let Some(limit) = plan.timeout {
        command = command.timeout(limit);
    }
    if let Some(id) = &plan.id {
        command = command.id(id.clone());
    }
    if let Some(then) = plan.on_disconnect {
        command = command.on_disconnect(then);
    }
    Some(command)
}

/// What is told of several attempts. Where an earlier one may have started the command, a last one that does not
/// reach the agent, is refused or interrupted does not mean that nothing was started.
fn at_last(lost: Option<String>, outcome: Outcome) -> Outcome {
    match (lost, &outcome) {
        (Some(lost), Outcome::Unreachable { .. } | Outcome::Denied { .. } | Outcome::Cancelled) => {
            Outcome::Lost { message: format!("{lost}; asked again: {outcome}") }
        }
        _ => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_reached_again_is_not_told_that_nothing_was_started() {
        let away = || Outcome::Unreachable { message: "refused".to_owned() };
        let denied = || Outcome::Denied { message: "not you".to_owned() };
        for last in [away(), denied(), Outcome::Cancelled] {
            let Outcome::Lost { message } = at_last(Some("it was cut".to_owned()), last.clone())
            else {
                panic!("{last:?}")
            };
            assert_eq!(message, format!("it was cut; asked again: {last}"));
            assert_eq!(at_last(None, last.clone()), last);
        }
        let known = Outcome::Exited { code: 3 };
        assert_eq!(at_last(Some("it was cut".to_owned()), known.clone()), known);
    }
}
