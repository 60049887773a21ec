//! A cgroup for each job, where the system allows it: one write ends all that is inside.
//!
//! It is a help, not a need. Without cgroup v2 (or without `cgroup.kill`, Linux 5.14) the process
//! tree is walked instead.

use super::limits::Controller;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Where the agent itself goes if it must make room; beside `rexec`, where the jobs are.
const AGENT: &str = "rexec-agent";

/// In the group of a job that was released: a group of no processes, which says that what is left of
/// the job runs on. A note that needs no more of the system than the group itself.
const RELEASED: &str = "released";
/// How many groups of one process id there can be: ids come again while a released group is in use.
const SAME_ID: usize = 16;

/// The directory in which jobs get theirs: `rexec` in the cgroup of the zygote.
pub(super) struct Parent(PathBuf);

impl Parent {
    /// Finds or makes the directory, and removes what jobs of dead keepers have left in it.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut own = own_directory(&mounts, &own)?;
        if own.ends_with(AGENT) {
            own.pop();
        }
        let path = own.join("rexec");
        if !path.is_dir() {
            fs::create_dir(&path).ok()?;
        }
        sweep(&path);
        let wanted: Vec<_> = Controller::ALL.iter().map(|controller| controller.name()).collect();
        // Without them no limit can be set here, and a command that needs one is refused.
        let _ = enable(&own, &wanted);
        path.join("cgroup.kill").exists().then_some(Self(path))
    }

    /// Removes the directories of released jobs of which nothing runs any more: an agent may live for months, and
    /// each of them is kernel memory.
    pub(super) fn remove_released(&self) {
        let groups =
            fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        groups
            .filter(|group| group.join(RELEASED).is_dir() && is_empty(group))
            .for_each(|group| remove(&group));
    }

    /// The directory of one job, empty.
    pub(super) fn make(&self) -> Option<Cgroup> {
        let names = (0..SAME_ID).map(|number| match number {
            0 => own_name(),
            number => format!("{}.{number}", own_name()),
        });
        let path = names.map(|name| self.0.join(name)).find(|path| {
            // Another with this name is that of a keeper which is dead: this process has its id.
            if path.is_dir() {
                tidy(path);
            }
            fs::create_dir(path).is_ok()
        })?;
        let directory = File::open(&path).ok()?;
        Some(Cgroup { path, directory })
    }
}

/// What the directories of this keeper's job are called: the number makes it unique, and tells a
/// sweep whether it is in use.
pub(super) fn own_name() -> String {
    format!("keeper-{}", std::process::id())
}

/// Ends what is left of jobs whose keepers were killed, and removes their directories, and the empty
/// ones of those that were released. A keeper that is alive waits for its next agent, or has one.
pub(super) fn sweep(jobs: &Path) {
    for entry in fs::read_dir(jobs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let keeper = name.to_str().and_then(|name| name.strip_prefix("keeper-"));
        let keeper = keeper.and_then(|keeper| keeper.split('.').next());
        if keeper.is_some_and(is_dead) {
            tidy(&entry.path());
        }
    }
}

/// Whether no process has this id. /proc does not know: it may hide those of others, and keepers, which nobody may
/// look into (`hidepid` in proc(5)).
fn is_dead(pid: &str) -> bool {
    pid.parse().is_ok_and(|pid| signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// Tidies up after a dead keeper.
fn tidy(group: &Path) {
    if !group.join(RELEASED).is_dir() {
        kill(group);
        remove(group);
    } else if is_empty(group) {
        // Not otherwise: the note would go, and with the next sweep what is inside.
        remove(group);
    }
}

/// Whether no process is in it or below it.
fn is_empty(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}

/// Turns the controllers on for the jobs, those of `wanted` that are there.
fn enable(own: &Path, wanted: &[&str]) -> io::Result<()> {
    let there = fs::read_to_string(own.join("cgroup.controllers"))?;
    let there: Vec<_> = there.split_whitespace().filter(|name| wanted.contains(name)).collect();
    if there.is_empty() {
        return Ok(());
    }
    let order = there.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let control = own.join("cgroup.subtree_control");
    if fs::write(&control, &order).is_err() {
        // Processes and controllers exclude each other, except in the root of all groups.
        move_away(own)?;
        fs::write(&control, &order)?;
    }
    fs::write(own.join("rexec/cgroup.subtree_control"), &order)
}

/// Moves the agent and this process out of `own`, if nobody else is in it: other processes are not
/// ours to move.
fn move_away(own: &Path) -> io::Result<()> {
    let ours = [nix::unistd::getpid(), nix::unistd::getppid()].map(|pid| pid.to_string());
    let inside = fs::read_to_string(own.join("cgroup.procs"))?;
    if inside.lines().any(|pid| !ours.iter().any(|our| our == pid)) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let target = own.join(AGENT);
    if !target.is_dir() {
        fs::create_dir(&target)?;
    }
    inside.lines().try_for_each(|pid| fs::write(target.join("cgroup.procs"), pid))
}

/// Where the cgroup of a process is in the file system, from its `mountinfo` and `cgroup` in
/// `/proc`: on a unified hierarchy, and on a hybrid one, where v2 is one mount of many.
fn own_directory(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounted(mounts, own, |kind, _| kind == "cgroup2")
}

/// The same for one controller of version 1.
pub(super) fn version1_directory(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let names = |list: &str| list.split(',').any(|name| name == controller);
    let own = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (list, path) = (fields.next()?, fields.next()?);
        names(list).then_some(path)
    })?;
    mounted(mounts, own, |kind, options| kind == "cgroup" && names(options))
}

/// Where the group `own` is in the first cgroup file system for which `is_it(kind, options)`.
fn mounted(mounts: &str, own: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        // A backslash starts an escape; who mounts cgroups at such a place gets none from here.
        let matches = is_it(kind, options) && !point.contains('\\');
        let below = Path::new(own).strip_prefix(root).ok().filter(|_| matches)?;
        Some(Path::new(point).join(below))
    })
}

/// The cgroup of one job.
pub(super) struct Cgroup {
    path: PathBuf,
    directory: File,
}

impl Cgroup {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling process in. A failure is none of the command's business.
    pub(super) fn join(&self) {
        let _ = fs::write(self.path.join("cgroup.procs"), "0");
    }

    pub(super) fn kill(&self) {
        kill(&self.path);
    }

    /// Removes the directory if nothing is alive in it.
    pub(super) fn remove(self) {
        remove(&self.path);
    }

    /// The job is over. What the command has left running goes on in it, without a keeper.
    pub(super) fn release(self) {
        remove(&self.path);
        if self.path.is_dir() {
            let _ = fs::create_dir(self.path.join(RELEASED));
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Sends SIGKILL to all that is inside, at once and safe against forks.
pub(super) fn kill(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

/// Stops all that is inside where it is; false if somebody has done that before.
pub(super) fn freeze(path: &Path) -> io::Result<bool> {
    let file = path.join("cgroup.freeze");
    let is_free = fs::read(&file)?.starts_with(b"0");
    if is_free {
        fs::write(&file, "1")?;
    }
    Ok(is_free)
}

/// Lets it go on.
pub(super) fn thaw(path: &Path) {
    let _ = fs::write(path.join("cgroup.freeze"), "0");
}

/// Removes a cgroup and those that a command made in it, as far as nothing is alive in them.
pub(super) fn remove(path: &Path) {
    if fs::remove_dir(path).is_ok() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        // A link cannot be in a cgroup file system, so this stays below `path`.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_found_on_every_layout() {
        let v1 = "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let hybrid = format!("{v1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let unified = "25 1 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let part = "25 1 0:22 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        for (mounts, own, expected) in [
            (
                unified,
                "0::/system.slice/rexec.service\n",
                Some("/sys/fs/cgroup/system.slice/rexec.service"),
            ),
            (&hybrid, "4:memory:/x\n0::/\n", Some("/sys/fs/cgroup/unified/")),
            (part, "0::/docker/x/y\n", Some("/sys/fs/cgroup/y")),
            (part, "0::/elsewhere\n", None),
            (v1, "4:memory:/x\n", None),
            (v1, "0::/\n", None),
            ("", "", None),
        ] {
            assert_eq!(own_directory(mounts, own).as_deref(), expected.map(Path::new), "{own}");
        }
    }

    /// What a finished command leaves behind runs on, as with ssh, when an agent starts.
    #[test]
    fn a_sweep_kills_what_killed_keepers_left_and_not_what_was_released() {
        let jobs = tempfile::tempdir().unwrap();
        let dead = || {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        let group = |name: &str, populated: u8| {
            let path = jobs.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("cgroup.events"), format!("populated {populated}\n")).unwrap();
            fs::write(path.join("cgroup.kill"), "").unwrap();
            let directory = File::open(&path).unwrap();
            Cgroup { path, directory }
        };
        let was_killed = |path: &Path| {
            fs::read_to_string(path.join("cgroup.kill")).is_ok_and(|text| text == "1")
        };
        let killed = group(&format!("keeper-{}", dead()), 1);
        let released = group(&format!("keeper-{}", dead()), 1);
        let second = group(&format!("keeper-{}.1", dead()), 1);
        let alive = group(&own_name(), 1);
        let paths = [&released, &second].map(|group| group.path.clone());
        [released, second].into_iter().for_each(Cgroup::release);
        for _ in 0..2 {
            sweep(jobs.path());
            assert!(was_killed(&killed.path) && !was_killed(&alive.path));
            for path in &paths {
                assert!(!was_killed(path) && path.join(RELEASED).is_dir(), "{path:?}");
            }
        }
        fs::write(paths[0].join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        sweep(jobs.path());
        assert!(!paths[0].join(RELEASED).exists(), "it is removed");
    }

    /// They stayed until the next agent started.
    #[test]
    fn what_is_over_of_released_jobs_is_removed_and_nothing_else() {
        let jobs = tempfile::tempdir().unwrap();
        let group = |name: &str, populated: u8, note: &str| {
            let path = jobs.path().join(name);
            fs::create_dir_all(path.join(note)).unwrap();
            fs::write(path.join("cgroup.events"), format!("populated {populated}\n")).unwrap();
            path.join(note)
        };
        let over = group("keeper-1", 0, RELEASED);
        let going_on = group("keeper-1.1", 1, RELEASED);
        let not_released = group("keeper-2", 0, "made by the command");
        Parent(jobs.path().to_owned()).remove_released();
        assert_eq!([over, going_on, not_released].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn the_home_of_a_controller_of_version_1_is_found() {
        let mounts = "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      37 31 0:34 /a /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n4:memory:/x\n2:cpu,cpuacct:/a/b\n0::/y\n";
        for (controller, expected) in [
            ("memory", Some("/sys/fs/cgroup/memory/x")),
            ("cpu", Some("/sys/fs/cgroup/cpu,cpuacct/b")),
            ("pids", None),
        ] {
            let found = version1_directory(mounts, own, controller);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{controller}");
        }
    }
}
