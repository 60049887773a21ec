//! Who gets the frames of which stream.

use crate::error::Error;
use crate::membership::Membership;
use crate::remote::{Remote, refusal};
use rexec_net::Outbox;
use rexec_net::handshake::Connection;
use rexec_protocol::message::{Message, Refusal, Refused};
use rexec_protocol::{Frame, ProtocolError, StreamId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::oneshot;

/// What belongs to a stream.
#[derive(Debug)]
pub(crate) enum Route {
    /// What goes on over connections.
    Lasting(Lasting),
    /// A question.
    Asked(Asked),
}

/// The most that one answer may take, in bytes: several times what the longest list of an agent takes. What it says
/// takes up to fifteen times as much here once it is decoded.
const MAX_ANSWER: usize = 16 << 20;

/// What has come of an answer, and who waits for it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Verified.
    frames: Vec<Frame>,
    size: usize,
    answer: oneshot::Sender<Result<Vec<Frame>, Error>>,
}

/// What is opened again on another connection.
#[derive(Debug, Clone)]
pub(crate) enum Lasting {
    Job(Arc<Remote>),
    Room(Arc<Membership>),
}

pub(crate) type Streams = HashMap<StreamId, Route>;

/// Where to write.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) outbox: Outbox,
    pub(crate) opened: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Where to write, while there is a connection. Here, because what is routed and not on a
    /// connection would wait for ever.
    pub(crate) line: Option<Line>,
    pub(crate) streams: Streams,
    /// The agent has answered a request, whichever.
    pub(crate) served: bool,
}

impl Routes {
    /// Takes a frame of an answer.
    pub(crate) fn answered(&mut self, stream: StreamId, frame: Frame) -> Result<(), ProtocolError> {
        let Some(Route::Asked(asked)) = self.streams.get_mut(&stream) else { return Ok(()) };
        if let Some(end) = asked.take(frame)?
            && let Some(Route::Asked(asked)) = self.streams.remove(&stream)
        {
            asked.end(end);
        }
        Ok(())
    }
}

impl Asked {
    pub(crate) fn new(answer: oneshot::Sender<Result<Vec<Frame>, Error>>) -> Self {
        Self { frames: Vec::new(), size: 0, answer }
    }

    /// `Some` after the last frame.
    fn take(&mut self, frame: Frame) -> Result<Option<Result<(), Error>>, ProtocolError> {
        let is_last = match &frame.message {
            Message::Listing(listing) => !listing.more,
            Message::Present(present) => !present.more,
            Message::Directory(directory) => !directory.more,
            Message::Removed(_) | Message::Walled(_) => true,
            other => return Ok(no(other).map(Err)),
        };
        self.size += size_of::<Frame>() + frame.body.len();
        if self.size > MAX_ANSWER {
            return Err(ProtocolError::Flood("bytes in one answer"));
        }
        if !frame.body.is_empty() {
            frame.verified_body()?;
        }
        self.frames.push(frame);
        Ok(is_last.then_some(Ok(())))
    }

    /// Who asked may have gone.
    pub(crate) fn end(self, end: Result<(), Error>) {
        let _ = self.answer.send(end.map(|()| self.frames));
    }
}

impl Line {
    pub(crate) fn of(connection: &Connection) -> Self {
        Self { outbox: connection.outbox.clone(), opened: Arc::clone(&connection.opened) }
    }
}

impl Lasting {
    /// Takes `stream` of a connection, and gives the frame that opens it.
    pub(crate) fn open(&self, stream: StreamId, outbox: &Outbox) -> Frame {
        match self {
            Self::Job(remote) => remote.open(stream, outbox),
            Self::Room(membership) => membership.open(stream, outbox),
        }
    }

    /// Takes a frame of its stream. True if it was the last one.
    pub(crate) fn receive(&self, frame: Frame) -> Result<bool, ProtocolError> {
        match self {
            Self::Job(remote) => remote.receive(frame),
            Self::Room(membership) => membership.receive(frame),
        }
    }

    /// True until the last word was heard.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Self::Job(remote) => remote.is_live(),
            Self::Room(membership) => membership.is_live(),
        }
    }

    /// The connection is gone, and another may come.
    pub(crate) fn cut(&self) {
        match self {
            Self::Job(remote) => remote.cut(),
            Self::Room(membership) => membership.cut(),
        }
    }
}

fn no(message: &Message) -> Option<Error> {
    match message {
        Message::Refused(refused) => Some(refusal(refused.clone())),
        Message::Error(error) => {
            let message = format!("{} ({})", error.message, error.code);
            Some(refusal(Refused { reason: Refusal::Other, message }))
        }
        _ => None,
    }
}
