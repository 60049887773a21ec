//! A command's stdin: what came in for it is written to its pipe, and only then credited.

use crate::pipe_size::PipeSize;
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_net::inbox::{End, Inbox};
use rexec_protocol::message::{Channel, Data, Eof, Stop};
use rexec_protocol::stream::{Receiver, Tally};
use rexec_protocol::{Algorithm, Frame, ProtocolError, StreamId, flow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

/// Bytes kept for a command that does not read them.
const WINDOW: u64 = 1024 * 1024;

/// The reading half's end of a command's stdin.
#[derive(Debug)]
pub struct Feed {
    receiver: Mutex<Receiver>,
    inbox: Inbox,
    credit: RecvCredit,
}

impl Feed {
    /// An empty feed. The client may send [`flow::INITIAL_WINDOW`] bytes without being asked.
    pub fn new(stream: StreamId, algorithm: Algorithm, outbox: Outbox) -> Self {
        Self {
            receiver: Mutex::new(Receiver::new(algorithm)),
            inbox: Inbox::default(),
            credit: RecvCredit::new(stream, WINDOW, flow::INITIAL_WINDOW, outbox),
        }
    }

    /// Takes a `data` frame.
    pub fn data(&self, data: Data, frame: Frame) -> Result<(), ProtocolError> {
        self.credit.received(frame.body.len() as u64)?;
        let verified = self.receiver().data(data.offset, frame.body, frame.hash)?;
        self.inbox.push(verified.into_bytes());
        Ok(())
    }

    /// Takes an `eof` frame.
    pub fn eof(&self, eof: Eof) -> Result<(), ProtocolError> {
        self.receiver().eof(eof.tally())?;
        self.inbox.finish(End::Eof);
        Ok(())
    }

    /// The connection is gone.
    pub fn cut(&self) {
        self.inbox.finish(End::Cut);
    }

    /// What came in and was verified.
    pub fn tally(&self) -> Tally {
        self.receiver().tally()
    }

    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the feed to the command until either ends. A command that closed its stdin is normal
/// (`head -1`): the client is told to stop, and what is under way is dropped.
pub async fn run(feed: Arc<Feed>, mut pipe: pipe::Sender, stream: StreamId, outbox: Outbox) {
    // The whole window, now that there is a command to read it.
    feed.credit.consumed(0);
    let mut size = PipeSize::default();
    loop {
        match feed.inbox.next().await {
            Ok(bytes) => {
                size.moved(&pipe, bytes.len());
                if pipe.write_all(&bytes).await.is_err() {
                    let stop = Stop { channel: Channel::In };
                    // If the connection is gone, there is nobody left to tell.
                    let _ = outbox.control(Frame::new(stream, stop.into())).await;
                    return;
                }
                feed.credit.consumed(bytes.len() as u64);
            }
            Err(End::Eof) => return,
            // The rest will never come, and the command must not take what it has for the whole:
            // the pipe stays open until the job, which is being ended, aborts this task.
            Err(End::Cut) => std::future::pending().await,
        }
    }
}
