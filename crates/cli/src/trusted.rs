//! Files that decide whom this program trusts: nobody but root and this user may change them. ssh does it so with
//! its own.

use rexec_client::demand_configuration;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file that nobody else may write; `None` if there is none. The error names the file, and what to do about
/// it.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    let failed = |why: io::Error| format!("cannot read {shown}: {why}");
    // What counts has to be asked of the opened file, not of its name.
    let mut file = match File::open(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    demand_configuration(path, &metadata).map_err(|why| format!("{shown} {why}"))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        assert_eq!(read(&path), Ok(None));
        fs::write(&path, "text").unwrap();
        for (mode, is_good) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let text = read(&path);
            assert_eq!(text.is_ok(), is_good, "{mode:o}: {text:?}");
            assert!(text.err().is_none_or(|why| why.contains("chmod go-w /")), "{mode:o}");
        }
        assert_eq!(read(Path::new("/dev/null")), Ok(Some(String::new())));
    }

    /// Root may give it away.
    #[test]
    fn a_file_of_another_is_refused() {
        if !nix::unistd::Uid::effective().is_root() {
            return println!("skipped: only root can give a file to another");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "text").unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert!(read(&path).unwrap_err().contains("belongs to uid 4711"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        // Or opening it waits for somebody who writes.
        let _writer = File::options().read(true).write(true).open(&pipe).unwrap();
        std::os::unix::fs::chown(&pipe, Some(4711), None).unwrap();
        assert!(read(&pipe).unwrap_err().contains("belongs to uid 4711"));
    }
}
