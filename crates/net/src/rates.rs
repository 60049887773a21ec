//! How much a peer may send that costs more to handle than to send.
//!
//! Credit bounds the bytes of `data`; this bounds all other frames, and errors. `window` frames
//! count as well: credit is given back by halves of a window, and even with the smallest window an
//! honest peer that sends as many as are allowed would read more than a gigabyte a second.

use rexec_guard::holds;
use rexec_protocol::ProtocolError;
use rexec_protocol::message::Message;
use std::time::{Duration, Instant};

/// The limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Frames per second, `data` not counted.
    pub frames_per_second: u32,
    /// Frames at once, after a time without.
    pub frames_burst: u32,
    /// Errors in all: those that the peer sends, and verbs that it sends and this side lacks.
    pub errors: u32,
}

/// Counts what a peer sends. Pure: the time comes in.
///
/// The rate is a leaky bucket kept as one time (the "generic cell rate algorithm" of ITU-T I.371):
/// each frame moves `due` on by the time it costs, and `due` may be ahead of now by a burst.
#[derive(Debug)]
pub struct Meter {
    cost: Duration,
    burst: Duration,
    due: Instant,
    errors_left: u32,
}

impl Meter {
    /// Nothing was sent so far.
    pub fn new(rates: Rates, now: Instant) -> Self {
        let cost = Duration::from_secs(1) / rates.frames_per_second.max(1);
        let burst = cost.saturating_mul(rates.frames_burst);
        Self { cost, burst, due: now, errors_left: rates.errors }
    }

    /// Counts a frame; fails if that is one too many.
    pub fn count(&mut self, message: &Message, now: Instant) -> Result<(), ProtocolError> {
        match message {
            Message::Data(_) => return Ok(()),
            Message::Error(_) | Message::Unknown => {
                if !holds("rates.errors", self.errors_left > 0) {
                    return Err(ProtocolError::Flood("errors"));
                }
                self.errors_left = self.errors_left.saturating_sub(1);
            }
            _ => {}
        }
        self.due = self.due.max(now) + self.cost;
        match holds("rates.frames", self.due - now <= self.burst) {
            true => Ok(()),
            false => Err(ProtocolError::Flood("frames")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::message::{Channel, Data, Ping};

    const RATES: Rates = Rates { frames_per_second: 1_000, frames_burst: 50, errors: 3 };

    fn ping() -> Message {
        Ping { nonce: 1 }.into()
    }

    /// How many frames at once are allowed at `now`.
    fn allowed(meter: &mut Meter, now: Instant) -> usize {
        (0..1_000).take_while(|_| meter.count(&ping(), now).is_ok()).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        assert_eq!(allowed(&mut Meter::new(RATES, start), start), 50);
        let mut meter = Meter::new(RATES, start);
        for n in 0..10_000 {
            meter.count(&ping(), start + n * Duration::from_millis(1)).unwrap();
        }
        let mut meter = Meter::new(RATES, start);
        let twice = (0..10_000u32).map(|n| start + n * Duration::from_micros(500));
        let sent = twice.take_while(|now| meter.count(&ping(), *now).is_ok()).count();
        assert!((95..=105).contains(&sent), "{sent}");
    }

    #[test]
    fn rest_earns_no_more_than_a_burst() {
        let start = Instant::now();
        let mut meter = Meter::new(RATES, start);
        assert_eq!(allowed(&mut meter, start + Duration::from_secs(3600)), 50);
    }

    #[test]
    fn data_is_free() {
        let start = Instant::now();
        let mut meter = Meter::new(RATES, start);
        for offset in 0..10_000 {
            meter
                .count(&Data { channel: Channel::In, offset, time_ms: None }.into(), start)
                .unwrap();
        }
    }

    #[test]
    fn errors_are_counted_for_the_whole_connection() {
        let start = Instant::now();
        let mut meter = Meter::new(RATES, start);
        let late = |n| start + n * Duration::from_secs(60);
        for n in 0..3 {
            meter.count(&Message::Unknown, late(n)).unwrap();
        }
        assert_eq!(meter.count(&Message::Unknown, late(4)), Err(ProtocolError::Flood("errors")));
    }
}
