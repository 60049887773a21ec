//! Files that decide what the agent does: nobody but root and the agent's own user may change them.
//!
//! As sshd does it with `authorized_keys`. What counts has to be asked of the opened file, not of its
//! name.

use nix::unistd::Uid;
use rexec_guard::holds;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a file or a folder that somebody else could change; the error says what to do about
/// `path`.
pub fn demand_unchangeable(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let (owner, own) = (metadata.uid(), Uid::effective().as_raw());
    let mode = metadata.mode() & 0o7777;
    let path = path.display();
    if !holds("trusted.owner", owner == 0 || owner == own) {
        // `--check` and doctor may be run by root for an agent that is somebody else, and has it rightly.
        Err(format!(
            "belongs to uid {owner}, who could change it, and this runs as uid {own}; run it as the \
             agent's user, or give {path} to that user or to root"
        ))
    } else if !holds("trusted.unchangeable", mode & 0o022 == 0) {
        Err(format!(
            "may be written by others than its owner (mode {mode:04o}); run: chmod go-w {path}"
        ))
    } else {
        Ok(())
    }
}
