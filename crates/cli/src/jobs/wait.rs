//! `rexec wait`: a job's outcome, without its output.

use super::Call;
use crate::args::Wait;
use crate::attend::{OnSignal, Streams};
use crate::render::Renderer;
use std::process::ExitCode;

/// Waits, and ends as the job does. Ctrl-C leaves.
pub fn run(wait: Wait) -> ExitCode {
    let Wait { name, report, connect } = wait;
    let call = match Call::new(&name.target, connect, &report) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let (end, trace) = call.visit(OnSignal::Leave, async |place| {
        let id = place.find(&name.job).await?;
        let joining = place.session.attach(id).output(false).join();
        let child = place.visit.start(joining).await?;
        place.visit.attend(child, Ok(Streams::none())).await
    });
    let end = call.end(end, trace);
    let mut renderer = Renderer::new(call.json, call.notes);
    call.conclude(end, &mut renderer)
}
