//! What the log says of refused connections: the first at once, and then a sum now and then, so
//! that a flood of connections is no flood of lines.

use super::gate::Refusal;
use std::time::{Duration, Instant};

/// How often a sum is logged at most.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts refusals between two lines of the log.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [u64; 4],
    told: Option<Instant>,
}

impl Refusals {
    /// Counts a refusal; says how many of each kind there were if it is time to.
    pub(super) fn count(&mut self, refusal: Refusal, now: Instant) -> Option<String> {
        let kind = match refusal {
            Refusal::Penalised(_) => 0,
            Refusal::Source => 1,
            Refusal::EarlyDrop => 2,
            Refusal::Full => 3,
        };
        self.counts.iter_mut().skip(kind).take(1).for_each(|count| *count += 1);
        if self.told.is_some_and(|told| now < told + PAUSE) {
            return None;
        }
        self.told = Some(now);
        let [penalised, source, early, full] = std::mem::take(&mut self.counts);
        Some(format!("penalised {penalised}, per source {source}, early drop {early}, full {full}"))
    }
}

/// The words of a refusal that goes on record, with how many did not since the one before.
pub fn with_left_out(words: String, left_out: u64) -> String {
    match left_out {
        0 => words,
        _ => format!("{words} (before it, {left_out} refusals were left out)"),
    }
}

/// Refusals in the audit log: so many in each span of time, and the others are counted.
#[derive(Debug, Default)]
pub(super) struct Records {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Records {
    /// How many a span may have; at some 300 bytes each, that is 250 MB a day.
    const MOST: u32 = 100;

    /// Whether its span is over, and nothing is left to be told.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.left_out == 0 && self.since.is_none_or(|since| now >= since + PAUSE)
    }

    /// `Some`: one may be written, and so many were left out before it.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now >= since + PAUSE) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written == Self::MOST {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_does_not_fill_the_audit_log() {
        let (mut records, start) = (Records::default(), Instant::now());
        let in_a_span = (0..1_000).filter_map(|_| records.next(start)).count();
        assert_eq!(in_a_span, Records::MOST as usize);
        assert_eq!(records.next(start + PAUSE), Some(900));
        assert_eq!(records.next(start + PAUSE), Some(0));
    }

    #[test]
    fn a_flood_is_a_line_every_ten_seconds_and_all_are_counted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let at = |n| start + n * Duration::from_millis(10);
        let said: Vec<_> =
            (0..2_001).filter_map(|n| refusals.count(Refusal::Source, at(n))).collect();
        let line = |n| format!("penalised 0, per source {n}, early drop 0, full 0");
        assert_eq!(said, [line(1), line(1_000), line(1_000)]);
    }
}
