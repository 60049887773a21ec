//! What patterns match, each once.

use super::{FOLDER, Sender};
use crate::error::Error;
use crate::open;
use crate::pattern::{self, Match};
use nix::sys::stat::SFlag;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
                let (path, name) = (path_of(found), found.name.to_bytes());
                if let Some(why) = self.refusal(found.kind) {
                    return self.refuse(path, name, why.to_owned());
                }
                match turn(sent, &path) {
                    Turn::First => self.matched(found),
                    Turn::Again => Ok(()),
                    Turn::Taken(why) => self.refuse(path, name, why),
                }
            })
        } else {
            count += 1;
            let name = open::name(pattern).unwrap_or_default();
            Ok(match turn(sent, pattern) {
                Turn::First => self.path(pattern),
                Turn::Again => Ok(()),
                Turn::Taken(why) => self.refuse(pattern.to_vec(), name, why),
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

    /// Why something of this kind is not sent.
    fn refusal(&self, kind: SFlag) -> Option<&'static str> {
        match kind {
            _ if self.choice.recursive => None,
            SFlag::S_IFDIR => Some(FOLDER),
            SFlag::S_IFLNK => Some(LINK),
            _ => None,
        }
    }

    fn matched(&mut self, found: &Match<'_>) -> Result<(), Error> {
        let mut levels = Vec::new();
        self.entry(&mut levels, found.folder, found.name, Some(found.kind))?;
        self.walk(levels)
    }
}

fn path_of(found: &Match<'_>) -> Vec<u8> {
    found.folder.path_of(found.name.to_bytes())
}

/// Whether something with the name of this path came before.
enum Turn {
    First,
    /// By another pattern, this itself.
    Again,
    /// Another: this is why it cannot be sent.
    Taken(String),
}

fn turn(sent: &mut Option<HashMap<Vec<u8>, Vec<u8>>>, path: &[u8]) -> Turn {
    let Some(sent) = sent else { return Turn::First };
    match sent.entry(open::name(path).unwrap_or_default().to_vec()) {
        Entry::Vacant(place) => {
            place.insert(path.to_vec());
            Turn::First
        }
        Entry::Occupied(before) if before.get() == path => Turn::Again,
        Entry::Occupied(before) => {
            let before = open::shown(before.get());
            Turn::Taken(format!("has the name of {before}, which comes; copy it to another folder"))
        }
    }
}
