//! The ids that callers chose, on disk: which were begun, and how they ended.
//!
//! One JSON object a line, only ever appended. A line `begun` is durable before its command is
//! started. A `begun` without its `ended` is a command that ran, or did not, when the agent died: its
//! outcome is `lost`, and it is never started again. One that did not start is `freed`: its id is not taken. The file is written anew, without what is too
//! old, whenever an agent starts, and when most of it is too old.

use super::meta::{Ending, hexadecimal};
use super::{Job, never_ran};
use rexec_net::trusted;
use rexec_protocol::message::Exit;
use rexec_protocol::outcome::Outcome;
use rexec_protocol::{Algorithm, Digest, JobId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const DIED: &str =
    "the agent died while this job ran, or before it began; how it ended is not known";

/// The same of one whose keeper did not wait for ever.
pub(super) const UNATTENDED: &str =
    "its lease was over before there was an agent again, so it was ended; with what is not known";

/// A file of fewer lines is not worth the work of writing it anew.
const SHORT: usize = 20_000;
/// A command of which no end is known may still run: it is remembered for so many times longer.
const UNENDED: u32 = 52;

/// What is remembered of a job that ended.
#[derive(Debug, Clone)]
pub struct Past {
    /// The digest of what was asked.
    pub body: Digest,
    /// The digest function of its streams.
    pub algorithm: Algorithm,
    /// Who asked.
    pub owner: String,
    /// How it ended.
    pub exit: Exit,
    /// When.
    pub ended: SystemTime,
}

/// The file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    keep: Duration,
    tail: Mutex<Tail>,
    /// Held locked: two agents with one journal would run one id twice.
    _lock: File,
}

#[derive(Debug)]
struct Tail {
    file: File,
    /// The last line was not written to its end: the next one must not become part of it.
    is_torn: bool,
    /// Lines in it, and how many of them were needed when it was written anew.
    lines: usize,
    needed: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begun {
        job: JobId,
        owner: String,
        #[serde(with = "hexadecimal")]
        body: Digest,
        digest: Algorithm,
        time: u64,
    },
    Ended {
        job: JobId,
        #[serde(flatten)]
        ending: Ending,
        time: u64,
    },
    Freed {
        job: JobId,
    },
}

impl Journal {
    /// Opens the journal in the folder `state`, and reads what is not older than `keep`.
    pub fn open(state: &Path, keep: Duration) -> io::Result<(Self, HashMap<JobId, Past>)> {
        let fault = |error: io::Error| {
            let state = state.display();
            let hint = "name another folder with 'state_dir' in the agent's configuration";
            io::Error::new(error.kind(), format!("cannot use the folder {state}: {error}; {hint}"))
        };
        prepare(state).map_err(fault)?;
        let lock = lock(&state.join("lock")).map_err(fault)?;
        let path = state.join("journal");
        let known = read(&path, keep).map_err(fault)?;
        let tail = Mutex::new(rewrite(&path, &known).map_err(fault)?);
        let past = known.into_iter().map(|(id, known)| (id, known.past)).collect();
        Ok((Self { path, keep, tail, _lock: lock }, past))
    }

    /// Writes the file anew if most of it may be too old by now. Blocks, also those who record.
    pub fn tidy(&self) -> io::Result<()> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.lines >= SHORT.max(2 * tail.needed) {
            *tail = rewrite(&self.path, &read(&self.path, self.keep)?)?;
        }
        Ok(())
    }

    /// Records that a job is about to be started; durable when this returns. Blocks.
    pub fn begun(&self, job: &Job) -> io::Result<()> {
        let line = Line::Begun {
            job: job.id.clone(),
            owner: job.owner.name.clone(),
            body: job.body,
            digest: job.algorithm,
            time: seconds(SystemTime::now()),
        };
        let file = self.append(&line)?;
        file.sync_data()
    }

    /// Records how a job ended. It is on disk when the system sees fit: if that is never, the end is
    /// not known, and nothing runs twice.
    pub fn ended(&self, job: &Job, exit: &Exit) -> io::Result<()> {
        if never_ran(exit) {
            return self.append(&Line::Freed { job: job.id.clone() }).map(drop);
        }
        self.append(&ended(&job.id, exit, SystemTime::now())).map(drop)
    }

    fn append(&self, line: &Line) -> io::Result<File> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = if tail.is_torn { b"\n".to_vec() } else { Vec::new() };
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
        tail.is_torn = true;
        tail.file.write_all(&text)?;
        tail.is_torn = false;
        tail.lines += 1;
        // To be synced outside of the lock.
        tail.file.try_clone()
    }
}

fn ended(id: &JobId, exit: &Exit, time: SystemTime) -> Line {
    Line::Ended { job: id.clone(), ending: exit.into(), time: seconds(time) }
}

fn prepare(state: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    trusted::demand_unchangeable(state, &fs::metadata(state)?).map_err(io::Error::other)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = private().write(true).create(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another agent uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

/// What the file says of a job.
struct Known {
    past: Past,
    has_ended: bool,
}

fn read(path: &Path, keep: Duration) -> io::Result<HashMap<JobId, Known>> {
    let file = match private().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    trusted::demand_unchangeable(path, &file.metadata()?).map_err(io::Error::other)?;
    let mut known = HashMap::new();
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        // Not written to its end, as on a full disk: then its job was not begun, or how it ended is not known.
        // Without it nothing runs twice.
        match serde_json::from_slice::<Line>(&line?) {
            Ok(line) => {
                take(line, &mut known);
            }
            Err(error) => {
                tracing::warn!(line = number + 1, %error, "a line of the journal is torn")
            }
        }
    }
    let now = SystemTime::now();
    known.retain(|_, known| {
        let keep = if known.has_ended { keep } else { keep.saturating_mul(UNENDED) };
        known.past.is_remembered(keep, now)
    });
    Ok(known)
}

impl Past {
    /// Whether it ended less than `keep` ago; also if the clock was set back meanwhile.
    pub fn is_remembered(&self, keep: Duration, now: SystemTime) -> bool {
        now.duration_since(self.ended).is_ok_and(|age| age < keep) || self.ended > now
    }
}

fn take(line: Line, known: &mut HashMap<JobId, Known>) -> Option<()> {
    match line {
        Line::Begun { job, owner, body, digest, time } => {
            let exit = Exit::of_nothing(Outcome::Lost { message: DIED.to_owned() }, digest);
            let ended = UNIX_EPOCH.checked_add(Duration::from_secs(time))?;
            let past = Past { body, algorithm: digest, owner, exit, ended };
            known.insert(job, Known { past, has_ended: false });
        }
        Line::Ended { job, ending, time } => {
            let known = known.get_mut(&job)?;
            known.past.ended = UNIX_EPOCH.checked_add(Duration::from_secs(time))?;
            known.past.exit = ending.into();
            known.has_ended = true;
        }
        Line::Freed { job } => drop(known.remove(&job)?),
    }
    Some(())
}

/// Writes what is remembered to a new file, which takes the place of the old one.
fn rewrite(path: &Path, known: &HashMap<JobId, Known>) -> io::Result<Tail> {
    let temporary: PathBuf = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = private().append(true).create_new(true).open(&temporary)?;
    let (mut text, mut lines) = (Vec::new(), 0);
    for (id, Known { past, has_ended }) in known {
        let begun = Line::Begun {
            job: id.clone(),
            owner: past.owner.clone(),
            body: past.body,
            digest: past.algorithm,
            time: seconds(past.ended),
        };
        let end = has_ended.then(|| ended(id, &past.exit, past.ended));
        for line in [begun].into_iter().chain(end) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            lines += 1;
        }
    }
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(Tail { file, is_torn: false, lines, needed: lines })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn begun(id: &str, time: SystemTime) -> Line {
        let body = Digest::of(Algorithm::Sha256, b"request");
        let (job, owner) = (JobId::new(id).unwrap(), "alice".to_owned());
        Line::Begun { job, owner, body, digest: Algorithm::Sha256, time: seconds(time) }
    }

    /// What a running command's line says would otherwise be gone with the first tidying.
    #[test]
    fn a_long_journal_loses_what_is_too_old_and_has_ended() {
        let state = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(state.path(), HOUR).unwrap();
        let (now, exit) =
            (SystemTime::now(), Exit::of_nothing(Outcome::Exited { code: 0 }, Algorithm::Sha256));
        let old = now - 2 * HOUR;
        for (id, begin, end) in
            [("old", old, Some(old)), ("running", old, None), ("new", now, Some(now))]
        {
            journal.append(&begun(id, begin)).unwrap();
            if let Some(end) = end {
                journal.append(&ended(&JobId::new(id).unwrap(), &exit, end)).unwrap();
            }
        }
        journal.tidy().unwrap();
        let lines = || fs::read_to_string(state.path().join("journal")).unwrap().lines().count();
        assert_eq!(lines(), 5, "it is short");
        journal.tail.lock().unwrap().lines = SHORT;
        journal.tidy().unwrap();
        assert_eq!(lines(), 3);
        // It goes on in the new file.
        journal.append(&ended(&JobId::new("running").unwrap(), &exit, now)).unwrap();
        drop(journal);
        let (_, past) = Journal::open(state.path(), HOUR).unwrap();
        let mut ids: Vec<_> = past.keys().map(JobId::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["new", "running"]);
        assert_eq!(past[&JobId::new("running").unwrap()].exit.outcome, exit.outcome);
    }
}
