//! What a command has from its keeper that another process can change: one of the keeper's own user, or of root.
//!
//! A keeper that was changed is not used again: what one command did to it is not for the next one to have.

use super::sys;
use nix::libc::c_long;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::unistd::Pid;
use std::fs;

/// All that there are; see getrlimit(2).
const LIMITS: [Resource; 16] = [
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_STACK,
];
/// See the files of that name in proc(5): groups, what is killed first when memory is short, and what is written when
/// a process dumps core.
const FILES: [&str; 3] = ["cgroup", "oom_score_adj", "coredump_filter"];

/// Two that are equal make no difference to a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heritage {
    limits: Vec<(rlim_t, rlim_t)>,
    files: Vec<String>,
    processors: CpuSet,
    scheduling: [u8; sys::SCHEDULING],
    io_priority: c_long,
    timer_slack: i32,
}

impl Heritage {
    /// What this process has; `None` where that cannot be told.
    pub(super) fn own() -> Option<Self> {
        let read = |name: &&str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Some(Self {
            limits: LIMITS.iter().map(|which| getrlimit(*which).ok()).collect::<Option<_>>()?,
            files: FILES.iter().map(read).collect::<Option<_>>()?,
            processors: sched_getaffinity(Pid::from_raw(0)).ok()?,
            scheduling: sys::scheduling().ok()?,
            io_priority: sys::io_priority().ok()?,
            timer_slack: prctl::get_timerslack().ok()?,
        })
    }
}
