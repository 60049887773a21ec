//! Local accounts: what the user database says of the user a command runs as.

use nix::unistd::{Uid, User};
use std::io;
use std::path::PathBuf;

/// A local user, resolved once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
    /// True for uid 0, which gets a `PATH` with the system directories.
    pub is_root: bool,
}

impl Account {
    /// The account this process runs as. Blocks while the user database is asked.
    pub fn own() -> io::Result<Self> {
        let uid = Uid::effective();
        let user = User::from_uid(uid)?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("uid {uid} is not in the user database"),
            )
        })?;
        // An empty shell field means /bin/sh; see passwd(5).
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Ok(Self { name: user.name, home: user.dir, shell, is_root: uid.is_root() })
    }
}
