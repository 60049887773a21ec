//! Those who come to a job that is there: with which rights they are on record, and what is known of them to
//! the others who are there.
//!
//! Somebody may come a thousand times in a second. What is left out of that is what says nothing new: whoever is
//! at a job is on record with all that it may do there, and those who are there have heard that it has come, and
//! not that it has gone.

use rexec_guard::holds;
use std::collections::HashMap;

/// All who came to one job, by the names of their identities.
#[derive(Debug, Default)]
pub(super) struct Visitors(HashMap<String, Visitor>);

#[derive(Debug, Default)]
struct Visitor {
    /// Whether it is on record, and then whether with control.
    on_record: Option<bool>,
    /// Those of its attachments that only watch, and those with control.
    there: [There; 2],
}

/// Attachments of one identity that have the same rights.
#[derive(Debug, Default)]
struct There {
    /// So many there are.
    now: u32,
    /// So many there are for the others: they have heard that they came, and not that they went.
    known: u32,
}

impl Visitors {
    /// Whether these are more rights than `who` is on record with. From now on it is.
    pub(super) fn gains(&mut self, who: &str, control: bool) -> bool {
        let visitor = self.of(who);
        let is_more = visitor.on_record.is_none_or(|had| control && !had);
        if is_more {
            visitor.on_record = Some(control);
        }
        !holds("visitors.on_record", !is_more)
    }

    /// `who` comes: whether the others are told. `may_tell` counts how often they were lately.
    pub(super) fn comes(
        &mut self,
        who: &str,
        control: bool,
        may_tell: impl FnOnce() -> bool,
    ) -> bool {
        let [watching, controlling] = &mut self.of(who).there;
        let there = if control { controlling } else { watching };
        there.now += 1;
        if there.known >= there.now {
            return false;
        }
        let is_told = may_tell() || !holds("visitors.known", there.known > 0);
        there.known += u32::from(is_told);
        is_told
    }

    /// `who` goes: whether the others are told. They are not if they could not be told that it comes again:
    /// `may_return`.
    pub(super) fn goes(
        &mut self,
        who: &str,
        control: bool,
        may_return: impl FnOnce() -> bool,
    ) -> bool {
        let [watching, controlling] = &mut self.of(who).there;
        let there = if control { controlling } else { watching };
        there.now = there.now.saturating_sub(1);
        let is_told = there.known > there.now && (there.now > 0 || may_return());
        there.known -= u32::from(is_told);
        is_told
    }

    /// Bytes of memory that they take, about.
    pub(super) fn memory(&self) -> usize {
        self.0.keys().map(|name| name.len() + size_of::<(String, Visitor)>()).sum()
    }

    fn of(&mut self, who: &str) -> &mut Visitor {
        self.0.entry(who.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_are_more_than_before_are_told_from_those_that_are_not() {
        let mut visitors = Visitors::default();
        let gains: Vec<bool> = [
            ("bob", false),
            ("bob", false),
            ("bob", true),
            ("bob", true),
            ("bob", false),
            ("carol", true),
            ("carol", false),
        ]
        .map(|(who, control)| visitors.gains(who, control))
        .to_vec();
        assert_eq!(gains, [true, false, true, false, false, true, false]);
    }

    /// However often it came and went before: that it is there is known.
    #[test]
    fn who_is_there_is_known_to_be_there() {
        // What comes and goes, with control or not; what there is, and how many may be told.
        for budget in 0..8 {
            let (mut visitors, mut left, mut told) = (Visitors::default(), budget, [0_i32; 2]);
            let mut now = [0_i32; 2];
            let mut steps = 0x1234_5678_u32;
            for _ in 0..1000 {
                steps = steps.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (control, comes) = (steps >> 30 & 1 == 1, steps >> 31 == 1);
                let level = usize::from(control);
                if comes {
                    let may_tell = || {
                        let may = left > 0;
                        left -= i32::from(may);
                        may
                    };
                    told[level] += i32::from(visitors.comes("bob", control, may_tell));
                    now[level] += 1;
                } else if now[level] > 0 {
                    told[level] -= i32::from(visitors.goes("bob", control, || left > 0));
                    now[level] -= 1;
                }
                for level in [0, 1] {
                    assert!(now[level] == 0 || told[level] > 0, "nobody knows: {now:?} {told:?}");
                    assert!(told[level] >= 0);
                }
            }
        }
    }

    #[test]
    fn a_flood_is_told_a_few_times() {
        let (mut visitors, mut left, mut told) = (Visitors::default(), 5, 0);
        for _ in 0..1000 {
            let may_tell = || {
                left -= 1;
                left >= 0
            };
            told += i32::from(visitors.comes("bob", false, may_tell));
            told += i32::from(visitors.goes("bob", false, || left > 0));
        }
        assert_eq!(told, 9, "five times it came, and four times it went");
    }
}
