//! `rexec logs`: what a job has printed.

use super::find::Found;
use super::list::moment;
use super::{Call, Place, local, tail, there, verified, whole};
use crate::args::Logs;
use crate::attend::{OnSignal, Stop, Streams};
use crate::render::cast::Header;
use crate::render::{Renderer, Sink};
use crate::values::Since;
use rexec_client::{ExitStatus, JobInfo, Offsets, Place as Begin, printable};
use std::process::ExitCode;
use std::time::SystemTime;

/// What a terminal is taken for whose size is not known.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Prints what there is, and with `-f` what comes; succeeds if that could be done, however the job ended, and
/// if no output of a job that has ended is missing.
pub fn run(logs: &Logs) -> ExitCode {
    let call = match Call::new(&logs.name.target, logs.connect.clone(), &logs.report) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let mut renderer = if logs.timestamps {
        Renderer::with_times(call.notes)
    } else {
        Renderer::new(call.json, call.notes)
    };
    let mut is_gone = false;
    let (end, trace) = call.visit(OnSignal::Leave, async |place| {
        let found = place.find_with_info(&logs.name.job).await?;
        // Only the end of the job is remembered.
        is_gone = found.info.is_none();
        if logs.asciicast {
            renderer = Renderer::recording(header(&found));
        }
        show(&call, place, &mut renderer, logs, found).await
    });
    let end = end.and_then(|status| match () {
        () if is_gone => there(status),
        () if logs.verify => verified(status),
        () => whole(status, wanted(logs)),
    });
    let has_shown = end.is_ok();
    let end = call.end(end, trace);
    if !has_shown {
        return call.conclude(end, &mut renderer);
    }
    // Only programs are told how the job ended: whoever reads output did not ask.
    call.record(&end, &mut renderer)
}

async fn show(
    call: &Call,
    place: &mut Place,
    renderer: &mut Renderer,
    logs: &Logs,
    found: Found,
) -> Result<ExitStatus, Stop> {
    let is_running = found.info.as_ref().is_some_and(|info| info.outcome.is_none());
    if logs.verify && is_running && !logs.follow {
        return Err(local(format!(
            "job {} still runs, so there is no end to check its output against; -f waits for it",
            found.id
        )));
    }
    let begin = begin(place, logs, found.info.as_ref()).await?;
    // What has ended has an end, which tells whether all of it is there.
    let has_ended = found.info.as_ref().is_some_and(|info| info.outcome.is_some());
    let attach = place.session.attach(found.id).from(begin).times(true);
    let joining = attach.follow(logs.follow || logs.verify || has_ended).join();
    let child = place.visit.start(joining).await?;
    let sinks = renderer.started(&call.started(&child)).await;
    let (wants_stdout, wants_stderr) = wanted(logs);
    // What is to be verified must be read, whoever sees it.
    let unseen = || logs.verify.then_some(Sink::Nowhere);
    let streams = sinks.map(|(stdout, stderr)| Streams {
        stdout: if wants_stdout { Some(stdout) } else { unseen() },
        stderr: if wants_stderr { Some(stderr) } else { unseen() },
        stdin: false,
        ends_at_gap: false,
        keys: None,
    });
    place.visit.attend(child, streams).await
}

/// Whether stdout is to be seen, and whether stderr is. An offset is one of one stream.
fn wanted(logs: &Logs) -> (bool, bool) {
    let is_offset = matches!(logs.since, Some(Since::Offset(_)));
    (!logs.stderr, !(logs.stdout || is_offset && !logs.stderr))
}

async fn begin(place: &mut Place, logs: &Logs, info: Option<&JobInfo>) -> Result<Begin, Stop> {
    let at = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Begin::Time { ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    };
    if let (Some(count), Some(job)) = (logs.tail, info) {
        let (session, count) =
            (place.session.clone(), usize::try_from(count).unwrap_or(usize::MAX));
        let looking = tail::begin(&session, job, count, wanted(logs));
        return Ok(Begin::Offsets(place.visit.ask(looking).await?));
    }
    Ok(match logs.since {
        None => Begin::Start {},
        Some(Since::Offset(at)) => {
            // Of a job that is only remembered all is gone, wherever it began.
            let Some(size) = info.map(|info| info.size) else { return Ok(Begin::Start {}) };
            let (name, size) =
                if logs.stderr { ("stderr", size.err) } else { ("stdout", size.out) };
            if at > size {
                return Err(local(format!("--since {at}: there are only {size} bytes of {name}")));
            }
            let (out, err) = if logs.stderr { (0, at) } else { (at, 0) };
            Begin::Offsets(Offsets { out, err })
        }
        Some(Since::Time(time)) => at(time),
        Some(Since::Ago(time)) => {
            // The times of the output are the agent's.
            let session = place.session.clone();
            let now = place.visit.ask(session.agent_time()).await?;
            let now = now.unwrap_or_else(SystemTime::now);
            at(now.checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH))
        }
    })
}

fn header(found: &Found) -> Header {
    let info = found.info.as_ref();
    let begin = info.map_or_else(SystemTime::now, |info| moment(info.started_ms));
    let title =
        info.map_or_else(|| found.id.to_string(), |info: &JobInfo| printable(&info.command));
    let terminal = info.is_some_and(|info| info.terminal);
    // A program may have been told that there is none.
    let size =
        info.and_then(|info| info.terminal_size).filter(|size| size.columns > 0 && size.rows > 0);
    let (columns, rows) = size.map_or((COLUMNS, ROWS), |size| (size.columns, size.rows));
    Header { columns, rows, begin, title, terminal }
}
