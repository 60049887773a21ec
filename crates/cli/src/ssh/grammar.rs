//! OpenSSH's command line: options before the host and after it, up to the first word of the command.
//!
//! Syntax only. As in ssh.c, a `--` before the host ends the options for good, and one after the host
//! is dropped. Letters go in bundles, and an argument may be joined to its letter.

use super::options::Options;
use super::place::Place;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A command line, taken apart.
#[derive(Debug)]
pub(super) struct Line {
    /// What the options say.
    pub options: Options,
    /// The host; `None` if none is named, which only `-V` may do without.
    pub place: Option<Place>,
    /// The words of the command.
    pub words: Vec<OsString>,
}

/// Letters that stand alone.
const FLAGS: &[u8] = b"1246aACfgGkKMnNqstTvVxXyY";
/// Letters with an argument.
const WITH_ARGUMENT: &[u8] = b"BbcDEeFIiJLlmOopPQRSWw";

/// Takes the words after the program's name.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Line, String> {
    let mut words = words.into_iter();
    let mut options = Options::default();
    let (mut place, mut command, mut ended) = (None, Vec::new(), false);
    while let Some(word) = words.next() {
        let is_option = word.len() > 1 && word.as_bytes().starts_with(b"-");
        if word == "--" && !ended {
            ended = true;
            if place.is_none() {
                continue;
            }
            // After the host this is where the command begins.
            command.extend(words.by_ref());
        } else if is_option && !ended {
            bundle(&word, &mut words, &mut options)?;
        } else if place.is_none() {
            place = Some(Place::parse(&word)?);
            if ended {
                command.extend(words.by_ref());
            }
        } else {
            command.push(word);
            command.extend(words.by_ref());
        }
    }
    Ok(Line { options, place, words: command })
}

/// One word of letters, and the next word if the last of them needs it.
fn bundle(
    word: &OsStr,
    rest: &mut impl Iterator<Item = OsString>,
    options: &mut Options,
) -> Result<(), String> {
    let letters = word.as_bytes().iter().copied().enumerate().skip(1);
    for (at, letter) in letters {
        if FLAGS.contains(&letter) {
            options.flag(letter)?;
            continue;
        }
        let shown = letter.escape_ascii();
        if !WITH_ARGUMENT.contains(&letter) {
            return Err(format!("unknown option -- {shown}\n{}", super::USAGE));
        }
        let joined = word.as_bytes().get(at + 1..).unwrap_or_default();
        let argument = if joined.is_empty() {
            rest.next().ok_or_else(|| {
                format!("option requires an argument -- {shown}\n{}", super::USAGE)
            })?
        } else {
            OsString::from_vec(joined.to_vec())
        };
        return options.argument(letter, argument);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
