//! Remote patterns: `*`, `?`, `[…]`, `{…,…}` within a part of a path, and `**` for any depth.

use crate::open;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use rexec_protocol::files::MAX_DEPTH;
use std::os::fd::OwnedFd;

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

/// Calls `found` with every path that matches, in no order. Links are not followed below the part
/// that is no pattern.
pub(crate) fn expand<E>(
    pattern: &[u8],
    links: bool,
    found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, Errno> {
    let prefix = literal_prefix(pattern);
    let rest = pattern.get(prefix.len()..).unwrap_or_default();
    let parts: Vec<&[u8]> =
        rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Ok(found(pattern));
    }
    let start = if prefix.is_empty() { b"." } else { prefix };
    Ok(below(open::folder(start, links)?, prefix, &parts, found, 0))
}

fn below<E>(
    folder: OwnedFd,
    path: &[u8],
    parts: &[&[u8]],
    found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    depth: usize,
) -> Result<(), E> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    let any_depth = *part == b"**";
    let Ok(dir) =
        folder.try_clone().map_err(|_| ()).and_then(|fd| Dir::from_fd(fd).map_err(|_| ()))
    else {
        return Ok(());
    };
    // A folder that cannot be read matches nothing, as in a shell.
    for entry in dir.into_iter().map_while(Result::ok) {
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        let is_here = |pattern: &[u8]| matches(pattern, bytes);
        let path = join(path, bytes);
        let inner = |parts: &[&[u8]], found: &mut dyn FnMut(&[u8]) -> Result<(), E>| {
            if depth >= MAX_DEPTH || !matches!(entry.file_type(), None | Some(Type::Directory)) {
                return Ok(());
            }
            let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW | open::SAFE;
            match nix::fcntl::openat(&folder, name, flags, nix::sys::stat::Mode::empty()) {
                Ok(inner) => below(inner, &path, parts, found, depth + 1),
                Err(_) => Ok(()),
            }
        };
        if any_depth {
            // Nothing or more parts.
            match rest {
                [] if is_here(b"*") => found(&path)?,
                [last] if is_here(last) => found(&path)?,
                [next, more @ ..] if !more.is_empty() && is_here(next) => inner(more, found)?,
                _ => {}
            }
            if is_here(b"*") {
                inner(parts, found)?;
            }
        } else if is_here(part) {
            if rest.is_empty() {
                found(&path)?;
            } else {
                inner(rest, found)?;
            }
        }
    }
    Ok(())
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        [.., b'/'] => [folder, name].concat(),
        _ => [folder, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

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

    #[test]
    fn expansion() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.log", "a/y.txt", "a/b/z.log", ".h/w.log", "top.log"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let root = dir.path().as_os_str().as_bytes();
        for (pattern, wanted) in [
            ("*", vec!["a", "link", "top.log"]),
            ("*/*.log", vec!["a/x.log"]),
            ("**/*.log", vec!["a/b/z.log", "a/x.log", "top.log"]),
            ("a/{x,y}*", vec!["a/x.log", "a/y.txt"]),
            ("nothing*", vec![]),
        ] {
            let mut paths = Vec::new();
            let pattern = join(root, pattern.as_bytes());
            let done: Result<(), ()> = expand(&pattern, true, &mut |path| {
                let path = path.strip_prefix(root).unwrap().strip_prefix(b"/").unwrap();
                paths.push(String::from_utf8(path.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
            done.unwrap();
            paths.sort();
            assert_eq!(paths, wanted, "{:?}", String::from_utf8_lossy(&pattern));
        }
    }
}
