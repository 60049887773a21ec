//! `rexec jobs`: what runs, and what waits for somebody to fetch its end.

use super::{Call, table};
use crate::args::{Listing, Report};
use crate::attend::OnSignal;
use crate::status::{VERSION, json_line, time};
use crate::written;
use rexec_client::{JobInfo, Outcome};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// A job as a line of JSON. Every key is always there.
#[derive(Debug, Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    id: &'a str,
    /// The identity that submitted it.
    owner: &'a str,
    /// The local user it runs as.
    user: &'a str,
    command: &'a str,
    /// `running`, `waiting`, or the name of its outcome.
    state: &'static str,
    /// Why it waits.
    waiting: Option<&'a str>,
    /// What `rexec wait` would end with.
    code: Option<u8>,
    pid: u32,
    started: String,
    ended: Option<String>,
    stdout: Extent,
    stderr: Extent,
    attached: u32,
    detached: bool,
    terminal: bool,
}

/// How much of a stream there was, and from where on it can be read.
#[derive(Debug, Serialize)]
struct Extent {
    bytes: u64,
    kept_from: u64,
}

/// Prints a table, or JSON Lines.
pub fn run(jobs: Listing) -> ExitCode {
    let Listing { json, target, connect } = jobs;
    let report = Report { json, ..Report::plain() };
    let call = match Call::new(&target, connect, &report) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let (listed, trace) = call.visit(OnSignal::Leave, async |place| {
        let session = place.session.clone();
        place.visit.ask(session.jobs()).await
    });
    let jobs = match listed {
        Ok(jobs) => jobs,
        Err(stop) => return call.fail(stop, trace),
    };
    let text = if json {
        jobs.iter().flat_map(|job| json_line(&Line::new(&call.endpoint.host, job))).collect()
    } else {
        // Whoever reads a file, or searches, wants it whole.
        let is_cut = io::stdout().is_terminal();
        table::of(&jobs, SystemTime::now(), is_cut).into_bytes()
    };
    written(io::stdout().write_all(&text))
}

/// The name of a job's state.
pub(super) fn state(job: &JobInfo) -> &'static str {
    let running = if job.waiting.is_some() { "waiting" } else { "running" };
    job.outcome.as_ref().map_or(running, Outcome::name)
}

/// A time of the agent.
pub(super) fn moment(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl<'a> Line<'a> {
    fn new(host: &'a str, job: &'a JobInfo) -> Self {
        let extent = |bytes, kept_from| Extent { bytes, kept_from };
        Self {
            v: VERSION,
            r#type: "job",
            host,
            id: job.job.as_str(),
            owner: &job.owner,
            user: &job.user,
            command: &job.command,
            state: state(job),
            waiting: job.waiting.as_deref(),
            code: job.outcome.as_ref().map(Outcome::exit_code),
            pid: job.pid,
            started: time(moment(job.started_ms)),
            ended: job.ended_ms.map(|ms| time(moment(ms))),
            stdout: extent(job.size.out, job.kept_from.out),
            stderr: extent(job.size.err, job.kept_from.err),
            attached: job.attached,
            detached: job.detached,
            terminal: job.terminal,
        }
    }
}
