//! The three byte streams of a running command.

use crate::half::Arrival;
use crate::remote::Remote;
use bytes::{Buf, Bytes};
use rexec_net::inbox::End;
use rexec_protocol::message::Channel;
use rexec_protocol::stream::Tally;
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stdout of a running command. Dropping it closes it, and the command gets SIGPIPE.
#[derive(Debug)]
pub struct ChildStdout {
    remote: Arc<Remote>,
    channel: Channel,
    /// What is left of a piece that was read in part.
    current: Chunk,
    /// What came after it, in pieces.
    rest: Chunk,
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
    channel: Channel,
    arrival: Option<Arrival>,
}

impl ChildStdout {
    pub(crate) fn new(remote: Arc<Remote>, channel: Channel) -> Self {
        Self {
            remote,
            channel,
            current: Chunk::none(channel),
            rest: Chunk::none(channel),
            ended: false,
        }
    }

    /// The next bytes as they came, without a copy; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// `UnexpectedEof` if the connection was lost before the end.
    pub async fn chunk(&mut self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// How many bytes of it will never come, as far as is known: see [`crate::Attach`].
    pub fn missing(&self) -> u64 {
        self.remote.output(self.channel).missing()
    }

    /// Waits until some of it will never come, also if nothing comes after that. For one who waits.
    pub(crate) fn torn(&self) -> impl Future<Output = ()> + use<> {
        let (remote, channel) = (Arc::clone(&self.remote), self.channel);
        async move { remote.output(channel).torn().await }
    }

    /// Reads to the end and drops what it reads.
    pub(crate) async fn drain(mut self) {
        // A cut is reported by `Child::wait`, which knows the reason.
        while let Ok(Some(_)) = self.chunk().await {}
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if !self.current.is_empty() {
            let rest = std::mem::replace(&mut self.current, Chunk::none(self.channel));
            return Poll::Ready(Ok(Some(rest)));
        }
        if !self.rest.is_empty() {
            let rest = std::mem::replace(&mut self.rest, Chunk::none(self.channel));
            return Poll::Ready(Ok(Some(self.first_piece(rest))));
        }
        match ready!(self.remote.output(self.channel).inbox.poll_next(cx)) {
            Ok(bytes) => {
                let (charged, remote) = (bytes.len(), Some(Arc::clone(&self.remote)));
                let channel = self.channel;
                let chunk = Chunk { bytes, remote, charged, channel, arrival: None };
                Poll::Ready(Ok(Some(self.first_piece(chunk))))
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

impl ChildStdout {
    /// The part of `chunk` that came in one piece, if that is known; the rest waits.
    fn first_piece(&mut self, mut chunk: Chunk) -> Chunk {
        let arrived = self.remote.output(self.channel).arrived(chunk.len());
        let Some((arrival, length)) = arrived else { return chunk };
        let piece = Chunk {
            bytes: chunk.bytes.split_to(length),
            remote: Some(Arc::clone(&self.remote)),
            charged: length,
            channel: self.channel,
            arrival: Some(arrival),
        };
        chunk.charged -= length;
        self.rest = chunk;
        piece
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
    runtime.spawn(async move { remote.stop_output(channel).await });
}

impl Chunk {
    /// Whether these are bytes of stderr.
    pub fn is_stderr(&self) -> bool {
        self.channel == Channel::Err
    }

    /// When the agent read them, by its clock; `None` unless that was asked for with
    /// [`crate::Attach::times`].
    pub fn time(&self) -> Option<SystemTime> {
        self.arrival.and_then(|arrival| arrival.time)
    }

    /// How many bytes that should be right before these will never come: see [`crate::Attach`].
    pub fn missing_before(&self) -> u64 {
        self.arrival.map_or(0, |arrival| arrival.gap)
    }

    /// Its place among the pieces of both outputs.
    pub(crate) fn number(&self) -> u64 {
        self.arrival.map_or(0, |arrival| arrival.number)
    }

    fn none(channel: Channel) -> Self {
        Self { bytes: Bytes::new(), remote: None, charged: 0, channel, arrival: None }
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

/// The stdin of a running command. Shutting it down, or dropping it, ends it; [`ChildStdin::leave_open`] does not.
///
/// Writing waits while the command does not read: at most about 2 MiB are under way. Once the command
/// has closed its stdin, or has ended, writing fails with `BrokenPipe`, as with a local pipe.
#[derive(Debug)]
pub struct ChildStdin {
    remote: Arc<Remote>,
    ended: bool,
}

impl ChildStdin {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, ended: false }
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
        self.remote.input.tally()
    }

    /// Whether the command takes no more from here: it has closed its stdin, is over, or gets what somebody
    /// else sends.
    pub fn is_stopped(&self) -> bool {
        self.remote.input.is_stopped()
    }

    /// Lets go of it, and the command does not hear of that: it may have got only a part, or it goes on and another
    /// client sends the rest.
    pub fn leave_open(mut self) {
        self.ended = true;
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
        self.remote.input.poll_send(cx, wanted, take)
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
        if let Err(error) = ready!(self.remote.input.poll_end(cx)) {
            self.remote.give_up(error);
        }
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.ended || self.remote.input.is_stopped() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let remote = Arc::clone(&self.remote);
        runtime.spawn(async move { remote.input.end().await });
    }
}
