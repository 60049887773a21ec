//! Temporary names: each is known until it is renamed or removed, so that none is left behind when a
//! transfer ends before its time. Of those that stay for a later one, only what is empty goes, and what
//! came in whole by another transfer.

use super::cannot;
use super::folder::{Folder, Old};
use crate::open::{SAFE, shown};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use rexec_protocol::files::Meta;
use rexec_protocol::{Algorithm, Digest};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all temporary names begin with; 16 hexadecimal digits follow.
const PREFIX: &str = ".rexec-";
const DIGITS: usize = 16;
/// What the name of a part begins with; the first 32 digits of the SHA-256 of the file's name follow.
const PART: &str = ".rexec-part-";
const PART_DIGITS: usize = 32;
/// How often another name is tried.
const ATTEMPTS: usize = 16;

/// Whether a name is exactly one that files have here while they are written. With any other, whatever
/// it begins with, a file is a user's own.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let digits = name.strip_prefix(PREFIX.as_bytes()).unwrap_or_default();
    digits.len() == DIGITS && digits.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of what is kept of a file.
pub(super) fn part_of(name: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, name).to_string();
    format!("{PART}{}", digest.get(..PART_DIGITS).unwrap_or(&digest))
}

/// Whether a name can be one that [`part_of`] makes.
pub(super) fn may_be_part(name: &[u8]) -> bool {
    name.starts_with(PART.as_bytes()) && name.len() == PART.len() + PART_DIGITS
}

/// The temporary names of a transfer. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Scraps(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Nothing more is made.
    closed: bool,
    next: u64,
    live: HashMap<u64, Live>,
}

/// What is under a temporary name now.
#[derive(Debug, Clone)]
struct Live {
    folder: Arc<Folder>,
    name: CString,
    /// It stays for a later transfer, if there is anything in it.
    part: Option<Part>,
}

/// What a part is of.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The name of the file.
    pub(super) of: CString,
    /// What had that name before.
    pub(super) old: Option<Old>,
}

impl Part {
    /// Whether the file has come in whole by another transfer: then nobody goes on with this.
    fn is_overtaken(&self, folder: &Folder) -> bool {
        fstatat(&folder.fd, self.of.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|now| {
            self.old.is_none_or(|old| (old.device, old.inode) != (now.st_dev, now.st_ino))
        })
    }
}

impl Live {
    /// What cannot be removed now never can.
    fn end(&self) {
        let is_worth_it = |part: &Part| {
            fstatat(&self.folder.fd, self.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| stat.st_size > 0)
                && !part.is_overtaken(&self.folder)
        };
        if !self.part.as_ref().is_some_and(is_worth_it) {
            let _ = self.remove();
        }
    }

    /// Removes what has the name; a folder only if it is empty.
    fn remove(&self) -> nix::Result<()> {
        let (folder, name) = (&self.folder.fd, self.name.as_c_str());
        unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
            .or_else(|_| unlinkat(folder, name, UnlinkatFlags::RemoveDir))
    }
}

/// One temporary name. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scrap {
    scraps: Scraps,
    id: u64,
    live: Live,
}

impl Scraps {
    /// Removes all that is there, and lets nothing be made any more.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, live) in state.live.drain() {
            live.end();
        }
    }

    /// A new file, which only this user can read.
    pub(super) fn file(&self, folder: &Arc<Folder>) -> nix::Result<(OwnedFd, Scrap)> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.make(folder, |name| openat(&folder.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR))
    }

    /// A new link.
    pub(super) fn link(&self, folder: &Arc<Folder>, target: &CStr) -> nix::Result<Scrap> {
        self.make(folder, |name| symlinkat(target, &folder.fd, name)).map(|((), scrap)| scrap)
    }

    /// A new folder, to be exchanged with what is in its place.
    pub(super) fn folder(&self, folder: &Arc<Folder>, mode: Mode) -> nix::Result<(OwnedFd, Scrap)> {
        let ((), scrap) = self.make(folder, |name| mkdirat(&folder.fd, name, mode))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | SAFE;
        let opened = openat(&folder.fd, scrap.live.name.as_c_str(), flags, Mode::empty())?;
        Ok((opened, scrap))
    }

    fn make<T>(
        &self,
        folder: &Arc<Folder>,
        make: impl Fn(&CStr) -> nix::Result<T>,
    ) -> nix::Result<(T, Scrap)> {
        let mut state = self.lock();
        for _ in 0..ATTEMPTS {
            let name = CString::new(format!("{PREFIX}{:0DIGITS$x}", fastrand::u64(..)))
                .map_err(|_| Errno::EINVAL)?;
            if state.closed {
                return Err(Errno::ECANCELED);
            }
            match make(&name) {
                Err(Errno::EEXIST) => {}
                made => {
                    let live = Live { folder: Arc::clone(folder), name, part: None };
                    return Ok((made?, self.add(&mut state, live)));
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// Something that stays under its name when the transfer fails, unless it is empty. Whoever makes
    /// it must not be held up in between, so `make` comes with it; `None` if nothing came of it.
    pub(super) fn part<T>(
        &self,
        folder: &Arc<Folder>,
        name: CString,
        part: Part,
        make: impl FnOnce(&CStr) -> Option<T>,
    ) -> Option<(T, Scrap)> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let made = make(&name)?;
        let live = Live { folder: Arc::clone(folder), name, part: Some(part) };
        Some((made, self.add(&mut state, live)))
    }

    fn add(&self, state: &mut State, live: Live) -> Scrap {
        let id = state.next;
        state.next += 1;
        state.live.insert(id, live.clone());
        Scrap { scraps: self.clone(), id, live }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scrap {
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.live.folder
    }

    /// Gives it its name, in place of what has that now, which must be of the same kind.
    pub(super) fn rename(&self, name: &CStr) -> nix::Result<()> {
        let Live { folder, name: temporary, .. } = &self.live;
        renameat(&folder.fd, temporary.as_c_str(), &folder.fd, name)?;
        self.scraps.lock().live.remove(&self.id);
        Ok(())
    }

    /// Gives it its name, also if it is a folder and what has that now is none, or the other way round;
    /// a folder must be empty for that. What had the name goes.
    pub(super) fn exchange(&self, name: &CStr) -> Result<(), String> {
        let Live { folder, name: temporary, .. } = &self.live;
        // Whoever clears up in between would take the one for the other.
        let mut state = self.scraps.lock();
        let before = fstatat(&folder.fd, temporary.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| cannot("look at what was made", errno))?;
        match self.swap(name) {
            // This file system cannot do that.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EXDEV) => {
                self.clear_and_rename(name).map_err(|errno| cannot("clear the way", errno))?;
            }
            Err(errno) => return Err(cannot("change places with what is there", errno)),
            Ok(()) => match self.live.remove() {
                Ok(()) | Err(Errno::ENOENT) => {}
                // Meanwhile somebody has put something in there, or another folder in its place.
                Err(errno) => {
                    let put_back = self.put_back(name, (before.st_dev, before.st_ino));
                    let why = cannot("remove what was there", errno);
                    if put_back.is_err() {
                        state.live.remove(&self.id);
                    }
                    return Err(match put_back {
                        Ok(()) => format!("{why}; it was put back"),
                        Err(_) => format!("{why}; look for it as {}", shown(temporary.to_bytes())),
                    });
                }
            },
        }
        state.live.remove(&self.id);
        Ok(())
    }

    /// Undoes an exchange. `Err` if what comes back in turn is not what was made here: then neither
    /// goes.
    fn put_back(&self, name: &CStr, made: (u64, u64)) -> nix::Result<()> {
        let Live { folder, name: temporary, .. } = &self.live;
        let at = |name: &CStr| fstatat(&folder.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_made = |stat: FileStat| (stat.st_dev, stat.st_ino) == made;
        if !is_made(at(name)?) {
            return Err(Errno::EBUSY);
        }
        self.swap(name)?;
        if is_made(at(temporary)?) { Ok(()) } else { Err(Errno::EBUSY) }
    }

    fn swap(&self, name: &CStr) -> nix::Result<()> {
        let Live { folder, name: temporary, .. } = &self.live;
        let (fd, temporary) = (&folder.fd, temporary.as_c_str());
        renameat2(fd, temporary, fd, name, RenameFlags::RENAME_EXCHANGE)
    }

    /// With a moment at which nothing has the name.
    fn clear_and_rename(&self, name: &CStr) -> nix::Result<()> {
        let Live { folder, name: temporary, .. } = &self.live;
        let fd = &folder.fd;
        unlinkat(fd, name, UnlinkatFlags::NoRemoveDir)
            .or_else(|_| unlinkat(fd, name, UnlinkatFlags::RemoveDir))?;
        renameat(fd, temporary.as_c_str(), fd, name)
    }

    /// It does not get its name, and goes; or says, in words that come after why, under which name it stays: in a folder
    /// that only grows (`chattr +a`) nothing can be removed either.
    pub(super) fn give_up(self) -> String {
        if self.live.part.is_some() || self.scraps.lock().live.remove(&self.id).is_none() {
            return String::new();
        }
        match self.live.remove() {
            Ok(()) | Err(Errno::ENOENT) => String::new(),
            Err(_) => {
                let name = shown(self.live.name.to_bytes());
                format!("; what came cannot be removed either, and stays as {name}")
            }
        }
    }

    /// Removes it, even if it would stay.
    pub(super) fn discard(mut self) {
        self.live.part = None;
    }

    /// The time of a link, which cannot be opened.
    pub(super) fn set_time(&self, meta: &Meta) {
        let Live { folder, name, .. } = &self.live;
        let time = TimeSpec::new(meta.mtime, i64::from(meta.nsec));
        let how = UtimensatFlags::NoFollowSymlink;
        // Some file systems have none for links.
        let _ = utimensat(&folder.fd, name.as_c_str(), &time, &time, how);
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        if self.scraps.lock().live.remove(&self.id).is_some() {
            self.live.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn here(dir: &tempfile::TempDir) -> Arc<Folder> {
        let fd = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        Arc::new(Folder::new(fd, false).unwrap())
    }

    #[test]
    fn only_what_is_exactly_such_a_name_is_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, scraps) = (here(&dir), Scraps::default());
        let (_, made) = scraps.file(&folder).unwrap();
        assert!(is_temporary(made.live.name.to_bytes()) && !may_be_part(made.live.name.to_bytes()));
        let part = part_of(b"f");
        assert!(may_be_part(part.as_bytes()) && !is_temporary(part.as_bytes()));
        for own in [
            &b".rexec-"[..],
            b".rexec-notes",
            b".rexec-0123456789abcde",
            b".rexec-0123456789abcdef0",
            b".rexec-0123456789ABCDEF",
            b"rexec-0123456789abcdef",
            b"x.rexec-0123456789abcdef",
        ] {
            assert!(!is_temporary(own) && !may_be_part(own), "{}", own.escape_ascii());
        }
    }

    /// As if somebody had put another folder in the place of the one that was emptied.
    #[test]
    fn a_folder_that_came_meanwhile_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, scraps, path) = (here(&dir), Scraps::default(), dir.path().join("name"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "").unwrap();
        for makes_folder in [false, true] {
            let made = if makes_folder {
                scraps.folder(&folder, Mode::S_IRWXU)
            } else {
                scraps.file(&folder)
            };
            let (_, scrap) = made.unwrap();
            let why = scrap.exchange(c"name").unwrap_err();
            assert!(why.contains("not empty; it was put back"), "{why}");
            drop(scrap);
            assert!(path.join("precious").exists());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        }
    }

    /// What somebody else has put there in turn is neither overwritten nor removed.
    #[test]
    fn a_folder_that_cannot_be_put_back_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, scraps, path) = (here(&dir), Scraps::default(), dir.path().join("name"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "").unwrap();
        let (_, file) = scraps.file(&folder).unwrap();
        let made = fstatat(&folder.fd, file.live.name.as_c_str(), AtFlags::empty()).unwrap();
        let made = (made.st_dev, made.st_ino);
        file.swap(c"name").unwrap();
        fs::write(dir.path().join("other"), "another").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(file.put_back(c"name", made), Err(Errno::EBUSY));
        assert_eq!(fs::read(&path).unwrap(), b"another");
        let temporary = file.live.name.to_str().unwrap();
        assert!(dir.path().join(temporary).join("precious").exists());
    }

    /// As on a file system that cannot exchange two names.
    #[test]
    fn kinds_change_places_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, scraps, path) = (here(&dir), Scraps::default(), dir.path().join("name"));
        fs::create_dir(&path).unwrap();
        let (_, file) = scraps.file(&folder).unwrap();
        file.clear_and_rename(c"name").unwrap();
        drop(file);
        assert!(path.is_file());
        let (_, new) = scraps.folder(&folder, Mode::S_IRWXU).unwrap();
        new.clear_and_rename(c"name").unwrap();
        drop(new);
        assert!(path.is_dir());
        // What is in a folder does not go unseen.
        fs::write(path.join("x"), "").unwrap();
        let (_, file) = scraps.file(&folder).unwrap();
        assert_eq!(file.clear_and_rename(c"name"), Err(Errno::ENOTEMPTY));
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
