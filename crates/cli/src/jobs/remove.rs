//! `rexec rm`: jobs that have ended are forgotten.

use super::{Call, Place, local};
use crate::args::{Report, Rm};
use crate::attend::{OnSignal, Stop};
use rexec_client::printable;
use std::process::ExitCode;

/// Removes each; fails if one could not be.
pub fn run(rm: Rm) -> ExitCode {
    let Rm { target, jobs, connect } = rm;
    let call = match Call::new(&target, connect, &Report::plain()) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let (end, trace) = call.visit(OnSignal::Leave, async |place| {
        let mut faults = Vec::new();
        for name in &jobs {
            match remove(place, name).await {
                // It is about this job only.
                Err(Stop::Outcome(outcome)) if outcome.exit_code() != 255 => {
                    faults.push(outcome.to_string());
                }
                end => end?,
            }
        }
        let last = faults.pop();
        for fault in faults {
            call.notes.say(&format!("{}: {fault}", printable(&call.endpoint.host)));
        }
        last.map_or(Ok(()), |last| Err(local(last)))
    });
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => call.fail(stop, trace),
    }
}

async fn remove(place: &mut Place, name: &str) -> Result<(), Stop> {
    let id = place.find(name).await?;
    let session = place.session.clone();
    place.visit.ask(session.remove(&id)).await
}
