//! The end of a job from the agent's side, for when its keeper is dead or does not answer: a command
//! of the same user can stop it, or kill it.

use super::{cgroup, sys, tree};
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long killing is tried. What survives this is in the kernel's hands, or another user's.
const KILL_TIME: Duration = Duration::from_secs(2);
/// How long the killed get to die before they are looked for again.
const KILL_ROUND: Duration = Duration::from_millis(10);

/// What it takes to find a job without its keeper.
#[derive(Debug)]
pub(super) struct Force {
    pub(super) keeper: Handle,
    /// The command's own process, which leads its group.
    pub(super) command: Handle,
    pub(super) cgroup: Option<PathBuf>,
}

/// A process, and none that gets its id later.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pid: Pid,
    /// `None` before Linux 5.3, where the id alone is not trusted with anything.
    pub(super) fd: Option<OwnedFd>,
}

impl Handle {
    /// False if it is gone, or cannot be signalled.
    pub(super) fn signal(&self, signal: i32) -> bool {
        self.fd.as_ref().is_some_and(|fd| sys::pidfd_signal(fd, signal).is_ok())
    }
}

impl Force {
    /// Kills all of it, and the keeper. What takes longer than a moment is done in the background.
    pub(super) fn kill(self: Arc<Self>) {
        self.strike();
        tokio::task::spawn_blocking(move || self.clear());
    }

    /// The part that takes no time: kills what is in the cgroup, and the command's group.
    fn strike(&self) {
        // A keeper that is stopped reaps nobody, so that the ids below it stay taken.
        self.keeper.signal(libc::SIGSTOP);
        if let Some(path) = &self.cgroup {
            cgroup::kill(path);
        }
        let Some(command) = &self.command.fd else { return };
        if sys::pidfd_signal_group(command, libc::SIGKILL).is_err() && self.command.signal(0) {
            // Before Linux 6.9. The group's id is the command's for as long as that is not reaped.
            let _ = sys::signal_group(self.command.pid, libc::SIGKILL);
        }
    }

    /// The rest: finds and kills what is still below the keeper, then the keeper. Blocks, up to
    /// [`KILL_TIME`].
    fn clear(&self) {
        let give_up = Instant::now() + KILL_TIME;
        // Each round makes sure that the keeper is there, and so that its id is still its own.
        while self.keeper.signal(libc::SIGSTOP) {
            tree::kill(self.keeper.pid, give_up);
            if tree::below(self.keeper.pid).is_empty() || Instant::now() >= give_up {
                break;
            }
            std::thread::sleep(KILL_ROUND);
        }
        self.keeper.signal(libc::SIGKILL);
        if let Some(path) = &self.cgroup {
            cgroup::remove(path);
        }
    }
}
