//! Small files in the agent's private folder that the next agent reads.

use crate::trusted;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is in it; `None` if there is none. One that somebody else could have changed is an error.
pub fn read(state: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = state.join(name);
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    trusted::demand_unchangeable(&path, &file.metadata()?).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes it whole or not at all, in the place of an older one.
pub fn write(state: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (state.join(name), state.join(format!("{name}.new")));
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW).open(&new)?.write_all(bytes)?;
    fs::rename(&new, &path)
}
