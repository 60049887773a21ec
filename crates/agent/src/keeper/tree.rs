//! All processes below a keeper, found in `/proc`.
//!
//! A keeper is a child subreaper: whatever a command starts stays below it, also what forks twice
//! and makes a session of its own. A listing is not a snapshot, so callers repeat it until it tells
//! nothing new; that a tree is gone they learn from wait(2), not from here.

use super::sys;
use nix::errno::Errno;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::time::Instant;

/// One process. Its id alone can pass to another process at any time; with its start it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    parent: i32,
    /// In clock ticks since the system started.
    started: u64,
    is_dead: bool,
    /// By a signal, or a debugger.
    pub(super) is_stopped: bool,
}

/// The living processes below `root`.
pub(super) fn below(root: Pid) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = pid.and_then(Process::read) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![root.as_raw()];
    while let Some(parent) = parents.pop() {
        // Removed, so that a listing in which ids were reused cannot lead in a circle.
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found.retain(|process| !process.is_dead);
    found
}

/// Stops all processes below `root`, so that none can start another, then kills them.
pub(super) fn kill(root: Pid, give_up: Instant) {
    let mut stopped = HashMap::new();
    loop {
        let mut is_complete = true;
        for process in below(root) {
            if stopped.insert((process.pid, process.started), process).is_none() {
                is_complete = false;
                process.signal(libc::SIGSTOP);
            }
        }
        if is_complete || Instant::now() >= give_up {
            break;
        }
    }
    for process in stopped.values() {
        process.signal(libc::SIGKILL);
    }
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads a line of `/proc/PID/stat`; see proc(5). The name in it can hold anything, so what
    /// counts starts after the last parenthesis.
    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?.split_whitespace();
        let state = fields.next()?;
        let (is_dead, is_stopped) = (matches!(state, "Z" | "X" | "x"), matches!(state, "T" | "t"));
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, group, session, parent, started, is_dead, is_stopped })
    }

    /// Signals this very process, or none. That it may not be signalled is no error here: it will
    /// be counted among the survivors.
    pub(super) fn signal(&self, signal: i32) {
        let pid = Pid::from_raw(self.pid);
        let handle = sys::pidfd_open(pid);
        if Self::read(self.pid).is_none_or(|now| now.started != self.started) {
            return;
        }
        let _ = match handle {
            Ok(handle) => sys::pidfd_signal(&handle, signal),
            // Before Linux 5.3; the id was right a microsecond ago.
            Err(Errno::ENOSYS) => sys::signal_process(pid, signal),
            Err(errno) => Err(errno),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_fake_the_fields() {
        let stat = b"7 (a) Z 1 1 (b) S 5 6 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n";
        let process = Process::parse(7, stat).unwrap();
        let (is_dead, is_stopped) = (false, false);
        let expected =
            Process { pid: 7, parent: 5, group: 6, session: 7, started: 4242, is_dead, is_stopped };
        assert_eq!(process, expected);
        assert_eq!(Process::parse(7, b"7 (x) S 1"), None);
    }

    #[test]
    fn this_process_has_a_stat_line() {
        let own = Process::read(std::process::id() as i32).unwrap();
        assert_eq!(own.parent, nix::unistd::getppid().as_raw());
        assert!(below(nix::unistd::getppid()).contains(&own));
    }
}
