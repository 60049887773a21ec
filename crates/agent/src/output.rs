//! The reading end of one of a command's output pipes, until it ends.

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FcntlArg, fcntl};
use rexec_protocol::frame::MAX_DATA;
use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Room for a first read; it grows while reads fill it, up to one `data` body.
const SMALL: usize = 8 * 1024;
/// A read of this size shows bulk output. A larger pipe then saves wake-ups on both sides; see
/// pipe(7). Few commands get there, so the user's limit on pipe memory is spared.
const BULK: usize = 64 * 1024;
const BULK_PIPE: i32 = 512 * 1024;

/// One output pipe.
#[derive(Debug)]
pub struct Output {
    pipe: Option<pipe::Receiver>,
    buffer: BytesMut,
    room: usize,
    enlarged: bool,
}

impl Output {
    /// Reads from `pipe`.
    pub fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe: Some(pipe), buffer: BytesMut::new(), room: SMALL, enlarged: false }
    }

    /// True until the end was read, or [`Output::close`] was called.
    pub fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Stops reading: the writer gets SIGPIPE. True if it was open.
    pub fn close(&mut self) -> bool {
        self.pipe.take().is_some()
    }

    /// The next bytes; empty at the end. Safe to cancel. A pipe that cannot be read has nothing
    /// more to give, so that counts as its end too.
    pub async fn read(&mut self) -> Bytes {
        self.make_room();
        let Some(pipe) = &mut self.pipe else { return Bytes::new() };
        let n = pipe.read_buf(&mut self.buffer).await.unwrap_or_default();
        self.take(n)
    }

    /// What is in the pipe right now; `None` if nothing is.
    pub fn try_read(&mut self) -> Option<Bytes> {
        self.make_room();
        match self.pipe.as_ref()?.try_read_buf(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(self.take(read.unwrap_or_default())),
        }
    }

    fn make_room(&mut self) {
        if self.buffer.capacity() < self.room.div_ceil(2) {
            self.buffer.reserve(self.room);
        }
    }

    fn take(&mut self, n: usize) -> Bytes {
        if self.buffer.capacity() == n {
            self.room = (self.room * 2).min(MAX_DATA);
        }
        if n >= BULK && !self.enlarged {
            self.enlarged = true;
            if let Some(Err(error)) = self.pipe.as_ref().map(|pipe| fcntl(pipe, FcntlArg::F_SETPIPE_SZ(BULK_PIPE))) {
                tracing::debug!(%error, "a pipe stays at its default size");
            }
        }
        self.buffer.split_to(n).freeze()
    }
}
