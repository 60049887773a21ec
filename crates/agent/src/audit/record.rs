//! One line of the log, and how it is linked to the line before it.

use rexec_protocol::{Algorithm, Digest};
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// The longest line that is taken for a record. What this module writes is half of it at most.
pub const MAX_LINE: usize = 128 * 1024;

/// The end of a chain: the number of a record, and the SHA-256 of its line without the newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Counts from 1; 0 before the first record.
    pub seq: u64,
    /// In hexadecimal; zeros before the first record.
    pub hash: String,
}

/// When something happened.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// By the machine's clock.
    pub time: SystemTime,
    /// Since the agent started, by a clock that nobody sets.
    pub monotonic: Duration,
}

/// What every record has, as far as the chain needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// The number of the record.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// The hash of the line before.
    pub prev: String,
    /// What happened.
    pub event: String,
    /// Of `recovered`: how many bytes before this line are no record.
    pub torn_bytes: Option<u64>,
}

impl Link {
    /// Before the first record.
    pub fn start() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }

    /// The link that `line` (without its newline), record number `seq`, is for the next record.
    pub fn of(seq: u64, line: &[u8]) -> Self {
        Self { seq, hash: Digest::of(Algorithm::Sha256, line).to_string() }
    }

    /// The line, with its newline, that follows this one and tells `body`, a JSON object; and the
    /// link that it is.
    pub fn next(&self, stamp: Stamp, body: &str) -> (String, Self) {
        let seq = self.seq.saturating_add(1);
        let time = humantime::format_rfc3339_micros(stamp.time);
        let (monotonic, prev) = (stamp.monotonic.as_millis(), &self.hash);
        let fields = body.strip_prefix('{').unwrap_or(body);
        let mut line = format!(
            r#"{{"seq":{seq},"time":"{time}","monotonic_ms":{monotonic},"prev":"{prev}",{fields}"#
        );
        let link = Self::of(seq, line.as_bytes());
        line.push('\n');
        (line, link)
    }
}

impl Record {
    /// Reads a line; `None` if it is no record.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}
