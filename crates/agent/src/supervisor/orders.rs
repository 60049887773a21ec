//! What is done with a job that somebody has asked for: a client, the agent, or a clock.

use super::{Cause, Control, Leftovers, MAX_GRACE, OVERDUE, Supervisor};
use crate::log::disk::Urgency;
use rexec_protocol::Signal;
use rexec_protocol::message::{Cancel, Channel, TerminalSize};
use std::time::Duration;
use tokio::time::Instant;

impl Supervisor {
    pub(super) async fn control(&mut self, control: Control) {
        match control {
            Control::Signal(signal) => self.signal(signal).await,
            Control::Cancel(Cancel { signal, grace_ms }) => {
                let grace = Duration::from_millis(grace_ms).min(MAX_GRACE);
                self.end(Cause::Cancelled, signal, Some(grace)).await;
            }
            Control::Resize(size) => self.resize(size),
            Control::Stop(channel) => {
                self.close(channel).await;
                if self.terminal.is_some() && channel == Channel::Out {
                    // There is no SIGPIPE for it: nobody looks at a terminal any more.
                    self.end(Cause::Cancelled, Signal::HUP, None).await;
                }
            }
            Control::Keep(told) => {
                self.intake.keep();
                self.amend().await;
                told.cancel();
            }
            Control::Shutdown => self.end(Cause::Shutdown, self.polite(), None).await,
        }
    }

    /// What a limit of the kept output must not hold up any more.
    pub(super) fn hurry(&mut self) {
        let urgency = match (&self.ended, self.ending) {
            (None, _) => Urgency::None,
            (Some(_), false) => Urgency::Ended,
            (Some(_), true) => Urgency::Ending,
        };
        let gives_up = urgency == Urgency::Ended && self.terms.leftovers != Leftovers::Awaited;
        self.intake.hurry(urgency, gives_up);
    }

    /// The first signal of an end that was not asked for by name. Interactive shells ignore TERM; a
    /// terminal that hangs up is what they expect.
    pub(super) fn polite(&self) -> Signal {
        if self.terminal.is_some() { Signal::HUP } else { Signal::TERM }
    }

    fn resize(&self, size: TerminalSize) {
        let Some(terminal) = &self.terminal else { return };
        if let Err(error) = terminal.resize(size) {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    async fn signal(&mut self, signal: Signal) {
        if let Err(error) = self.keeper.signal(signal).await {
            tracing::debug!(%error, "a signal came too late");
        }
    }

    /// Ends the tree. The first cause names the outcome, unless the command had ended by itself; a
    /// later one can only shorten the grace.
    pub(super) async fn end(&mut self, cause: Cause, signal: Signal, grace: Option<Duration>) {
        if self.ended.is_none() && self.cause.is_none() {
            self.cause = Some(cause);
            self.amend().await;
        }
        self.ending = true;
        self.hurry();
        let grace = grace.unwrap_or(self.limits.kill_grace);
        let overdue = Instant::now() + grace + OVERDUE;
        self.overdue = Some(self.overdue.map_or(overdue, |earlier| earlier.min(overdue)));
        if let Err(error) = self.keeper.end(signal, grace).await {
            tracing::debug!(%error, "the keeper is gone, or hangs");
        }
    }

    /// A keeper that hangs (a command of the same user can stop it) must not hold up the end.
    pub(super) fn give_up_on_keeper(&mut self) {
        tracing::error!("the keeper of a job hangs; killing it, and what it watches");
        self.keeper.kill();
        self.keeper_said(None);
    }

    /// The client is gone for good: nobody reads the output any more.
    pub(super) async fn abandon(&mut self) {
        self.abandoned = true;
        self.job.log.abandon();
        self.end(Cause::Disconnected, Signal::HUP, None).await;
    }
}
