//! What became of each file, on stdout; and what went wrong, on stderr.

use super::plan::Plan;
use super::progress::Progress;
use crate::exit::Notes;
use crate::status::{VERSION, json_line, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rexec_client::{Digest, Outcome, Summary, TransferEvent, printable};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Instant, SystemTime};

/// Takes events, and says what was asked for.
#[derive(Debug)]
pub(super) struct Report {
    form: Form,
    host: String,
    /// Nothing is changed.
    dry_run: bool,
    /// What goes to stdout is the file itself.
    is_pipe: bool,
    notes: Notes,
    progress: Option<Progress>,
    began: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing but failures.
    Quiet,
    /// What changes, or would.
    Changes,
    /// Every file.
    Lines,
    Json,
}

/// One file, as JSON.
#[derive(Debug, Serialize)]
struct FileLine<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    #[serde(flatten)]
    path: Path<'a>,
    state: &'static str,
    size: Option<u64>,
    sha256: Option<String>,
    message: Option<&'a str>,
    /// What failed, from what was asked for on, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Path<'a> {
    Text { path: &'a str },
    Data { path_b64: String },
}

/// The last line of JSON.
#[derive(Debug, Serialize)]
struct SummaryLine<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    time: String,
    outcome: &'static str,
    code: u8,
    stored: Option<u64>,
    same: Option<u64>,
    adjusted: Option<u64>,
    failed: Option<u64>,
    removed: Option<u64>,
    bytes: Option<u64>,
    elapsed_ms: u64,
}

/// What became of a file.
struct Entry<'a> {
    path: &'a [u8],
    state: &'static str,
    size: Option<u64>,
    sha256: Option<Digest>,
    failure: Option<Failure<'a>>,
}

/// Why, and of what in whole.
#[derive(Debug, Clone, Copy)]
struct Failure<'a> {
    message: &'a str,
    at: &'a [u8],
}

impl Report {
    pub(super) fn new(plan: &Plan, notes: Notes) -> Self {
        let options = &plan.options;
        let form = if options.json {
            Form::Json
        } else if options.report {
            Form::Lines
        } else if options.changes_nothing() {
            Form::Changes
        } else {
            Form::Quiet
        };
        let is_pipe = matches!(plan.job, super::plan::Job::GetStdout { .. });
        let progress = plan.progress.then(Progress::new);
        let (host, dry_run) = (plan.host.clone(), options.changes_nothing());
        Self { form, host, dry_run, is_pipe, notes, progress, began: Instant::now() }
    }

    pub(super) fn take(&mut self, event: TransferEvent) {
        if let Some(progress) = &mut self.progress {
            progress.take(&event);
        }
        match event {
            TransferEvent::Stored { path, size, sha256, dry_run } => {
                let state = if dry_run { "would-store" } else { "stored" };
                self.entry(&Entry { path: &path, state, size: Some(size), sha256, failure: None });
            }
            TransferEvent::Adjusted { path, size, sha256 } => {
                let state = if self.dry_run { "would-adjust" } else { "adjusted" };
                self.entry(&Entry { path: &path, state, size: Some(size), sha256, failure: None });
            }
            TransferEvent::Skipped { path, size, sha256 } => {
                let (state, size) = ("same", Some(size));
                self.entry(&Entry { path: &path, state, size, sha256, failure: None });
            }
            TransferEvent::Removed { path } => {
                let state = if self.dry_run { "would-remove" } else { "removed" };
                self.entry(&Entry { path: &path, state, size: None, sha256: None, failure: None });
            }
            TransferEvent::Failed { path, at, message } => {
                let shown = printable(&String::from_utf8_lossy(&at));
                let (host, text) = (printable(&self.host), printable(&message));
                let between = if shown.is_empty() { "" } else { ": " };
                let line = format!("{host}: {shown}{between}{text}");
                match &self.progress {
                    Some(progress) => progress.suspend(|| self.notes.say(&line)),
                    None => self.notes.say(&line),
                }
                let failure = Some(Failure { message: &message, at: &at });
                let state = "failed";
                self.entry(&Entry { path: &path, state, size: None, sha256: None, failure });
            }
            _ => {}
        }
    }

    fn entry(&self, entry: &Entry<'_>) {
        let Entry { path, state, size, sha256, failure } = *entry;
        let line = match self.form {
            Form::Quiet => return,
            Form::Changes if matches!(state, "same" | "failed") => return,
            Form::Lines | Form::Changes if state == "failed" => return,
            Form::Lines | Form::Changes => {
                let size = size.map_or("-".to_owned(), |size| size.to_string());
                let sha256 = sha256.map_or("-".to_owned(), |digest| digest.to_string());
                let path = printable(&String::from_utf8_lossy(path));
                format!("{state} {size} {sha256} {path}\n").into_bytes()
            }
            Form::Json => json_line(&FileLine {
                v: VERSION,
                r#type: "file",
                host: &self.host,
                path: match str::from_utf8(path) {
                    Ok(path) => Path::Text { path },
                    Err(_) => Path::Data { path_b64: STANDARD.encode(path) },
                },
                state,
                size,
                sha256: sha256.map(|digest| digest.to_string()),
                message: failure.map(|failure| failure.message),
                at: failure.map(|failure| String::from_utf8_lossy(failure.at)),
            }),
        };
        self.print(&line);
    }

    /// Where a file itself goes to stdout, what is said of it goes beside.
    fn print(&self, line: &[u8]) {
        let write = || {
            // A reader that left is told nothing, and the transfer goes on.
            let _ = if self.is_pipe {
                io::stderr().write_all(line)
            } else {
                io::stdout().write_all(line)
            };
        };
        match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        }
    }

    pub(super) fn end(&mut self, summary: Option<Summary>, outcome: &Outcome) {
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
        let elapsed = self.began.elapsed();
        if self.form == Form::Json {
            self.print(&json_line(&SummaryLine {
                v: VERSION,
                r#type: "summary",
                host: &self.host,
                time: time(SystemTime::now()),
                outcome: outcome.name(),
                code: outcome.exit_code(),
                stored: summary.map(|summary| summary.stored),
                same: summary.map(|summary| summary.skipped),
                adjusted: summary.map(|summary| summary.adjusted),
                failed: summary.map(|summary| summary.failed),
                removed: summary.map(|summary| summary.removed),
                bytes: summary.map(|summary| summary.bytes),
                elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            }));
        }
        if let Some(Summary { stored, skipped, adjusted, failed, removed, bytes }) = summary {
            self.notes.detail(|| {
                format!(
                    "{}: {stored} stored ({bytes} bytes), {adjusted} adjusted, {skipped} the same, \
                     {removed} removed, {failed} failed, in {:.1} s",
                    printable(&self.host),
                    elapsed.as_secs_f64()
                )
            });
        }
    }
}
