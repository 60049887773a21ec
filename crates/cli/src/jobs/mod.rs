//! The subcommands for jobs that are there already: `jobs`, `logs`, `attach`, `wait`, `kill` and `rm`.
//!
//! Each is a visit to an agent, as a run is; see [`crate::attend`].

mod attach;
mod find;
mod kill;
mod list;
mod logs;
mod remove;
mod table;
mod tail;
mod wait;

pub use attach::run as attach;
pub use kill::run as kill;
pub use list::run as list;
pub use logs::run as logs;
pub use remove::run as remove;
pub use wait::run as wait;

use crate::args::{ConnectOptions, Report};
use crate::attend::{OnSignal, Stop, Told, Visit};
use crate::event::{End, Ended, Left, Parting, Started};
use crate::exit::Notes;
use crate::plan::{self, Endpoint};
use crate::render::Renderer;
use crate::status::StatusFd;
use crate::stdio::Output;
use crate::target::Target;
use crate::{close, conclude, fail, report, runtime, start_logging, unreported};
use rexec_client::{Child, ExitStatus, JobId, Outcome, Session};
use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::SystemTime;
use tokio::runtime::Runtime;

/// What every one of them has.
struct Call {
    endpoint: Endpoint,
    notes: Notes,
    /// What to type to come to a job, but for its id.
    again: String,
    json: bool,
    status: Option<StatusFd>,
    runtime: Runtime,
}

/// A visit under way.
struct Place {
    visit: Visit,
    session: Session,
    /// The job that it is about, once that is known.
    job: Option<JobId>,
}

/// What is left of a visit.
#[derive(Default)]
struct Trace {
    job: Option<JobId>,
    closed: Vec<Output>,
    left: Option<Parting>,
    /// The client was there to end the job, not only to look on.
    controls: bool,
}

impl Call {
    /// `Err`: it has been said what is wrong.
    fn new(target: &OsStr, connect: ConnectOptions, report: &Report) -> Result<Self, ExitCode> {
        let json = report.json;
        let host = Target::parse(target).ok().map(|target| target.host);
        // First of all, so that the number can only mean a descriptor that was passed in.
        let status = match report.status_fd.map(StatusFd::open).transpose() {
            Ok(status) => status,
            Err(why) => return Err(fail(Ended::local(host, why), json, None)),
        };
        let level = plan::log_level(&connect);
        start_logging(level);
        let again = plan::again(&connect, &target.display().to_string());
        let ready = plan::endpoint_of(target, connect, &|name| std::env::var_os(name))
            .and_then(|endpoint| Ok((endpoint, runtime()?)));
        match ready {
            Ok((endpoint, runtime)) => {
                let notes = Notes::new(level);
                Ok(Self { endpoint, notes, again, json, status, runtime })
            }
            Err(why) => Err(fail(Ended::local(host, why), json, status)),
        }
    }

    /// Connects, and does `what`.
    fn visit<T>(
        &self,
        on_signal: OnSignal,
        what: impl AsyncFnOnce(&mut Place) -> Result<T, Stop>,
    ) -> (Result<T, Stop>, Trace) {
        self.runtime.block_on(async {
            let mut visit = match Visit::new(&self.endpoint.host, self.notes, on_signal) {
                Ok(visit) => visit,
                Err(outcome) => return (Err(outcome.into()), Trace::default()),
            };
            let session = match visit.connect(&self.endpoint).await {
                Ok(session) => session,
                Err(stop) => return (Err(stop), Trace::default()),
            };
            let mut place = Place { visit, session, job: None };
            let end = what(&mut place).await;
            let Place { visit: Visit { closed, left, .. }, job, session } = place;
            drop(session);
            // The connection was just dropped, and its writer has a goodbye to say.
            tokio::task::yield_now().await;
            (end, Trace { job, closed, left, controls: on_signal != OnSignal::Leave })
        })
    }

    /// The end of a visit in the terms of a run.
    fn end(&self, end: Result<ExitStatus, Stop>, trace: Trace) -> End {
        let Trace { job, closed, left, controls } = trace;
        let host = self.endpoint.host.clone();
        let told = match (Told::of(end), job.clone()) {
            (Ok(told), _) => told,
            (Err(signal), Some(job)) => {
                let again = (controls && signal.is_none()).then(|| format!("{} {job}", self.again));
                return End::Left(Left { host, job, signal, again });
            }
            (Err(_), None) => Outcome::Cancelled.into(),
        };
        let is_there = controls && told.status.is_none() && told.may_be_there(left);
        let again = job.as_ref().filter(|_| is_there).map(|job| format!("{} {job}", self.again));
        let Told { outcome, status, is_unknown } = told;
        let known = Ended { is_visit: true, is_unknown, ..Ended::of(Some(host), outcome) };
        End::Over(Box::new(Ended { job, status, closed, left, again, ..known }))
    }

    /// Tells of the end wherever that is wanted.
    fn conclude(self, end: End, renderer: &mut Renderer) -> ExitCode {
        let Self { notes, status, runtime, .. } = self;
        let end = runtime.block_on(close(end, renderer));
        // A thread that is still reading is not waited for.
        runtime.shutdown_background();
        conclude(end, notes, status)
    }

    /// Tells programs how a job ended, where they asked for it, and succeeds.
    fn record(mut self, end: &End, renderer: &mut Renderer) -> ExitCode {
        // What cannot be written was not asked for in vain: it is the last of the output.
        let closed = self.runtime.block_on(close(end.clone(), renderer));
        self.runtime.shutdown_background();
        match report(self.status.as_mut(), &closed) {
            Err(error) => fail(unreported(closed, &error), self.json, None),
            Ok(()) => ExitCode::SUCCESS,
        }
    }

    /// Tells why something was not done.
    fn fail(self, stop: Stop, trace: Trace) -> ExitCode {
        let mut renderer = Renderer::new(self.json, self.notes);
        let end = self.end(Err(stop), trace);
        self.conclude(end, &mut renderer)
    }

    fn started(&self, child: &Child) -> Started {
        let (host, job, pid) = (self.endpoint.host.clone(), child.job().clone(), child.id());
        Started { host, job, pid, time: SystemTime::now() }
    }
}

/// The outcome of output that is not all there, from the first byte to the last, is that instead of its
/// job's status.
fn verified(status: ExitStatus) -> Result<ExitStatus, Stop> {
    if status.is_verified() {
        return Ok(status);
    }
    let (out, err, outcome) = (status.stdout().size, status.stderr().size, status.outcome());
    let message = match outcome {
        Outcome::Lost { .. } => {
            format!(
                "nobody knows where the output would have ended: {outcome}; the command has run, but its output here \
                 is not to be trusted"
            )
        }
        _ => format!(
            "some of the output is gone, so it cannot be verified: there were {out} bytes of stdout and {err} of stderr; the command itself {outcome}"
        ),
    };
    Err(Outcome::Incomplete { message }.into())
}

/// The same for a job of which the agent remembers the end alone.
fn there(status: ExitStatus) -> Result<ExitStatus, Stop> {
    if status.is_verified() {
        return Ok(status);
    }
    let (out, err, outcome) = (status.stdout().size, status.stderr().size, status.outcome());
    let message = format!(
        "the job was removed, dropped at a limit, or kept for long enough: its output is gone, {out} bytes of stdout and {err} of stderr; the command itself {outcome}"
    );
    Err(Outcome::Incomplete { message }.into())
}

/// The outcome of output that is `wanted`, stdout and stderr, and of which some is missing, is that instead of
/// its job's status.
fn whole(status: ExitStatus, wanted: (bool, bool)) -> Result<ExitStatus, Stop> {
    let missing = status.missing();
    let of = |wanted, bytes: u64, name| {
        (wanted && bytes > 0).then(|| format!("{bytes} bytes of {name}"))
    };
    let gone = [of(wanted.0, missing.out, "stdout"), of(wanted.1, missing.err, "stderr")];
    let gone: Vec<String> = gone.into_iter().flatten().collect();
    if gone.is_empty() {
        return Ok(status);
    }
    let (gone, outcome) = (gone.join(" and "), status.outcome());
    let message = format!("{gone} are gone; the command itself {outcome}");
    Err(Outcome::Incomplete { message }.into())
}

/// A failure on this side, or of the one who typed.
fn local(message: String) -> Stop {
    Outcome::Local { message }.into()
}
