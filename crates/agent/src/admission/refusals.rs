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

#[cfg(test)]
mod tests {
    use super::*;

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
