//! The names that were asked for: what the other end offers is its own affair.

use crate::pattern;
use std::cell::Cell;

/// What may come at the top, and what of it came.
#[derive(Debug)]
pub struct Names {
    wanted: Vec<(Vec<u8>, Cell<bool>)>,
    glob: bool,
}

impl Names {
    /// Those of remote paths; with `glob` the paths are patterns.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a [u8]>, glob: bool) -> Self {
        let wanted = paths.into_iter().map(|path| (last_part(path).to_vec(), Cell::new(false)));
        Self { wanted: wanted.collect(), glob }
    }

    /// Whether a name was asked for, and did not come before; an empty one is the contents of a folder.
    /// What matches a pattern may come again: only the other end knows how much there is.
    pub fn expect(&self, name: &[u8]) -> bool {
        let mut is_wanted = false;
        for (wanted, came) in &self.wanted {
            let is_it = match wanted.as_slice() {
                b"." | b".." | b"" => name.is_empty(),
                b"**" if self.glob => !name.is_empty(),
                wanted if self.glob => pattern::matches(wanted, name),
                wanted => wanted == name,
            };
            if is_it {
                is_wanted |= !came.replace(true) || self.glob;
            }
        }
        is_wanted
    }

    /// What did not come. What a pattern stands for only the other end knows.
    pub fn missing(&self) -> impl Iterator<Item = &[u8]> {
        let missing = self.wanted.iter().filter(|(_, came)| !self.glob && !came.get());
        missing.map(|(name, _)| name.as_slice())
    }
}

/// The last part of a remote path.
fn last_part(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let path = path.get(..end).unwrap_or_default();
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_not_expected() {
        let names = Names::of([&b"/srv/a/"[..], b"b", b"x/."], false);
        assert!(names.expect(b"a") && names.expect(b""));
        assert!(!names.expect(b"a") && !names.expect(b""), "once");
        assert!(!names.expect(b"srv") && !names.expect(b"c"));
        assert_eq!(names.missing().collect::<Vec<_>>(), [b"b"]);
        let names = Names::of([&b"/var/log/*.log"[..]], true);
        assert!(names.expect(b"x.log") && !names.expect(b"x.txt") && !names.expect(b""));
        assert!(names.expect(b"x.log"));
        assert_eq!(names.missing().count(), 0);
    }
}
