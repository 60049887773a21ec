//! How a run is shown. A renderer consumes events and knows nothing of connections.

pub mod cast;
mod json;
mod raw;
mod stamp;
mod text;

use crate::event::Started;
use crate::exit::Notes;
use crate::stdio::{Halt, Output};
use rexec_client::Chunk;

/// One of the ways to show a run.
#[derive(Debug)]
pub enum Renderer {
    /// The command's output as it is.
    Raw {
        /// Where to say what is not output.
        notes: Notes,
        /// The time goes before each line.
        times: bool,
    },
    /// JSON Lines.
    Json(json::Json),
    /// A recording.
    Cast(cast::Cast),
}

/// Where one stream of output goes.
#[derive(Debug)]
pub enum Sink {
    /// As it is.
    Raw(raw::Raw),
    /// As events.
    Json(json::Lines),
    /// Into a recording.
    Cast(cast::Track),
    /// It is read, counted and dropped.
    Nowhere,
}

impl Renderer {
    /// The plain output, or JSON Lines.
    pub fn new(json: bool, notes: Notes) -> Self {
        if json { Self::Json(json::Json::default()) } else { Self::Raw { notes, times: false } }
    }

    /// The output with the time before each line.
    pub fn with_times(notes: Notes) -> Self {
        Self::Raw { notes, times: true }
    }

    /// A recording for terminal players.
    pub fn recording(header: cast::Header) -> Self {
        Self::Cast(cast::Cast::new(header))
    }

    /// A command runs: returns where its stdout and its stderr go.
    pub async fn started(&mut self, started: &Started) -> Result<(Sink, Sink), Halt> {
        match self {
            Self::Raw { notes, times } => {
                let raw = |output| Sink::Raw(raw::Raw::new(output, *notes, *times));
                Ok((raw(Output::Stdout), raw(Output::Stderr)))
            }
            Self::Json(json) => {
                let lines = json.started(started).await?;
                Ok((Sink::Json(lines.of(Output::Stdout)), Sink::Json(lines.of(Output::Stderr))))
            }
            Self::Cast(cast) => {
                let (stdout, stderr) = cast.started().await?;
                Ok((Sink::Cast(stdout), Sink::Cast(stderr)))
            }
        }
    }

    /// The last event, as a line of JSON. Returns once it is written.
    pub async fn ended(&mut self, line: Vec<u8>) -> Result<(), Halt> {
        match self {
            Self::Raw { .. } | Self::Cast(_) => Ok(()),
            Self::Json(json) => json.ended(line).await,
        }
    }
}

impl Sink {
    /// Takes output; waits while the reader on this side is slow.
    pub async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.take(chunk).await,
            Self::Json(lines) => lines.take(chunk).await,
            Self::Cast(track) => track.take(chunk).await,
            Self::Nowhere => Ok(()),
        }
    }

    /// So many bytes that should be here will never come.
    pub async fn gap(&self, bytes: u64) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.gap(bytes).await,
            Self::Json(lines) => lines.gap(bytes).await,
            Self::Cast(track) => track.gap(bytes).await,
            Self::Nowhere => Ok(()),
        }
    }

    /// Waits until what was taken is written, so that what comes next on the other output is after it.
    pub async fn settle(&self) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.settle().await,
            // Both outputs have one writer.
            Self::Json(_) | Self::Cast(_) | Self::Nowhere => Ok(()),
        }
    }

    /// Waits until something could not be written.
    pub async fn failed(&self) -> Halt {
        match self {
            Self::Raw(raw) => raw.failed().await,
            Self::Json(lines) => lines.failed().await,
            Self::Cast(track) => track.failed().await,
            Self::Nowhere => std::future::pending().await,
        }
    }

    /// Where it is written; `None` for nowhere.
    pub fn output(&self) -> Option<Output> {
        match self {
            Self::Raw(raw) => Some(raw.output()),
            Self::Json(_) | Self::Cast(_) => Some(Output::Stdout),
            Self::Nowhere => None,
        }
    }

    /// The stream has ended. Returns once everything is written.
    pub async fn end(self) -> Result<(), Halt> {
        match self {
            Self::Raw(raw) => raw.end().await,
            Self::Json(lines) => lines.end().await,
            Self::Cast(track) => track.end().await,
            Self::Nowhere => Ok(()),
        }
    }
}
