//! A cgroup for each job, where the system allows it: one write ends all that is inside.
//!
//! It is a help, not a need. Without cgroup v2 (or without `cgroup.kill`, Linux 5.14) the process
//! tree is walked instead. No controller is enabled, and the agent itself is not moved.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The directory in which jobs get theirs: `rexec` in the cgroup of the zygote.
pub(super) struct Parent(PathBuf);

impl Parent {
    /// Finds or makes the directory, and removes what jobs of dead keepers have left in it.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own_directory(&mounts, &own)?.join("rexec");
        if !path.is_dir() {
            fs::create_dir(&path).ok()?;
        }
        let parent = Self(path);
        parent.sweep();
        parent.0.join("cgroup.kill").exists().then_some(parent)
    }

    /// The directory of one job, empty. It has the name of its keeper's process, which makes it
    /// unique and tells a sweep whether it is in use.
    pub(super) fn make(&self) -> Option<Cgroup> {
        let path = self.0.join(format!("keeper-{}", std::process::id()));
        // Another with this name is that of a keeper which was killed.
        remove(&path);
        fs::create_dir(&path).ok()?;
        let directory = File::open(&path).ok()?;
        Some(Cgroup { path, directory })
    }

    fn sweep(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let keeper = name.to_str().and_then(|name| name.strip_prefix("keeper-"));
            let is_kept = keeper.is_some_and(|pid| Path::new("/proc").join(pid).exists());
            if !is_kept {
                remove(&entry.path());
            }
        }
    }
}

/// Where the cgroup of a process is in the file system, from its `mountinfo` and `cgroup` in
/// `/proc`: on a unified hierarchy, and on a hybrid one, where v2 is one mount of many.
fn own_directory(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // A backslash starts an escape; who mounts cgroups at such a place gets none from here.
        let is_v2 = kind.starts_with("cgroup2 ") && !point.contains('\\');
        let below = own.strip_prefix(root).ok().filter(|_| is_v2)?;
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
    use super::own_directory;
    use std::path::Path;

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
}
