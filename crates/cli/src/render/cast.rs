//! A recording that terminal players play: asciicast, version 2.
//! <https://docs.asciinema.org/manual/asciicast/v2/>

use crate::render::text::{Part, Text};
use crate::stdio::{Halt, Output, Piece, Writer};
use rexec_client::Chunk;
use serde::Serialize;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// What a recording begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// When the job was started.
    pub begin: SystemTime,
    /// The command.
    pub title: String,
    /// The job has a terminal. The output of others is shown as a terminal would show it, where a line
    /// ends with CR and LF.
    pub terminal: bool,
}

/// The renderer.
#[derive(Debug)]
pub struct Cast {
    header: Header,
}

/// One stream of output, as events.
#[derive(Debug)]
pub struct Track {
    recording: Rc<Recording>,
    text: Text,
}

#[derive(Debug)]
struct Recording {
    writer: Writer,
    clock: Clock,
    terminal: bool,
}

/// Seconds since the start, which never run backwards.
#[derive(Debug)]
struct Clock {
    begin: SystemTime,
    last: Cell<Duration>,
}

#[derive(Serialize)]
struct First<'a> {
    version: u8,
    width: u16,
    height: u16,
    timestamp: u64,
    title: &'a str,
}

impl Cast {
    pub(super) fn new(header: Header) -> Self {
        Self { header }
    }

    pub(super) async fn started(&self) -> Result<(Track, Track), Halt> {
        let Header { begin, terminal, .. } = self.header;
        let writer = Writer::start(Output::Stdout)?;
        writer.write(Piece::Line(self.header.line(), None)).await?;
        let clock = Clock { begin, last: Cell::default() };
        let recording = Rc::new(Recording { writer, clock, terminal });
        let track = || Track { recording: Rc::clone(&recording), text: Text::default() };
        Ok((track(), track()))
    }
}

impl Header {
    fn line(&self) -> Vec<u8> {
        let since = self.begin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        crate::status::json_line(&First {
            version: 2,
            width: self.columns,
            height: self.rows,
            timestamp: since.as_secs(),
            title: &self.title,
        })
    }
}

impl Track {
    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let Self { recording, text } = self;
        let at = recording.clock.at(chunk.time().unwrap_or_else(SystemTime::now));
        let line = text.push(&chunk, |part| event(at, "o", &shown(part, recording.terminal)));
        match line {
            Some(line) => recording.writer.write(Piece::Line(line, Some(chunk))).await,
            None => Ok(()),
        }
    }

    /// A marker, which players show on the time line.
    pub(super) async fn gap(&self, bytes: u64) -> Result<(), Halt> {
        let Recording { writer, clock, .. } = &*self.recording;
        let line = event(clock.last.get(), "m", &format!("{bytes} bytes are gone here"));
        writer.write(Piece::Line(line, None)).await
    }

    pub(super) async fn failed(&self) -> Halt {
        self.recording.writer.failed().await
    }

    pub(super) async fn end(mut self) -> Result<(), Halt> {
        let Self { recording, text } = &mut self;
        let at = recording.clock.last.get();
        if let Some(line) = text.finish(|part| event(at, "o", &shown(part, true))) {
            recording.writer.write(Piece::Line(line, None)).await?;
        }
        recording.writer.flush().await
    }
}

impl Clock {
    fn at(&self, time: SystemTime) -> Duration {
        let at = time.duration_since(self.begin).unwrap_or_default().max(self.last.get());
        self.last.set(at);
        at
    }
}

fn event(at: Duration, code: &str, data: &str) -> Vec<u8> {
    // Six digits, as asciinema writes them.
    let seconds = (at.as_secs_f64() * 1e6).round() / 1e6;
    crate::status::json_line(&(seconds, code, data))
}

fn shown(part: Part<'_>, terminal: bool) -> String {
    let text = match part {
        Part::Text(text) => text.into(),
        Part::Bytes(bytes) => String::from_utf8_lossy(bytes),
    };
    if terminal { text.into_owned() } else { text.replace('\n', "\r\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_header_and_the_events_are_those_of_the_format() {
        let header = Header {
            columns: 80,
            rows: 24,
            begin: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
            title: "make \"all\"".to_owned(),
            terminal: false,
        };
        assert_eq!(
            line(header.line()),
            "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,\"title\":\"make \\\"all\\\"\"}\n"
        );
        let clock = Clock { begin: header.begin, last: Cell::default() };
        let later = clock.at(header.begin + Duration::from_millis(1234));
        assert_eq!(line(event(later, "o", "\u{1b}[1m")), "[1.234,\"o\",\"\\u001b[1m\"]\n");
        // A clock that was set back does not turn the recording back.
        assert_eq!(clock.at(header.begin), later);
    }

    #[test]
    fn lines_end_as_on_a_terminal() {
        assert_eq!(shown(Part::Text("a\nb"), false), "a\r\nb");
        assert_eq!(shown(Part::Text("a\r\nb"), true), "a\r\nb");
        assert_eq!(shown(Part::Bytes(b"a\xff\n"), false), "a\u{fffd}\r\n");
    }
}
