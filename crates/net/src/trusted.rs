//! Files that decide what this process does: nobody but root and its own user may change them.
//!
//! As sshd does it with `authorized_keys`, and ssh with its own. What counts has to be asked of the
//! opened file, not of its name.

use rexec_guard::holds;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a file or a folder that somebody else could change; the error says what to do about
/// `path`.
pub fn demand_unchangeable(path: &Path, metadata: &Metadata) -> Result<(), String> {
    demand_owner(path, metadata)?;
    let (mode, path) = (metadata.mode() & 0o7777, path.display());
    if holds("trusted.unchangeable", mode & 0o022 == 0) {
        return Ok(());
    }
    Err(format!(
        "may be written by others than its owner (mode {mode:04o}); run: chmod go-w {path}"
    ))
}

/// Refuses what belongs to somebody else.
pub fn demand_owner(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let (owner, path) = (metadata.uid(), path.display());
    if holds("trusted.owner", is_ours(owner)) {
        return Ok(());
    }
    // Root may look at the files of an agent that is somebody else, and has them rightly.
    let own = effective_user().map_or("another".to_owned(), |own| own.to_string());
    Err(format!(
        "belongs to uid {owner}, who could change it, and this runs as uid {own}; run it as the \
         file's user, or give {path} to that user or to root"
    ))
}

/// Whether it is root's or this process's user's.
pub(crate) fn is_ours(owner: u32) -> bool {
    owner == 0 || effective_user().is_none_or(|user| user == owner)
}

/// The user that this process acts as, from the kernel's own account of it.
fn effective_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}
