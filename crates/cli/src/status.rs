//! The exit record: the same object as the last line of `--json` and on `--status-fd`.

use crate::event::{Ended, Left};
use crate::stdio::Output;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rexec_client::{Algorithm, NeverStarted, Outcome, Tally, is_harmless};
use serde::{Serialize, Serializer};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// Version of all JSON that rexec prints.
pub const VERSION: u8 = 1;

/// How a run ended, for programs. Every key is always there.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    v: u8,
    r#type: &'static str,
    host: Option<&'a str>,
    id: Option<&'a str>,
    time: String,
    /// The name of the outcome.
    outcome: &'static str,
    /// What rexec ends with.
    code: u8,
    /// What the command ended with, if it ended by itself.
    status: Option<u8>,
    /// The signal that ended it, if one did.
    signal: Option<String>,
    /// Why it was never started, if so.
    reason: Option<NeverStarted>,
    message: Option<String>,
    stdin: Option<StreamRecord>,
    stdout: Option<StreamRecord>,
    stderr: Option<StreamRecord>,
    /// Whether all output from the first byte on is here, and is what was sent.
    verified: Option<bool>,
    /// Something the command left behind still holds its output open.
    held: bool,
    elapsed_ms: Option<u64>,
    user_ms: Option<u64>,
    system_ms: Option<u64>,
    max_rss_kib: Option<u64>,
    /// What to type to come back to the job, if it may still run.
    attach: Option<&'a str>,
}

/// What is known of a job that this client has left.
#[derive(Debug, Serialize)]
pub struct LeftRecord<'a> {
    v: u8,
    r#type: &'static str,
    host: &'a str,
    id: &'a str,
    time: String,
}

impl<'a> LeftRecord<'a> {
    /// The record of `left`, made now.
    pub fn new(left: &'a Left) -> Self {
        let (host, id) = (left.host.as_str(), left.job.as_str());
        Self { v: VERSION, r#type: "detached", host, id, time: time(SystemTime::now()) }
    }
}

/// One stream: `bytes`, the digest under the name of its function, and `closed` if this side closed
/// it before its end.
#[derive(Debug)]
struct StreamRecord {
    tally: Tally,
    algorithm: Algorithm,
    closed: bool,
}

impl Serialize for StreamRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bytes", &self.tally.size)?;
        map.serialize_entry(self.algorithm.name(), &self.tally.hash.to_string())?;
        if self.closed {
            map.serialize_entry("closed", &true)?;
        }
        map.end()
    }
}

impl<'a> Record<'a> {
    /// The record of `ended`, made now.
    pub fn new(ended: &'a Ended) -> Self {
        let outcome = &ended.outcome;
        let status = ended.status.as_ref();
        let usage = status.map(|status| status.usage());
        let stream = |tally: Option<Tally>, output: Option<Output>| {
            let closed = output.is_some_and(|output| ended.closed.contains(&output));
            Some(StreamRecord { tally: tally?, algorithm: status?.algorithm(), closed })
        };
        Self {
            v: VERSION,
            r#type: "exit",
            host: ended.host.as_deref(),
            id: ended.job.as_ref().map(|job| job.as_str()),
            time: time(SystemTime::now()),
            outcome: outcome.name(),
            code: outcome.exit_code(),
            status: match outcome {
                Outcome::Exited { code } => Some(*code),
                _ => None,
            },
            signal: match outcome {
                Outcome::Signaled { signal, .. } => Some(signal.to_string()),
                _ => None,
            },
            reason: match outcome {
                Outcome::NeverStarted { reason, .. } => Some(*reason),
                _ => None,
            },
            message: message(outcome).map(str::to_owned),
            stdin: stream(status.map(|status| status.stdin()), None),
            stdout: stream(status.map(|status| status.stdout()), Some(Output::Stdout)),
            stderr: stream(status.map(|status| status.stderr()), Some(Output::Stderr)),
            verified: status.map(|status| status.is_verified()),
            held: status.is_some_and(|status| status.held()),
            elapsed_ms: usage.map(|usage| usage.wall_ms),
            user_ms: usage.map(|usage| usage.user_ms),
            system_ms: usage.map(|usage| usage.system_ms),
            max_rss_kib: usage.map(|usage| usage.max_rss_kib),
            attach: ended.again.as_deref(),
        }
    }
}

/// RFC 3339 in UTC, with six digits of fraction.
pub fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(writable(time)).to_string()
}

/// The same, or the end of the year 9999: a later one, which only a peer that is wrong sends, cannot be
/// written in RFC 3339.
pub fn writable(time: SystemTime) -> SystemTime {
    let last = SystemTime::UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    time.min(last)
}

/// A value as one line of JSON. What would drive or confuse a terminal is escaped in it, as JSON lets.
pub fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Only a map with other keys than text, or a failing writer, could make this fail.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    // It escapes the control characters of ASCII by itself.
    if !line.is_ascii() {
        line = harmless(&line);
    }
    line.push('\n');
    line.into_bytes()
}

fn harmless(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_harmless(c) {
            shown.push(c);
        } else {
            let mut units = [0; 2];
            shown.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

/// What went wrong, in words.
pub(crate) fn message(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::NeverStarted { message, .. }
        | Outcome::Denied { message }
        | Outcome::Unreachable { message }
        | Outcome::Lost { message }
        | Outcome::Incomplete { message }
        | Outcome::Local { message } => Some(message),
        Outcome::Signaled { out_of_memory: true, .. } => Some("out of memory"),
        _ => None,
    }
}

/// The descriptor of `--status-fd`.
#[derive(Debug)]
pub struct StatusFd(File);

impl StatusFd {
    /// Takes a copy of descriptor `number`, which must be open for writing. To be called before this
    /// process opens anything itself, so that the number can only be one that it was started with.
    pub fn open(number: i32) -> Result<Self, String> {
        let copy = duplicate(number).map_err(|error| format!("--status-fd {number}: {error}"))?;
        let mode = fcntl(&copy, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        match mode.map(|mode| mode & OFlag::O_ACCMODE) {
            Ok(OFlag::O_RDONLY) => {
                Err(format!("--status-fd {number}: it is open for reading only"))
            }
            _ => Ok(Self(File::from(copy))),
        }
    }

    /// Writes the line of a record.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line)
    }
}

#[allow(unsafe_code, reason = "a number from the command line is all there is")]
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow ends with this call, and the kernel checks the number: if no such descriptor
    // is open, the answer is EBADF.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_client::Signal;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    fn ended(outcome: Outcome) -> Ended {
        Ended::of(Some("web1".to_owned()), outcome)
    }

    fn parsed(ended: &Ended) -> serde_json::Value {
        let line = json_line(&Record::new(ended));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn json_drives_no_terminal_and_says_the_same() {
        let text = "a\u{1b}[2J\u{9b}2J\u{202e}\u{2028}\u{200b}\u{e0041}é日";
        let line = json_line(&text);
        let shown = str::from_utf8(&line).unwrap().trim_end();
        assert!(shown.chars().all(is_harmless), "{shown:?}");
        assert!(shown.ends_with("é日\""), "{shown:?}");
        assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
    }

    #[test]
    fn each_outcome_has_its_code_and_its_details() {
        let reason = NeverStarted::NotFound;
        let message = || "m\n\u{1b}".to_owned();
        for (outcome, name, code) in [
            (Outcome::Exited { code: 7 }, "exited", 7),
            (Outcome::Signaled { signal: Signal::KILL, out_of_memory: false }, "signaled", 137),
            (Outcome::TimedOut, "timed_out", 124),
            (Outcome::NeverStarted { reason, message: message() }, "never_started", 127),
            (Outcome::Local { message: message() }, "local", 125),
            (Outcome::Lost { message: message() }, "lost", 255),
        ] {
            let value = parsed(&ended(outcome));
            assert_eq!(
                (value["outcome"].as_str(), value["code"].as_u64()),
                (Some(name), Some(code))
            );
            assert_eq!(value["status"].as_u64(), (name == "exited").then_some(7));
            assert_eq!(value["signal"].as_str(), (name == "signaled").then_some("KILL"));
            assert_eq!(value["reason"].as_str(), (name == "never_started").then_some("not_found"));
            assert_eq!((value["type"].as_str(), value["v"].as_u64()), (Some("exit"), Some(1)));
            assert!(value["stdout"].is_null() && value["elapsed_ms"].is_null());
            assert!(value["time"].as_str().unwrap().ends_with('Z'));
        }
    }

    #[test]
    fn no_time_of_a_peer_is_too_late_to_be_written() {
        let late = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::MAX);
        assert_eq!(time(late), "9999-12-31T23:59:59.999000Z");
    }

    #[test]
    fn a_stream_has_its_digest_under_its_name() {
        let algorithm = Algorithm::Blake3;
        let record = StreamRecord { tally: Tally::nothing(algorithm), algorithm, closed: true };
        let value = serde_json::to_value(&record).unwrap();
        assert_eq!(value["bytes"], 0);
        assert!(value["blake3"].as_str().unwrap().starts_with("af1349b9"));
        assert_eq!(value["closed"], true);
    }

    #[test]
    fn the_descriptor_must_be_writable() {
        let (mut reader, writer) = io::pipe().unwrap();
        StatusFd::open(writer.as_raw_fd())
            .unwrap()
            .write(&json_line(&Record::new(&ended(Outcome::TimedOut))))
            .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("timed_out"));
        assert!(StatusFd::open(reader.as_raw_fd()).unwrap_err().contains("reading"));
        assert!(StatusFd::open(987_654).unwrap_err().contains("987654"));
    }
}
