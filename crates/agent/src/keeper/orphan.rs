//! What a keeper does while there is no agent: it waits for the next one.
//!
//! The agent leaves it a [`Will`]: what another agent has to know of the job, the agent's ends of the
//! pipes, so that the command does not notice anything, and where the next agent will listen. It is
//! looked for there every [`PAUSE`], for as long as the will says.

use super::wire::{self, Adopt, Will as Words};
use super::{Channel, VERSION};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::Uid;
use rexec_guard::holds;
use serde_bytes::ByteBuf;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the next agent is looked for.
const PAUSE: Duration = Duration::from_millis(100);
/// A folder that is missing for so long was deleted, and with it the last that could find this job. One that is
/// moved, mounted anew or restored by an upgrade is there again before that.
const DELETED: Duration = Duration::from_secs(60);

/// What the agent wants done if it dies.
pub(super) struct Will {
    words: Words,
    /// The agent's ends of the command's pipes, but for those that it has closed.
    ends: Vec<(Channel, OwnedFd)>,
    /// How far the agent has come.
    ledger: Option<OwnedFd>,
}

/// What the next agent has to know beside the will.
pub(super) struct Orphaned<'a> {
    pub(super) pid: u32,
    pub(super) cgroup: Option<&'a Path>,
    pub(super) has_terminal: bool,
    pub(super) age: Duration,
    pub(super) timed_out: bool,
    pub(super) ending: bool,
    pub(super) handles: &'a [OwnedFd],
}

impl Will {
    /// A will, or a new wording of one: then only that changes, and what was left stays.
    pub(super) fn take(
        former: Option<Self>,
        words: Words,
        fds: impl Iterator<Item = OwnedFd>,
    ) -> Self {
        match former {
            Some(former) if words.ends.is_empty() => Self { words, ..former },
            _ => {
                let mut fds = fds;
                let ends = words.ends.iter().copied().zip(fds.by_ref()).collect();
                Self { words, ends, ledger: fds.next() }
            }
        }
    }

    /// The agent has closed its end, so that nobody has one any more.
    pub(super) fn close(&mut self, channel: Channel) {
        self.ends.retain(|(end, _)| *end != channel);
    }

    /// When the wait for an agent is over that begins now; `None`: never.
    pub(super) fn lease_from(&self, now: Instant) -> Option<Instant> {
        self.words.lease_ms.and_then(|ms| now.checked_add(Duration::from_millis(ms)))
    }

    /// When the command has run for as long as it may.
    pub(super) fn deadline(&self, born: Instant) -> Option<Instant> {
        self.words.timeout_ms.and_then(|ms| born.checked_add(Duration::from_millis(ms)))
    }

    /// How long a command has to end.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.words.grace_ms)
    }

    /// Whether the folder is there to which the next agent comes.
    pub(super) fn look(&self) -> io::Result<()> {
        let socket = Path::new(OsStr::from_bytes(&self.words.socket));
        fs::metadata(socket.parent().unwrap_or(Path::new("/"))).map(drop)
    }

    /// Hands the job over to the next agent, if it is there; the answer is a socket to it.
    pub(super) fn execute(&self, job: &Orphaned<'_>) -> io::Result<OwnedFd> {
        let socket = reach(Path::new(OsStr::from_bytes(&self.words.socket)))?;
        let adopt = Adopt {
            version: VERSION,
            memo: self.words.memo.clone(),
            pid: job.pid,
            keeper: std::process::id(),
            cgroup: job.cgroup.map(|path| ByteBuf::from(path.as_os_str().as_bytes())),
            terminal: job.has_terminal,
            age_ms: u64::try_from(job.age.as_millis()).unwrap_or(u64::MAX),
            timed_out: job.timed_out,
            ending: job.ending,
            ends: self.ends.iter().map(|(channel, _)| *channel).collect(),
            ledger: self.ledger.is_some(),
        };
        let ends = self.ends.iter().map(|(_, end)| end);
        let fds: Vec<_> =
            ends.chain(&self.ledger).chain(job.handles).map(AsRawFd::as_raw_fd).collect();
        wire::send(socket.as_fd(), &wire::frame(&adopt)?, &fds)?;
        Ok(socket)
    }
}

/// Connects to whoever listens there, if that is an agent of the same user: nobody else may get the
/// pipes of a command.
fn reach(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Without waiting: an agent with a full queue is tried again, as one that is not there.
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    if !holds("adopt.agent", peer.uid() == Uid::effective().as_raw()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// The wait for an agent.
pub(super) struct Wait {
    /// When it is over; `None`: never.
    until: Option<Instant>,
    next: Instant,
    /// Since when the folder of the agent is not there, whenever it was looked for.
    missing: Option<Instant>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Instant),
    Look,
    GiveUp,
}

impl Wait {
    pub(super) fn new(will: &Will, now: Instant) -> Self {
        Self { until: will.lease_from(now), next: now, missing: None }
    }

    /// Whether no agent can come any more, because its folder was deleted. Any other error, of a file
    /// server say, may pass.
    pub(super) fn is_hopeless(&mut self, look: &io::Result<()>, now: Instant) -> bool {
        let is_missing = look.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        self.missing = is_missing.then(|| self.missing.unwrap_or(now));
        self.missing.is_some_and(|since| now.duration_since(since) >= DELETED)
    }

    /// What is due; with `found` an agent was reached, which has not said anything yet.
    pub(super) fn step(&mut self, found: bool, now: Instant) -> Step {
        if self.until.is_some_and(|until| now >= until) {
            return Step::GiveUp;
        }
        if !found && now >= self.next {
            self.next = now + PAUSE;
            return Step::Look;
        }
        let next = if found { now + PAUSE } else { self.next };
        Step::Wait(self.until.map_or(next, |until| until.min(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_looks_often_and_ends_with_the_lease() {
        let start = Instant::now();
        let lease = Duration::from_millis(250);
        let mut wait = Wait { until: Some(start + lease), next: start, missing: None };
        assert_eq!(wait.step(false, start), Step::Look);
        assert_eq!(wait.step(false, start), Step::Wait(start + PAUSE));
        assert_eq!(wait.step(false, start + PAUSE), Step::Look);
        assert_eq!(wait.step(true, start + 2 * PAUSE), Step::Wait(start + lease));
        assert_eq!(wait.step(true, start + lease), Step::GiveUp);
    }

    #[test]
    fn a_folder_that_comes_back_was_not_deleted() {
        let mut now = Instant::now();
        let mut wait = Wait { until: None, next: now, missing: None };
        let missing = Err(io::ErrorKind::NotFound.into());
        let (stale, there) = (Err(io::ErrorKind::StaleNetworkFileHandle.into()), Ok(()));
        // An upgrade that takes half a minute, and then a file server that is rebooted.
        for look in [&missing, &missing, &missing, &there, &missing, &missing, &stale, &missing] {
            assert!(!wait.is_hopeless(look, now), "{look:?}");
            now += DELETED / 4;
        }
        for n in 1..4 {
            assert!(!wait.is_hopeless(&missing, now), "{n}");
            now += DELETED / 4;
        }
        assert!(wait.is_hopeless(&missing, now));
    }
}
