//! Files that are there whole or not at all, and readable from the start by those only who may.

use super::CaError;
use rexec_guard::holds;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// For private keys and what is known about them.
pub(super) const SECRET: u32 = 0o600;
/// For what everybody may know.
pub(super) const PUBLIC: u32 = 0o644;
/// More than any file of an authority.
const MAX_SIZE: u64 = 1 << 20;

/// Makes the folder, or refuses one that others can look into.
pub(super) fn private_folder(path: &Path) -> Result<(), CaError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| CaError::io("make the folder", path, &error))?;
    check_private(
        path,
        &fs::metadata(path).map_err(|error| CaError::io("see", path, &error))?,
        0o700,
    )
}

/// Reads a file that nobody else may read.
pub(super) fn read_secret(path: &Path) -> Result<String, CaError> {
    let cannot = |error: io::Error| CaError::io("read", path, &error);
    let file = File::open(path).map_err(cannot)?;
    check_private(path, &file.metadata().map_err(cannot)?, SECRET)?;
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

/// Reads a private file of any length; one that is not there is empty.
pub(super) fn read_if_there(path: &Path) -> Result<String, CaError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| CaError::io("read", path, &error)),
    }
}

/// Keeps other calls out of the authority's folder until the value is dropped, so that a list made
/// by cron cannot miss what is being revoked.
pub(super) fn lock(folder: &Path) -> Result<File, CaError> {
    let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    lock.map_err(|error| CaError::io("lock", folder, &error))
}

fn check_private(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), CaError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if holds("ca.private", mode & 0o077 == 0) {
        return Ok(());
    }
    let path = path.display();
    Err(CaError::new(format!(
        "{path} is open to others than its owner (mode {mode:04o}); run: chmod {wanted:o} {path}"
    )))
}

/// Writes a file in one step. A file that is there already is replaced only with `force`.
pub(super) fn write(path: &Path, content: &[u8], mode: u32, force: bool) -> Result<(), CaError> {
    let cannot = |error: io::Error| CaError::io("write", path, &error);
    let temporary = Temporary::write(path, content, mode).map_err(cannot)?;
    let placed = if force {
        fs::rename(&temporary.0, path)
    } else {
        // Unlike a rename, a link fails when there is something already.
        fs::hard_link(&temporary.0, path)
    };
    match placed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(cannot(error)),
        Ok(()) => File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(cannot),
    }
}

/// The words for a file that must not be replaced by accident.
pub(super) fn exists(path: &Path) -> CaError {
    CaError::new(format!("{} exists already; replace it with --force", path.display()))
}

/// Appends one line, which is on disk when this returns.
pub(super) fn append(path: &Path, line: &str) -> Result<(), CaError> {
    let cannot = |error: io::Error| CaError::io("write", path, &error);
    let mut file =
        OpenOptions::new().append(true).create(true).mode(SECRET).open(path).map_err(cannot)?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(cannot)?;
    file.sync_all().map_err(cannot)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file under a name of its own, beside the one that it is to become.
struct Temporary(PathBuf);

impl Temporary {
    fn write(target: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder(target).join(format!(".{name}.{}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&path)?;
        let temporary = Self(path);
        // The umask may have taken bits away that a public file needs.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}
