//! The command's output as it is, to the descriptor of the same name.

use crate::stdio::{Halt, Output, Piece, Writer};
use rexec_client::Chunk;
use std::future;

/// One stream of output. Its thread is started with the first byte.
#[derive(Debug)]
pub struct Raw {
    output: Output,
    writer: Option<Writer>,
}

impl Raw {
    pub(super) fn new(output: Output) -> Self {
        Self { output, writer: None }
    }

    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let writer = match &self.writer {
            Some(writer) => writer,
            None => self.writer.insert(Writer::start(self.output)?),
        };
        writer.write(Piece::Raw(chunk)).await
    }

    pub(super) async fn halted(&self) -> Halt {
        match &self.writer {
            Some(writer) => writer.halted().await,
            None => future::pending().await,
        }
    }

    pub(super) async fn end(self) -> Result<(), Halt> {
        match self.writer {
            Some(writer) => writer.flush().await,
            None => Ok(()),
        }
    }
}
