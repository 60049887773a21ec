//! JSON Lines on stdout: `start`, then `stdout` and `stderr` in the order of arrival, then `exit`.

use crate::event::Started;
use crate::render::text::{Part, Text};
use crate::status::{VERSION, json_line, time};
use crate::stdio::{Halt, Output, Piece, Writer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rexec_client::Chunk;
use serde::Serialize;
use std::rc::Rc;
use std::time::SystemTime;

/// The renderer; its thread is started with the first line.
#[derive(Debug, Default)]
pub struct Json {
    writer: Option<Writer>,
}

/// What all lines of a run share.
#[derive(Debug)]
pub(super) struct Run {
    writer: Writer,
    started: Started,
}

/// One stream of output, as events.
#[derive(Debug)]
pub struct Lines {
    run: Rc<Run>,
    output: Output,
    text: Text,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    id: &'a str,
    time: String,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Start { pid: u32 },
    Text { text: &'a str },
    Data { data_b64: String },
    Gap { stream: &'static str, bytes: u64 },
}

impl Json {
    pub(super) async fn started(&mut self, started: &Started) -> Result<Streams, Halt> {
        let run = Run { writer: self.writer()?, started: started.clone() };
        let line = run.line("start", started.time, Body::Start { pid: started.pid });
        run.writer.write(Piece::Line(line, None)).await?;
        Ok(Streams(Rc::new(run)))
    }

    pub(super) async fn ended(&mut self, line: Vec<u8>) -> Result<(), Halt> {
        let writer = self.writer()?;
        writer.write(Piece::Line(line, None)).await?;
        writer.flush().await
    }

    fn writer(&mut self) -> Result<Writer, Halt> {
        match &self.writer {
            Some(writer) => Ok(writer.clone()),
            None => Ok(self.writer.insert(Writer::start(Output::Stdout)?).clone()),
        }
    }
}

/// Makes the streams of one run.
pub(super) struct Streams(Rc<Run>);

impl Streams {
    pub(super) fn of(&self, output: Output) -> Lines {
        Lines { run: Rc::clone(&self.0), output, text: Text::default() }
    }
}

impl Run {
    fn line(&self, r#type: &'static str, at: SystemTime, body: Body<'_>) -> Vec<u8> {
        let Started { host, job, .. } = &self.started;
        json_line(&Line { v: VERSION, r#type, host, id: job.as_str(), time: time(at), body })
    }
}

impl Lines {
    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let Self { run, output, text } = self;
        let at = chunk.time().unwrap_or_else(SystemTime::now);
        let line = text.push(&chunk, |part| run.line(output.name(), at, body(part)));
        match line {
            Some(line) => run.writer.write(Piece::Line(line, Some(chunk))).await,
            None => Ok(()),
        }
    }

    pub(super) async fn gap(&self, bytes: u64) -> Result<(), Halt> {
        let body = Body::Gap { stream: self.output.name(), bytes };
        let line = self.run.line("gap", SystemTime::now(), body);
        self.run.writer.write(Piece::Line(line, None)).await
    }

    pub(super) async fn failed(&self) -> Halt {
        self.run.writer.failed().await
    }

    pub(super) async fn end(mut self) -> Result<(), Halt> {
        let Self { run, output, text } = &mut self;
        let line = text.finish(|part| run.line(output.name(), SystemTime::now(), body(part)));
        if let Some(line) = line {
            run.writer.write(Piece::Line(line, None)).await?;
        }
        Ok(()) // the exit line is flushed, and that is the last
    }
}

fn body(part: Part<'_>) -> Body<'_> {
    match part {
        Part::Text(text) => Body::Text { text },
        Part::Bytes(bytes) => Body::Data { data_b64: STANDARD.encode(bytes) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_base64() {
        let show = |part| serde_json::to_string(&body(part)).unwrap();
        assert_eq!(show(Part::Bytes(b"\xff\x00")), r#"{"data_b64":"/wA="}"#);
        assert_eq!(show(Part::Text("\x1b[0m\n")), r#"{"text":"\u001b[0m\n"}"#);
    }
}
