//! The reading end of one of a command's outputs, until it ends.

use crate::keeper::Reader;
use crate::pipe_size::PipeSize;
use bytes::{BufMut, Bytes, BytesMut};
use rexec_net::recycler::Recycler;
use rexec_protocol::frame::MAX_DATA;
use std::io;
use tokio::io::AsyncReadExt;

/// Room for a first read; it grows while reads fill it.
const SMALL: usize = 8 * 1024;
/// The largest room. 256 KiB was measured a little slower, probably because less of what was read is
/// still in the processor's cache when it is digested and encrypted.
const LARGE: usize = 128 * 1024;
const _: () = assert!(LARGE <= MAX_DATA, "a read is one data body");

/// One output: a pipe, or a terminal.
#[derive(Debug)]
pub struct Output {
    pipe: Option<Reader>,
    buffer: BytesMut,
    recycler: Recycler,
    room: usize,
    size: PipeSize,
}

impl Output {
    /// Reads from `pipe`; an output that is not there has ended.
    pub fn new(pipe: Option<Reader>) -> Self {
        Self {
            pipe,
            buffer: BytesMut::new(),
            recycler: Recycler::default(),
            room: SMALL,
            size: PipeSize::default(),
        }
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
        let mut room = (&mut self.buffer).limit(LARGE);
        let n = pipe.read_buf(&mut room).await.unwrap_or_default();
        self.take(n)
    }

    /// What is in the pipe right now; `None` if nothing is.
    pub fn try_read(&mut self) -> Option<Bytes> {
        self.make_room();
        let mut room = (&mut self.buffer).limit(LARGE);
        match self.pipe.as_ref()?.try_read_buf(&mut room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(self.take(read.unwrap_or_default())),
        }
    }

    fn make_room(&mut self) {
        if self.buffer.capacity() < self.room.div_ceil(2) {
            self.recycler.make_room(&mut self.buffer, self.room);
        }
    }

    fn take(&mut self, n: usize) -> Bytes {
        if self.buffer.capacity() == n {
            self.room = (self.room * 2).min(LARGE);
        }
        if let Some(pipe) = &self.pipe {
            self.size.moved(pipe, n);
        }
        self.buffer.split_to(n).freeze()
    }
}
