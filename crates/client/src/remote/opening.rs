//! How a stream of a job is opened, on its first connection and on those that go on for one that was cut.

use super::{Place, Progress, Remote, WINDOW, lock, wrong};
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_protocol::flow::RecvWindow;
use rexec_protocol::message::{
    Attach, Channel, Detach, Exec, From, Message, Offsets, Resize, Started, Stop,
};
use rexec_protocol::{Frame, ProtocolError, StreamId};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What opens the stream of a job.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A submission, with its encoded body.
    Exec {
        exec: Exec,
        body: Vec<u8>,
        /// It asks for a terminal.
        terminal: bool,
        /// How its output was cut when it came is to be known.
        in_pieces: bool,
    },
    /// A job that is there.
    Attach(Attach),
}

/// When a job was first asked for.
#[derive(Debug)]
pub(super) struct Asked {
    by_ticks: Instant,
    by_clock: SystemTime,
}

impl Asked {
    pub(super) fn now() -> Self {
        Self { by_ticks: Instant::now(), by_clock: SystemTime::now() }
    }

    /// How long ago that is, or more. One clock stands still while this machine sleeps, the other can
    /// be set back.
    fn age(&self) -> Duration {
        let by_clock = self.by_clock.elapsed().unwrap_or_default();
        self.by_ticks.elapsed().max(by_clock)
    }
}

impl Remote {
    /// What is before the place that was asked for is missed on purpose.
    pub(super) fn skip_to_place(&self) {
        let Opening::Attach(Attach { from: From::Offsets(have), .. }) = self.opening else {
            return;
        };
        self.out.skip_to(have.out);
        self.err.skip_to(have.err);
    }

    /// Takes `stream` of a connection as the one for this job, and gives the frame that opens it.
    pub(crate) fn open(&self, stream: StreamId, outbox: &Outbox) -> Frame {
        let mut line = lock(&self.line);
        let window = WINDOW.saturating_sub(line.unread);
        let credit = RecvWindow::after(line.unread, WINDOW, window);
        let output = RecvCredit::new(stream, credit, outbox.clone());
        let is_first = line.place.is_none();
        line.place = Some(Place { stream, outbox: outbox.clone(), output });
        line.greeted = false;
        line.ended_before = [self.out.ended(), self.err.ended()];
        line.is_cancel_sent = false;
        line.sends_at_once = is_first && !self.is_attach();
        let sends_at_once = line.sends_at_once;
        drop(line);
        self.input.open(stream, outbox, sends_at_once);
        let have = Offsets { out: self.out.offset(), err: self.err.offset() };
        match &self.opening {
            Opening::Exec { exec, body, .. } => {
                let age_ms = (!is_first).then(|| self.age_ms());
                let exec = Exec { window, age_ms, have, ..exec.clone() };
                Frame::with_body(stream, exec.into(), body.clone())
            }
            Opening::Attach(attach) => {
                let from = if is_first { attach.from } else { From::Offsets(have) };
                Frame::new(stream, Attach { window, from, ..attach.clone() }.into())
            }
        }
    }

    /// For how long an agent must know all jobs to be sure that it never had this one; one that has
    /// started is not to be started again, whatever the agent knows.
    fn age_ms(&self) -> u64 {
        if !matches!(*self.progress.borrow(), Progress::Requested) {
            return Exec::STARTED;
        }
        u64::try_from(self.asked.age().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn started(self: &Arc<Self>, started: Started) -> Result<(), ProtocolError> {
        let mut line = lock(&self.line);
        if std::mem::replace(&mut line.greeted, true) {
            return Err(wrong("started", "twice"));
        }
        // Before anybody who writes hears of it.
        let joined = if started.attached && line.sends_at_once {
            self.input.join(started.stdin)
        } else {
            Ok(())
        };
        let (mut known, is_new) = (None, matches!(*self.progress.borrow(), Progress::Requested));
        if is_new {
            self.digest_as(&started)?;
        }
        self.progress.send_modify(|progress| match progress {
            Progress::Requested => *progress = Progress::Started(started.clone()),
            Progress::Started(before) | Progress::Over(Some(before), _) => {
                known = Some(before.clone());
            }
            Progress::Over(None, _) => {}
        });
        if known.is_some_and(|known| known.job != started.job || !started.attached) {
            return Err(wrong("started", "for another job than this stream's"));
        }
        let mut again: Vec<Message> = Vec::new();
        if started.attached {
            let channels = [(Channel::Out, line.stopped[0]), (Channel::Err, line.stopped[1])];
            let stopped = channels.into_iter().filter(|(_, stopped)| *stopped);
            again.extend(stopped.map(|(channel, _)| Stop { channel }.into()));
            again.extend(line.size.map(|size| Resize { size }.into()));
            if line.is_leaving {
                again.push(Detach {}.into());
            }
        }
        if let Some(cancel) = line.cancel.filter(|_| !line.is_cancel_sent) {
            line.is_cancel_sent = true;
            again.push(cancel.into());
        }
        let place = line.place.as_ref().map(|place| (place.stream, place.outbox.clone()));
        let sends_at_once = line.sends_at_once;
        drop(line);
        if let Err(error) = joined {
            self.give_up(error);
        } else if !sends_at_once {
            // Also to a job that only this sending has started: the one before did not arrive.
            Arc::clone(self).resume_input(&started);
        }
        if let Some((stream, outbox)) = place {
            for message in again {
                // A full lane at this moment is that of an agent that reads nothing.
                let _ = outbox.try_control(Frame::new(stream, message));
            }
        }
        Ok(())
    }

    /// Only now is it known how the job's streams are digested. Nothing of them is on its way yet.
    fn digest_as(&self, started: &Started) -> Result<(), ProtocolError> {
        if let Opening::Exec { exec: Exec { digest: Some(asked), .. }, .. } = &self.opening
            && !started.attached
            && started.digest != *asked
        {
            return Err(wrong("started", "with another digest than was asked for"));
        }
        if started.digest != self.algorithm {
            self.out.restart(started.digest);
            self.err.restart(started.digest);
            self.input.digest_by(started.digest);
            self.skip_to_place();
        }
        Ok(())
    }

    /// Sends again what the agent does not have of stdin, and then lets the writer go on.
    fn resume_input(self: Arc<Self>, started: &Started) {
        let (at, digest) = (started.stdin, started.digest);
        // Who came to the job does not know what others sent before, so its digests begin anew.
        let rewound =
            if self.is_attach() { self.input.restart(at, digest) } else { self.input.rewind(at) };
        if let Err(error) = rewound {
            return self.fail(error);
        }
        // Now, and not in the task: by then there may be another connection, with another place.
        if let Some(line) = self.input.line() {
            tokio::spawn(async move { self.input.send_again(line).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock of ticks stands still meanwhile, and an agent would believe that it knows everything.
    #[test]
    fn a_request_grows_older_while_its_machine_sleeps() {
        let hour = Duration::from_secs(3600);
        let slept = Asked { by_ticks: Instant::now(), by_clock: SystemTime::now() - hour };
        assert!(slept.age() >= hour);
        let set_back = Asked { by_ticks: Instant::now(), by_clock: SystemTime::now() + hour };
        assert!(set_back.age() < hour);
    }
}
