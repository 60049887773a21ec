//! The file that is written now: whole lines or nothing, and what is said to be on the disk is.
//!
//! Two things can leave a file in a state that must be mended before the next write:
//!
//! - A write that stopped in the middle (the disk is full): the file is cut back to its last whole
//!   line.
//! - A failed fsync(2): the kernel drops the pages that it could not write and reports that once, so
//!   a later fsync that succeeds proves nothing about them (see fsync(2), EIO). The lines since the
//!   last good fsync are kept in memory for this, and are written again, in place, before a further
//!   fsync is believed.

use super::record::{Link, MAX_LINE, Record};
use rexec_net::trusted;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The system calls that can fail; tests have others.
pub trait Disk: Send + 'static {
    /// See pwrite(2).
    fn write_at(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(bytes, at)
    }
    /// See ftruncate(2).
    fn truncate(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
    /// See fdatasync(2).
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The real one.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Disk for Kernel {}

/// The file that is written now.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Behind the last whole line.
    end: u64,
    /// So far it is on the disk.
    synced: u64,
    /// The lines from there to the end.
    unsynced: Vec<u8>,
    fault: Option<Fault>,
    /// The number of the first record; `None` while there is none.
    first: Option<u64>,
}

/// What must be mended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Torn,
    NotSynced,
}

/// What was in a file when it was opened.
pub struct Found {
    /// The last record.
    pub last: Option<Link>,
    /// Bytes behind it that are no record.
    pub torn_bytes: u64,
}

/// Who may write the folder could put another log in the place of this one.
fn demand_trusted(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let trusted = trusted::demand_unchangeable(folder, &fs::metadata(folder)?);
    trusted.map_err(|why| io::Error::other(format!("its folder {why}")))
}

impl LogFile {
    /// Opens the file, makes it and its folder where they are missing, and locks it: the file of
    /// another agent is not opened.
    pub fn open(path: &Path) -> io::Result<(Self, Found)> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            demand_trusted(folder)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
        lock(&file)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("this is no regular file"));
        }
        trusted::demand_unchangeable(path, &metadata)
            .map_err(|why| io::Error::other(format!("it {why}")))?;
        sync_folder(path)?;
        let length = metadata.len();
        let tail = tail(&file, length)?;
        let mut log = Self {
            path: path.to_owned(),
            end: length,
            synced: length,
            unsynced: Vec::new(),
            fault: None,
            first: first(&file)?,
            file,
        };
        if tail.needs_newline {
            // What follows begins a line of its own.
            log.append(&mut Kernel, b"\n", 0)?;
        }
        Ok((log, tail.found))
    }

    /// Appends lines, of which the first has number `first`; all of them, or none.
    pub fn append(&mut self, disk: &mut impl Disk, lines: &[u8], first: u64) -> io::Result<()> {
        self.mend(disk)?;
        self.notice_others()?;
        if let Err(error) = write_all_at(disk, &self.file, lines, self.end) {
            self.fault = Some(Fault::Torn);
            // If this fails too, it is done before the next write.
            let _ = self.mend(disk);
            return Err(error);
        }
        self.first.get_or_insert(first);
        self.end += lines.len() as u64;
        self.unsynced.extend_from_slice(lines);
        Ok(())
    }

    /// Returns once everything is on the disk.
    pub fn sync(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        self.mend(disk)?;
        if !self.unsynced.is_empty() {
            self.fsync(disk)?;
        }
        Ok(())
    }

    /// Undoes the last append, of `lines`, whose fsync failed.
    pub fn take_back(&mut self, lines: &[u8]) {
        self.end -= lines.len() as u64;
        self.unsynced.truncate(self.unsynced.len() - lines.len());
    }

    /// How many bytes the next fsync has to write.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// How long the file is.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Whether somebody else has renamed or removed the file.
    pub fn is_gone(&self) -> io::Result<bool> {
        self.is_at(&self.path).map(|is_there| !is_there)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the file the name that it keeps, and says which; everything in it must be on the disk.
    pub fn retire(&self) -> io::Result<Option<String>> {
        let Some(first) = self.first else { return Ok(None) };
        let retired = super::rotated::name(&self.path, first);
        // Unlike rename(2), this does not replace a file that is there.
        match fs::hard_link(&self.path, &retired) {
            // Somebody died between these two steps.
            Err(_) if self.is_at(&retired)? => {}
            linked => linked?,
        }
        fs::remove_file(&self.path)?;
        Ok(retired.file_name().map(|name| name.to_string_lossy().into_owned()))
    }

    fn mend(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        match self.fault {
            None => return Ok(()),
            Some(Fault::Torn) => disk.truncate(&self.file, self.end)?,
            Some(Fault::NotSynced) => {
                write_all_at(disk, &self.file, &self.unsynced, self.synced)?;
                disk.truncate(&self.file, self.end)?;
                self.fsync(disk)?;
            }
        }
        self.fault = None;
        Ok(())
    }

    fn fsync(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        if let Err(error) = disk.sync(&self.file) {
            self.fault = Some(Fault::NotSynced);
            return Err(error);
        }
        self.synced = self.end;
        self.unsynced.clear();
        Ok(())
    }

    /// Somebody who empties the file, or writes to it, must not make this agent write into a hole,
    /// or over what is there. `verify` will say what they did.
    fn notice_others(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length != self.end {
            let path = self.path.display();
            tracing::error!("{path} was changed by somebody else; the chain goes on behind that");
            (self.end, self.synced) = (length, length);
            self.unsynced.clear();
        }
        Ok(())
    }
}

/// Most often somebody has started the same agent twice.
const IN_USE: &str = "another agent writes to this file, perhaps one with this configuration that runs already: \
                      'rexec-agent doctor' tells";

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, IN_USE),
        TryLockError::Error(error) => error,
    })
}

/// A name that is new, or gone, is so after a power failure too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_all_at(
    disk: &mut impl Disk,
    file: &File,
    mut bytes: &[u8],
    mut at: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                bytes = bytes.get(n..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Tail {
    found: Found,
    needs_newline: bool,
}

/// The last record, and what is behind it: what a crash tore is at most some lines.
fn tail(file: &File, length: u64) -> io::Result<Tail> {
    let start = length.saturating_sub(4 * MAX_LINE as u64);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
    file.read_exact_at(&mut bytes, start)?;
    let needs_newline = bytes.last().is_some_and(|byte| *byte != b'\n');
    let mut torn_bytes = 0;
    let mut last = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n').rev() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(record) = Record::parse(text) {
            last = Some(Link::of(record.seq, text));
            break;
        }
        torn_bytes += line.len() as u64;
    }
    if last.is_none() && start > 0 {
        return Err(io::Error::other("this is no audit log: move it away"));
    }
    // The newline that closes it off is one of them.
    torn_bytes += u64::from(needs_newline && torn_bytes > 0);
    Ok(Tail { found: Found { last, torn_bytes }, needs_newline })
}

/// The number of the first record of a file.
pub fn first(file: &File) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    let start = Offset(file, 0).take(MAX_LINE as u64);
    BufReader::new(start).read_until(b'\n', &mut line)?;
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    Ok(Record::parse(text).map(|record| record.seq))
}

/// Reads from the beginning, wherever the descriptor stands.
struct Offset<'a>(&'a File, u64);

impl Read for Offset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(buffer, self.1)?;
        self.1 += n as u64;
        Ok(n)
    }
}
