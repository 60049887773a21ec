//! One job, as its client sees it: what has come of it so far, on whichever connection.

mod check;
mod opening;

pub(crate) use opening::Opening;

use crate::error::Error;
use crate::half::Half;
use crate::input::Input;
use opening::Asked;
use rexec_guard::holds;
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_net::inbox::End as InboxEnd;
use rexec_protocol::message::{
    Cancel, Channel, Detach, Exit, From, Message, Refusal, Refused, Resize, Started, Stop,
    TerminalSize,
};
use rexec_protocol::{Algorithm, Frame, JobId, Outcome, ProtocolError, StreamId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How much output may be under way or unread, stdout and stderr together.
pub(crate) const WINDOW: u64 = 2 * 1024 * 1024;

/// A job on some agent, shared by its connections and its handles.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The digest of its streams, until `started` names another.
    algorithm: Algorithm,
    opening: Opening,
    asked: Asked,
    out: Half,
    err: Half,
    line: Mutex<Line>,
    /// How many pieces of output came.
    pieces: AtomicU64,
    pub(crate) input: Input,
    progress: watch::Sender<Progress>,
}

/// The stream on the connection of now.
#[derive(Debug, Default)]
struct Line {
    place: Option<Place>,
    /// Output that came, on whatever stream, and was not consumed yet.
    unread: u64,
    /// `started` came on it.
    greeted: bool,
    /// Stdin goes out on it from its first byte, without being asked for.
    sends_at_once: bool,
    /// Channels that had ended before it, of which it may tell again.
    ended_before: [bool; 2],
    /// Outputs that nobody wants any more.
    stopped: [bool; 2],
    /// What was asked for last, until the job has ended: it must not get lost with a connection.
    cancel: Option<Cancel>,
    is_cancel_sent: bool,
    /// The same for the size of the terminal, and for the wish to leave.
    size: Option<TerminalSize>,
    is_leaving: bool,
}

#[derive(Debug)]
struct Place {
    stream: StreamId,
    outbox: Outbox,
    /// Credit for both output channels together.
    output: RecvCredit,
}

/// How far the job is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Requested,
    Started(Started),
    /// The last word: how it ended, or why that is not known.
    Over(Option<Started>, Result<End, Error>),
}

/// The end of a stream.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The job has ended.
    Exit(Exit),
    /// The job goes on without this client.
    Detached,
}

impl Remote {
    pub(crate) fn new(opening: Opening, algorithm: Algorithm) -> Arc<Self> {
        let in_pieces =
            matches!(opening, Opening::Attach(_) | Opening::Exec { in_pieces: true, .. });
        let half = || Half::new(algorithm, in_pieces);
        let remote = Self {
            algorithm,
            asked: Asked::now(),
            out: half(),
            err: half(),
            line: Mutex::default(),
            pieces: AtomicU64::new(0),
            input: Input::new(algorithm),
            progress: watch::Sender::new(Progress::Requested),
            opening,
        };
        remote.skip_to_place();
        Arc::new(remote)
    }

    /// The connection is gone, and another may come.
    pub(crate) fn cut(&self) {
        self.input.cut();
    }

    /// True until the last word was heard.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(*self.progress.borrow(), Progress::Over(..))
    }

    /// The job's id, as far as it is known.
    pub(crate) fn job(&self) -> Option<JobId> {
        match &self.opening {
            Opening::Exec { exec, .. } => exec.job.clone(),
            Opening::Attach(attach) => Some(attach.job.clone()),
        }
    }

    /// Whether this client came to a job of which output may be gone.
    pub(crate) fn is_attach(&self) -> bool {
        matches!(self.opening, Opening::Attach(_))
    }

    /// Whether this client did not ask for the first bytes, wherever the agent begins.
    fn begins_late(&self) -> bool {
        let Opening::Attach(attach) = &self.opening else { return false };
        matches!(attach.from, From::Live {} | From::Time { .. })
    }

    /// Takes a frame of this job's stream. True if it was the last one.
    pub(crate) fn receive(self: &Arc<Self>, frame: Frame) -> Result<bool, ProtocolError> {
        let received = self.take(frame);
        // The connection ends with any fault. For the command whose output it is, altered output is
        // more than a lost connection.
        if let Err(fault @ (ProtocolError::HashMismatch | ProtocolError::Offset { .. })) = &received
        {
            self.over(Err(Error::incomplete(format!(
                "the output was altered on its way: {fault}"
            ))));
        }
        received
    }

    fn take(self: &Arc<Self>, frame: Frame) -> Result<bool, ProtocolError> {
        match frame.message {
            Message::Started(started) => self.started(started)?,
            Message::Data(data) => {
                let half = self.running("data")?.half(data.channel, "data")?;
                let length = frame.body.len() as u64;
                {
                    let mut line = lock(&self.line);
                    if let Some(place) = &line.place {
                        place.output.received(length)?;
                    }
                    line.unread += length;
                }
                half.data(data, frame, self.pieces.fetch_add(1, Ordering::AcqRel))?;
            }
            Message::Gap(gap) => {
                let half = self.running("gap")?.half(gap.channel, "gap")?;
                half.gap(gap, self.begins_late())?;
            }
            Message::Eof(eof) => {
                let half = self.running("eof")?.half(eof.channel, "eof")?;
                let index = usize::from(eof.channel == Channel::Err);
                let before = lock(&self.line).ended_before.get_mut(index).map(std::mem::take);
                half.eof(eof, before == Some(true))?;
            }
            Message::Window(window) => self.input.raise(window),
            Message::Stop(stop) if stop.channel == Channel::In => self.input.stop(),
            Message::Stop(_) => {
                return Err(wrong("stop", "for the sender's own channel"));
            }
            Message::Exit(exit) => {
                self.check_exit(&exit.outcome)?;
                self.over(Ok(End::Exit(exit)));
                return Ok(true);
            }
            Message::Detach(_) => {
                self.over(if holds("client.detach", self.may_detach()) {
                    Ok(End::Detached)
                } else {
                    Err(Error::lost("the agent has ended the stream of a job that goes on"))
                });
                return Ok(true);
            }
            Message::Refused(refused) => {
                self.over(Err(refusal(refused)));
                return Ok(true);
            }
            Message::Error(error) => {
                self.over(Err(Error::lost(format!("{} ({})", error.message, error.code))));
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    /// Ends everything that waits for this job: there is no connection, and none will come.
    pub(crate) fn fail(&self, error: Error) {
        self.over(Err(error));
    }

    /// Waits until the command runs, or is over before it did.
    pub(crate) async fn wait_started(&self) -> Result<Started, Error> {
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(|progress| !matches!(progress, Progress::Requested)).await;
        match known.as_deref() {
            Ok(Progress::Started(started) | Progress::Over(Some(started), _)) => {
                Ok(started.clone())
            }
            Ok(Progress::Over(None, Ok(End::Exit(exit)))) => Err(Error::of_exit(exit)),
            Ok(Progress::Over(None, Err(error))) => Err(error.clone()),
            // `self` holds the sender.
            Ok(Progress::Requested | Progress::Over(None, Ok(End::Detached))) | Err(_) => {
                Err(Error::local("the session ended"))
            }
        }
    }

    /// Waits for the end: the exit record, if the output that came with it is complete.
    pub(crate) async fn wait_over(&self) -> Result<End, Error> {
        let mut progress = self.progress.subscribe();
        let over = progress.wait_for(|progress| matches!(progress, Progress::Over(..))).await;
        match over.as_deref() {
            Ok(Progress::Over(started, Ok(End::Exit(exit)))) => {
                self.complete(exit.clone(), started.as_ref()).map(End::Exit)
            }
            Ok(Progress::Over(_, Ok(End::Detached))) => Ok(End::Detached),
            Ok(Progress::Over(_, Err(error))) => Err(error.clone()),
            _ => Err(Error::local("the session ended")),
        }
    }

    /// An output channel.
    pub(crate) fn output(&self, channel: Channel) -> &Half {
        if channel == Channel::Err { &self.err } else { &self.out }
    }

    /// Output was consumed, or will never be.
    pub(crate) fn consumed(&self, n: usize) {
        let n = n as u64;
        let mut line = lock(&self.line);
        line.unread = line.unread.saturating_sub(n);
        if let Some(place) = &line.place {
            place.output.consumed(n);
        }
    }

    /// Sends a message about this job, on the connection of now; one that is lost with it is not
    /// sent again, unless it is a cancel, a size or a goodbye.
    pub(crate) async fn send(&self, message: Message) {
        let place = {
            let mut line = lock(&self.line);
            match message {
                Message::Cancel(cancel) => {
                    line.cancel = Some(cancel);
                    line.is_cancel_sent = line.greeted;
                }
                Message::Resize(resize) => line.size = Some(resize.size),
                Message::Detach(_) => line.is_leaving = true,
                _ => {}
            }
            line.place.as_ref().map(|place| (place.stream, place.outbox.clone()))
        };
        if let Some((stream, outbox)) = place {
            // If the connection goes just now, the next one gets what matters.
            let _ = outbox.control(Frame::new(stream, message)).await;
        }
    }

    /// Asks for another size of the terminal, if this client may.
    pub(crate) async fn resize(&self, size: TerminalSize) {
        let may = match &self.opening {
            Opening::Exec { .. } => true,
            Opening::Attach(attach) => attach.control,
        };
        if may {
            self.send(Resize { size }.into()).await;
        }
    }

    /// Nobody wants this output any more; what is still under way is consumed here.
    pub(crate) async fn stop_output(&self, channel: Channel) {
        let index = usize::from(channel == Channel::Err);
        if let Some(stopped) = lock(&self.line).stopped.get_mut(index) {
            *stopped = true;
        }
        self.send(Stop { channel }.into()).await;
        while let Ok(bytes) = self.output(channel).inbox.next().await {
            self.consumed(bytes.len());
        }
    }

    /// This process has no part in the job: it leaves, and the job goes on.
    pub(crate) fn give_up(self: &Arc<Self>, error: Error) {
        let remote = Arc::clone(self);
        tokio::spawn(async move {
            remote.send(Detach {}.into()).await;
            remote.fail(error);
        });
    }

    fn running(&self, verb: &'static str) -> Result<&Self, ProtocolError> {
        let greeted = lock(&self.line).greeted;
        if greeted || holds("client.started_first", false) {
            Ok(self)
        } else {
            Err(wrong(verb, "before started"))
        }
    }

    fn half(&self, channel: Channel, verb: &'static str) -> Result<&Half, ProtocolError> {
        match channel {
            Channel::Out => Ok(&self.out),
            Channel::Err => Ok(&self.err),
            Channel::In => Err(wrong(verb, "for the other side's channel")),
        }
    }

    fn over(&self, end: Result<End, Error>) {
        self.progress.send_modify(|progress| {
            let started = match progress {
                Progress::Requested => None,
                Progress::Started(started) => Some(started.clone()),
                Progress::Over(..) => return,
            };
            *progress = Progress::Over(started, end);
        });
        self.input.stop();
        // No effect on a channel that has ended.
        self.out.inbox.finish(InboxEnd::Cut);
        self.err.inbox.finish(InboxEnd::Cut);
    }
}

/// What a refused request means for who made it.
pub(crate) fn refusal(Refused { reason, message }: Refused) -> Error {
    match reason {
        Refusal::Denied => Outcome::Denied { message }.into(),
        Refusal::Busy => Error::busy(message),
        _ => Error::local(message),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong(verb: &'static str, when: &'static str) -> ProtocolError {
    ProtocolError::WrongState { verb, when }
}
