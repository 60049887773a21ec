//! The files that a log has left behind: `audit-00000000000000000001.jsonl` beside `audit.jsonl`,
//! named by the number of their first record, so that their names sort in the order of the chain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const DIGITS: usize = 20;

/// The name for a file that begins with record `first`.
pub fn name(log: &Path, first: u64) -> PathBuf {
    let (stem, suffix) = parts(log);
    log.with_file_name(format!("{stem}-{first:0DIGITS$}{suffix}"))
}

/// All there are, oldest first.
pub fn list(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, suffix) = parts(log);
    let folder = log.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let number = file.to_str().and_then(|name| {
            name.strip_prefix(stem.as_str())?.strip_prefix('-')?.strip_suffix(suffix.as_str())
        });
        let digits = |text: &str| text.len() == DIGITS && text.bytes().all(|c| c.is_ascii_digit());
        if number.is_some_and(digits) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Removes all but the newest `keep`; with 0, none.
pub fn prune(log: &Path, keep: usize) -> io::Result<()> {
    let files = list(log)?;
    let surplus = if keep == 0 { 0 } else { files.len().saturating_sub(keep) };
    files.iter().take(surplus).try_for_each(fs::remove_file)
}

fn parts(log: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let suffix = text(log.extension()).map(|extension| format!(".{extension}"));
    (text(log.file_stem()).unwrap_or_default(), suffix.unwrap_or_default())
}
