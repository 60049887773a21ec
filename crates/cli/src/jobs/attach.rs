//! `rexec attach`: come to a job as if one had started it, or only to look on.

use super::find::Found;
use super::{Call, verified};
use crate::args::Attach;
use crate::attend::{OnSignal, Streams};
use crate::plan::stdin_is_null;
use crate::render::Renderer;
use crate::tty::escape::shown;
use crate::tty::{ESCAPE, Keys, leave_screen};
use rexec_client::{JobId, Place as Begin};
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Stays until the job has ended, and ends as it does; with 254 if output is missing that was asked for.
pub fn run(attach: Attach) -> ExitCode {
    let Attach { name, read_only, live, no_stdin, escape, report, connect } = attach;
    let call = match Call::new(&name.target, connect, &report) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let mut renderer = Renderer::new(call.json, call.notes);
    let on_signal = if read_only { OnSignal::Leave } else { OnSignal::CtrlC };
    let escape = escape.map_or(Some(ESCAPE), |escape| escape.0);
    let json = call.json;
    let (mut from_start, mut looks_on) = (false, false);
    let stdin = !(read_only || no_stdin || stdin_is_null());
    let (mut end, trace) = call.visit(on_signal, async |place| {
        let Found { id, info } = place.find_with_info(&name.job).await?;
        // Of one that somebody holds the list does not say whether it would go on alone.
        place.visit.is_kept = info.as_ref().and_then(|job| job.detached.then_some(true));
        let shows_terminal = !json && info.is_some_and(|job| job.terminal);
        let has_terminal = shows_terminal && !read_only;
        looks_on = shows_terminal && read_only;
        // What a terminal showed before can be drawn again, and must not be played again: programs put
        // questions to it, and its answers would be typed.
        from_start = !(live || has_terminal);
        let begin = if from_start { Begin::Start {} } else { Begin::Live {} };
        let joining = place.session.attach(id).from(begin).control(!read_only).join();
        let child = place.visit.start(joining).await?;
        let started = call.started(&child);
        if !read_only && io::stderr().is_terminal() {
            call.notes.inform(&attached(&started.job, has_terminal.then_some(escape)));
        }
        let sinks = renderer.started(&started).await;
        let streams = sinks.map(|(stdout, stderr)| Streams {
            stdout: Some(stdout),
            stderr: Some(stderr),
            stdin,
            ends_at_gap: false,
            keys: has_terminal.then_some(Keys { escape }),
        });
        place.visit.attend(child, streams).await
    });
    if looks_on && end.is_err() {
        leave_screen();
    }
    if from_start {
        end = end.and_then(verified);
    }
    let end = call.end(end, trace);
    call.conclude(end, &mut renderer)
}

/// What the person who came should know. `terminal` is the escape key there.
fn attached(job: &JobId, terminal: Option<Option<u8>>) -> String {
    match terminal {
        None => format!("attached to job {job}; Ctrl-C ends it, Ctrl-\\ leaves it"),
        Some(None) => format!("attached to the terminal of job {job}"),
        Some(Some(key)) => {
            let key = shown(key);
            format!("attached to the terminal of job {job}; {key}d leaves it, {key}? says more")
        }
    }
}
