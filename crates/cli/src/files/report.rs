//! What became of each file, on stdout; and what went wrong, on stderr.

use super::args::FileOptions;
use super::plan::Plan;
use super::progress::Progress;
use crate::closed;
use crate::exit::Notes;
use crate::status::{self, VERSION, json_line, time};
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
    words: Words,
    /// What goes to stdout is the file itself.
    is_pipe: bool,
    notes: Notes,
    progress: Option<Progress>,
    began: Instant,
    /// The first line that could not be written.
    fault: Option<io::Error>,
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
    /// How many bytes of it an earlier transfer had left.
    resumed: Option<u64>,
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
    host: Option<&'a str>,
    time: String,
    outcome: &'static str,
    code: u8,
    message: Option<&'a str>,
    stored: Option<u64>,
    same: Option<u64>,
    adjusted: Option<u64>,
    failed: Option<u64>,
    removed: Option<u64>,
    folders: Option<u64>,
    bytes: Option<u64>,
    elapsed_ms: u64,
}

impl<'a> SummaryLine<'a> {
    fn new(host: Option<&'a str>, outcome: &'a Outcome, message: Option<&'a str>) -> Self {
        let (stored, same, adjusted, failed) = (None, None, None, None);
        let (removed, folders, bytes) = (None, None, None);
        Self {
            v: VERSION,
            r#type: "summary",
            host,
            time: time(SystemTime::now()),
            outcome: outcome.name(),
            code: outcome.exit_code(),
            message: message.or_else(|| status::message(outcome)),
            stored,
            same,
            adjusted,
            failed,
            removed,
            folders,
            bytes,
            elapsed_ms: 0,
        }
    }
}

/// The last line of JSON, of what did not begin.
pub(super) fn not_begun(outcome: &Outcome) -> Vec<u8> {
    json_line(&SummaryLine::new(None, outcome, None))
}

/// What became of a file, or of a folder.
struct Entry<'a> {
    kind: &'static str,
    path: &'a [u8],
    state: &'static str,
    size: Option<u64>,
    sha256: Option<Digest>,
    resumed: Option<u64>,
    failure: Option<Failure<'a>>,
}

impl<'a> Entry<'a> {
    fn new(path: &'a [u8], state: &'static str) -> Self {
        Self { kind: "file", path, state, size: None, sha256: None, resumed: None, failure: None }
    }
}

/// Why, and of what in whole.
#[derive(Debug, Clone, Copy)]
struct Failure<'a> {
    message: &'a str,
    at: &'a [u8],
}

/// What is said of files that are not the same.
#[derive(Debug)]
struct Words {
    stored: &'static str,
    adjusted: &'static str,
    removed: &'static str,
}

impl Words {
    fn of(options: &FileOptions) -> Self {
        let (stored, adjusted, removed) = match options {
            // Nothing was to be done about them.
            FileOptions { checksum_only: true, .. } => ("differs", "differs", "extra"),
            FileOptions { dry_run: true, .. } => ("would-store", "would-adjust", "would-remove"),
            _ => ("stored", "adjusted", "removed"),
        };
        Self { stored, adjusted, removed }
    }
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
        let (host, words) = (plan.host.clone(), Words::of(options));
        let began = Instant::now();
        Self { form, host, words, is_pipe, notes, progress, began, fault: None }
    }

    pub(super) fn take(&mut self, event: TransferEvent) {
        if let Some(progress) = &mut self.progress {
            progress.take(&event);
        }
        match event {
            TransferEvent::Stored { path, size, sha256, resumed, .. } => {
                if resumed > 0 {
                    self.went_on(&path, resumed, size);
                }
                let (size, resumed) = (Some(size), (resumed > 0).then_some(resumed));
                let entry = Entry::new(&path, self.words.stored);
                self.entry(&Entry { size, sha256, resumed, ..entry });
            }
            TransferEvent::Adjusted { path, size, sha256 } => {
                let (entry, size) = (Entry::new(&path, self.words.adjusted), Some(size));
                self.entry(&Entry { size, sha256, ..entry });
            }
            TransferEvent::Skipped { path, size, sha256 } => {
                let (entry, size) = (Entry::new(&path, "same"), Some(size));
                self.entry(&Entry { size, sha256, ..entry });
            }
            TransferEvent::Folder { path, made } => {
                let state = if made { self.words.stored } else { self.words.adjusted };
                // What is in the destination itself has no name before it.
                let path = if path.is_empty() { b"." } else { path.as_slice() };
                self.entry(&Entry { kind: "folder", ..Entry::new(path, state) });
            }
            TransferEvent::Removed { path } => {
                self.entry(&Entry::new(&path, self.words.removed));
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
                self.entry(&Entry { failure, ..Entry::new(&path, "failed") });
            }
            _ => {}
        }
    }

    /// Something that the agent wants people to know.
    pub(super) fn note(&self, words: &str) {
        match &self.progress {
            Some(progress) => progress.suspend(|| self.notes.inform(words)),
            None => self.notes.inform(words),
        }
    }

    fn went_on(&self, path: &[u8], resumed: u64, size: u64) {
        let note = || {
            let (host, path) = (printable(&self.host), printable(&String::from_utf8_lossy(path)));
            format!(
                "{host}: {path}: went on at byte {resumed} of {size}, after what an earlier transfer had left"
            )
        };
        match &self.progress {
            Some(progress) => progress.suspend(|| self.notes.detail(note)),
            None => self.notes.detail(note),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        let Entry { kind, path, state, size, sha256, resumed, failure } = *entry;
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
                r#type: kind,
                host: &self.host,
                path: match str::from_utf8(path) {
                    Ok(path) => Path::Text { path },
                    Err(_) => Path::Data { path_b64: STANDARD.encode(path) },
                },
                state,
                size,
                sha256: sha256.map(|digest| digest.to_string()),
                resumed,
                message: failure.map(|failure| failure.message),
                at: failure.map(|failure| String::from_utf8_lossy(failure.at)),
            }),
        };
        self.print(&line);
    }

    /// Where a file itself goes to stdout, what is said of it goes beside.
    fn print(&mut self, line: &[u8]) {
        let write = || match self.is_pipe {
            true => io::stderr().write_all(line),
            false => closed::stdout()?.write_all(line),
        };
        let written = match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        };
        // A reader that left is told nothing, and the transfer goes on in any case.
        let fault = written.err().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        self.fault = self.fault.take().or(fault);
    }

    /// Why not all that was asked for could be said, if that is so.
    pub(super) fn fault(&self) -> Option<String> {
        let output = if self.is_pipe { "stderr" } else { "stdout" };
        let fault = self.fault.as_ref()?;
        Some(format!("cannot write {output}: {fault}; the transfer itself went to its end"))
    }

    /// From now on there is no line of progress.
    pub(super) fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
    }

    /// The last line. With `message`, why it did not get to its end, if the outcome does not know that.
    pub(super) fn end(
        &mut self,
        summary: Option<Summary>,
        outcome: &Outcome,
        message: Option<&str>,
    ) {
        let elapsed = self.began.elapsed();
        if self.form == Form::Json {
            self.print(&json_line(&SummaryLine {
                stored: summary.map(|summary| summary.stored),
                same: summary.map(|summary| summary.skipped),
                adjusted: summary.map(|summary| summary.adjusted),
                failed: summary.map(|summary| summary.failed),
                removed: summary.map(|summary| summary.removed),
                folders: summary.map(|summary| summary.folders),
                bytes: summary.map(|summary| summary.bytes),
                elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                ..SummaryLine::new(Some(&self.host), outcome, message)
            }));
        }
        if let Some(summary) = summary {
            let Summary { stored, skipped, adjusted, failed, removed, bytes, folders } = summary;
            self.notes.detail(|| {
                format!(
                    "{}: {stored} stored ({bytes} bytes), {adjusted} adjusted, {skipped} the same, \
                     {folders} folders made or adjusted, {removed} removed, {failed} failed, in {:.1} s",
                    printable(&self.host),
                    elapsed.as_secs_f64()
                )
            });
        }
    }
}
