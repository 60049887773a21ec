//! Room for the answers that a connection has not taken yet: without room nothing more is read.
//!
//! A client may ask a thousand things in one write, and may be slow to read what it is told. It waits then,
//! as with any other server: its requests stay in the socket until it has taken some answers. The same client
//! reads what it is sent, whatever it has to write itself, so nobody waits for the other.
//!
//! A list takes all the room there is: to put one together is work, which is done for one at a time.

use rexec_protocol::Frame;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Bytes of answers that may wait; the one that passes this is the last. Those to a thousand small
/// requests fit.
const ROOM: usize = 1024 * 1024;
/// What an answer takes at least, in bytes: its frame, and the task that sends it. Also the unit of counting.
const UNIT: usize = 1024;

/// Counts the answers of one connection.
#[derive(Debug)]
pub(super) struct Answers {
    room: Arc<Semaphore>,
    /// Whoever has asked for too much is not read before this.
    rests_until: Option<Instant>,
}

/// The room that an answer takes until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _units: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// All is free.
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM / UNIT)), rests_until: None }
    }

    /// Whether another request may be read.
    pub(super) fn has_room(&self) -> bool {
        self.room.available_permits() > 0
            && self.rests_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Returns once there is room. Safe to cancel.
    pub(super) async fn room(&self) {
        if let Some(until) = self.rests_until {
            sleep_until(until).await;
        }
        // It is never closed.
        let _ = self.room.acquire().await;
    }

    /// Has no room for this long.
    pub(super) fn rest(&mut self, time: Duration) {
        self.rests_until = (!time.is_zero()).then(|| Instant::now() + time);
    }

    /// Takes all that there is.
    pub(super) fn take_all(&self) -> Place {
        self.take_units(ROOM / UNIT)
    }

    /// Takes what `frames` need, or all that there is.
    pub(super) fn take(&self, frames: &[Frame]) -> Place {
        let bytes: usize = frames.iter().map(|frame| frame.body.len()).sum();
        let units = (bytes / UNIT).saturating_add(frames.len());
        self.take_units(units)
    }

    fn take_units(&self, units: usize) -> Place {
        // Nobody else takes any, so that they are still there.
        let units = u32::try_from(units.min(self.room.available_permits())).unwrap_or(u32::MAX);
        Place { _units: Arc::clone(&self.room).try_acquire_many_owned(units).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::StreamId;
    use rexec_protocol::message::{Listing, Removed};

    #[test]
    fn a_long_answer_takes_all_the_room_and_gives_it_back() {
        let answers = Answers::new();
        let long = Frame::with_body(StreamId(1), Listing { more: false }.into(), vec![0; 2 * ROOM]);
        let place = answers.take(&[long]);
        assert!(!answers.has_room());
        drop(place);
        let short = Frame::new(StreamId(1), Removed {}.into());
        let places: Vec<_> =
            (0..1000).map(|_| answers.take(std::slice::from_ref(&short))).collect();
        assert!(answers.has_room(), "a thousand short ones fit");
        drop(places);
        assert_eq!(answers.room.available_permits(), ROOM / UNIT);
    }

    /// Each may be the work of a tenth of a second.
    #[test]
    fn one_list_is_put_together_at_a_time() {
        let answers = Answers::new();
        let place = answers.take_all();
        assert!(!answers.has_room());
        drop(place);
        assert!(answers.has_room());
    }

    #[tokio::test]
    async fn who_has_asked_for_too_much_rests() {
        let mut answers = Answers::new();
        answers.rest(Duration::from_secs(3600));
        assert!(!answers.has_room());
        answers.rest(Duration::from_millis(1));
        answers.room().await;
        assert!(answers.has_room());
        answers.rest(Duration::ZERO);
        assert!(answers.has_room());
    }
}
