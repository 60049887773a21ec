//! Sources on this machine, and of what name they are: of two of one name there would be the last only
//! at the destination, as if nothing had happened to the other.

use super::TransferError;
use super::bridge::ToJob;
use rexec_files::send::Sender;
use rexec_files::{Error as Fault, open};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Sends what is at `path`.
pub(super) fn send(sender: &mut Sender<'_, ToJob>, path: &Path) -> Result<(), Fault> {
    let bytes = path.as_os_str().as_bytes();
    if !is_descriptor(bytes) {
        return sender.path(bytes);
    }
    let name = open::name(bytes).unwrap_or_default();
    match File::open(path) {
        Ok(mut input) => sender.stream(&mut input, name),
        Err(error) => sender.unreadable(bytes, error),
    }
}

/// Whether a path stands for a descriptor of this process, as a shell writes it for `<(command)`. What
/// it leads to is read to its end, as from stdin: that it is no file, and has no size, is meant.
fn is_descriptor(path: &[u8]) -> bool {
    let number = path.strip_prefix(b"/dev/fd/").or_else(|| path.strip_prefix(b"/proc/self/fd/"));
    path == b"/dev/stdin"
        || number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
}

/// Refuses them, before anything is moved. What patterns match, only the agent can know.
pub(super) fn have_names_of_their_own<'a>(
    sources: impl IntoIterator<Item = &'a OsStr>,
) -> Result<(), TransferError> {
    let mut names = HashMap::new();
    for source in sources {
        let name = open::name(source.as_bytes());
        if let Some(before) = names.insert(name, source) {
            let what = match name {
                Some(name) => format!("are both named {}", OsStr::from_bytes(name).display()),
                None => "both stand for what is in a folder".to_owned(),
            };
            let (before, source) = (before.display(), source.display());
            return Err(TransferError::Failed(format!(
                "{before} and {source} {what}: the one would overwrite the other, so nothing was \
                 transferred; copy them one by one, to different places"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_for_one_source() {
        let check = |sources: &[&str]| have_names_of_their_own(sources.iter().map(OsStr::new));
        for fine in [&["a/x", "b/y"][..], &["a", "b/."], &["x"], &["a/x", "b/x.1"]] {
            assert_eq!(check(fine), Ok(()), "{fine:?}");
        }
        for clash in [&["a/x", "b/x"][..], &["a/x", "y", "/b/x/"], &["a/.", "b/."], &["x", "x"]] {
            let error = check(clash).unwrap_err().to_string();
            assert!(error.contains(clash[0]) && error.contains(clash[clash.len() - 1]), "{error}");
        }
    }
}
