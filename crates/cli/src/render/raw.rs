//! The command's output as it is, to the descriptor of the same name; if asked for, with the time before
//! each line.

use crate::exit::Notes;
use crate::render::stamp::Stamp;
use crate::stdio::{Halt, Output, Piece, Writer};
use rexec_client::Chunk;
use std::time::SystemTime;

/// One stream of output. Its thread is started with the first byte.
#[derive(Debug)]
pub struct Raw {
    output: Output,
    writer: Option<Writer>,
    notes: Notes,
    stamp: Option<Stamp>,
}

impl Raw {
    pub(super) fn new(output: Output, notes: Notes, with_times: bool) -> Self {
        Self { output, writer: None, notes, stamp: with_times.then(Stamp::default) }
    }

    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let piece = match &mut self.stamp {
            None => Piece::Raw(chunk),
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
