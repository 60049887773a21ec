//! A tree, as a stream: one open folder per level is all that is held.

use super::{Place, Sender, kind, odd};
use crate::error::{Error, why};
use crate::open::{self, Parent};
use nix::dir::{Dir, OwningIter};
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use rexec_protocol::files::{Link, MAX_DEPTH, ToReceiver};
use serde_bytes::ByteBuf;
use std::ffi::CStr;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// A folder that is being listed.
pub(super) struct Level {
    folder: Arc<Parent>,
    entries: OwningIter,
    complete: bool,
}

impl Level {
    fn new(folder: Parent) -> nix::Result<(Self, FileStat)> {
        let stat = fstat(&folder.fd)?;
        let listed = folder.fd.try_clone().map_err(|_| nix::errno::Errno::EMFILE)?;
        let entries = Dir::from_fd(listed)?.into_iter();
        Ok((Self { folder: Arc::new(folder), entries, complete: true }, stat))
    }
}

impl<W: Write> Sender<'_, W> {
    /// Sends a folder with all that is in it, under a name, or as what the destination itself holds.
    pub(super) fn tree(&mut self, folder: Parent, name: &[u8]) -> Result<(), Error> {
        let mut levels = Vec::new();
        let path = folder.path.clone();
        self.descend(&mut levels, Ok(folder), path, name)?;
        self.walk(levels)
    }

    /// Goes on until all that was entered is left.
    pub(super) fn walk(&mut self, mut levels: Vec<Level>) -> Result<(), Error> {
        while let Some(level) = levels.last_mut() {
            match level.entries.next() {
                None => {
                    self.leave(level.complete)?;
                    levels.pop();
                }
                Some(Err(errno)) => {
                    level.complete = false;
                    let message = format!("cannot be listed to its end: {}", why(errno));
                    let at = level.folder.path.clone();
                    self.refuse(at, b"", message)?;
                    self.leave(false)?;
                    levels.pop();
                }
                Some(Ok(entry)) => {
                    let name = entry.file_name();
                    if !matches!(name.to_bytes(), b"." | b"..") {
                        let folder = Arc::clone(&level.folder);
                        self.entry(&mut levels, &folder, name, open::listed(&entry))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends something, or enters it.
    pub(super) fn entry(
        &mut self,
        levels: &mut Vec<Level>,
        folder: &Arc<Parent>,
        name: &CStr,
        listed: Option<SFlag>,
    ) -> Result<(), Error> {
        let bytes = name.to_bytes();
        let look = || fstatat(&folder.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let found = match listed {
            Some(kind) => Ok(kind),
            None => look().map(|stat| kind(&stat)),
        };
        match found {
            Ok(SFlag::S_IFREG) => self.file(Place::In(Arc::clone(folder), name.to_owned()), bytes),
            Ok(SFlag::S_IFDIR) => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | open::SAFE;
                let opened = openat(&folder.fd, name, flags, Mode::empty());
                let path = folder.path_of(bytes);
                let opened = opened.map(|fd| Parent { fd, path: path.clone() });
                self.descend(levels, opened, path, bytes)
            }
            Ok(SFlag::S_IFLNK) => match readlinkat(&folder.fd, name)
                .and_then(|to| Ok((to, look()?)))
            {
                Ok((target, stat)) => {
                    self.entries += 1;
                    let (name, target) = (ByteBuf::from(bytes), ByteBuf::from(target.into_vec()));
                    let link = Link { name, target, meta: super::meta(&stat) };
                    self.send(&ToReceiver::Link(link), &[])
                }
                Err(errno) => self.refuse(folder.path_of(bytes), bytes, why(errno)),
            },
            Ok(other) => self.refuse(folder.path_of(bytes), bytes, odd(other).to_owned()),
            Err(errno) => self.refuse(folder.path_of(bytes), bytes, why(errno)),
        }
    }

    fn descend(
        &mut self,
        levels: &mut Vec<Level>,
        folder: nix::Result<Parent>,
        path: Vec<u8>,
        name: &[u8],
    ) -> Result<(), Error> {
        if levels.len() >= MAX_DEPTH {
            let message = format!("is more than {MAX_DEPTH} folders deep, and not copied");
            return self.refuse(path, name, message);
        }
        match folder.and_then(Level::new) {
            Ok((level, stat)) => {
                levels.push(level);
                self.enter(name, &stat)
            }
            Err(errno) => self.refuse(path, name, why(errno)),
        }
    }
}
