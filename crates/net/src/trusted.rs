//! Files that decide what this process does: nobody but root and its own user may change them.
//!
//! As sshd does it with `authorized_keys`, and ssh with its own. What counts has to be asked of the
//! opened file, not of its name.

use nix::unistd::geteuid;
use rexec_guard::holds;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Refuses a file, a folder or a pipe that somebody else could change; the error says what to do about
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

/// The same for a configuration, which may also be a device, such as /dev/null: what others write there is not
/// what is read.
pub fn demand_configuration(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let is_device = metadata.file_type().is_char_device();
    if is_device { demand_owner(path, metadata) } else { demand_unchangeable(path, metadata) }
}

/// Refuses what belongs to somebody else.
fn demand_owner(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let (owner, path) = (metadata.uid(), path.display());
    if holds("trusted.owner", is_ours(owner)) {
        return Ok(());
    }
    // Root may look at the files of an agent that is somebody else, and has them rightly.
    let own = geteuid();
    Err(format!(
        "belongs to uid {owner}, who could change it, and this runs as uid {own}; run it as the \
         file's user, or give {path} to that user or to root"
    ))
}

/// Whether it is root's or this process's user's.
pub(crate) fn is_ours(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}
