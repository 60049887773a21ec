//! What is in a folder and was not sent. Each name that goes is told, what is in a folder before it.

use super::cannot;
use super::draft::is_held;
use super::folder::Folder;
use super::scraps::{is_temporary, may_be_part, part_of};
use crate::error::Error;
use crate::open::SAFE;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use rexec_protocol::files::MAX_DEPTH;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(SAFE);

/// Is told what is gone, or would be; or why it cannot go.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Vec<u8>, Result<(), String>) -> Result<(), Error>;

/// Removes from `folder` all that is not among `names`; with `dry_run` it only says what it would.
pub(super) fn others(
    folder: &Folder,
    path: &[u8],
    names: &HashSet<Vec<u8>>,
    dry_run: bool,
    tell: Tell<'_>,
) -> Result<(), Error> {
    let listed = match list(&folder.fd) {
        Ok(listed) => listed,
        Err(errno) => return tell(path.to_vec(), Err(cannot("list this folder", errno))),
    };
    let parts: HashSet<_> = match listed.iter().any(|name| may_be_part(name.to_bytes())) {
        true => names.iter().map(|sent| part_of(sent).into_bytes()).collect(),
        false => HashSet::new(),
    };
    // Drafts of this or another transfer are not what was there, nor are parts of what was sent, or of
    // what another transfer brings just now.
    let is_hidden = |name: &CStr| {
        is_temporary(name.to_bytes())
            || parts.contains(name.to_bytes())
            || may_be_part(name.to_bytes()) && is_held(folder, name)
    };
    let extra =
        listed.into_iter().filter(|name| !names.contains(name.to_bytes()) && !is_hidden(name));
    let mut removal = Removal { dry_run, tell };
    for name in extra {
        removal.remove(&folder.fd, &name, below(path, &name), 0)?;
    }
    Ok(())
}

/// Empties the folder of this name, whatever is in it; with `dry_run` it only says of what. Returns why it is not
/// empty then, in words about the folder.
pub(super) fn contents(
    folder: &Folder,
    name: &CStr,
    path: &[u8],
    dry_run: bool,
    tell: Tell<'_>,
) -> Result<Result<(), String>, Error> {
    let opened = openat(&folder.fd, name, FOLDER, Mode::empty());
    let (inner, names) = match opened.and_then(|inner| list(&inner).map(|names| (inner, names))) {
        Ok(found) => found,
        Err(errno) => return Ok(Err(cannot("list the folder in its place", errno))),
    };
    let is_empty = Removal { dry_run, tell }.remove_all(&inner, names, path, 0)?;
    Ok(is_empty.then_some(()).ok_or_else(|| "cannot empty the folder in its place".to_owned()))
}

fn below(path: &[u8], name: &CStr) -> Vec<u8> {
    match path {
        [] => name.to_bytes().to_vec(),
        _ => [path, b"/", name.to_bytes()].concat(),
    }
}

fn list(folder: &OwnedFd) -> nix::Result<Vec<CString>> {
    // Another open file, with a place of its own in the list.
    let dir = Dir::from_fd(openat(folder, c".", FOLDER, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in dir {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

struct Removal<'a> {
    dry_run: bool,
    tell: Tell<'a>,
}

impl Removal<'_> {
    /// Removes what has this name, and all that is in it. What cannot go is told, and the rest goes on:
    /// true if nothing of it is left.
    fn remove(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        path: Vec<u8>,
        depth: usize,
    ) -> Result<bool, Error> {
        match self.folder(folder, name) {
            Err(why) => return self.cannot(&path, why),
            Ok(None) => {}
            Ok(Some(_)) if depth >= MAX_DEPTH => {
                let why = format!("is more than {MAX_DEPTH} folders deep, and not removed");
                return self.cannot(&path, why);
            }
            Ok(Some(inner)) => {
                if !self.empty(&inner, &path, depth + 1)? {
                    return Ok(false);
                }
                if !self.dry_run
                    && let Err(errno) = unlinkat(folder, name, UnlinkatFlags::RemoveDir)
                {
                    return self.cannot(&path, cannot("remove it", errno));
                }
            }
        }
        (self.tell)(path, Ok(())).map(|()| true)
    }

    /// Removes all that is in this folder; true if it is empty then.
    fn empty(&mut self, folder: &OwnedFd, path: &[u8], depth: usize) -> Result<bool, Error> {
        match list(folder) {
            Ok(names) => self.remove_all(folder, names, path, depth),
            Err(errno) => self.cannot(path, cannot("list this folder", errno)),
        }
    }

    fn remove_all(
        &mut self,
        folder: &OwnedFd,
        names: Vec<CString>,
        path: &[u8],
        depth: usize,
    ) -> Result<bool, Error> {
        let mut all = true;
        for name in names {
            all &= self.remove(folder, &name, below(path, &name), depth)?;
        }
        Ok(all)
    }

    fn cannot(&mut self, path: &[u8], why: String) -> Result<bool, Error> {
        (self.tell)(path.to_vec(), Err(why)).map(|()| false)
    }

    /// Removes what is no folder, and opens what is one; or says why not.
    fn folder(&self, folder: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, String> {
        let gone = if self.dry_run {
            // As if it were one.
            Err(Errno::EISDIR)
        } else {
            unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)
        };
        match gone {
            Err(Errno::ENOENT) | Ok(()) => return Ok(None),
            // POSIX says EPERM for a folder, Linux says EISDIR.
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(errno) => return Err(cannot("remove it", errno)),
        }
        match (openat(folder, name, FOLDER, Mode::empty()), gone) {
            (Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT), _) if self.dry_run => Ok(None),
            (Err(Errno::ENOTDIR | Errno::ELOOP), Err(errno)) => Err(cannot("remove it", errno)),
            (opened, _) => opened.map(Some).map_err(|errno| cannot("list this folder", errno)),
        }
    }
}
