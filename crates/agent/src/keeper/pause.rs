//! A short pause of a whole job, from the agent's side.
//!
//! It gets each process out of the system call that it waits in, if that can be interrupted. What they see
//! of it is nothing, or what a stop with Ctrl-Z and a `fg` would show: most calls are restarted by the
//! kernel, see "Interruption of system calls and library functions by stop signals" in signal(7).

use super::cgroup;
use super::force::Force;
use super::tree::{self, Process};
use std::path::PathBuf;
use std::sync::Arc;

/// What it takes to reach the processes of a job.
#[derive(Debug)]
pub struct Reach(pub(super) Arc<Force>);

/// A job that is paused, until this is dropped.
#[derive(Debug)]
pub struct Paused(How);

#[derive(Debug)]
enum How {
    /// It was frozen, by somebody else.
    Before,
    /// The cgroup is frozen.
    Frozen(PathBuf),
    /// These were stopped.
    Stopped(Vec<Process>),
}

impl Reach {
    /// Pauses what runs of it: its cgroup, or without one that can be frozen the tree below its keeper.
    /// What was stopped or frozen before stays so.
    pub fn pause(&self) -> Paused {
        let Force { keeper, cgroup, .. } = &*self.0;
        if let Some(path) = cgroup
            && let Ok(is_ours) = cgroup::freeze(path)
        {
            return Paused(if is_ours { How::Frozen(path.clone()) } else { How::Before });
        }
        let below = tree::below(keeper.pid);
        // Afterwards: so the id was the keeper's own while it was looked for.
        let is_its_own = keeper.signal(0);
        let running = below.into_iter().filter(|process| is_its_own && !process.is_stopped);
        let running: Vec<_> = running.collect();
        running.iter().for_each(|process| process.signal(libc::SIGSTOP));
        Paused(How::Stopped(running))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        match &self.0 {
            How::Before => {}
            How::Frozen(path) => cgroup::thaw(path),
            How::Stopped(processes) => {
                processes.iter().for_each(|process| process.signal(libc::SIGCONT));
            }
        }
    }
}
