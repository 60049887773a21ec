//! What is believed of an agent: when a stream may end, and with what.

use super::{Opening, Remote, lock, wrong};
use crate::error::Error;
use rexec_guard::holds;
use rexec_protocol::message::{Channel, Exit, Started};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Outcome, ProtocolError};

impl Remote {
    /// Whether all output from the first byte on came, and its digests are those of the job's end.
    pub(crate) fn is_verified(&self, exit: &Exit) -> bool {
        self.out.tally() == Some(exit.stdout) && self.err.tally() == Some(exit.stderr)
    }

    /// Whether this client asked for its stream to end before the job.
    pub(super) fn may_detach(&self) -> bool {
        let was_not_to_stay = match &self.opening {
            Opening::Exec { exec, .. } => exec.detach,
            Opening::Attach(attach) => !attach.follow,
        };
        was_not_to_stay || lock(&self.line).is_leaving
    }

    /// Whether an agent may say now that a job ended so.
    pub(super) fn check_exit(&self, outcome: &Outcome) -> Result<(), ProtocolError> {
        let started = lock(&self.line).greeted;
        let did_not_start =
            matches!(outcome, Outcome::NeverStarted { .. } | Outcome::Denied { .. });
        let is_unknown = matches!(outcome, Outcome::Lost { .. });
        if !holds("client.outcome", outcome.is_from_agent()) {
            return Err(wrong("exit", "with an outcome that only a client can know"));
        }
        match (started, did_not_start) {
            (false, false) if !is_unknown => {
                Err(wrong("exit", "before started, but for a command that never ran"))
            }
            (true, true) => Err(wrong("exit", "after started with an outcome that denies it")),
            _ => Ok(()),
        }
    }

    /// The bytes that are here must be the bytes that were sent: the same number, and the same
    /// digest, on both channels. Commands that never ran have none. Who came to a job later may have
    /// missed some, and is told; but what came from the first byte on must be right there, too.
    pub(super) fn complete(&self, exit: Exit, started: Option<&Started>) -> Result<Exit, Error> {
        let ran = started.is_some();
        let is_known_lost = matches!(exit.outcome, Outcome::Lost { .. });
        let is_blind = matches!(&self.opening, Opening::Attach(attach) if !attach.output);
        if is_blind || is_known_lost {
            return Ok(exit);
        }
        for (channel, half, sent) in
            [(Channel::Out, &self.out, exit.stdout), (Channel::Err, &self.err, exit.stderr)]
        {
            if self.is_attach() && half.tally().is_none() {
                continue;
            }
            if ran && !holds("client.output_ended", half.ended()) {
                return Err(Error::incomplete(format!("the end of std{channel} did not come")));
            }
            // What a terminal shows can be drawn again, and was. It counts what was asked for: an agent
            // cannot make a terminal of something that must be whole.
            let is_terminal = matches!(self.opening, Opening::Exec { terminal: true, .. });
            if half.missing() > 0 && holds("client.gap", is_terminal) {
                continue;
            }
            let Some(Tally { size, hash }) = half.tally() else {
                let (missing, outcome) = (half.missing(), &exit.outcome);
                return Err(Error::incomplete(format!(
                    "{missing} bytes of std{channel} are gone; the command itself {outcome}"
                )));
            };
            if size != sent.size {
                let message =
                    format!("std{channel} is incomplete: {size} of {} bytes came", sent.size);
                return Err(Error::incomplete(message));
            }
            // Of nothing there may be the digest of either function: which was not said.
            if ran && !holds("client.output_digest", hash == sent.hash) {
                return Err(Error::incomplete(format!(
                    "std{channel} is not what was sent: {hash}, not {}",
                    sent.hash
                )));
            }
        }
        Ok(exit)
    }
}
