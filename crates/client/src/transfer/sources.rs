//! Sources of one name: at the destination there would be the last of them only, as if nothing had
//! happened to the others.

use super::TransferError;
use rexec_files::open;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

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
