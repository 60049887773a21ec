//! How fast connections are accepted: whoever reaches the port may open and close them in a loop, and each is a
//! process of this machine, and two lines in its audit log. What is faster waits in the kernel.

use std::time::{Duration, Instant};

/// What one costs: a hundred a second.
const COST: Duration = Duration::from_millis(10);
/// Those at once, after a time without.
const BURST: u32 = 200;

/// A leaky bucket, kept as one time. Pure: the time comes in.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that were accepted are paid for.
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// When the next one may be accepted, if that is not now.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let ahead = self.due.saturating_duration_since(now);
        let too_much = (ahead + COST).checked_sub(COST * BURST)?;
        (!too_much.is_zero()).then(|| now + too_much)
    }

    /// One is accepted.
    pub(super) fn count(&mut self, now: Instant) {
        self.due = self.due.max(now) + COST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            assert_eq!(pace.next(start), None);
            pace.count(start);
        }
        assert_eq!(pace.next(start), Some(start + COST));
        assert_eq!(pace.next(start + COST), None);
        pace.count(start + COST);
        assert_eq!(pace.next(start + COST), Some(start + 2 * COST));
        // Rest earns no more than a burst.
        let late = start + Duration::from_secs(3600);
        let at_once = (0..1000).take_while(|_| {
            let may = pace.next(late).is_none();
            pace.count(late);
            may
        });
        assert_eq!(at_once.count(), BURST as usize);
    }
}
