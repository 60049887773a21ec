//! What a job may use of the machine, beside what setrlimit(2) offers: the memory, processes and
//! processor time of all its processes together.
//!
//! The kernel's means are the controllers of cgroups, of which each machine has another set: all of
//! them in version 2, all in version 1, or some here and some there. A job's own cgroup of version
//! 2 takes a limit if the controller is at home there; otherwise the job gets a directory in the
//! controller's version 1 hierarchy, made only if its rule has such a limit. A limit that cannot be
//! enforced is not ignored: the command does not start.
//!
//! In version 2 a group that has processes of its own cannot have controllers for groups below it.
//! So the agent and its zygote move to a group beside those of the jobs, provided that they are
//! alone where they are, as a service with `Delegate=yes` is.

use super::cgroup::{self, Cgroup};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rexec_guard::holds;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What all processes of a job together may use, and, for descriptors, each of them. `None`: as
/// much as the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory and swap together, in bytes. The kernel kills what asks for more.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Processor time per time, in thousandths of a processor.
    pub millicpus: Option<u64>,
    /// Descriptors of one process; see RLIMIT_NOFILE in setrlimit(2).
    pub open_files: Option<u64>,
}

/// A kind of limit that needs a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Controller {
    Memory,
    Processes,
    Cpu,
}

use Controller::{Cpu, Memory, Processes};

impl Controller {
    pub(super) const ALL: [Self; 3] = [Memory, Processes, Cpu];

    /// The kernel's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Memory => "memory",
            Processes => "pids",
            Cpu => "cpu",
        }
    }
}

/// The period of processor time limits, in microseconds; the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Where the controllers of version 1 are: for each the directory of all jobs.
#[derive(Debug, Default)]
pub(super) struct Controllers {
    version1: Vec<(Controller, PathBuf)>,
}

impl Controllers {
    /// Looks where this machine has its controllers, and removes what jobs of dead keepers left.
    pub(super) fn find() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        let home = |controller: Controller| {
            let own = cgroup::version1_directory(&mounts, &own, controller.name())?;
            Some((controller, own.join("rexec")))
        };
        let version1: Vec<_> = Controller::ALL.into_iter().filter_map(home).collect();
        for (_, jobs) in &version1 {
            cgroup::sweep(jobs);
        }
        Self { version1 }
    }

    pub(super) fn jobs(&self, controller: Controller) -> Option<&Path> {
        self.version1.iter().find(|(here, _)| *here == controller).map(|(_, jobs)| jobs.as_path())
    }

    /// Puts this process, which is to be a command, under the limits. `cgroup` is the job's own, of
    /// version 2, in which this process is already; `name` is unique to the job.
    pub(super) fn apply(
        &self,
        limits: &Limits,
        cgroup: Option<&Path>,
        name: &str,
    ) -> Result<(), (Controller, Errno)> {
        for (controller, amount) in
            [(Memory, limits.memory), (Processes, limits.processes), (Cpu, limits.millicpus)]
        {
            let Some(amount) = amount else { continue };
            self.limit(controller, amount, cgroup, name).map_err(|error| {
                (controller, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            })?;
        }
        Ok(())
    }

    fn limit(
        &self,
        controller: Controller,
        amount: u64,
        cgroup: Option<&Path>,
        name: &str,
    ) -> io::Result<()> {
        if let Some(group) = cgroup
            && group.join(version2_file(controller)).exists()
        {
            return limit_version2(controller, group, amount);
        }
        let Some(jobs) = self.jobs(controller) else {
            let is_enforced = holds("keeper.limit_enforced", false);
            return is_enforced.then_some(()).ok_or_else(|| Errno::EOPNOTSUPP.into());
        };
        let group = jobs.join(name);
        fs::create_dir_all(&group)?;
        limit_version1(controller, &group, amount)?;
        fs::write(group.join("cgroup.procs"), "0")
    }

    /// Whether the kernel has killed something of the job because of its limit of memory.
    pub(super) fn has_run_out_of_memory(&self, cgroup: Option<&Cgroup>, name: &str) -> bool {
        let version2 = cgroup.map(|cgroup| cgroup.path().join("memory.events"));
        let version1 = self.jobs(Memory).map(|jobs| jobs.join(name).join("memory.oom_control"));
        [version2, version1].into_iter().flatten().any(|file| counts_kills(&file))
    }

    /// Removes what [`Controllers::apply`] has made, once the job is over.
    pub(super) fn remove(&self, name: &str) {
        for (_, jobs) in &self.version1 {
            cgroup::remove(&jobs.join(name));
        }
    }
}

impl Limits {
    /// Sets what setrlimit(2) is for. Before the command gives up root, which may raise a limit.
    pub(super) fn apply_to_process(&self) -> nix::Result<()> {
        /// What programs expect that use select(2), which can do no more.
        const SOFT_FILES: u64 = 1024;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let hard = self.open_files.map_or(hard, |files| files.min(hard));
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(SOFT_FILES).min(hard), hard)?;
        // A core dump is for who asks for one (`ulimit -c`): it may hold secrets, and fill the disk.
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
        setrlimit(Resource::RLIMIT_CORE, 0, hard)
    }
}

fn version2_file(controller: Controller) -> &'static str {
    match controller {
        Memory => "memory.max",
        Processes => "pids.max",
        Cpu => "cpu.max",
    }
}

fn limit_version2(controller: Controller, group: &Path, amount: u64) -> io::Result<()> {
    let text = match controller {
        Cpu => format!("{} {PERIOD_US}", quota(amount)),
        Memory | Processes => amount.to_string(),
    };
    fs::write(group.join(version2_file(controller)), text)?;
    if controller == Memory {
        unless_absent(fs::write(group.join("memory.swap.max"), "0"))?;
    }
    // Where the kernel cannot fork into a group, this process may not be in it yet.
    fs::write(group.join("cgroup.procs"), "0")
}

fn limit_version1(controller: Controller, group: &Path, amount: u64) -> io::Result<()> {
    let write = |file: &str, amount: u64| fs::write(group.join(file), amount.to_string());
    match controller {
        Processes => write("pids.max", amount),
        Cpu => {
            write("cpu.cfs_period_us", PERIOD_US)?;
            write("cpu.cfs_quota_us", quota(amount))
        }
        Memory => {
            write("memory.limit_in_bytes", amount)?;
            unless_absent(write("memory.memsw.limit_in_bytes", amount))
        }
    }
}

/// A kernel that has no swap, or does not count it, has no such file.
fn unless_absent(written: io::Result<()>) -> io::Result<()> {
    written
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Microseconds in each period. The kernel takes no less than a millisecond.
fn quota(millicpus: u64) -> u64 {
    (millicpus.saturating_mul(PERIOD_US) / 1000).max(1000)
}

/// Reads `oom_kill N`, which both versions have as a line of some file.
fn counts_kills(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.is_some_and(|kills| kills.trim() != "0")
}
