//! Temporary names: each is known until it is renamed or removed, so that none is left behind when a
//! transfer ends before its time.

use super::folder::Folder;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
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
    live: HashMap<u64, (Arc<Folder>, CString)>,
}

/// One temporary name. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scrap {
    scraps: Scraps,
    /// `None`: it is to stay when this is dropped.
    id: Option<u64>,
    folder: Arc<Folder>,
    name: CString,
}

impl Scraps {
    /// Removes all that is there, and lets nothing be made any more.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, (folder, name)) in state.live.drain() {
            // What cannot be removed now never can.
            let _ = unlinkat(&folder.fd, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
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

    fn make<T>(
        &self,
        folder: &Arc<Folder>,
        make: impl Fn(&CStr) -> nix::Result<T>,
    ) -> nix::Result<(T, Scrap)> {
        let mut state = self.lock();
        if state.closed {
            return Err(Errno::ECANCELED);
        }
        for _ in 0..ATTEMPTS {
            let name = CString::new(format!("{PREFIX}{:016x}", fastrand::u64(..)))
                .map_err(|_| Errno::EINVAL)?;
            match make(&name) {
                Err(Errno::EEXIST) => {}
                made => {
                    let made = made?;
                    let id = state.next;
                    state.next += 1;
                    state.live.insert(id, (Arc::clone(folder), name.clone()));
                    let (scraps, folder) = (self.clone(), Arc::clone(folder));
                    return Ok((made, Scrap { scraps, id: Some(id), folder, name }));
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// Something that stays under its name when the transfer fails.
    pub(super) fn kept(folder: &Arc<Folder>, name: CString) -> Scrap {
        let folder = Arc::clone(folder);
        Scrap { scraps: Self::default(), id: None, folder, name }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scrap {
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Gives it its name, in place of what has that now.
    pub(super) fn rename(mut self, name: &CStr) -> nix::Result<()> {
        let renamed = renameat(&self.folder.fd, self.name.as_c_str(), &self.folder.fd, name);
        if renamed.is_ok()
            && let Some(id) = self.id.take()
        {
            self.scraps.lock().live.remove(&id);
        }
        renamed
    }

    /// Removes it, even if it would stay.
    pub(super) fn discard(mut self) {
        if self.id.take().is_none_or(|id| self.scraps.lock().live.remove(&id).is_some()) {
            let _ = unlinkat(&self.folder.fd, self.name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    /// The time of a link, which cannot be opened.
    pub(super) fn set_time(&self, meta: &Meta) {
        let time = TimeSpec::new(meta.mtime, i64::from(meta.nsec));
        let how = UtimensatFlags::NoFollowSymlink;
        // Some file systems have none for links.
        let _ = utimensat(&self.folder.fd, self.name.as_c_str(), &time, &time, how);
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        if self.scraps.lock().live.remove(&id).is_some() {
            let _ = unlinkat(&self.folder.fd, self.name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
