//! The three byte streams of a running command.

use crate::remote::Remote;
use bytes::{Buf, Bytes};
use rexec_net::inbox::End;
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::{Channel, Stop};
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{Frame, StreamId};
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::PollSender;

/// The stdout of a running command. Dropping it closes it, and the command gets SIGPIPE.
#[derive(Debug)]
pub struct ChildStdout {
    remote: Arc<Remote>,
    channel: Channel,
    current: Chunk,
    ended: bool,
}

/// The stderr of a running command.
pub type ChildStderr = ChildStdout;

/// Bytes of output whose digest was verified. Dropping it tells the agent that they were consumed,
/// so keep it until they are where they belong.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    remote: Option<Arc<Remote>>,
    charged: usize,
}

impl ChildStdout {
    pub(crate) fn new(remote: Arc<Remote>, channel: Channel) -> Self {
        Self { remote, channel, current: Chunk::none(), ended: false }
    }

    /// The next bytes as they came, without a copy; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// `UnexpectedEof` if the connection was lost before the end.
    pub async fn chunk(&mut self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Reads to the end and drops what it reads.
    pub(crate) async fn drain(mut self) {
        // A cut is reported by `Child::wait`, which knows the reason.
        while let Ok(Some(_)) = self.chunk().await {}
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if !self.current.is_empty() {
            let rest = std::mem::replace(&mut self.current, Chunk::none());
            return Poll::Ready(Ok(Some(rest)));
        }
        match ready!(self.remote.inbox(self.channel).poll_next(cx)) {
            Ok(bytes) => {
                let (charged, remote) = (bytes.len(), Some(Arc::clone(&self.remote)));
                Poll::Ready(Ok(Some(Chunk { bytes, remote, charged })))
            }
            Err(End::Eof) => {
                self.ended = true;
                Poll::Ready(Ok(None))
            }
            Err(End::Cut) => {
                self.ended = true;
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }
}

impl AsyncRead for ChildStdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut chunk) = ready!(self.poll_chunk(cx))? {
            let n = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk.bytes.split_to(n));
            if !chunk.is_empty() {
                self.current = chunk;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdout {
    fn drop(&mut self) {
        if !self.ended {
            stop(&self.remote, self.channel);
        }
    }
}

/// Tells the agent that a channel is not read any more, and takes what is still under way.
fn stop(remote: &Arc<Remote>, channel: Channel) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let remote = Arc::clone(remote);
    runtime.spawn(async move {
        let frame = Frame::new(remote.stream, Stop { channel }.into());
        if remote.outbox.control(frame).await.is_ok() {
            while let Ok(bytes) = remote.inbox(channel).next().await {
                remote.consumed(bytes.len());
            }
        }
    });
}

impl Chunk {
    fn none() -> Self {
        Self { bytes: Bytes::new(), remote: None, charged: 0 }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(remote) = &self.remote {
            remote.consumed(self.charged);
        }
    }
}

/// The stdin of a running command. Shutting it down, or dropping it, ends it.
///
/// Writing waits while the command does not read: at most about 1 MiB is under way. Once the command
/// has closed its stdin, or has ended, writing fails with `BrokenPipe`, as with a local pipe.
#[derive(Debug)]
pub struct ChildStdin {
    remote: Arc<Remote>,
    lane: PollSender<Box<Frame>>,
    sender: Sender,
    ended: bool,
}

impl ChildStdin {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        let lane = PollSender::new(remote.outbox.data_lane());
        let sender = Sender::new(Channel::In, remote.algorithm);
        Self { remote, lane, sender, ended: false }
    }

    /// Sends all of `bytes`, without a copy.
    ///
    /// # Errors
    /// `BrokenPipe` as soon as the command takes no more.
    pub async fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_send(cx, bytes.len(), |n| bytes.split_to(n))).await?;
        }
        Ok(())
    }

    /// Size and digest of what was sent.
    pub fn tally(&self) -> Tally {
        self.sender.tally()
    }

    fn stream(&self) -> StreamId {
        self.remote.stream
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        take: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Credit first: a place in the lane, which all commands share, must not wait for it.
        let available = ready!(self.remote.input.poll_available(cx));
        if self.remote.stdin_is_stopped() {
            // A place in the lane that was asked for would otherwise be kept.
            self.lane.abort_send();
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.lane.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let n = wanted.min(MAX_DATA).min(usize::try_from(available).unwrap_or(usize::MAX));
        if !self.remote.input.take_now(n as u64) {
            unreachable!("credit only grows until its one user takes it");
        }
        let frame = self.sender.data(self.stream(), take(n));
        self.lane.send_item(Box::new(frame)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(n))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || self.remote.stdin_is_stopped() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        ready!(self.lane.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let frame = self.sender.eof(self.stream());
        self.lane.send_item(Box::new(frame)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, bytes.len(), |n| {
            let mut bytes = bytes;
            bytes.copy_to_bytes(n)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // what was written is on its way
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.ended || self.remote.stdin_is_stopped() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let frame = self.sender.eof(self.stream());
        let outbox = self.remote.outbox.clone();
        runtime.spawn(async move {
            // If the connection is gone, so is the command's stdin.
            let _ = outbox.data(frame).await;
        });
    }
}
