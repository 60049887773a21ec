//! JSON Lines on stdout: `start`, then `stdout` and `stderr` in the order of arrival, then `exit`.

use crate::event::Started;
use crate::status::{Record, VERSION, json_line, time};
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
}

impl Json {
    pub(super) async fn started(&mut self, started: &Started) -> Result<Streams, Halt> {
        let run = Run { writer: self.writer()?, started: started.clone() };
        let line = run.line("start", started.time, Body::Start { pid: started.pid });
        run.writer.write(Piece::Line(line, None)).await?;
        Ok(Streams(Rc::new(run)))
    }

    pub(super) async fn ended(&mut self, record: &Record<'_>) -> Result<(), Halt> {
        let writer = self.writer()?;
        writer.write(Piece::Line(record.line(), None)).await?;
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
        let line = text.push(&chunk, |body| run.line(output.name(), SystemTime::now(), body));
        match line {
            Some(line) => run.writer.write(Piece::Line(line, Some(chunk))).await,
            None => Ok(()),
        }
    }

    pub(super) async fn halted(&self) -> Halt {
        self.run.writer.halted().await
    }

    pub(super) async fn end(mut self) -> Result<(), Halt> {
        let Self { run, output, text } = &mut self;
        if let Some(line) = text.finish(|body| run.line(output.name(), SystemTime::now(), body)) {
            run.writer.write(Piece::Line(line, None)).await?;
        }
        Ok(()) // the exit line is flushed, and that is the last
    }
}

/// Cuts a stream of bytes into text and what is none. A character that is cut between two chunks is
/// held back, so that it is not taken for what is none.
#[derive(Debug, Default)]
struct Text {
    /// At most three bytes: the beginning of a character.
    held: Vec<u8>,
}

impl Text {
    fn push<T>(&mut self, chunk: &[u8], emit: impl FnOnce(Body<'_>) -> T) -> Option<T> {
        let joined;
        let bytes = if self.held.is_empty() {
            chunk
        } else {
            joined = [&self.held, chunk].concat();
            self.held.clear();
            &joined
        };
        let (text, held) = match str::from_utf8(bytes) {
            Ok(text) => (text, &[][..]),
            Err(error) if error.error_len().is_none() => {
                let (whole, cut) = bytes.split_at(error.valid_up_to());
                (str::from_utf8(whole).unwrap_or_default(), cut)
            }
            Err(_) => return Some(emit(Body::Data { data_b64: STANDARD.encode(bytes) })),
        };
        self.held.extend_from_slice(held);
        (!text.is_empty()).then(|| emit(Body::Text { text }))
    }

    fn finish<T>(&mut self, emit: impl FnOnce(Body<'_>) -> T) -> Option<T> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| emit(Body::Data { data_b64: STANDARD.encode(held) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(body: Body<'_>) -> String {
        serde_json::to_string(&body).unwrap()
    }

    fn all(chunks: &[&[u8]]) -> Vec<String> {
        let mut text = Text::default();
        let mut bodies: Vec<_> = chunks.iter().filter_map(|chunk| text.push(chunk, show)).collect();
        bodies.extend(text.finish(show));
        bodies
    }

    #[test]
    fn characters_that_are_cut_are_put_together_again() {
        let crab = "a🦀z".as_bytes();
        for cut in 1..crab.len() {
            let (one, two) = crab.split_at(cut);
            let joined: String = all(&[one, two])
                .iter()
                .map(|body| {
                    serde_json::from_str::<serde_json::Value>(body).unwrap()["text"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect();
            assert_eq!(joined, "a🦀z", "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_text_is_base64() {
        assert_eq!(all(&[b"\xff\x00"]), [r#"{"data_b64":"/wA="}"#]);
        assert_eq!(all(&[b"a\xf0\x9f"]), [r#"{"text":"a"}"#, r#"{"data_b64":"8J8="}"#]);
        assert_eq!(all(&[b"\xf0", b"x"]), [r#"{"data_b64":"8Hg="}"#]);
        assert_eq!(all(&[b"\x1b[0m\n"]), [r#"{"text":"\u001b[0m\n"}"#]);
    }
}
