//! The policy follows its files while the agent runs.

use super::engine::{Policy, PolicyError};
use super::files::PolicyPaths;
use rexec_net::tls::Refreshed;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The policy in force.
///
/// A new version is taken whole or not at all: one that cannot be read, or is wrong anywhere,
/// leaves the one in force. A version is read only once its files have stood still from one look to
/// the next: half of a file, as an editor leaves it for a moment, can be a policy too, and a rule
/// whose last lines are missing allows more than it was meant to.
///
/// Removing the files is a new version like any other, and denies everything. That is what the
/// agent would do after a restart, so what it does never depends on when it was started; and
/// whoever removes a policy in a hurry wants less to be allowed, not the same.
#[derive(Debug)]
pub struct Reloading {
    paths: PolicyPaths,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Policy>,
    /// The version that was read last, good or bad.
    read: Version,
    /// What was found at the last look.
    seen: Version,
    /// Why the version that was read last is not in force, if it is not.
    refused: Option<String>,
}

impl Reloading {
    /// Reads the files for the first time. Blocks.
    pub fn new(paths: PolicyPaths) -> Result<Self, PolicyError> {
        let read = Version::of(&paths);
        let current = Arc::new(Policy::load(&paths)?);
        report(&current);
        let state = Mutex::new(State { current, seen: read.clone(), read, refused: None });
        Ok(Self { paths, state })
    }

    /// The policy in force. One decision uses one value from start to end.
    pub fn current(&self) -> Arc<Policy> {
        self.state().current.clone()
    }

    /// Where it comes from.
    pub fn paths(&self) -> &PolicyPaths {
        &self.paths
    }

    /// Looks whether a file has changed, which costs a system call for each and one for the folder,
    /// and reads them all if they have, and have not changed since the last look. To be called
    /// about once a second.
    pub fn refresh(&self) -> Refreshed {
        let found = Version::of(&self.paths);
        {
            let mut state = self.state();
            let still = std::mem::replace(&mut state.seen, found.clone()) == found;
            if found == state.read || !still {
                return Refreshed::Unchanged;
            }
        }
        // Without the lock: whoever decides meanwhile does not wait for a disk.
        let loaded = Policy::load(&self.paths);
        if Version::of(&self.paths) != found {
            return Refreshed::Unchanged;
        }
        let mut state = self.state();
        state.read = found;
        match loaded {
            Ok(policy) => {
                report(&policy);
                state.current = Arc::new(policy);
                state.refused = None;
                Refreshed::Changed
            }
            Err(error) => {
                tracing::error!(%error, "the new policy cannot be used; the one in use stays");
                state.refused = Some(error.to_string());
                Refreshed::Failed(error.to_string())
            }
        }
    }

    /// Looks for somebody who waits for the answer: takes what is new without waiting until it has
    /// stood still, reads again what was refused, and fails as long as it is.
    pub fn refresh_now(&self) -> Refreshed {
        {
            let mut state = self.state();
            if state.refused.is_some() {
                // It may have been the disk's fault, and then the file has not changed.
                state.read = Version(Vec::new());
            }
        }
        // A first look only remembers what it saw.
        let looked = match self.refresh() {
            Refreshed::Unchanged => self.refresh(),
            looked => looked,
        };
        // The look that comes by itself may have been faster.
        match (looked, self.refused()) {
            (Refreshed::Unchanged, Some(reason)) => Refreshed::Failed(reason),
            (looked, _) => looked,
        }
    }

    /// Why the version on disk is not the one in force, if it was refused.
    pub fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced field by field and valid after each.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(policy: &Policy) {
    let (rules, files) = (policy.rules().len(), policy.files().len());
    if rules == 0 {
        tracing::warn!("there is no policy: everything is denied; {}", policy.how_to_begin());
    } else {
        tracing::info!(rules, files, "policy loaded");
    }
    for failure in policy.failures() {
        tracing::warn!(%failure, "a test of the policy fails");
    }
}

/// Tells one version of all files from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version(Vec<(PathBuf, Stamp)>);

type Stamp = Result<[i128; 7], io::ErrorKind>;

impl Version {
    fn of(paths: &PolicyPaths) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Self(paths.all().into_iter().map(stamped).collect())
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).map_err(|error| error.kind())?;
    Ok([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        found.mtime().into(),
        found.mtime_nsec().into(),
        // Catches a change of owner or mode, and a file that was put back with its old times.
        found.ctime().into(),
        found.ctime_nsec().into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    struct Place {
        dir: TempDir,
        policy: Reloading,
    }

    fn rule(name: &str) -> String {
        format!("[[rule]]\nname = '{name}'\nusers = ['alice']\nas = ['deploy']\ncommands = 'any'\n")
    }

    fn write(path: &Path, text: &str) {
        let temporary = path.with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&temporary, path).unwrap();
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            let paths = PolicyPaths { file: path("policy.toml"), folder: path("policy.d") };
            write(&paths.file, &rule("first"));
            let policy = Reloading::new(paths).unwrap();
            Self { dir, policy }
        }

        fn file(&self) -> &Path {
            &self.policy.paths().file
        }

        /// Two looks: the first sees the change, the second that it stands still.
        fn refresh(&self) -> Refreshed {
            assert_eq!(self.policy.refresh(), Refreshed::Unchanged);
            self.policy.refresh()
        }

        fn names(&self) -> Vec<String> {
            self.policy.current().rules().iter().map(|rule| rule.name.clone()).collect()
        }
    }

    #[test]
    fn a_new_version_is_taken_once_it_stands_still() {
        let place = Place::new();
        assert_eq!(place.refresh(), Refreshed::Unchanged);
        let held = place.policy.current();
        write(place.file(), &rule("second"));
        assert_eq!(place.policy.refresh(), Refreshed::Unchanged);
        assert_eq!(place.names(), ["first"]);
        write(place.file(), &rule("third"));
        assert_eq!(place.refresh(), Refreshed::Changed);
        assert_eq!(place.names(), ["third"]);
        assert_eq!(held.rules().len(), 1, "a decision under way keeps its version");
        assert_eq!(place.policy.refresh(), Refreshed::Unchanged);
    }

    #[test]
    fn a_broken_version_leaves_the_old_one() {
        let place = Place::new();
        for broken in ["[[rule", "[[rule]]\nname = 'x'", &format!("{}{}", rule("a"), rule("a"))] {
            write(place.file(), broken);
            assert!(matches!(place.refresh(), Refreshed::Failed(_)), "{broken}");
            assert_eq!(place.policy.refresh(), Refreshed::Unchanged, "said once");
            assert_eq!(place.names(), ["first"]);
        }
        write(place.file(), &rule("mended"));
        assert_eq!(place.refresh(), Refreshed::Changed);
        assert_eq!(place.names(), ["mended"]);
    }

    /// Whoever asks is not told that all is well because somebody has looked before.
    #[test]
    fn who_asks_is_told_of_a_refused_version_each_time() {
        let place = Place::new();
        assert_eq!(place.policy.refused(), None);
        write(place.file(), "[[rule");
        assert!(matches!(place.refresh(), Refreshed::Failed(_)));
        for _ in 0..2 {
            let Refreshed::Failed(reason) = place.policy.refresh_now() else {
                panic!("it is refused still")
            };
            assert!(reason.contains("policy.toml:1:"), "{reason}");
            assert_eq!(place.policy.refused(), Some(reason));
            assert_eq!(place.policy.refresh(), Refreshed::Unchanged, "the log says it once");
        }
        write(place.file(), &rule("mended"));
        assert_eq!(place.policy.refresh_now(), Refreshed::Changed);
        assert_eq!(place.policy.refused(), None);
        assert_eq!(place.policy.refresh_now(), Refreshed::Unchanged);
    }

    #[test]
    fn a_file_that_others_may_write_leaves_the_old_one() {
        let place = Place::new();
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(place.refresh(), Refreshed::Failed(_)));
        assert_eq!(place.names(), ["first"]);
    }

    #[test]
    fn files_of_the_folder_come_and_go() {
        let place = Place::new();
        let folder = place.dir.path().join("policy.d");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        write(&folder.join("a.toml"), &rule("added"));
        assert_eq!(place.refresh(), Refreshed::Changed);
        assert_eq!(place.names(), ["first", "added"]);
        fs::remove_file(folder.join("a.toml")).unwrap();
        assert_eq!(place.refresh(), Refreshed::Changed);
        assert_eq!(place.names(), ["first"]);
    }

    #[test]
    fn a_policy_that_is_removed_denies_everything() {
        let place = Place::new();
        fs::remove_file(place.file()).unwrap();
        assert_eq!(place.refresh(), Refreshed::Changed);
        assert!(place.names().is_empty());
    }
}
