//! Temporary names: each is known until it is renamed or removed, so that none is left behind when a
//! transfer ends before its time. Of those that stay for a later one, only what is empty goes.

use super::folder::Folder;
use crate::open::SAFE;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, UtimensatFlags, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use rexec_protocol::files::Meta;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all temporary names begin with.
pub const PREFIX: &str = ".rexec-";
/// How often another name is tried.
const ATTEMPTS: usize = 16;

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
    is_part: bool,
}

impl Live {
    /// What cannot be removed now never can.
    fn end(&self) {
        let (folder, name) = (&self.folder.fd, self.name.as_c_str());
        let is_worth_it = || {
            // A folder is what had the name that the part has now.
            fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| stat.st_size > 0 && stat.st_mode & 0o170_000 == 0o100_000)
        };
        if (!self.is_part || !is_worth_it())
            && unlinkat(folder, name, UnlinkatFlags::NoRemoveDir).is_err()
        {
            // A folder is here only while it is empty.
            let _ = unlinkat(folder, name, UnlinkatFlags::RemoveDir);
        }
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

    /// A new folder, which only this user can enter, to be exchanged with what is in its place.
    pub(super) fn folder(&self, folder: &Arc<Folder>) -> nix::Result<(OwnedFd, Scrap)> {
        let ((), scrap) = self.make(folder, |name| mkdirat(&folder.fd, name, Mode::S_IRWXU))?;
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
            let name = CString::new(format!("{PREFIX}{:016x}", fastrand::u64(..)))
                .map_err(|_| Errno::EINVAL)?;
            if state.closed {
                return Err(Errno::ECANCELED);
            }
            match make(&name) {
                Err(Errno::EEXIST) => {}
                made => {
                    let live = Live { folder: Arc::clone(folder), name, is_part: false };
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
        make: impl FnOnce(&CStr) -> Option<T>,
    ) -> Option<(T, Scrap)> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let made = make(&name)?;
        let live = Live { folder: Arc::clone(folder), name, is_part: true };
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

    /// Gives it its name, also if it is a folder and what has that now is none, or the other way round.
    /// What had it goes when this is dropped; a folder must be empty for that.
    pub(super) fn exchange(&self, name: &CStr) -> nix::Result<()> {
        let Live { folder, name: temporary, .. } = &self.live;
        let (fd, temporary) = (&folder.fd, temporary.as_c_str());
        match renameat2(fd, temporary, fd, name, RenameFlags::RENAME_EXCHANGE) {
            // This file system cannot do that.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EXDEV) => self.clear_and_rename(name),
            exchanged => exchanged,
        }
    }

    /// With a moment at which nothing has the name.
    fn clear_and_rename(&self, name: &CStr) -> nix::Result<()> {
        let fd = &self.live.folder.fd;
        unlinkat(fd, name, UnlinkatFlags::NoRemoveDir)
            .or_else(|_| unlinkat(fd, name, UnlinkatFlags::RemoveDir))?;
        self.rename(name)
    }

    /// Removes it, even if it would stay.
    pub(super) fn discard(mut self) {
        self.live.is_part = false;
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

    /// As on a file system that cannot exchange two names.
    #[test]
    fn kinds_change_places_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        let folder = Arc::new(Folder::new(fd, false).unwrap());
        let (scraps, path) = (Scraps::default(), dir.path().join("name"));
        fs::create_dir(&path).unwrap();
        let (_, file) = scraps.file(&folder).unwrap();
        file.clear_and_rename(c"name").unwrap();
        drop(file);
        assert!(path.is_file());
        let (_, new) = scraps.folder(&folder).unwrap();
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
