//! Identifiers that travel on the wire.

use crate::text;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Names one operation within a connection. The client chooses it; ids only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The connection itself: `hello`, `ping`, `goodbye` and connection errors travel on it.
    pub const CONNECTION: Self = Self(0);

    /// The id after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a job on an agent: 1 to 128 characters of `A-Z a-z 0-9 . _ -`, not starting with a dot or
/// a dash, so that it is safe as a file name, as a word of a command line, and on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// The longest id, in bytes.
    pub const MAX: usize = 128;

    /// Takes `id` if it is well formed.
    pub fn new(id: &str) -> Option<Self> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let starts_well = id.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        (starts_well && id.len() <= Self::MAX && id.bytes().all(legal)).then(|| Self(id.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text::parse(d, "a job id", Self::new)
    }
}

/// Names a room of an agent: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, the first a letter or digit;
/// or `job:` and the id of a job, for the room of that job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RoomName(String);

impl RoomName {
    /// The longest name of a room that is no job's, in bytes.
    pub const MAX: usize = 64;
    /// What the name of a job's room begins with.
    pub const JOB: &str = "job:";

    /// Takes `name` if it is well formed.
    pub fn new(name: &str) -> Option<Self> {
        let fits = match name.strip_prefix(Self::JOB) {
            Some(id) => JobId::new(id).is_some(),
            None => name.len() <= Self::MAX && JobId::new(name).is_some(),
        };
        fits.then(|| Self(name.to_owned()))
    }

    /// The room of a job.
    pub fn of_job(job: &JobId) -> Self {
        Self(format!("{}{job}", Self::JOB))
    }

    /// The job whose room this is.
    pub fn job(&self) -> Option<JobId> {
        self.0.strip_prefix(Self::JOB).and_then(JobId::new)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text::parse(d, "the name of a room", Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_safe_words() {
        assert!(JobId::new("deploy-2026-11-22-web1").is_some());
        for bad in ["", ".", "..", "-rf", "a/b", "a b", "a\n", "ä", &"x".repeat(129)] {
            assert!(JobId::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn rooms_are_words_or_jobs() {
        for name in ["lobby", "incident-42", "job:deploy.1", &"x".repeat(64)] {
            assert_eq!(RoomName::new(name).unwrap().as_str(), name);
        }
        let job = JobId::new("deploy.1").unwrap();
        assert_eq!(RoomName::of_job(&job).job(), Some(job));
        assert_eq!(RoomName::new("lobby").unwrap().job(), None);
        for bad in ["", "a b", "a:b", "job:", "job:a b", "../x", "ü", "#ops", &"x".repeat(65)] {
            assert!(RoomName::new(bad).is_none(), "{bad:?}");
        }
    }
}
