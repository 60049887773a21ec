//! What `ssh_config` says of a host: the lines of the `Host` and `Match` blocks that it is in, in the file and in
//! those that it includes.
//!
//! A key means what it means with `-o`, which comes before the file, as the first block that says something comes
//! before the others. What `-o` would refuse is left out and told, unless that would deceive: a host that is behind
//! another must not be connected to directly. So is a `Match` block that depends on what is not known here.

mod blocks;
#[cfg(test)]
mod tests;

use super::keywords::{self, LeftOut};
use super::options::{Options, first};
use super::{place, words};
use crate::trusted;
use std::fs;
use std::path::{Path, PathBuf};

/// How deep files may include others, as in OpenSSH.
const MAX_DEPTH: usize = 16;

/// Adds to the options what a file says of `host`, and to their warnings what of it is not heeded. The files that
/// it includes by relative names are in `.ssh` of `home`. As with ssh, one that was not named on the command line
/// must be nobody else's to write.
pub(super) fn read(
    path: &Path,
    is_named: bool,
    home: Option<PathBuf>,
    host: &str,
    options: &mut Options,
) -> Result<(), String> {
    Reader { host, home, is_named, unknown: Vec::new(), options }.file(path, 0)
}

/// `HostName` with its percents, of which `%h` is the name that was typed.
pub(super) fn host_name(name: &str, host: &str) -> Result<String, String> {
    place::expanded(name, |c| (c == 'h').then(|| host.to_owned()))
        .ok_or_else(|| format!("HostName {name}: of percents it takes %h and %%"))
}

/// Files while they are read.
struct Reader<'a> {
    /// The name that was typed.
    host: &'a str,
    home: Option<PathBuf>,
    /// By `-F`.
    is_named: bool,
    /// Patterns of keys that need not be known.
    unknown: Vec<String>,
    options: &'a mut Options,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        let shown = path.display();
        let text = if self.is_named {
            fs::read_to_string(path).map_err(|why| format!("cannot read {shown}: {why}"))?
        } else {
            trusted::read(path)?.ok_or_else(|| format!("{shown} does not exist"))?
        };
        self.text(&text, &format!("{shown}: "), depth)
    }

    /// `name` is what its lines are told by.
    fn text(&mut self, text: &str, name: &str, depth: usize) -> Result<(), String> {
        // Whether the block is about the host. What is before the first is about all.
        let mut applies = true;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = split(line);
            let at = |why: String| format!("{name}line {}: {key}: {why}", number + 1);
            let key = key.to_ascii_lowercase();
            let left_out = match key.as_str() {
                "host" => {
                    applies = self.is_of_host(value).map_err(at)?;
                    None
                }
                "match" => {
                    let (is_about_it, left_out) = self.is_match(value).map_err(at)?;
                    applies = is_about_it;
                    left_out
                }
                _ if !applies => None,
                "include" => {
                    self.include(value, depth).map_err(at)?;
                    None
                }
                _ => self.take(&key, value).map_err(at)?,
            };
            self.tell(left_out, at);
        }
        Ok(())
    }

    /// Keeps what has to be said of a line.
    fn tell(&mut self, left_out: Option<LeftOut>, at: impl Fn(String) -> String) {
        match left_out {
            None => {}
            Some(LeftOut::Unknown) => self.options.warnings.push(at("there is no such key".into())),
            Some(LeftOut::Refused(why)) => {
                self.options.warnings.push(at(format!("it is left out: {why}")));
            }
            Some(LeftOut::Block(why)) => self.options.warnings.push(at(why)),
            Some(LeftOut::Forward(why)) => {
                self.options.lacking.push(at(why.clone()));
                self.options.warnings.push(at(format!("it is left out: {why}")));
            }
        }
    }

    /// Takes a line that is about the host.
    fn take(&mut self, key: &str, value: &str) -> Result<Option<LeftOut>, String> {
        match key {
            "hostname" => first(&mut self.options.host_name, words::only(value)?),
            "user" => first(&mut self.options.user, words::only(value)?),
            "port" => {
                first(&mut self.options.port, crate::values::port(&words::only(value)?)?);
            }
            "ignoreunknown" => {
                let words = words::split(value)?;
                let patterns = words.iter().flat_map(|word| word.split(','));
                self.unknown.extend(patterns.map(str::to_ascii_lowercase));
            }
            "proxyjump" | "proxycommand" => {
                self.options.direct.heed(key, words::uncommented(value)).map_err(|why| {
                    format!("{why}; -o ProxyCommand=none leaves it out, if it can be done without")
                })?;
            }
            _ => {
                let left_out = keywords::heed(self.options, key, value)?;
                let is_ignored = || self.unknown.iter().any(|known| matches(known, key));
                return Ok(left_out.filter(|out| !matches!(out, LeftOut::Unknown) || !is_ignored()));
            }
        }
        Ok(None)
    }

    /// Reads what a line includes, as a part of its block. As in ssh, a pattern may match nothing.
    fn include(&mut self, value: &str, depth: usize) -> Result<(), String> {
        let patterns = words::split(value)?;
        if patterns.is_empty() {
            return Err("it names no file".to_owned());
        }
        if depth == MAX_DEPTH {
            return Err(format!("files include each other more than {MAX_DEPTH} deep"));
        }
        for pattern in patterns {
            let bad = |why: &dyn std::fmt::Display| format!("{pattern}: {why}");
            let whole = self.in_home(&pattern).ok_or_else(|| bad(&"no home is known"))?;
            let whole = whole.to_str().ok_or_else(|| bad(&"it is not UTF-8"))?;
            for path in glob::glob(whole).map_err(|why| bad(&why))? {
                self.file(&path.map_err(|why| bad(&why))?, depth + 1)?;
            }
        }
        Ok(())
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        let path = Path::new(name);
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        let home = self.home.as_deref()?;
        Some(
            path.strip_prefix("~")
                .map_or_else(|_| home.join(".ssh").join(path), |rest| home.join(rest)),
        )
    }
}

/// Whether a pattern with `*` and `?` matches.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Row by row: whether the pattern so far matches the text up to each place.
    let mut row: Vec<bool> = std::iter::once(true).chain(text.iter().map(|_| false)).collect();
    for wanted in pattern.chars() {
        let mut before = false;
        let mut next = Vec::with_capacity(row.len());
        for (at, reached) in row.iter().enumerate() {
            let fits = at.checked_sub(1).and_then(|at| text.get(at));
            let fits = fits.is_some_and(|c| wanted == '?' || *c == wanted);
            let carried = next.last().copied().unwrap_or(false);
            next.push(if wanted == '*' { *reached || carried } else { before && fits });
            before = *reached;
        }
        row = next;
    }
    row.last().copied().unwrap_or(false)
}

fn split(line: &str) -> (&str, &str) {
    let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (key, rest.strip_prefix('=').unwrap_or(rest).trim())
}
