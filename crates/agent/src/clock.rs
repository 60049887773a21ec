//! Waiting for a time that may not be set, and noticing that somebody set the clock.
//!
//! Timers run on the monotonic clock, so nothing hangs or ends too early when the wall clock jumps.
//! Only the validity of certificates is a matter of the wall clock.

use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until};

/// Returns at `instant`; without one, never.
pub async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What a busy machine, or a clock that is being slewed, may differ by without having been set.
const TOLERANCE: Duration = Duration::from_secs(2);

/// The wall clock beside the monotonic one.
#[derive(Debug)]
pub struct WallClock {
    wall: SystemTime,
    steady: std::time::Instant,
}

impl WallClock {
    /// As they are now.
    pub fn start() -> Self {
        Self { wall: SystemTime::now(), steady: std::time::Instant::now() }
    }

    /// Whether the wall clock has moved otherwise than the monotonic one since it was last asked:
    /// set by hand or by a time service, or the machine slept.
    pub fn was_set(&mut self) -> bool {
        let now = Self::start();
        let expected = self.wall + now.steady.duration_since(self.steady);
        let distance = match now.wall.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        *self = now;
        distance > TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed_once_whichever_way() {
        let hour = Duration::from_secs(3600);
        for earlier in [SystemTime::now() - hour, SystemTime::now() + hour] {
            let mut clock = WallClock { wall: earlier, ..WallClock::start() };
            assert!(clock.was_set());
            assert!(!clock.was_set());
        }
    }
}
