//! Reading a file that must be trusted, or that must be secret.

use super::Fault;
use crate::trusted::is_ours;
use rexec_guard::holds;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest file of certificates and keys that is read.
pub(super) const MAX_SIZE: u64 = 1 << 20;

/// Reads a file of this process's user or of root, of at most `max` bytes.
pub(super) fn read(path: &Path, max: u64) -> Result<(Vec<u8>, Access), Fault> {
    // Asked of the path first because opening a pipe waits for its writer; what counts is asked
    // again of the opened file.
    if !fs::metadata(path).map_err(Fault::Read)?.is_file() {
        return Err(Fault::NotAFile);
    }
    let file = File::open(path).map_err(Fault::Read)?;
    let metadata = file.metadata().map_err(Fault::Read)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    let owner = metadata.uid();
    if !holds("file.owner", is_ours(owner)) {
        return Err(Fault::Owner(owner));
    }
    let access = Access { mode: metadata.permissions().mode() & 0o7777, path: path.to_owned() };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(Fault::Read)?;
    if bytes.len() as u64 > max {
        return Err(Fault::TooLarge(max / 1024));
    }
    Ok((bytes, access))
}

/// Who else than its owner has access to a file, as of when it was opened.
pub(super) struct Access {
    mode: u32,
    path: PathBuf,
}

impl Access {
    /// Nobody but the owner may write it.
    pub(super) fn demand_unchangeable(&self) -> Result<(), Fault> {
        if holds("file.unchangeable", self.mode & 0o022 == 0) {
            Ok(())
        } else {
            Err(Fault::Writable { mode: self.mode, path: self.path.clone() })
        }
    }

    /// Nobody but the owner may read or write it.
    pub(super) fn demand_private(&self) -> Result<(), Fault> {
        if holds("file.private", self.mode & 0o077 == 0) {
            Ok(())
        } else {
            Err(Fault::Exposed { mode: self.mode, path: self.path.clone() })
        }
    }
}

/// Tells one version of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// A file.
    Version {
        device: u64,
        inode: u64,
        size: u64,
        modified: Option<SystemTime>,
        changed: (i64, i64),
    },
    /// It can't be seen.
    Missing(io::ErrorKind),
}

impl Stamp {
    /// The version that is there now.
    pub(crate) fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) => Self::from(&metadata),
            Err(error) => Self::Missing(error.kind()),
        }
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self::Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.modified().ok(),
            // Catches a file that was put back with its old times, as `cp -p` and `tar` do.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
