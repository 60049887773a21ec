//! A read buffer under TLS that grows with its use.
//!
//! rustls reads its socket 4 KiB at a time, which costs bulk transfers a system call per quarter of
//! a TLS record. A large fixed buffer would cost every idle connection its memory. This one starts
//! small and doubles whenever the socket fills it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SMALLEST: usize = 2 * 1024;
const LARGEST: usize = 128 * 1024;

/// A socket with a buffer before its reading side; writes pass straight through.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    socket: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::new(), start: 0, end: 0 }
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let was_filled = self.end == self.buffer.len() && self.buffer.len() < LARGEST;
        if was_filled {
            let size = (self.buffer.len() * 2).clamp(SMALLEST, LARGEST);
            self.buffer = vec![0; size];
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        (self.start, self.end) = (0, 0);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        self.end = buffer.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start == self.end {
            ready!(self.poll_fill(cx))?;
        }
        let ready = self.buffer.get(self.start..self.end).unwrap_or_default();
        let n = ready.len().min(out.remaining());
        out.put_slice(ready.get(..n).unwrap_or_default());
        self.start += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn grows_when_filled_and_loses_nothing() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut reader = ReadAhead::new(far);
        assert_eq!(reader.buffer.capacity(), 0);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
        assert_eq!(reader.buffer.len(), LARGEST);
    }
}
