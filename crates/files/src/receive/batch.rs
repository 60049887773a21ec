//! Files that are complete, until they are in their places.
//!
//! To make 10,000 small files durable one by one takes 10,000 waits for the disk. So they wait for
//! each other: one syncfs(2) for all of a batch, then the renames, then once more for the folders. A
//! few files are made durable one by one, because syncfs also writes what others have to write.

use super::cannot;
use super::draft::{WORTH_KEEPING, drop_part};
use super::folder::{Folder, Slot};
use super::remove;
use super::rename;
use super::scraps::Scrap;
use crate::error::{Error, why};
use crate::open::c_string;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{fsync, syncfs};
use rexec_protocol::Digest;
use rexec_protocol::files::Meta;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::sync::Arc;

/// How many wait at most, with how many bytes, and in how many folders, with those that were left. Each
/// folder is a descriptor, and 1024 of them is what a process may have where nobody said otherwise.
const FILES: usize = 2048;
const BYTES: u64 = 128 * 1024 * 1024;
const FOLDERS: usize = 256;
/// Up to this many are made durable one by one.
const FEW: usize = 4;

/// A complete file, or a link, under a temporary name.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) scrap: Scrap,
    pub(crate) slot: Slot,
    pub(crate) size: u64,
    pub(crate) sha256: Option<Digest>,
    /// `None`: it is on the disk already, or a link.
    pub(crate) file: Option<File>,
    /// How many bytes of it an earlier transfer had left.
    pub(crate) resumed: u64,
    /// A part, which no other transfer may go on with: it is locked until it has its name.
    pub(crate) lock: Option<File>,
}

/// What became of one.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) slot: Slot,
    pub(super) size: u64,
    pub(super) sha256: Option<Digest>,
    pub(super) resumed: u64,
    /// Whether a folder was removed for it.
    pub(super) outcome: Result<bool, String>,
}

/// What is to be said of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Made,
    /// It gets another mode or time.
    Adjusted,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) files: Vec<Settled>,
    pub(super) folders: Vec<(Vec<u8>, Result<News, String>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    ready: Vec<Ready>,
    bytes: u64,
    /// How many are not on the disk.
    volatile: usize,
    /// How often the next file was in another folder than the last one.
    folders: usize,
    left: Vec<Left>,
    /// Of these, how many are not done with, because a file in them is still to come.
    pending: usize,
    grown: Vec<Grown>,
    /// Folders that could not be made durable, below which a new one may be lost; and why.
    unsafe_below: Vec<(Vec<u8>, String)>,
}

/// A folder in which others were made: their names are to be there after a crash as well.
#[derive(Debug)]
struct Grown {
    folder: Arc<Folder>,
    /// Below the destination; empty for that itself, and for what it is in.
    path: Vec<u8>,
}

/// A folder in which all is done, but for the renames of this batch. It gets this mode and this time at
/// last.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) folder: Arc<Folder>,
    /// Below the destination.
    pub(super) path: Vec<u8>,
    pub(super) mode: Option<u32>,
    pub(super) time: Option<Meta>,
    pub(super) news: Option<News>,
}

impl Batch {
    /// Adds a file.
    pub(super) fn push(&mut self, mut ready: Ready) {
        self.bytes += ready.size;
        if ready.file.is_some() {
            self.volatile += 1;
            if self.volatile > FEW {
                // One call will do for all, and descriptors are few.
                ready.file = None;
            }
        }
        let folder = Arc::as_ptr(ready.scrap.folder());
        if self.ready.last().is_none_or(|last| Arc::as_ptr(last.scrap.folder()) != folder) {
            self.folders += 1;
        }
        self.ready.push(ready);
    }

    /// Adds a folder.
    pub(super) fn leave(&mut self, left: Left) {
        if left.mode.is_some() || left.time.is_some() || left.news.is_some() {
            self.left.push(left);
        }
    }

    /// Takes note that a folder was made in this one, which is called `path` now.
    pub(super) fn grew(&mut self, folder: Option<Arc<Folder>>, path: &[u8]) {
        let is_last = |folder: &Arc<Folder>| {
            self.grown.last().is_some_and(|last| Arc::ptr_eq(&last.folder, folder))
        };
        let Some(folder) = folder.filter(|folder| !is_last(folder)) else { return };
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.grown.push(Grown { folder, path: path.get(..end).unwrap_or_default().to_vec() });
    }

    pub(super) fn is_full(&self) -> bool {
        let folders = self.folders + self.left.len() - self.pending + self.grown.len();
        self.ready.len() >= FILES || self.bytes >= BYTES || folders >= FOLDERS
    }

    /// Puts all in their places, and tells what was removed for that. Folders that are `pending` stay for the next
    /// time: what is still to come into them may need their mode, and changes their time.
    pub(super) fn settle(
        &mut self,
        pending: impl Fn(&Arc<Folder>) -> bool,
        tell: remove::Tell<'_>,
    ) -> Result<Settlement, Error> {
        let Self { mut ready, volatile, mut left, grown, mut unsafe_below, .. } =
            std::mem::take(self);
        let mut synced = Synced { few: volatile <= FEW, systems: HashMap::new() };
        let mut folders: HashMap<*const Folder, Arc<Folder>> = grown
            .iter()
            .map(|grown| (Arc::as_ptr(&grown.folder), Arc::clone(&grown.folder)))
            .collect();
        let names: Vec<_> = ready
            .iter_mut()
            .map(|Ready { scrap, slot, file, .. }| {
                synced.file(file.take(), scrap.folder())?;
                c_string(&slot.name).map_err(|errno| cannot("use this name", errno))
            })
            .collect();
        let named = rename::all(&ready, names);
        let (mut settled, mut dressed) = (Vec::with_capacity(ready.len()), Vec::new());
        for (ready, named) in ready.into_iter().zip(named) {
            let Ready { scrap, slot, size, sha256, resumed, lock, .. } = ready;
            let folder = Arc::clone(scrap.folder());
            let outcome = match named {
                Ok((name, renamed)) => make_way(renamed, &scrap, &slot, &name, tell)?,
                Err(why) => Err(why),
            };
            drop(lock);
            let outcome = outcome.map_err(|why| why + &scrap.give_up());
            if outcome.is_ok() && size >= WORTH_KEEPING {
                drop_part(&folder, &slot.name);
            }
            folders.insert(Arc::as_ptr(&folder), folder);
            settled.push(Settled { slot, size, sha256, resumed, outcome });
        }
        (self.left, left) = left.into_iter().partition(|left| pending(&left.folder));
        self.pending = self.left.len();
        for Left { folder, path, mode, time, news } in left {
            // What came into it has changed its time, so that it may be told although it was as it is to be.
            let done = dress(&folder, mode, time).map(|()| news).transpose();
            dressed.extend(done.map(|done| (path, done)));
        }
        let mut again = Synced { few: folders.len() <= FEW, systems: HashMap::new() };
        let failed: HashMap<_, _> = folders
            .iter()
            .filter_map(|(key, folder)| again.folder(folder).err().map(|why| (*key, why)))
            .collect();
        // What is in a new folder is as safe as the name of that, which was perhaps made with a batch
        // before this one.
        for Grown { folder, path } in grown {
            if let Some(why) = failed.get(&Arc::as_ptr(&folder))
                && !unsafe_below.iter().any(|(above, _)| is_below(&path, above))
            {
                unsafe_below.push((path, why.clone()));
            }
        }
        for Settled { slot, outcome, .. } in &mut settled {
            let own = slot.folder.as_ref().and_then(|folder| failed.get(&Arc::as_ptr(folder)));
            let above = || unsafe_below.iter().find(|(above, _)| is_below(&slot.path, above));
            if let Some(why) = own.or_else(|| above().map(|(_, why)| why)) {
                *outcome = Err(why.clone());
            }
        }
        for (path, outcome) in &mut dressed {
            if let Some((_, why)) = unsafe_below.iter().find(|(above, _)| is_below(path, above)) {
                *outcome = Err(why.clone());
            }
        }
        self.unsafe_below = unsafe_below;
        Ok(Settlement { files: settled, folders: dressed })
    }
}

/// Whether a path is that of a folder, or of something below it.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty()
        || path.strip_prefix(folder).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// What is on the disk.
struct Synced {
    /// So few that each is made durable on its own.
    few: bool,
    /// File systems that were synced as a whole.
    systems: HashMap<u64, Result<(), Errno>>,
}

impl Synced {
    fn file(&mut self, file: Option<File>, folder: &Folder) -> Result<(), String> {
        match (file, self.few) {
            (_, false) => self.system(folder),
            (Some(file), true) => {
                file.sync_all().map_err(|error| format!("cannot write: {}", why(error)))
            }
            (None, true) => Ok(()),
        }
    }

    fn folder(&mut self, folder: &Folder) -> Result<(), String> {
        if !self.few {
            return self.system(folder);
        }
        match fsync(&folder.fd) {
            // Not every file system can do that for a folder.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(cannot("write its folder", errno)),
        }
    }

    fn system(&mut self, folder: &Folder) -> Result<(), String> {
        let synced = self.systems.entry(folder.device).or_insert_with(|| syncfs(&folder.fd));
        synced.map_err(|errno| cannot("write", errno))
    }
}

/// What came of a rename. True if a folder made way for the file, which was emptied first: if that cannot
/// be done, the file does not come.
fn make_way(
    renamed: nix::Result<()>,
    scrap: &Scrap,
    slot: &Slot,
    name: &CStr,
    tell: remove::Tell<'_>,
) -> Result<Result<bool, String>, Error> {
    let placed = match renamed {
        Err(Errno::EISDIR) if slot.clears() => {
            match remove::contents(scrap.folder(), name, &slot.path, false, tell)? {
                Ok(()) => scrap
                    .exchange(name)
                    .map(|()| true)
                    .map_err(|why| format!("its place was a folder, which was emptied: {why}")),
                Err(why) => Err(why),
            }
        }
        renamed => renamed.map(|()| false).map_err(|errno| cannot("put it in its place", errno)),
    };
    Ok(placed)
}

/// What a folder looks like at last.
fn dress(folder: &Folder, mode: Option<u32>, time: Option<Meta>) -> Result<(), String> {
    if let Some(mode) = mode {
        fchmod(&folder.fd, Mode::from_bits_truncate(mode))
            .map_err(|errno| cannot("set the mode", errno))?;
    }
    if let Some(Meta { mtime, nsec, .. }) = time {
        let time = TimeSpec::new(mtime, i64::from(nsec.min(999_999_999)));
        let has_it = || {
            fstat(&folder.fd)
                .is_ok_and(|now| TimeSpec::new(now.st_mtime, now.st_mtime_nsec) == time)
        };
        if let Err(errno) = futimens(&folder.fd, &time, &time)
            && !has_it()
        {
            return Err(cannot("set the time", errno));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, open};

    /// By a descriptor that may only be looked at: as a folder of somebody else.
    #[test]
    fn a_folder_that_cannot_get_its_time_has_to_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || {
            let fd = open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            Folder::new(fd, false).unwrap()
        };
        let (mtime, nsec) = folder().mtime;
        let time = |mtime| Some(Meta { mtime, nsec, ..Meta::default() });
        assert_eq!(dress(&folder(), None, time(mtime)), Ok(()));
        assert!(dress(&folder(), None, time(mtime - 1)).is_err());
    }
}
