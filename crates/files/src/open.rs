//! Opening the paths that somebody has named.
//!
//! Where links are refused, no part of the path is one: openat2(2) sees to that, and before Linux
//! 5.6 a walk part by part. "Magic" links, as in `/proc/PID/fd`, lead anywhere and are never followed
//! where the kernel can tell.

use nix::dir::{Entry, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, stat};
use rexec_guard::holds;
use serde_bytes::ByteBuf;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Flags of every open: nothing is inherited, no terminal is taken, and no FIFO is waited for.
pub(crate) const SAFE: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// Opens the folder at `path`.
pub(crate) fn folder(path: &[u8], links: bool) -> nix::Result<OwnedFd> {
    at_path(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | SAFE, links)
}

/// Opens `path`. With `links`, symbolic links on the way are followed.
pub(crate) fn at_path(path: &[u8], flags: OFlag, links: bool) -> nix::Result<OwnedFd> {
    let c_path = c_string(path)?;
    let mut resolve = ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let refuses = !links && !holds("files.no_links", false);
    if refuses {
        resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
    }
    match openat2(AT_FDCWD, c_path.as_c_str(), OpenHow::new().flags(flags).resolve(resolve)) {
        // Also where a filter of system calls does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) if refuses => by_parts(path, flags),
        Err(Errno::ENOSYS | Errno::EPERM) => open(c_path.as_c_str(), flags, Mode::empty()),
        opened => opened,
    }
}

/// Opens `path` part by part, none of which may be a link.
fn by_parts(path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    let start = if path.starts_with(b"/") { c"/" } else { c"." };
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    let mut at = open(start, step, Mode::empty())?;
    while let Some(part) = parts.next() {
        let part = c_string(part)?;
        if parts.peek().is_none() {
            return openat(&at, part.as_c_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
        }
        at = openat(&at, part.as_c_str(), step, Mode::empty())?;
    }
    openat(&at, c".", flags, Mode::empty())
}

/// The folder that holds what `path` names, and its name there; `None` if the path has no name at its
/// end, as `/`, `.` and `a/..` have none.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = path.get(..end)?;
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/".as_slice(), path.get(1..)?),
        Some(at) => (path.get(..at)?, path.get(at + 1..)?),
        None => (b".".as_slice(), path),
    };
    (name != b"." && name != b"..").then_some((parent, name))
}

/// The name at the end of a path; `None` if what is meant has none of its own: the contents of a folder.
pub fn name(path: &[u8]) -> Option<&[u8]> {
    split(path).map(|(_, name)| name)
}

/// An open folder, and its path as it was named.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) fd: OwnedFd,
    pub(crate) path: Vec<u8>,
}

impl Parent {
    /// The path of something in it.
    pub(crate) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }
}

/// A name below a folder.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] | b"." => name.to_vec(),
        folder if name.is_empty() => folder.to_vec(),
        [.., b'/'] => [folder, name].concat(),
        [folder @ .., b'/', b'.'] => join(folder, name),
        _ => [folder, b"/", name].concat(),
    }
}

/// A path that is not too long for a message; see PATH_MAX in limits.h(0p).
pub(crate) fn in_message(path: Vec<u8>) -> Option<ByteBuf> {
    (path.len() <= 4096).then(|| ByteBuf::from(path))
}

/// What something in a folder is. Not every file system tells it with the name.
pub(crate) fn listed(entry: &Entry) -> Option<SFlag> {
    match entry.file_type()? {
        Type::File => Some(SFlag::S_IFREG),
        Type::Directory => Some(SFlag::S_IFDIR),
        Type::Symlink => Some(SFlag::S_IFLNK),
        _ => None,
    }
}

pub(crate) fn c_string(bytes: &[u8]) -> nix::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Why a path could not be opened, in words.
pub(crate) fn fault(links: bool, errno: Errno) -> String {
    match errno {
        Errno::ELOOP if !links => {
            "this path leads through a symbolic link, and policy decides about \
                                   paths without links: name the place itself"
                .to_owned()
        }
        errno => crate::error::why(errno),
    }
}

/// Whether links at `path` lead to each other, and nowhere else.
pub(crate) fn loops(path: &[u8]) -> bool {
    stat(path).err() == Some(Errno::ELOOP)
}

/// The same, with the path.
pub(crate) fn fault_at(path: &[u8], links: bool, errno: Errno) -> String {
    format!("{}: {}", shown(path), fault(links, errno))
}

/// A path in a message.
pub(crate) fn shown(path: &[u8]) -> String {
    rexec_protocol::outcome::printable(&String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_last_part_is_the_name() {
        for (path, parent, name) in [
            ("a", ".", "a"),
            ("/a", "/", "a"),
            ("/a//", "/", "a"),
            ("a/b/", "a", "b"),
            ("./a", ".", "a"),
            ("../..a", "..", "..a"),
        ] {
            assert_eq!(
                split(path.as_bytes()),
                Some((parent.as_bytes(), name.as_bytes())),
                "{path}"
            );
        }
        for path in ["", "/", "//", ".", "a/.", "a/..", "../"] {
            assert_eq!(split(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn links_are_refused_anywhere_in_a_path_by_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/in")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | SAFE;
        for (path, through_link) in
            [("real/in", false), ("link/in", true), ("link", true), ("real/../link", true)]
        {
            let path = dir.path().join(path);
            let path = path.as_os_str().as_bytes();
            assert_eq!(folder(path, false).is_err(), through_link);
            assert_eq!(by_parts(path, flags).is_err(), through_link);
            assert!(folder(path, true).is_ok());
        }
    }
}
