//! `rexec attach`: come to a job as if one had started it, or only to look on.

use super::Call;
use crate::args::Attach;
use crate::attend::{OnSignal, Streams};
use crate::plan::stdin_is_null;
use crate::render::Renderer;
use rexec_client::Place as Begin;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Stays until the job has ended, and ends as it does.
pub fn run(attach: Attach) -> ExitCode {
    let Attach { name, read_only, live, no_stdin, report, connect } = attach;
    let call = match Call::new(&name.target, connect, &report) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let mut renderer = Renderer::new(call.json, call.notes);
    let on_signal = if read_only { OnSignal::Leave } else { OnSignal::Cancel };
    let begin = if live { Begin::Live {} } else { Begin::Start {} };
    let stdin = !(read_only || no_stdin || stdin_is_null());
    let (end, trace) = call.visit(on_signal, async |place| {
        let id = place.find(&name.job).await?;
        let joining = place.session.attach(id).from(begin).control(!read_only).join();
        let child = place.visit.start(joining).await?;
        let started = call.started(&child);
        if !read_only && io::stderr().is_terminal() {
            call.notes.inform(&format!(
                "attached to job {}; Ctrl-C ends it, with --read-only it only leaves",
                started.job
            ));
        }
        let sinks = renderer.started(&started).await;
        let streams = sinks.map(|(stdout, stderr)| Streams {
            stdout: Some(stdout),
            stderr: Some(stderr),
            stdin,
        });
        place.visit.attend(child, streams).await
    });
    let end = call.end(end, trace);
    call.conclude(end, &mut renderer)
}
