//! One running command, as the reading half of its connection sees it.

use crate::error::Error;
use rexec_guard::holds;
use rexec_net::Outbox;
use rexec_net::credit::{RecvCredit, SendCredit};
use rexec_net::inbox::{End, Inbox};
use rexec_protocol::message::{Channel, Exit, Message, Started};
use rexec_protocol::stream::{Receiver, Tally};
use rexec_protocol::{Algorithm, Frame, Outcome, ProtocolError, StreamId, flow};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How much output may be under way or unread, stdout and stderr together.
pub(crate) const WINDOW: u64 = 2 * 1024 * 1024;

/// A command on some agent, shared by its connection and its handles.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) stream: StreamId,
    pub(crate) outbox: Outbox,
    pub(crate) algorithm: Algorithm,
    out: Half,
    err: Half,
    /// Credit for both output channels together.
    output: RecvCredit,
    /// Credit for stdin.
    pub(crate) input: SendCredit,
    /// The command reads no more of its stdin.
    stdin_stopped: AtomicBool,
    progress: watch::Sender<Progress>,
}

/// One output channel.
#[derive(Debug)]
struct Half {
    receiver: Mutex<Receiver>,
    inbox: Inbox,
}

/// How far the command is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Requested,
    Started(Started),
    /// The last word: the exit record, or why there is none.
    Over(Option<Started>, Result<Exit, Error>),
}

impl Remote {
    pub(crate) fn new(stream: StreamId, algorithm: Algorithm, outbox: Outbox) -> Arc<Self> {
        let half =
            || Half { receiver: Mutex::new(Receiver::new(algorithm)), inbox: Inbox::default() };
        Arc::new(Self {
            stream,
            algorithm,
            out: half(),
            err: half(),
            output: RecvCredit::new(stream, WINDOW, WINDOW, outbox.clone()),
            input: SendCredit::new(flow::INITIAL_WINDOW),
            stdin_stopped: AtomicBool::new(false),
            progress: watch::Sender::new(Progress::Requested),
            outbox,
        })
    }

    /// Takes a frame of this command's stream. True if it was the last one.
    pub(crate) fn receive(&self, frame: Frame) -> Result<bool, ProtocolError> {
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

    fn take(&self, frame: Frame) -> Result<bool, ProtocolError> {
        match frame.message {
            Message::Started(started) => self.started(started)?,
            Message::Data(data) => {
                let half = self.running("data")?.half(data.channel, "data")?;
                self.output.received(frame.body.len() as u64)?;
                let verified = half.receiver().data(data.offset, frame.body, frame.hash)?;
                half.inbox.push(verified.into_bytes());
            }
            Message::Eof(eof) => {
                let half = self.running("eof")?.half(eof.channel, "eof")?;
                half.receiver().eof(eof.tally())?;
                half.inbox.finish(End::Eof);
            }
            Message::Window(window) => self.input.raise(window.limit),
            Message::Stop(stop) if stop.channel == Channel::In => self.stop_stdin(),
            Message::Stop(_) => {
                return Err(wrong("stop", "for the sender's own channel"));
            }
            Message::Exit(exit) => {
                self.check_exit(&exit.outcome)?;
                self.over(Ok(exit));
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

    /// Ends everything that waits for this command: its connection is gone.
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
            Ok(Progress::Over(None, Ok(exit))) => Err(exit.outcome.clone().into()),
            Ok(Progress::Over(None, Err(error))) => Err(error.clone()),
            // `self` holds the sender.
            Ok(Progress::Requested) | Err(_) => Err(Error::local("the session ended")),
        }
    }

    /// Waits for the end: the exit record, if the output that came with it is complete.
    pub(crate) async fn wait_over(&self) -> Result<Exit, Error> {
        let mut progress = self.progress.subscribe();
        let over = progress.wait_for(|progress| matches!(progress, Progress::Over(..))).await;
        match over.as_deref() {
            Ok(Progress::Over(started, Ok(exit))) => self.complete(exit.clone(), started.is_some()),
            Ok(Progress::Over(_, Err(error))) => Err(error.clone()),
            _ => Err(Error::local("the session ended")),
        }
    }

    /// The inbox of an output channel.
    pub(crate) fn inbox(&self, channel: Channel) -> &Inbox {
        if channel == Channel::Err { &self.err.inbox } else { &self.out.inbox }
    }

    /// Output was consumed, or will never be.
    pub(crate) fn consumed(&self, n: usize) {
        self.output.consumed(n as u64);
    }

    /// True once the command, or the connection, takes no more stdin.
    pub(crate) fn stdin_is_stopped(&self) -> bool {
        self.stdin_stopped.load(Ordering::Acquire)
    }

    fn stop_stdin(&self) {
        self.stdin_stopped.store(true, Ordering::Release);
        // Whoever waits for credit must wake up to see it.
        self.input.raise(u64::MAX);
    }

    fn started(&self, started: Started) -> Result<(), ProtocolError> {
        let mut twice = false;
        self.progress.send_modify(|progress| match progress {
            Progress::Requested => *progress = Progress::Started(started),
            _ => twice = true,
        });
        if twice { Err(wrong("started", "twice")) } else { Ok(()) }
    }

    fn running(&self, verb: &'static str) -> Result<&Self, ProtocolError> {
        match *self.progress.borrow() {
            Progress::Started(_) => Ok(self),
            _ if holds("client.started_first", false) => Ok(self),
            _ => Err(wrong(verb, "before started")),
        }
    }

    fn check_exit(&self, outcome: &Outcome) -> Result<(), ProtocolError> {
        let started = matches!(*self.progress.borrow(), Progress::Started(_));
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

    fn half(&self, channel: Channel, verb: &'static str) -> Result<&Half, ProtocolError> {
        match channel {
            Channel::Out => Ok(&self.out),
            Channel::Err => Ok(&self.err),
            Channel::In => Err(wrong(verb, "for the other side's channel")),
        }
    }

    /// The bytes that are here must be the bytes that were sent: the same number, and the same
    /// digest, on both channels. Commands that never ran have none.
    fn complete(&self, exit: Exit, ran: bool) -> Result<Exit, Error> {
        for (channel, half, sent) in
            [(Channel::Out, &self.out, exit.stdout), (Channel::Err, &self.err, exit.stderr)]
        {
            let Tally { size, hash } = half.receiver().tally();
            if ran && !holds("client.output_ended", half.receiver().ended()) {
                return Err(Error::incomplete(format!("the end of std{channel} did not come")));
            }
            if size != sent.size {
                let message =
                    format!("std{channel} is incomplete: {size} of {} bytes came", sent.size);
                return Err(Error::incomplete(message));
            }
            if !holds("client.output_digest", hash == sent.hash) {
                return Err(Error::incomplete(format!(
                    "std{channel} is not what was sent: {hash}, not {}",
                    sent.hash
                )));
            }
        }
        Ok(exit)
    }

    fn over(&self, end: Result<Exit, Error>) {
        self.progress.send_modify(|progress| {
            let started = match progress {
                Progress::Requested => None,
                Progress::Started(started) => Some(started.clone()),
                Progress::Over(..) => return,
            };
            *progress = Progress::Over(started, end);
        });
        self.stop_stdin();
        // No effect on a channel that has ended.
        self.out.inbox.finish(End::Cut);
        self.err.inbox.finish(End::Cut);
    }
}

impl Half {
    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong(verb: &'static str, when: &'static str) -> ProtocolError {
    ProtocolError::WrongState { verb, when }
}
