//! Who gets the frames of which stream.

use crate::error::Error;
use crate::membership::Membership;
use crate::remote::{Remote, refusal};
use rexec_net::Outbox;
use rexec_net::handshake::Connection;
use rexec_protocol::message::{JobInfo, JobList, Message, Refusal, Refused};
use rexec_protocol::{Frame, ProtocolError, StreamId, msgpack};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::oneshot;

/// What belongs to a stream.
#[derive(Debug)]
pub(crate) enum Route {
    /// What goes on over connections.
    Lasting(Lasting),
    /// A question about jobs.
    Query { jobs: Vec<JobInfo>, answer: oneshot::Sender<Result<Vec<JobInfo>, Error>> },
    /// Any other question.
    Ask { frames: Vec<Frame>, answer: oneshot::Sender<Result<Vec<Frame>, Error>> },
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
    pub(crate) fn finish_query(&mut self, stream: StreamId, result: Result<(), Error>) {
        // Who asked may have gone.
        match self.streams.remove(&stream) {
            Some(Route::Query { jobs, answer }) => drop(answer.send(result.map(|()| jobs))),
            Some(Route::Ask { frames, answer }) => drop(answer.send(result.map(|()| frames))),
            _ => {}
        }
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
            Self::Room(_) => {}
        }
    }
}

/// Takes a frame of an answer about jobs; `Some` if it was the last.
pub(crate) fn about_jobs(
    jobs: &mut Vec<JobInfo>,
    frame: Frame,
) -> Result<Option<Result<(), Error>>, ProtocolError> {
    match &frame.message {
        Message::Listing(listing) => {
            let more = listing.more;
            let body = frame.verified_body()?;
            let list: JobList = msgpack::decode(body.as_bytes(), msgpack::BODY)?;
            jobs.extend(list.jobs);
            Ok((!more).then_some(Ok(())))
        }
        Message::Removed(_) => Ok(Some(Ok(()))),
        _ => Ok(no(&frame.message).map(Err)),
    }
}

/// Takes a frame of any other answer; `Some` if it was the last.
pub(crate) fn answered(frames: &mut Vec<Frame>, frame: Frame) -> Option<Result<(), Error>> {
    let is_last = match &frame.message {
        Message::Present(present) => !present.more,
        Message::Walled(_) => true,
        _ => return no(&frame.message).map(Err),
    };
    frames.push(frame);
    is_last.then_some(Ok(()))
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
