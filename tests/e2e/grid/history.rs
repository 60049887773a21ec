//! What was seen of a cell: every event with its time, and what each client has told.

use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How one `rexec` process ended.
#[derive(Debug)]
pub struct Told {
    /// Its exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Its record on `--status-fd`, if it wrote one.
    pub record: Option<Value>,
    /// What it wrote to stdout.
    pub output: Vec<u8>,
    /// What it wrote to stderr.
    pub words: String,
    /// How often the command had been begun then.
    pub ran: usize,
    /// Whether the agent had the request then.
    pub requested: bool,
}

impl Told {
    /// The outcome on record.
    pub fn outcome(&self) -> &str {
        self.record.as_ref().and_then(|record| record["outcome"].as_str()).unwrap_or("none")
    }

    /// How it ended, in a word.
    pub fn end(&self) -> String {
        match (&self.record, self.code) {
            (Some(_), _) => self.outcome().to_owned(),
            (None, None) => "killed".to_owned(),
            (None, Some(code)) => format!("code {code}"),
        }
    }

    /// All of it, but for output, of which there may be much.
    pub fn summary(&self) -> String {
        let Self { code, words, ran, requested, output, .. } = self;
        let (outcome, words) = (self.outcome(), words.trim_end());
        format!(
            "{outcome}, exit code {code:?}, {} bytes, ran {ran}, requested {requested}: {words:?}",
            output.len()
        )
    }
}

/// The events of a cell, in their order.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    events: Vec<(Duration, String)>,
}

impl History {
    pub fn begin() -> Self {
        Self { begun: Instant::now(), events: Vec::new() }
    }

    /// This happens now.
    pub fn note(&mut self, event: impl Into<String>) {
        self.events.push((self.begun.elapsed(), event.into()));
    }

    /// All of it, a line each.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (when, event) in &self.events {
            let _ = writeln!(text, "{:9.3} s  {event}", when.as_secs_f64());
        }
        text
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- history ---\n{}", self.text());
        }
    }
}
