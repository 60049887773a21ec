//! `rexec kill`: ends a job with all that it started, or sends a signal.

use super::{Call, Place, local};
use crate::args::{Kill, Report};
use crate::attend::{OnSignal, Stop, Streams};
use rexec_client::{JobEnd, Outcome, Signal};
use std::process::ExitCode;

/// Succeeds once the job has ended, or with a signal once that is sent.
pub fn run(kill: Kill) -> ExitCode {
    let Kill { name, signal, connect } = kill;
    let call = match Call::new(&name.target, connect, &Report::plain()) {
        Ok(call) => call,
        Err(code) => return code,
    };
    let (end, trace) = call.visit(OnSignal::Leave, async |place| match signal {
        Some(signal) => send(place, &name.job, signal).await.map(|()| None),
        None => end(place, &name.job).await,
    });
    match end {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(words)) => {
            call.notes.inform(&words);
            ExitCode::SUCCESS
        }
        Err(stop) => call.fail(stop, trace),
    }
}

async fn send(place: &mut Place, name: &str, signal: Signal) -> Result<(), Stop> {
    let id = place.find(name).await?;
    let joining = place.session.attach(id.clone()).control(true).output(false).join();
    let child = place.visit.start(joining).await?;
    child.signal(signal).await;
    // The answer to it shows that the signal has arrived, too.
    match place.visit.ask(child.detach()).await? {
        JobEnd::Detached => Ok(()),
        JobEnd::Exited(status) => {
            let outcome = status.outcome();
            Err(local(format!("no signal was sent: job {id} has ended already, {outcome}")))
        }
    }
}

/// Says if there was nothing to end.
async fn end(place: &mut Place, name: &str) -> Result<Option<String>, Stop> {
    let id = place.find(name).await?;
    let joining = place.session.attach(id.clone()).control(true).output(false).join();
    let child = place.visit.start(joining).await?;
    child.cancel().await;
    let status = place.visit.attend(child, Ok(Streams::none())).await?;
    let outcome = status.outcome();
    match outcome {
        Outcome::Cancelled => Ok(None),
        Outcome::Lost { .. } => Err(outcome.clone().into()),
        _ => Ok(Some(format!("job {id} had ended already: {outcome}"))),
    }
}
