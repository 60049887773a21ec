//! A job's output on disk: it outlives connections, and the agent.
//!
//! # Theory of operation
//!
//! One folder per job, in the agent's state folder, for nobody else to read:
//!
//! | file | holds |
//! |---|---|
//! | `meta.json` | who submitted what ([`Meta`]); it comes last when a folder is made |
//! | `out`, `err` | the bytes of stdout and stderr, each at its offset in the stream |
//! | `index` | an [`Entry`] of 64 bytes per record, each at 64 times its number |
//! | `checkpoints` | from where on output is kept, and where checking begins ([`Checkpoint`]) |
//! | `end.json` | how the job ended ([`End`]) |
//!
//! A byte goes from the pipe to its file in one system call ([`Spool::fill`]), and only then is it
//! read, digested and entered in the index. So an agent that is killed at any moment leaves each byte
//! either in the pipe or in the file: what is in the file and not in the index has been read from the
//! pipe just before, and the next agent enters it. After a loss of power, which the boot id tells,
//! that much cannot be known, and what the index does not vouch for is cut off.
//!
//! Old output is given back to the file system as holes at the start of the files, so offsets stay
//! positions. A place is found by bisection in the index: nothing of it is held in memory.

mod checkpoint;
mod entry;
mod folder;
mod mark;
mod recover;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, Prefix};
pub use entry::{ENTRY, Entry};
pub use folder::{Folder, Found};
pub use mark::{Ended, Mark};
pub use recover::{Content, Known};

use crate::jobs::meta::{End, Meta};
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, SpliceFFlags, fallocate, splice};
use rexec_protocol::message::{Channel, Offsets};
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Bytes that are read from the disk at once, unless one record is longer.
const BATCH: u64 = 256 * 1024;
/// Entries that are read at once.
const ENTRIES: u64 = 64;

/// The files of one job. One task writes; any number may read.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// `None` once nobody writes any more: then they are opened for each reading, so that a job that has
    /// ended holds no descriptors, however long it is kept.
    files: Mutex<Option<Arc<Files>>>,
    serial: AtomicU64,
}

/// Its open files.
#[derive(Debug)]
struct Files {
    index: File,
    out: File,
    err: File,
    checkpoints: File,
}

impl Files {
    fn open(folder: &Path, open: impl Fn(&Path) -> io::Result<File>) -> io::Result<Self> {
        let file = |name| open(&folder.join(name));
        Ok(Self {
            index: file("index")?,
            out: file("out")?,
            err: file("err")?,
            checkpoints: file("checkpoints")?,
        })
    }

    fn of(&self, channel: Channel) -> &File {
        if channel == Channel::Err { &self.err } else { &self.out }
    }
}

impl Spool {
    fn new(folder: PathBuf, files: Files) -> Self {
        let files = Mutex::new(Some(Arc::new(files)));
        Self { folder, files, serial: AtomicU64::new(0) }
    }

    fn files(&self) -> io::Result<Arc<Files>> {
        match &*self.lock() {
            Some(files) => Ok(Arc::clone(files)),
            None => Ok(Arc::new(Files::open(&self.folder, folder::open)?)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Files>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the files until somebody reads.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Moves what is in `pipe` right now to `offset` of a channel, at most `length` bytes; 0 at the
    /// end. Either a byte is still in the pipe, or it is in the file.
    ///
    /// # Errors
    /// `EAGAIN` if the pipe is empty; `EINVAL` if `pipe` is none, or the file system cannot do this.
    pub fn fill(
        &self,
        channel: Channel,
        offset: u64,
        pipe: BorrowedFd<'_>,
        length: usize,
    ) -> io::Result<usize> {
        let mut at = position(offset)?;
        let files = self.files()?;
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        loop {
            match splice(pipe, None, files.of(channel), Some(&mut at), length, flags) {
                Err(Errno::EINTR) => {}
                moved => return Ok(moved?),
            }
        }
    }

    /// How many bytes of a channel there are from `offset` on.
    pub fn beyond(&self, channel: Channel, offset: u64) -> io::Result<u64> {
        Ok(self.files()?.of(channel).metadata()?.len().saturating_sub(offset))
    }

    /// Writes bytes of a channel.
    pub fn write(&self, channel: Channel, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.files()?.of(channel).write_all_at(bytes, offset)
    }

    /// Reads bytes of a channel.
    pub fn read(&self, channel: Channel, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.files()?.of(channel).read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Writes encoded entries, the first of which has this number.
    pub fn enter(&self, number: u64, entries: &[u8]) -> io::Result<()> {
        self.files()?.index.write_all_at(entries, number * ENTRY)
    }

    /// The entry of this number.
    ///
    /// # Errors
    /// `InvalidData` if there is none.
    pub fn entry(&self, number: u64) -> io::Result<Entry> {
        let entries = self.entries(number, number + 1)?;
        entries.into_iter().next().ok_or_else(unreadable)
    }

    /// The entries from `first` on, up to `end` or as many as are read at once.
    fn entries(&self, first: u64, end: u64) -> io::Result<Vec<Entry>> {
        let count = end.saturating_sub(first).min(ENTRIES);
        let mut bytes = vec![0; usize::try_from(count * ENTRY).unwrap_or_default()];
        self.files()?.index.read_exact_at(&mut bytes, first * ENTRY)?;
        let entries = bytes.chunks_exact(ENTRY as usize).map(Entry::decode);
        entries.collect::<Option<_>>().ok_or_else(unreadable)
    }

    /// The records from `first` on, up to `end` or as many as are read at once; at least one. Each
    /// with its bytes.
    pub fn records(&self, first: u64, end: u64) -> io::Result<Vec<(Entry, Bytes)>> {
        let mut entries = self.entries(first, end)?;
        let begin = entries.first().ok_or_else(unreadable)?.at;
        let size = |entry: &Entry| {
            let at = entry.after(0).at;
            at.out.saturating_sub(begin.out) + at.err.saturating_sub(begin.err)
        };
        entries.truncate(entries.partition_point(|entry| size(entry) <= BATCH).max(1));
        let stop = entries.last().ok_or_else(unreadable)?.after(0).at;
        // The bytes of each channel are one piece.
        let piece = |channel| -> io::Result<Bytes> {
            let length = stop.of(channel).checked_sub(begin.of(channel)).ok_or_else(unreadable)?;
            let length = usize::try_from(length).map_err(io::Error::other)?;
            self.read(channel, begin.of(channel), length)
        };
        let (mut out, mut err) = (piece(Channel::Out)?, piece(Channel::Err)?);
        let mut take = |entry: Entry| -> io::Result<(Entry, Bytes)> {
            let length = entry.length as usize;
            let piece = if entry.channel == Channel::Err { &mut err } else { &mut out };
            if length > piece.len() {
                return Err(unreadable());
            }
            Ok((entry, piece.split_to(length)))
        };
        entries.into_iter().map(&mut take).collect()
    }

    /// The first of the records from `first` to `end` for which `is_past` holds, as it then does for
    /// all that follow; `end` if there is none.
    pub fn bisect(
        &self,
        first: u64,
        end: u64,
        is_past: impl Fn(u64, &Entry) -> bool,
    ) -> io::Result<u64> {
        let (mut low, mut high) = (first, end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_past(middle, &self.entry(middle)?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// What is before this place is not there, and never will be.
    pub fn skip_to(&self, mark: &Mark) -> io::Result<()> {
        let ends = [mark.at.out, mark.at.err, mark.number * ENTRY];
        let files = self.files()?;
        for (file, end) in [&files.out, &files.err, &files.index].into_iter().zip(ends) {
            if file.metadata()?.len() < end {
                file.set_len(end)?;
            }
        }
        Ok(())
    }

    /// Writes a checkpoint: the next agent begins with it.
    pub fn checkpoint(&self, mut checkpoint: Checkpoint) -> io::Result<()> {
        checkpoint.serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        checkpoint.write(&self.files()?.checkpoints)
    }

    /// Gives the room of what is between two places back to the file system. A checkpoint has to say
    /// before that it is not kept.
    pub fn punch(&self, from: &Mark, to: &Mark) -> io::Result<()> {
        let files = self.files()?;
        punch(&files.out, from.at.out, to.at.out)?;
        punch(&files.err, from.at.err, to.at.err)?;
        punch(&files.index, from.number * ENTRY, to.number * ENTRY)
    }

    /// Records how the job ended.
    pub fn end(&self, end: &End) -> io::Result<()> {
        folder::put_json(&self.folder, "end.json", end)
    }

    /// Replaces what is known of the job.
    pub fn describe(&self, meta: &Meta) -> io::Result<()> {
        folder::put_json(&self.folder, "meta.json", meta)
    }

    /// Returns once all of it would survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        let files = self.files()?;
        for file in [&files.out, &files.err, &files.index, &files.checkpoints] {
            file.sync_data()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Deletes the files. Who reads can still read.
    pub fn delete(&self) -> io::Result<()> {
        if let Ok(files) = self.files() {
            *self.lock() = Some(files);
        }
        folder::delete(&self.folder)
    }
}

/// Of file systems, at most, in bytes.
const BLOCK: u64 = 64 * 1024;

/// Bytes between two places, with what their index takes.
pub fn size_between(from: &Mark, to: &Mark) -> u64 {
    let bytes = |at: Offsets| at.out.saturating_add(at.err);
    let entries = to.number.saturating_sub(from.number).saturating_mul(ENTRY);
    bytes(to.at).saturating_sub(bytes(from.at)).saturating_add(entries)
}

/// What is before `from` was punched before.
fn punch(file: &File, from: u64, to: u64) -> io::Result<()> {
    if to <= from {
        return Ok(());
    }
    // A block of which one hole is only a part stays, and the rest of it may have gone with the one before.
    let from = from - from % BLOCK;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, position(from)?, position(to - from)?)?)
}

fn position(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(io::Error::other)
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index does not say what is there")
}

/// The id of this boot: what another boot has written to the page cache may not have reached the disk.
pub fn boot_id() -> String {
    static ID: LazyLock<String> = LazyLock::new(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    });
    ID.clone()
}
