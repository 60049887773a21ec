//! A file that is being written, under a temporary name.

use super::batch::Ready;
use super::cannot;
use super::folder::{Folder, Old, Slot, hash};
use super::scraps::{Part, Scrap, Scraps, part_of};
use crate::error::why;
use crate::open::{SAFE, c_string};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, futimens};
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use rexec_guard::holds;
use rexec_protocol::files::{End, Meta, Want};
use rexec_protocol::{Algorithm, Digest, Hasher};
use std::ffi::CStr;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A part of a file that is smaller than this is not worth keeping, in bytes.
pub(super) const WORTH_KEEPING: u64 = 1024 * 1024;
/// A larger file is made durable on its own, and the disk is set to work while the rest still comes.
const LARGE: u64 = 8 * 1024 * 1024;
/// After so many bytes the disk gets the next ones.
const WRITEBACK: u64 = 32 * 1024 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file that is not complete.
#[derive(Debug)]
pub(super) struct Draft {
    // Before the file: what is removed is still locked.
    scrap: Scrap,
    file: File,
    /// The name of the file that it is of.
    of: Vec<u8>,
    old: Option<Old>,
    algorithm: Algorithm,
    hasher: Hasher,
    /// Up to where it is written and hashed.
    at: u64,
    /// It is to be kept when the transfer fails.
    is_part: bool,
    writeback: Option<Writeback>,
    asked_at: u64,
}

impl Draft {
    /// An empty one.
    pub(super) fn new(
        slot: &Slot,
        old: Option<Old>,
        algorithm: Algorithm,
        scraps: &Scraps,
    ) -> Result<Self, String> {
        let (fd, scrap) = scraps
            .file(slot.folder()?)
            .map_err(|errno| cannot("make a file in this folder", errno))?;
        Ok(Self::with(File::from(fd), scrap, slot, old, algorithm))
    }

    fn with(file: File, scrap: Scrap, slot: &Slot, old: Option<Old>, algorithm: Algorithm) -> Self {
        let hasher = Hasher::new(algorithm);
        // A link has no mode, and its owner is whoever put it there.
        let old = old.filter(|old| holds("files.owner_of_link", old.is_file));
        let (at, is_part, writeback, asked_at) = (0, false, None, 0);
        let of = slot.name.clone();
        Self { file, of, scrap, old, algorithm, hasher, at, is_part, writeback, asked_at }
    }

    /// The one that an earlier transfer has left, or an empty one that a later one will find. `None`
    /// if that name cannot be used: it is somebody else's.
    pub(super) fn part(
        slot: &Slot,
        old: Option<Old>,
        algorithm: Algorithm,
        scraps: &Scraps,
    ) -> Option<Self> {
        let folder = slot.folder.as_ref()?;
        let name = c_string(part_of(&slot.name).as_bytes()).ok()?;
        let part = Part { of: c_string(&slot.name).ok()?, old };
        let taken = scraps.part(folder, name.clone(), part, |name| take(folder, name));
        let Some((mut file, scrap)) = taken else {
            return Self::copy(slot, old, algorithm, scraps, &name);
        };
        let hasher = hash(&mut file, Hasher::new(algorithm)).ok()?;
        let at = file.stream_position().ok()?;
        let draft = Self::with(file, scrap, slot, old, algorithm);
        Some(Self { hasher, at, asked_at: at, is_part: true, ..draft })
    }

    /// A copy of a part that another transfer still holds. One whose client was killed does, until its
    /// lease is over, and whoever starts it again need not wait for that. Its digest tells whether it
    /// was the beginning of the file.
    fn copy(
        slot: &Slot,
        old: Option<Old>,
        algorithm: Algorithm,
        scraps: &Scraps,
        name: &CStr,
    ) -> Option<Self> {
        let mut part = own_part(slot.folder.as_ref()?, name, OFlag::O_RDONLY)?;
        let mut draft = Self::new(slot, old, algorithm, scraps).ok()?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match part.read(&mut buffer) {
                Ok(0) => return Some(draft),
                Ok(n) => draft.data(draft.at, buffer.get(..n)?, None).ok()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.at
    }

    /// What is asked for.
    pub(super) fn want(&self) -> Want {
        match self.at {
            0 => Want::default(),
            from => Want { from, hash: Some(self.hasher.prefix()) },
        }
    }

    /// Content follows, from the end of what is here or from 0.
    pub(super) fn begin(&mut self, from: u64) -> Result<(), String> {
        if from == 0 && self.at > 0 {
            self.file.set_len(0).map_err(|error| self.cannot_write(error, 0, None))?;
            (self.hasher, self.at, self.asked_at) = (Hasher::new(self.algorithm), 0, 0);
        }
        Ok(())
    }

    /// Takes a piece.
    pub(super) fn data(
        &mut self,
        offset: u64,
        body: &[u8],
        size: Option<u64>,
    ) -> Result<(), String> {
        let end = offset.checked_add(body.len() as u64);
        let end = end.filter(|end| size.is_none_or(|size| *end <= size));
        let fits = offset >= self.at && end.is_some();
        if !holds("files.piece", fits) {
            return Err("content came that does not belong to this file".to_owned());
        }
        self.hole(offset)?;
        let mut rest = body;
        while !rest.is_empty() {
            let at = offset + (body.len() - rest.len()) as u64;
            match self.file.write_at(rest, at) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cannot_write(error, at, size)),
            }
        }
        self.hasher.update(body);
        self.at = offset + body.len() as u64;
        self.set_disk_to_work();
        Ok(())
    }

    /// Zeros up to `end`, without writing them.
    fn hole(&mut self, end: u64) -> Result<(), String> {
        if end > self.at {
            // First, so that a size that no file here can have is found out at once.
            self.file.set_len(end).map_err(|error| self.cannot_write(error, self.at, Some(end)))?;
        }
        while self.at < end {
            let n = (end - self.at).min(ZEROS.len() as u64);
            self.hasher.update(ZEROS.get(..n as usize).unwrap_or_default());
            self.at += n;
        }
        Ok(())
    }

    /// What was sent must be what is here.
    pub(super) fn check(&mut self, announced: Option<u64>, end: End) -> Result<(), String> {
        let size = end.size;
        let is_whole = self.at <= size && announced.is_none_or(|announced| announced == size);
        if !holds("files.size", is_whole) {
            return Err(format!("{} bytes came of a file of {size}", self.at));
        }
        self.hole(size)?;
        let digest = self.hasher.prefix();
        if !holds("files.digest", digest == end.hash) {
            let (algorithm, sent) = (self.algorithm, end.hash);
            return Err(format!("what came has the {algorithm} digest {digest}, not {sent}"));
        }
        Ok(())
    }

    pub(super) fn old(&self) -> Option<&Old> {
        self.old.as_ref()
    }

    /// Gives the complete file its owner, mode and time, by its descriptor. A large one is on the
    /// disk after this.
    pub(super) fn dress(&mut self, mode: u32, time: Option<Meta>) -> Result<(), String> {
        if let Some(Old { owner: (uid, gid), .. }) = self.old {
            let stat = fstat(&self.file).map_err(|errno| cannot("look at the file", errno))?;
            let other = |own, old| (own != old).then_some(old);
            let uid = other(stat.st_uid, uid).map(Uid::from_raw);
            let gid = other(stat.st_gid, gid).map(Gid::from_raw);
            if (uid.is_some() || gid.is_some()) && fchown(&self.file, uid, gid).is_err() {
                // Who may not give files away may still be in the group.
                let _ = fchown(&self.file, None, gid);
            }
        }
        let mode = Mode::from_bits_truncate(mode);
        fchmod(&self.file, mode).map_err(|errno| cannot("set the mode", errno))?;
        if let Some(Meta { mtime, nsec, .. }) = time {
            let time = TimeSpec::new(mtime, i64::from(nsec.min(999_999_999)));
            futimens(&self.file, &time, &time).map_err(|errno| cannot("set the time", errno))?;
        }
        if self.at >= LARGE {
            if let Some(writeback) = self.writeback.take() {
                writeback.end();
            }
            self.file.sync_all().map_err(|error| self.cannot_write(error, self.at, None))?;
        }
        Ok(())
    }

    /// It is complete, and waits for its name.
    pub(super) fn ready(self, slot: Slot, size: u64, digest: Digest) -> Ready {
        let lock = if self.is_part { self.file.try_clone().ok() } else { None };
        let file = (self.at < LARGE).then_some(self.file);
        let sha256 = (self.algorithm == Algorithm::Sha256).then_some(digest);
        Ready { scrap: self.scrap, slot, size, sha256, file, resumed: 0, lock }
    }

    /// It is wrong.
    pub(super) fn discard(self) {
        self.scrap.discard();
    }

    fn set_disk_to_work(&mut self) {
        if self.at - self.asked_at < WRITEBACK {
            return;
        }
        self.asked_at = self.at;
        if self.writeback.is_none() {
            self.writeback = self.file.try_clone().ok().and_then(Writeback::start);
        }
        if let Some(writeback) = &self.writeback {
            // If it is still at work, it will find this too.
            let _ = writeback.ask.try_send(());
        }
    }

    /// Why it cannot be written, how much room there is, and what of this file takes some.
    fn cannot_write(&self, error: io::Error, at: u64, size: Option<u64>) -> String {
        [self.fault(error, at, size), self.kept()].concat()
    }

    /// What there is of this file under the name of its part, and stays.
    fn kept(&self) -> String {
        let part = part_of(&self.of);
        let look = |name: &str| {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            let folder = &self.scrap.folder().fd;
            fstatat(folder, name, flags).map_or(0, |stat| stat.st_size.unsigned_abs())
        };
        match look(&part) {
            0 => String::new(),
            n if self.is_part => format!(
                "; {n} bytes stay in its folder as {part}, and the same command with --partial goes on \
                 from there"
            ),
            n => format!(
                "; {n} bytes of it are in its folder from an earlier --partial, as {part}: with --partial it \
                 goes on from there, or remove that"
            ),
        }
    }

    fn fault(&self, error: io::Error, at: u64, size: Option<u64>) -> String {
        let why = why(error);
        let free = fstatvfs(&self.scrap.folder().fd)
            .map(|system| system.blocks_available() * system.fragment_size());
        match (size, free) {
            (Some(size), Ok(free)) => {
                format!("cannot write: {why}; {at} of {size} bytes were written, {free} are free")
            }
            (None, Ok(free)) => format!("cannot write: {why}; {free} bytes are free"),
            _ => format!("cannot write: {why}"),
        }
    }
}

/// Opens and locks a part.
fn take(folder: &Folder, name: &CStr) -> Option<File> {
    let file = own_part(folder, name, OFlag::O_RDWR | OFlag::O_CREAT)?;
    file.try_lock().ok()?;
    // Whoever had the lock may have given the file its name since it was opened here.
    let (here, stat) =
        (fstatat(&folder.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?, fstat(&file).ok()?);
    ((here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)).then_some(file)
}

/// Opens a part, which must be this user's alone.
fn own_part(folder: &Folder, name: &CStr, flags: OFlag) -> Option<File> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let opened = openat(&folder.fd, name, flags | OFlag::O_NOFOLLOW | SAFE, mode).ok()?;
    let stat = fstat(&opened).ok()?;
    let is_own = stat.st_uid == geteuid().as_raw()
        && stat.st_nlink == 1
        && stat.st_mode & 0o170_077 == 0o100_000;
    holds("files.own_part", is_own).then(|| File::from(opened))
}

/// Whether another transfer holds a part just now, or has it wait for its name.
pub(super) fn is_held(folder: &Folder, name: &CStr) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | SAFE;
    let opened = openat(&folder.fd, name, flags, Mode::empty()).map(File::from);
    opened.is_ok_and(|part| matches!(part.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes what there is of a file that has come in whole, unless another transfer holds it: that one
/// does it at its end.
pub(super) fn drop_part(folder: &Folder, of: &[u8]) {
    let Ok(name) = c_string(part_of(of).as_bytes()) else { return };
    let free = own_part(folder, &name, OFlag::O_RDWR).filter(|part| part.try_lock().is_ok());
    if free.is_some() {
        let _ = unlinkat(&folder.fd, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// A thread that has the disk write what there is while more comes, so that the wait at the end is
/// short.
#[derive(Debug)]
struct Writeback {
    ask: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Writeback {
    fn start(file: File) -> Option<Self> {
        let (ask, asked) = sync_channel(1);
        let work = move || {
            while let Ok(()) = asked.recv() {
                // What fails here is still to be written, and fails again at the end.
                let _ = file.sync_data();
            }
        };
        let thread = std::thread::Builder::new().name("writeback".to_owned()).spawn(work).ok()?;
        Some(Self { ask, thread })
    }

    fn end(self) {
        drop(self.ask);
        let _ = self.thread.join();
    }
}
