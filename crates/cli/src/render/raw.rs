//! The command's output as it is, to the descriptor of the same name; if asked for, with the time before
//! each line.

use crate::exit::Notes;
use crate::render::stamp::Stamp;
use crate::stdio::{Halt, LARGE, Output, Piece, Writer};
use rexec_client::Chunk;
use std::time::SystemTime;

/// One stream of output. Its thread is started with the first byte that may have to wait.
#[derive(Debug)]
pub struct Raw {
    output: Output,
    is_pipe: bool,
    is_enlarged: bool,
    writer: Option<Writer>,
    notes: Notes,
    stamp: Option<Stamp>,
}

impl Raw {
    pub(super) fn new(output: Output, notes: Notes, with_times: bool) -> Self {
        let stamp = with_times.then(Stamp::default);
        Self { output, is_pipe: output.is_pipe(), is_enlarged: false, writer: None, notes, stamp }
    }

    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let piece = match &mut self.stamp {
            None => match self.write_now(&chunk)? {
                n if n == chunk.len() => return Ok(()),
                n => Piece::Raw(chunk, n),
            },
            Some(stamp) => {
                let time = chunk.time().unwrap_or_else(SystemTime::now);
                Piece::Line(stamp.push(&chunk, time), Some(chunk))
            }
        };
        let writer = match &self.writer {
            Some(writer) => writer,
            None => self.writer.insert(Writer::start(self.output)?),
        };
        writer.write(piece).await
    }

    /// How much of it was written at once, because nothing waits before it and there was room.
    fn write_now(&mut self, chunk: &[u8]) -> Result<usize, Halt> {
        if !self.is_pipe || !self.writer.as_ref().is_none_or(Writer::is_idle) {
            return Ok(0);
        }
        if chunk.len() >= LARGE && !std::mem::replace(&mut self.is_enlarged, true) {
            self.output.enlarge();
        }
        self.output.write_now(chunk)
    }

    /// Returns once what was taken is written.
    pub(super) async fn settle(&self) -> Result<(), Halt> {
        match &self.writer {
            Some(writer) => writer.flush().await,
            None => Ok(()),
        }
    }

    /// Said beside the output, which must stay what it is.
    pub(super) async fn gap(&self, bytes: u64) -> Result<(), Halt> {
        self.settle().await?;
        self.notes.inform(&format!("{bytes} bytes of {} are gone here", self.output.name()));
        Ok(())
    }

    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn failed(&self) -> Halt {
        match &self.writer {
            Some(writer) => writer.failed().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn end(self) -> Result<(), Halt> {
        self.settle().await
    }
}
