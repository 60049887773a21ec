//! How fast one identity may talk, over all its connections and rooms; and come to a job.
//!
//! A leaky bucket kept as one time per identity, as in [`rexec_net::rates`].

use rexec_guard::holds;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Beyond this many identities, those are forgotten that have been silent for long enough.
const KNOWN: usize = 1024;

/// Counts lines. Pure: the time comes in.
#[derive(Debug)]
pub(crate) struct Pace {
    cost: Duration,
    burst: Duration,
    due: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, burst: cost.saturating_mul(burst.max(1)), due: Mutex::default() }
    }

    /// Counts a line; false, and not counted, if it is one too many.
    pub(crate) fn allows(&self, who: &str, now: Instant) -> bool {
        let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > KNOWN {
            all.retain(|_, due| *due > now);
        }
        let due = all.get(who).copied().unwrap_or(now).max(now) + self.cost;
        if !holds("rooms.pace", due - now <= self.burst) {
            return false;
        }
        all.insert(who.to_owned(), due);
        true
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
        assert!(pace.due.lock().unwrap().len() <= KNOWN + 1);
    }
}
