//! The state file beside the log: how far the chain had come when this was last written.
//!
//! It is written only after the records that it names are on the disk, so it is never ahead of
//! them; a log that ends before it has lost its end to something other than a crash.

use super::record::Link;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Head {
    seq: u64,
    hash: String,
}

/// Where the state file of a log is.
pub fn path(log: &Path) -> PathBuf {
    log.with_extension("head")
}

/// The head that was written last; `None` if there is no such file.
pub fn read(log: &Path) -> io::Result<Option<Link>> {
    let path = path(log);
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(Head { seq, hash }) => Ok(Some(Link { seq, hash })),
            Err(error) => Err(io::Error::other(format!("{} is damaged: {error}", path.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// Replaces the state file, whole or not at all.
pub fn write(log: &Path, link: &Link) -> io::Result<()> {
    let path = path(log);
    let temporary = path.with_extension("head.new");
    let head = Head { seq: link.seq, hash: link.hash.clone() };
    let mut text = serde_json::to_vec(&head)?;
    text.push(b'\n');
    // Whatever has that name, a link to elsewhere say, is not written into.
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    // Without this, a power failure could leave the new name with nothing in it.
    file.sync_data()?;
    fs::rename(temporary, path)
}
