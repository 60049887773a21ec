//! Remote patterns: `*`, `?`, `[…]`, `{…,…}` within a part of a path, and `**` for any depth.

use crate::open::{self, Parent};
use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use rexec_protocol::files::MAX_DEPTH;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Whether a part of a path is a pattern.
pub fn is_pattern(part: &[u8]) -> bool {
    part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'{' | b'\\'))
}

/// Whether `name` matches `pattern`, one part of a path. A dot at the beginning is only matched by one.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let is_hidden = name.starts_with(b".") && !pattern.starts_with(b".");
    !is_hidden && fast_glob::glob_match(pattern, name)
}

/// The leading parts of a pattern that are no pattern: all that it matches is in there.
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let mut end = 0;
    for part in pattern.split_inclusive(|byte| *byte == b'/') {
        if is_pattern(part) {
            break;
        }
        end += part.len();
    }
    let prefix = pattern.get(..end).unwrap_or_default();
    match prefix.strip_suffix(b"/") {
        Some([]) => prefix,
        Some(prefix) => prefix,
        None => prefix,
    }
}

/// Whether a pattern can match two paths with the same last part.
pub(crate) fn can_repeat_names(pattern: &[u8]) -> bool {
    let rest = pattern.get(literal_prefix(pattern).len()..).unwrap_or_default();
    let mut parts = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.next() == Some(b"**") || parts.next().is_some()
}

/// What a pattern matches.
pub(crate) struct Match<'a> {
    /// The folder that it is in.
    pub(crate) folder: &'a Arc<Parent>,
    pub(crate) name: &'a CStr,
    pub(crate) kind: SFlag,
}

/// Takes what is found.
type Found<'a, E> = &'a mut dyn FnMut(&Match<'_>) -> Result<(), E>;

/// Calls `found` once with everything that matches, in no order. Links are not followed below the
/// part that is no pattern. With `whole`, what is in a folder that matches belongs to that.
pub(crate) fn expand<E>(
    pattern: &[u8],
    links: bool,
    whole: bool,
    found: Found<'_, E>,
) -> Result<Result<(), E>, Errno> {
    let prefix = literal_prefix(pattern);
    let rest = pattern.get(prefix.len()..).unwrap_or_default();
    let parts = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let start = if prefix.is_empty() { b"." } else { prefix };
    let (fd, path) = (open::folder(start, links)?, prefix.to_vec());
    let search = Search { parts, whole };
    Ok(search.below(&Arc::new(Parent { fd, path }), &search.and_after(0), found, 0))
}

/// A walk with places in a pattern: before which of its parts a path has come.
struct Search<'a> {
    parts: Vec<&'a [u8]>,
    whole: bool,
}

impl Search<'_> {
    fn below<E>(
        &self,
        folder: &Arc<Parent>,
        places: &BTreeSet<usize>,
        found: Found<'_, E>,
        depth: usize,
    ) -> Result<(), E> {
        // A folder that cannot be read matches nothing, as in a shell.
        let Ok(Ok(dir)) = folder.fd.try_clone().map(Dir::from_fd) else { return Ok(()) };
        for entry in dir.into_iter().map_while(Result::ok) {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let next = self.after(places, name.to_bytes());
            let (Some(first), Ok(kind)) = (next.first(), kind_of(&folder.fd, &entry)) else {
                continue;
            };
            let is_match = next.contains(&self.parts.len());
            if is_match {
                found(&Match { folder, name, kind })?;
            }
            let ends = *first == self.parts.len() || is_match && self.whole;
            if kind == SFlag::S_IFDIR && !ends && depth < MAX_DEPTH {
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | open::SAFE;
                if let Ok(fd) = openat(&folder.fd, name, flags, Mode::empty()) {
                    let path = folder.path_of(name.to_bytes());
                    self.below(&Arc::new(Parent { fd, path }), &next, found, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// The places that a name leads to.
    fn after(&self, places: &BTreeSet<usize>, name: &[u8]) -> BTreeSet<usize> {
        let next = places.iter().filter_map(|place| match *self.parts.get(*place)? {
            b"**" => matches(b"*", name).then_some(*place),
            part => matches(part, name).then_some(place + 1),
        });
        next.flat_map(|place| self.and_after(place)).collect()
    }

    /// A place, and those behind it that no name is needed for.
    fn and_after(&self, place: usize) -> BTreeSet<usize> {
        let rest = self.parts.get(place..).unwrap_or_default();
        let any = rest.iter().take_while(|part| **part == b"**").count();
        (place..=place + any).collect()
    }
}

fn kind_of(folder: &OwnedFd, entry: &Entry) -> nix::Result<SFlag> {
    match open::listed(entry) {
        Some(kind) => Ok(kind),
        None => fstatat(folder, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn parts_are_matched_as_a_shell_does() {
        for (pattern, name, fits) in [
            (&b"*.log"[..], &b"a.log"[..], true),
            (b"*", b".hidden", false),
            (b".*", b".hidden", true),
            (b"a?c", b"abc", true),
            (b"[ab]x", b"bx", true),
            (b"{a,b}", b"b", true),
            (b"*", b"\xff", true),
            (b"\\*", b"*", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn the_prefix_holds_all_that_can_match() {
        for (pattern, prefix) in [
            ("/var/log/*.log", "/var/log"),
            ("/*", "/"),
            ("*", ""),
            ("a/b", "a/b"),
            ("/a/**/b", "/a"),
        ] {
            assert_eq!(literal_prefix(pattern.as_bytes()), prefix.as_bytes(), "{pattern}");
        }
    }

    fn expanded(root: &Path, pattern: &str, whole: bool) -> Vec<String> {
        let (root, mut paths) = (root.as_os_str().as_bytes(), Vec::new());
        let pattern = open::join(root, pattern.as_bytes());
        let done: Result<(), ()> = expand(&pattern, true, whole, &mut |found| {
            let path = found.folder.path_of(found.name.to_bytes());
            let path = path.strip_prefix(root).unwrap().strip_prefix(b"/").unwrap();
            paths.push(String::from_utf8(path.to_vec()).unwrap());
            Ok(())
        })
        .unwrap();
        done.unwrap();
        paths.sort();
        paths
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.log", "a/y.txt", "a/b/z.log", "a/b/a/v.log", ".h/w.log", "top.log"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn expansion() {
        let dir = tree();
        for (pattern, wanted) in [
            ("*", vec!["a", "link", "top.log"]),
            ("*/*.log", vec!["a/x.log"]),
            ("**/*.log", vec!["a/b/a/v.log", "a/b/z.log", "a/x.log", "top.log"]),
            ("a/{x,y}*", vec!["a/x.log", "a/y.txt"]),
            (".*/*", vec![".h/w.log"]),
            ("a/**", vec!["a/b", "a/b/a", "a/b/a/v.log", "a/b/z.log", "a/x.log", "a/y.txt"]),
            ("nothing*", vec![]),
        ] {
            assert_eq!(expanded(dir.path(), pattern, false), wanted, "{pattern}");
        }
    }

    /// Two `**` can match the same path in several ways.
    #[test]
    fn each_is_found_once() {
        let dir = tree();
        for pattern in ["**/a/**/v.log", "**/**/v.log", "a/**/**/v.log", "**/*/**/v*"] {
            assert_eq!(expanded(dir.path(), pattern, false), ["a/b/a/v.log"], "{pattern}");
        }
        // All that is in a folder comes with it.
        assert_eq!(expanded(dir.path(), "**", true), ["a", "link", "top.log"]);
        assert_eq!(expanded(dir.path(), "**/a", true), ["a"]);
        assert_eq!(expanded(dir.path(), "**/a", false), ["a", "a/b/a"]);
    }

    #[test]
    fn names_can_be_the_same_in_several_folders_only() {
        for (pattern, can) in
            [("a/*.log", false), ("*", false), ("*/x", true), ("**", true), ("a/**/x", true)]
        {
            assert_eq!(can_repeat_names(pattern.as_bytes()), can, "{pattern}");
        }
    }
}
