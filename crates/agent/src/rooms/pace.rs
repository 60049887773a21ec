//! How fast one identity may talk, over all its connections and rooms; and come to a job.
//!
//! A leaky bucket kept as one time per identity, as in [`rexec_net::rates`].

use rexec_guard::holds;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Beyond this many identities, those are forgotten that have been silent for long enough.
const KNOWN: usize = 1024;

/// Counts lines. Pure: the time comes in.
#[derive(Debug)]
pub(crate) struct Pace {
    cost: Duration,
    burst: Duration,
    due: Mutex<Due>,
}

#[derive(Debug, Default)]
struct Due {
    all: HashMap<String, Instant>,
    /// How many there may be before it is looked who is silent.
    most: usize,
}

impl Pace {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, burst: cost.saturating_mul(burst.max(1)), due: Mutex::default() }
    }

    /// Counts a line; false, and not counted, if it is one too many.
    pub(crate) fn allows(&self, who: &str, now: Instant) -> bool {
        let mut due = self.lock();
        due.tidy(now);
        let next = due.of(who, now) + self.cost;
        if !holds("rooms.pace", next - now <= self.burst) {
            return false;
        }
        due.all.insert(who.to_owned(), next);
        true
    }

    /// Counts so many, however many they are; says how long it takes until no more than a burst is counted.
    pub(crate) fn rest_after(&self, who: &str, count: u32, now: Instant) -> Duration {
        let mut due = self.lock();
        due.tidy(now);
        let next = due.of(who, now) + self.cost.saturating_mul(count);
        due.all.insert(who.to_owned(), next);
        (next - now).saturating_sub(self.burst)
    }

    /// Whether it would be allowed now.
    pub(crate) fn would_allow(&self, who: &str, now: Instant) -> bool {
        self.lock().of(who, now) + self.cost - now <= self.burst
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    fn of(&self, who: &str, now: Instant) -> Instant {
        self.all.get(who).copied().unwrap_or(now).max(now)
    }

    /// Looks at all of them as seldom as they double.
    fn tidy(&mut self, now: Instant) {
        if self.all.len() > self.most.max(KNOWN) {
            self.all.retain(|_, due| *due > now);
            self.most = 2 * self.all.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate_for_each_identity() {
        let (pace, start) = (Pace::new(10, 5), Instant::now());
        let allowed = |who: &str, now| (0..100).filter(|_| pace.allows(who, now)).count();
        assert_eq!(allowed("alice", start), 5);
        assert_eq!(allowed("bob", start), 5);
        assert!(!pace.would_allow("bob", start) && pace.would_allow("carol", start));
        assert!(pace.would_allow("bob", start + Duration::from_millis(100)));
        assert_eq!(allowed("alice", start + Duration::from_millis(200)), 2);
        assert_eq!(allowed("alice", start + Duration::from_secs(3600)), 5);
    }

    #[test]
    fn who_is_silent_is_forgotten() {
        let (pace, start) = (Pace::new(10, 5), Instant::now());
        for n in 0..5000u32 {
            let now = start + n * Duration::from_millis(10);
            assert!(pace.allows(&n.to_string(), now));
        }
        assert!(pace.lock().all.len() <= KNOWN + 1);
    }
}
