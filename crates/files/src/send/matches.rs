//! What patterns match, each once.

use super::{FOLDER, Sender};
use crate::error::Error;
use crate::open;
use crate::pattern::{self, Match};
use nix::sys::stat::SFlag;
use std::collections::HashMap;
use std::io::Write;

const LINK: &str = "is a symbolic link, and a pattern follows none; name it to copy what it leads to, \
                    or with -r it is copied as a link";

impl<W: Write> Sender<'_, W> {
    /// Sends all that patterns match.
    pub fn patterns(&mut self, patterns: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        // By name, what came before; only where that can matter.
        let repeats = patterns.len() > 1
            || patterns.iter().any(|pattern| pattern::can_repeat_names(pattern.as_ref()));
        let mut sent = repeats.then(HashMap::new);
        patterns.iter().try_for_each(|pattern| self.pattern(pattern.as_ref(), &mut sent))
    }

    fn pattern(
        &mut self,
        pattern: &[u8],
        sent: &mut Option<HashMap<Vec<u8>, Vec<u8>>>,
    ) -> Result<(), Error> {
        let (links, whole, mut count) = (self.choice.links, self.choice.recursive, 0);
        let expanded = if pattern::is_pattern(pattern) {
            pattern::expand(pattern, links, whole, &mut |found| {
                count += 1;
                match is_taken(sent, &path_of(found)) {
                    Some(message) => self.refuse(path_of(found), found.name.to_bytes(), message),
                    None => self.matched(found),
                }
            })
        } else {
            count += 1;
            let name = open::name(pattern).unwrap_or_default();
            Ok(match is_taken(sent, pattern) {
                Some(message) => self.refuse(pattern.to_vec(), name, message),
                None => self.path(pattern),
            })
        };
        match expanded {
            Ok(Ok(())) if count == 0 => {
                self.refuse(pattern.to_vec(), b"", "nothing matches".to_owned())
            }
            Ok(sent) => sent,
            Err(errno) => self.refuse(pattern.to_vec(), b"", open::fault(links, errno)),
        }
    }

    fn matched(&mut self, found: &Match<'_>) -> Result<(), Error> {
        let name = found.name.to_bytes();
        match found.kind {
            SFlag::S_IFDIR if !self.choice.recursive => {
                self.refuse(path_of(found), name, FOLDER.to_owned())
            }
            SFlag::S_IFLNK if !self.choice.recursive => {
                self.refuse(path_of(found), name, LINK.to_owned())
            }
            kind => {
                let mut levels = Vec::new();
                self.entry(&mut levels, found.folder, found.name, Some(kind))?;
                self.walk(levels)
            }
        }
    }
}

fn path_of(found: &Match<'_>) -> Vec<u8> {
    found.folder.path_of(found.name.to_bytes())
}

/// Why a path cannot be sent: what has the same name was.
fn is_taken(sent: &mut Option<HashMap<Vec<u8>, Vec<u8>>>, path: &[u8]) -> Option<String> {
    let name = open::name(path).unwrap_or_default().to_vec();
    let before = sent.as_mut()?.insert(name, path.to_vec())?;
    let before = open::shown(&before);
    Some(format!("has the name of {before}, which was sent; copy it to another folder"))
}
