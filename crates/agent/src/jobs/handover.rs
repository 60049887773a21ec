//! What an agent that ends in good order tells the next one: which jobs run, so that it can wait for
//! their keepers; and which ids it remembers, so that nothing it knew becomes unknown.
//!
//! One file in the state folder, `handover`. While an agent runs it says nothing (`null`), so whoever
//! finds that knows that the agent before it was killed.

use super::journal::Past;
use super::meta::{Ending, hexadecimal};
use crate::spool::boot_id;
use crate::state_file;
use rexec_protocol::{Algorithm, Digest, JobId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

const FILE: &str = "handover";

/// How the agent before this one ended.
#[derive(Debug)]
pub enum Before {
    /// There was none.
    Nobody,
    /// It was killed.
    Killed,
    /// In good order.
    Left(Box<Handover>),
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// In which boot of the system.
    pub boot: String,
    /// Jobs that run, as lost: that is what they are if nobody comes with them.
    pub running: Vec<Remembered>,
    /// Every job that was submitted after this is known, in milliseconds since the system started.
    pub complete_since_ms: u64,
    /// The same, but for jobs of the owners in `dropped`.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Since when all jobs are known of these owners.
    #[serde(default)]
    pub dropped: HashMap<String, u64>,
    /// Ended jobs that are only remembered, oldest first.
    pub remembered: Vec<Remembered>,
}

/// An id, what was asked under it, and how that ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct Remembered {
    /// The id.
    pub job: JobId,
    owner: String,
    #[serde(with = "hexadecimal")]
    body: Digest,
    digest: Algorithm,
    ending: Ending,
    /// Since when it is only remembered, in milliseconds since the system started.
    pub since_ms: u64,
    /// For how long its keeper waits from then on, if it runs and that has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
}

impl Remembered {
    /// Notes down a job.
    pub fn new(job: JobId, past: &Past, since_ms: u64) -> Self {
        let Past { body, algorithm, owner, exit, .. } = past;
        let (owner, ending) = (owner.clone(), Ending::from(exit));
        Self { job, owner, body: *body, digest: *algorithm, ending, since_ms, lease_ms: None }
    }

    /// The same of a job whose keeper waits for an agent no longer than this.
    pub fn with_lease(self, lease: Option<Duration>) -> Self {
        let ms = |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Self { lease_ms: lease.map(ms), ..self }
    }

    /// For how long its keeper waits for an agent, if that has an end.
    pub fn lease(&self) -> Option<Duration> {
        self.lease_ms.map(Duration::from_millis)
    }

    /// What is remembered of it.
    pub fn past(&self, ended: SystemTime) -> Past {
        let Self { body, digest, owner, ending, .. } = self;
        let (owner, exit) = (owner.clone(), ending.clone().into());
        Past { body: *body, algorithm: *digest, owner, exit, ended }
    }
}

/// Reads what the agent before has left in the folder `state`. What is of another boot is as good as
/// nothing.
///
/// # Errors
/// They say which file it is, and what to do.
pub fn read(state: &Path) -> io::Result<Before> {
    let text = state_file::read(state, FILE).map_err(|error| fault("read", state, &error))?;
    Ok(match text {
        None => Before::Nobody,
        Some(text) => match serde_json::from_slice::<Option<Handover>>(&text) {
            Ok(Some(handover)) if handover.boot == boot_id() => Before::Left(Box::new(handover)),
            Ok(Some(_)) => Before::Nobody,
            // A torn one is that of an agent that was killed, too.
            Ok(None) | Err(_) => Before::Killed,
        },
    })
}

/// From now on an agent runs: what the one before has left is not for another.
///
/// # Errors
/// As [`read`].
pub fn begin(state: &Path) -> io::Result<()> {
    put(state, None).map_err(|error| fault("write", state, &error))
}

fn fault(what: &str, state: &Path, error: &io::Error) -> io::Error {
    let (path, hint) = (state.join(FILE), "mend that, or name another folder with 'state_dir'");
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}; {hint}", path.display()))
}

/// Writes it for the next agent; `None`: an agent runs.
pub fn put(state: &Path, handover: Option<&Handover>) -> io::Result<()> {
    state_file::write(state, FILE, &serde_json::to_vec(&handover)?)
}

/// How long the system is up, suspended or not, to the hundredth of a second.
pub fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    seconds.map(Duration::from_secs_f64).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::Outcome;
    use rexec_protocol::message::Exit;

    #[test]
    fn the_next_agent_learns_how_this_one_ended() {
        let state = tempfile::tempdir().unwrap();
        let take = |state: &Path| {
            let before = read(state);
            // A start that fails after this leaves it as it was.
            assert_eq!(format!("{before:?}"), format!("{:?}", read(state)));
            begin(state).unwrap();
            before
        };
        assert!(matches!(take(state.path()).unwrap(), Before::Nobody));
        assert!(matches!(take(state.path()).unwrap(), Before::Killed));
        let id = JobId::new("one").unwrap();
        let exit = Exit::of_nothing(Outcome::Exited { code: 3 }, Algorithm::Sha256);
        let body = Digest::of(Algorithm::Sha256, b"request");
        let owner = "alice".to_owned();
        let past =
            Past { body, algorithm: Algorithm::Sha256, owner, exit, ended: SystemTime::now() };
        let remembered = vec![Remembered::new(id.clone(), &past, 5)];
        let running = vec![Remembered::new(JobId::new("two").unwrap(), &past, 6)];
        let boot = boot_id();
        let (complete_since_ms, dropped) = (7, HashMap::new());
        let since_ms = None;
        let handover = Handover { boot, running, complete_since_ms, since_ms, dropped, remembered };
        put(state.path(), Some(&handover)).unwrap();
        let Before::Left(left) = take(state.path()).unwrap() else { panic!("it left something") };
        assert_eq!((left.running[0].job.as_str(), left.complete_since_ms), ("two", 7));
        let one = left.remembered.into_iter().next().unwrap();
        assert_eq!((one.job.clone(), one.since_ms), (id, 5));
        let again = one.past(past.ended);
        assert_eq!((again.exit, again.body, again.owner), (past.exit, past.body, past.owner));
        assert!(matches!(take(state.path()).unwrap(), Before::Killed), "once");
        let other = Handover { boot: "another".to_owned(), ..handover };
        put(state.path(), Some(&other)).unwrap();
        assert!(
            matches!(take(state.path()).unwrap(), Before::Nobody),
            "all its processes are gone"
        );
    }
}
