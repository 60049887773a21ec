//! How a run is shown. A renderer consumes events and knows nothing of connections.

mod json;
mod raw;

use crate::event::Started;
use crate::status::Record;
use crate::stdio::{Halt, Output};
use rexec_client::Chunk;

/// One of the ways to show a run.
#[derive(Debug)]
pub enum Renderer {
    /// The command's output as it is.
    Raw,
    /// JSON Lines.
    Json(json::Json),
}

/// Where one stream of output goes.
#[derive(Debug)]
pub enum Sink {
    /// As it is.
    Raw(raw::Raw),
    /// As events.
    Json(json::Lines),
}

impl Renderer {
    /// The plain output, or JSON Lines.
    pub fn new(json: bool) -> Self {
        if json { Self::Json(json::Json::default()) } else { Self::Raw }
    }

    /// A command runs: returns where its stdout and its stderr go.
    pub async fn started(&mut self, started: &Started) -> Result<(Sink, Sink), Halt> {
        match self {
            Self::Raw => Ok((
                Sink::Raw(raw::Raw::new(Output::Stdout)),
                Sink::Raw(raw::Raw::new(Output::Stderr)),
            )),
            Self::Json(json) => {
                let lines = json.started(started).await?;
                Ok((Sink::Json(lines.of(Output::Stdout)), Sink::Json(lines.of(Output::Stderr))))
            }
        }
    }

    /// The last event. Returns once it is written.
    pub async fn ended(&mut self, record: &Record<'_>) -> Result<(), Halt> {
        match self {
            Self::Raw => Ok(()),
            Self::Json(json) => json.ended(record).await,
        }
    }
}

impl Sink {
    /// Takes output; waits while the reader on this side is slow.
    pub async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.take(chunk).await,
            Self::Json(lines) => lines.take(chunk).await,
        }
    }

    /// Waits until no more output can be taken.
    pub async fn halted(&self) -> Halt {
        match self {
            Self::Raw(raw) => raw.halted().await,
            Self::Json(lines) => lines.halted().await,
        }
    }

    /// The stream has ended. Returns once everything is written.
    pub async fn end(self) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.end().await,
            Self::Json(lines) => lines.end().await,
        }
    }
}
