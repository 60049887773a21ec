//! Small files in the agent's private folder that the next agent reads.

use rexec_net::trusted;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// To open what may be a link, or a pipe into which nobody writes.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// What is in it; `None` if there is none. One that somebody else could have changed is an error, and
/// so is what is no file: nobody waits for a pipe.
pub fn read(state: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = state.join(name);
    let opened = OpenOptions::new().read(true).custom_flags(FLAGS).open(&path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file; remove it"));
    }
    trusted::demand_unchangeable(&path, &metadata).map_err(io::Error::other)?;
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

/// Removes it, if it is there: once this has returned it is gone, also after a loss of power. A folder of
/// its name is none of it, and stays.
pub fn remove(state: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(state.join(name)) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) =>
        {
            Ok(())
        }
        removed => removed.and_then(|()| File::open(state)?.sync_all()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_holds_up_nobody() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("rooms");
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let error = read(state.path(), "rooms").unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        remove(state.path(), "rooms").unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(read(state.path(), "rooms").is_err());
        remove(state.path(), "rooms").unwrap();
        assert!(read(state.path(), "rooms").unwrap().is_none());
        // It would make every start fail, and the first of them forget what else was left.
        fs::create_dir(&path).unwrap();
        assert!(read(state.path(), "rooms").is_err());
        remove(state.path(), "rooms").unwrap();
        fs::remove_dir(&path).unwrap();
        write(state.path(), "rooms", b"[]").unwrap();
        assert_eq!(read(state.path(), "rooms").unwrap().unwrap(), b"[]");
    }
}
