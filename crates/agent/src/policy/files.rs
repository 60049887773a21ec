//! Finding and reading the files of a policy.
//!
//! Whoever can write the policy can do all that it could allow. So a file or a folder that is not
//! root's or the agent's own user's, or that group or others may write, is refused, as sshd refuses
//! such an `authorized_keys`. What counts is asked of the opened file, not of its name.

use super::engine::{Policy, PolicyError, Source};
use rexec_net::trusted;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The largest file that is read.
const MAX_SIZE: u64 = 4 << 20;

/// Where a policy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPaths {
    /// The main file; it comes first.
    pub file: PathBuf,
    /// The folder with further files, in the byte order of their names. Only names that end in
    /// `.toml` and do not begin with a dot count.
    pub folder: PathBuf,
}

impl Policy {
    /// Reads a policy from its files. None of them need be there; without any, everything is
    /// denied, and the denial says how to begin.
    ///
    /// Blocks. Fails, naming the file, if one cannot be read, may be written by others, is larger
    /// than 4 MiB or is not a policy.
    pub fn load(paths: &PolicyPaths) -> Result<Self, PolicyError> {
        demand_home(&paths.file)?;
        let files = std::iter::once(paths.file.clone()).chain(drop_ins(&paths.folder)?);
        let mut sources = Vec::new();
        for path in files {
            if let Some(text) = read(&path)? {
                sources.push(Source { path, text });
            }
        }
        Self::parse(&paths.file, &sources)
    }
}

impl PolicyPaths {
    /// Everything that a change to the policy would change.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let files = names(&self.folder).unwrap_or_default();
        [self.file.clone(), self.folder.clone()].into_iter().chain(files).collect()
    }
}

/// Who may write the folder of the main file could put another in its place; unless the folder is
/// sticky, as `/tmp` is.
fn demand_home(file: &Path) -> Result<(), PolicyError> {
    const STICKY: u32 = 0o1000;
    let home = file.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(home) {
        Ok(metadata) if metadata.permissions().mode() & STICKY != 0 => Ok(()),
        Ok(metadata) => demand_unchangeable(home, &metadata),
        // Then there is no file either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(home, &error)),
    }
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let metadata = match fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_symlink() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(folder, &error)),
    };
    if !metadata.is_dir() {
        return Err(fault(folder, "is not a folder".to_owned()));
    }
    demand_unchangeable(folder, &metadata)?;
    names(folder).map_err(|error| unreadable(folder, &error))
}

fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if is_drop_in(&name) {
            paths.push(folder.join(name));
        }
    }
    paths.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(paths)
}

fn is_drop_in(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".toml") && !name.as_bytes().starts_with(b".")
}

/// `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, PolicyError> {
    let unreadable = |error: io::Error| unreadable(path, &error);
    // Asked of the path first because opening a pipe waits for its writer; what counts is asked
    // again of the opened file.
    match fs::metadata(path) {
        Ok(metadata) => demand_regular(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    demand_regular(path, &metadata)?;
    demand_unchangeable(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(fault(path, format!("is larger than {} MiB", MAX_SIZE >> 20)));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| fault(path, "is not UTF-8 text".to_owned()))
}

fn demand_regular(path: &Path, metadata: &Metadata) -> Result<(), PolicyError> {
    if metadata.is_file() { Ok(()) } else { Err(fault(path, "is not a regular file".to_owned())) }
}

fn demand_unchangeable(path: &Path, metadata: &Metadata) -> Result<(), PolicyError> {
    trusted::demand_unchangeable(path, metadata).map_err(|message| fault(path, message))
}

fn unreadable(path: &Path, error: &io::Error) -> PolicyError {
    fault(path, format!("cannot be read: {error}"))
}

fn fault(path: &Path, message: String) -> PolicyError {
    PolicyError { file: path.to_owned(), place: None, rule: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Action, Answer, Caller, Local, Question};
    use nix::unistd::Uid;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    const RULE: &str = "users = ['alice']\nas = ['deploy']\ncommands = 'any'\n";

    struct Place {
        dir: TempDir,
        paths: PolicyPaths,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            let paths = PolicyPaths { file: path("policy.toml"), folder: path("policy.d") };
            fs::create_dir(&paths.folder).unwrap();
            let place = Self { dir, paths };
            place.chmod("policy.d", 0o755);
            place
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
            self.chmod(name, 0o644);
        }

        fn rule(&self, file: &str, name: &str) {
            self.write(file, &format!("[[rule]]\nname = '{name}'\n{RULE}"));
        }

        fn chmod(&self, name: &str, mode: u32) {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(self.dir.path().join(name), permissions).unwrap();
        }

        fn load(&self) -> Result<Policy, String> {
            Policy::load(&self.paths).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn the_main_file_comes_first_then_the_folder_in_byte_order() {
        let place = Place::new();
        place.rule("policy.toml", "main");
        place.rule("policy.d/b.toml", "b");
        place.rule("policy.d/10-z.toml", "ten");
        place.rule("policy.d/Z.toml", "capital");
        for ignored in [".hidden.toml", "c.toml~", "d.toml.bak", "e"] {
            place.write(&format!("policy.d/{ignored}"), "broken");
        }
        let policy = place.load().unwrap();
        let names: Vec<&str> = policy.rules().iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["main", "ten", "capital", "b"]);
    }

    #[test]
    fn no_file_at_all_denies_and_says_how_to_begin() {
        let place = Place::new();
        fs::remove_dir(&place.paths.folder).unwrap();
        let policy = place.load().unwrap();
        let local = Local { name: "alice", is_root: false, shell: b"/bin/sh" };
        let action = Action::Run { local, argv: &[b"true"], env: &[], terminal: false };
        let caller = Caller { user: "alice", groups: &[], from: None };
        let Answer::Denied { reason, rule: None } = policy.answer(&Question { caller, action })
        else {
            panic!("nothing is allowed without a policy")
        };
        assert!(reason.contains("policy.toml") && reason.contains("to begin"), "{reason}");
        // What the message shows is a policy.
        let (_, shown) = reason.split_once("toml: ").unwrap();
        place.write("policy.toml", shown);
        assert_eq!(place.load().unwrap().rules().len(), 1);
    }

    #[test]
    fn what_others_may_write_is_refused() {
        for (name, mode) in [
            ("policy.toml", 0o664),
            ("policy.toml", 0o646),
            ("policy.d", 0o775),
            ("policy.d", 0o1777),
            ("policy.d/a.toml", 0o666),
        ] {
            let place = Place::new();
            place.rule("policy.toml", "main");
            place.rule("policy.d/a.toml", "a");
            assert!(place.load().is_ok());
            place.chmod(name, mode);
            let error = place.load().unwrap_err();
            assert!(error.contains("chmod go-w") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let place = Place::new();
        place.rule("policy.toml", "main");
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        std::os::unix::fs::chown(&place.paths.file, Some(12345), None).unwrap();
        let error = place.load().unwrap_err();
        assert!(error.contains("uid 12345") && error.contains("as uid 0"), "{error}");
    }

    #[test]
    fn only_regular_files_are_read() {
        let place = Place::new();
        nix::unistd::mkfifo(&place.paths.file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(place.load().unwrap_err().contains("not a regular file"));
        fs::remove_file(&place.paths.file).unwrap();
        place.rule("elsewhere", "linked");
        symlink(place.dir.path().join("elsewhere"), &place.paths.file).unwrap();
        assert_eq!(place.load().unwrap().rules().len(), 1, "a link is as good as its file");
        place.chmod("elsewhere", 0o666);
        assert!(place.load().is_err(), "and as bad");
        fs::remove_file(place.dir.path().join("elsewhere")).unwrap();
        assert!(
            place.load().is_err(),
            "a link to nowhere is a mistake, not a policy that is missing"
        );
    }

    #[test]
    fn mistakes_name_file_place_and_rule() {
        let place = Place::new();
        place.rule("policy.toml", "main");
        for (text, says) in [
            ("[[rule]]\nname = 'x'\n", "a.toml:1:1: rule 'x': "),
            (
                "\n\n[[rule]]\nname = 'main'\nusers = ['*']\nattach = ['own']",
                "a.toml:3:1: rule 'main': a rule of this name is at ",
            ),
            ("[[rule]]\nnam = 'x'", "a.toml:2:1: unknown field `nam`"),
            ("[[rule]\n", "a.toml:1:"),
        ] {
            place.write("policy.d/a.toml", text);
            let error = place.load().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        place.write("policy.d/a.toml", "");
        fs::write(place.paths.folder.join("a.toml"), [0xff]).unwrap();
        assert!(place.load().unwrap_err().contains("not UTF-8"));
    }
}
