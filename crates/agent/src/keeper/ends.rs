//! The agent's ends of a command's stdin, stdout and stderr: three pipes, or one terminal.

use super::terminal::Terminal;
use nix::unistd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

/// A terminal gives at most this much at once; see n_tty(4).
const LINE: usize = 4096;

/// Where to read output.
#[derive(Debug)]
pub enum Reader {
    /// Of one stream.
    Pipe(pipe::Receiver),
    /// Of both, as one.
    Terminal(Terminal),
}

/// Where to write stdin.
#[derive(Debug)]
pub enum Writer {
    /// Its end is the end of the stream.
    Pipe(pipe::Sender),
    /// Has no end that the command could see, as with ssh: a terminal is read until it hangs up.
    Terminal(Terminal),
}

impl Reader {
    pub(super) fn pipe(end: OwnedFd) -> io::Result<Self> {
        pipe::Receiver::from_owned_fd(end).map(Self::Pipe)
    }

    /// Returns when there is something to read, or an end; or sooner.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Terminal(terminal) => terminal.file().readable().await.map(drop),
        }
    }

    /// Reads what is there right now, at most until `buffer` is full.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is.
    pub fn try_read_buf<B: bytes::BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        let terminal = match self {
            Self::Pipe(pipe) => return pipe.try_read_buf(buffer),
            Self::Terminal(terminal) => terminal.file(),
        };
        let mut line = [0; LINE];
        let room = line.len().min(buffer.remaining_mut());
        let room = line.get_mut(..room).unwrap_or_default();
        let n = terminal.try_io(Interest::READABLE, |file| Ok(unistd::read(file, room)?))?;
        buffer.put_slice(room.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl Writer {
    pub(super) fn pipe(end: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd(end).map(Self::Pipe)
    }

    /// Returns when something can be written, or nothing ever more; or sooner.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.writable().await,
            Self::Terminal(terminal) => terminal.file().writable().await.map(drop),
        }
    }

    /// Writes what there is room for right now.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(bytes),
            Self::Terminal(terminal) => {
                let write = |file: &OwnedFd| Ok(unistd::write(file, bytes)?);
                terminal.file().try_io(Interest::WRITABLE, write)
            }
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let terminal = match self.get_mut() {
            Self::Pipe(pipe) => return Pin::new(pipe).poll_read(cx, buffer),
            Self::Terminal(terminal) => terminal.file(),
        };
        loop {
            let mut ready = ready!(terminal.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled_to(buffer.remaining().min(LINE));
            // Only when nothing is left is it known that nothing is: a short read of a terminal does
            // not say so, as one of a pipe does.
            if let Ok(read) = ready.try_io(|file| Ok(unistd::read(file, room)?)) {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let terminal = match self.get_mut() {
            Self::Pipe(pipe) => return Pin::new(pipe).poll_write(cx, bytes),
            Self::Terminal(terminal) => terminal.file(),
        };
        loop {
            let mut ready = ready!(terminal.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|file| Ok(unistd::write(file, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // what was written is in the kernel
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // dropping it is what ends a pipe
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.as_fd(),
            Self::Terminal(terminal) => terminal.as_fd(),
        }
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.as_fd(),
            Self::Terminal(terminal) => terminal.as_fd(),
        }
    }
}
