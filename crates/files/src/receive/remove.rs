//! What is in a folder and was not sent.

use super::cannot;
use super::draft::is_held;
use super::folder::Folder;
use super::scraps::{is_temporary, may_be_part, part_of};
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

/// Removes from `folder` all that is not among `names`; with `dry_run` it only says what it would.
pub(super) fn others(
    folder: &Folder,
    path: &[u8],
    names: &HashSet<Vec<u8>>,
    dry_run: bool,
) -> Vec<(Vec<u8>, Result<(), String>)> {
    let at = |name: &CStr| match path {
        [] => name.to_bytes().to_vec(),
        _ => [path, b"/", name.to_bytes()].concat(),
    };
    let listed = match list(&folder.fd) {
        Ok(listed) => listed,
        Err(errno) => return vec![(path.to_vec(), Err(cannot("list this folder", errno)))],
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
    let gone = |name: &CStr| {
        if dry_run {
            return Ok(());
        }
        remove(&folder.fd, name, 0).map_err(|errno| cannot("remove it", errno))
    };
    extra.map(|name| (at(&name), gone(&name))).collect()
}

/// Empties the folder of this name, whatever is in it.
pub(super) fn contents(folder: &Folder, name: &CStr) -> nix::Result<()> {
    let inner = openat(&folder.fd, name, FOLDER, Mode::empty())?;
    list(&inner)?.iter().try_for_each(|name| remove(&inner, name, 0))
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

fn remove(folder: &OwnedFd, name: &CStr, depth: usize) -> nix::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        // POSIX says EPERM for a folder, Linux says EISDIR.
        Err(errno @ (Errno::EISDIR | Errno::EPERM)) => {
            let inner = match openat(folder, name, FOLDER, Mode::empty()) {
                Ok(inner) => inner,
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(errno),
                Err(errno) => return Err(errno),
            };
            if depth >= MAX_DEPTH {
                return Err(Errno::ELOOP);
            }
            for name in list(&inner)? {
                remove(&inner, &name, depth + 1)?;
            }
            unlinkat(folder, name, UnlinkatFlags::RemoveDir)
        }
        Err(Errno::ENOENT) => Ok(()),
        removed => removed,
    }
}
