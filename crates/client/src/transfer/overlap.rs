//! From one machine to the same: a destination that is its source, lies in it, or holds it.
//!
//! Only what is written is compared, as no end sees the paths of the other: a link can hide what they
//! have in common, and so can another name of the machine.

use super::TransferError;
use super::options::Options;
use rexec_files::{open, pattern};
use rexec_protocol::files::Target;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Refuses a copy that would undo itself, before anything is moved.
pub(super) fn refuse(
    files: &[OsString],
    to: &OsStr,
    options: &Options,
) -> Result<(), TransferError> {
    let homes = [home(options.user.as_deref()), home(options.other_user.as_deref())];
    let sources = sources(files, &homes[0], options.glob);
    let landings = Landings::of(files, to, &homes[1], options);
    let is_above = |parts: &[&[u8]]| landings.pruned.contains(parts);
    for (parts, source) in &sources {
        let source = source.display();
        let above = (0..parts.len()).any(|n| is_above(parts.get(..n).unwrap_or_default()));
        if options.store.delete && (above || options.glob && is_above(parts)) {
            return Err(refusal(format!(
                "{source} lies in {}, from which --delete would remove it",
                to.display()
            )));
        }
        if !options.glob && (is_above(parts) || landings.named.as_ref() == Some(parts)) {
            return Err(refusal(format!("{source} and its destination are the same")));
        }
    }
    let inner = landings.pruned.iter().chain(&landings.named).find_map(|parts| {
        (0..parts.len()).find_map(|n| sources.get(parts.get(..n).unwrap_or_default()))
    });
    match inner.filter(|_| options.recursive && !options.glob) {
        Some(source) => Err(refusal(format!(
            "{} lies in {}, which would be copied into itself",
            to.display(),
            source.display()
        ))),
        None => Ok(()),
    }
}

fn refusal(why: String) -> TransferError {
    TransferError::Failed(format!("{why}, both being on the same machine; nothing was transferred"))
}

/// A path, part by part from the root on.
type Parts<'a> = Vec<&'a [u8]>;

/// The sources; of patterns, the folder that holds all that they match.
fn sources<'a>(files: &'a [OsString], home: &'a [u8], glob: bool) -> HashMap<Parts<'a>, &'a OsStr> {
    let path = |file: &'a OsString| {
        let bytes = file.as_bytes();
        if glob { pattern::literal_prefix(bytes) } else { bytes }
    };
    files.iter().filter_map(|file| Some((parts(path(file), home)?, file.as_os_str()))).collect()
}

/// Where sources come to lie.
#[derive(Default)]
struct Landings<'a> {
    /// Each in its place, from which goes what it does not have.
    pruned: HashSet<Parts<'a>>,
    /// The destination as the new name, if there is no folder of that name; then nothing is in it.
    named: Option<Parts<'a>>,
}

impl<'a> Landings<'a> {
    fn of(files: &'a [OsString], to: &'a OsStr, home: &'a [u8], options: &Options) -> Self {
        let Some(folder) = parts(to.as_bytes(), home) else { return Self::default() };
        let exact = options.target == Target::Exact && open::name(to.as_bytes()).is_some();
        let place = |file: &'a OsString| match open::name(file.as_bytes()) {
            Some(name) if !exact && !options.glob => [folder.as_slice(), &[name]].concat(),
            _ => folder.clone(),
        };
        let pruned = files.iter().map(place).collect();
        let is_name = options.target == Target::Either && !options.glob;
        Self { pruned, named: is_name.then_some(folder) }
    }
}

/// What stands for a user's home. It is somewhere, and only the agent knows where: no part of a path
/// has a slash.
fn home(user: Option<&str>) -> Vec<u8> {
    format!("/{}", user.unwrap_or_default()).into_bytes()
}

/// `None`: with `..` in it, for which the agent refuses it.
fn parts<'a>(path: &'a [u8], home: &'a [u8]) -> Option<Parts<'a>> {
    let start = if path.starts_with(b"/") { None } else { Some(home) };
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Parts<'_> = start.into_iter().chain(parts).collect();
    (!parts.contains(&b"..".as_slice())).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::options::Options;
    use rexec_protocol::files::Store;

    fn options(words: &str) -> Options {
        let has = |word| words.split(' ').any(|given| given == word);
        let store = Store { delete: has("--delete"), ..Store::default() };
        let target = match () {
            () if has("-T") => Target::Exact,
            () if has("/") => Target::Into,
            () => Target::Either,
        };
        let other_user = has("bob").then(|| "bob".to_owned());
        let (recursive, glob) = (has("-r"), has("--glob"));
        Options { recursive, glob, target, store, sha256: true, user: None, other_user }
    }

    fn check(words: &str, from: &str, to: &str) -> Result<(), TransferError> {
        let from: Vec<OsString> = from.split(' ').map(OsString::from).collect();
        refuse(&from, to.as_ref(), &options(words))
    }

    #[test]
    fn what_would_undo_itself_is_refused() {
        for (words, from, to, why) in [
            ("-r -T --delete", "/a/b", "/a", "--delete would remove it"),
            ("-r -T --delete", "/a/./b//c", "//a/", "--delete would remove it"),
            ("-r --delete", "/a/b/.", "/a", "--delete would remove it"),
            ("-r -T --delete", "x", "./", "are the same"),
            ("-r --delete", "x/.", "", "--delete would remove it"),
            ("-r --delete", "home/.", "/", "--delete would remove it"),
            ("-r / --delete", "/x/a /a/q", "/", "--delete would remove it"),
            ("-r --delete --glob /", "/a/n*", "/a", "--delete would remove it"),
            ("-r --delete --glob /", "/a/b/*", "/a", "--delete would remove it"),
            ("", "/a/f", "/a/f", "are the same"),
            ("", "/a/f", "/a", "are the same"),
            ("", "f", "", "are the same"),
            ("-r -T", "/a", "/a/", "are the same"),
            ("-r", "/a/.", "/a", "are the same"),
            ("bob", "/a/f", "/a/f", "are the same"),
            ("-r", "/a", "/a/b", "copied into itself"),
            ("-r -T", "/a", "/a/b", "copied into itself"),
            ("-r", "/a", "/a", "are the same"),
            ("-r /", "/a", "/a", "copied into itself"),
            ("-r", "/a/b", "/a", "are the same"),
            ("-r", "/", "x", "copied into itself"),
        ] {
            match check(words, from, to) {
                Err(TransferError::Failed(said)) => {
                    assert!(said.contains(why), "{words} {from} {to}: {said}");
                }
                other => panic!("{words} {from} {to}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_lies_apart_is_not() {
        for (words, from, to) in [
            ("-r --delete", "/a/b", "/a/c"),
            ("-r --delete", "/a/b/c", "/a"),
            ("-r -T --delete", "/ab", "/a"),
            ("-r -T --delete", "/a", "/ab"),
            ("-r -T", "/a/b", "/a"),
            ("", "/a/f", "/b/f"),
            ("", "/a/b/f", "/a/"),
            ("bob", "f", "f"),
            ("-r -T --delete", "x", "/x"),
            ("-r --glob /", "/a/*", "/a"),
            ("-r", "/a/../b", "/b"),
        ] {
            assert_eq!(check(words, from, to), Ok(()), "{words} {from} {to}");
        }
    }
}
