//! Room for the answers that a connection has not taken yet: without room nothing more is read.
//!
//! A client may ask a thousand things in one write, and may be slow to read what it is told. It waits then,
//! as with any other server: its requests stay in the socket until it has taken some answers. The same client
//! reads what it is sent, whatever it has to write itself, so nobody waits for the other.
//!
//! A list takes all the room there is: to put one together is work, which is done for one at a time. Whoever
//! asked for too much of it gets the next one later; anything else is served meanwhile.

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
    /// No list is put together before this.
    rests_until: Option<Instant>,
    /// The question for a list that has to wait for it.
    postponed: Option<Frame>,
}

/// The room that an answer takes until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _units: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// All is free.
    pub(super) fn new() -> Self {
        let room = Arc::new(Semaphore::new(ROOM / UNIT));
        Self { room, rests_until: None, postponed: None }
    }

    /// Whether another request may be read.
    pub(super) fn has_room(&self) -> bool {
        self.room.available_permits() > 0 && self.postponed.is_none()
    }

    /// Returns once there is room, with what was postponed until then. Safe to cancel.
    pub(super) async fn room(&mut self) -> Option<Frame> {
        if self.postponed.is_some()
            && let Some(until) = self.rests_until
        {
            sleep_until(until).await;
        }
        // It is never closed.
        let _ = self.room.acquire().await;
        self.postponed.take()
    }

    /// Puts together no list for this long.
    pub(super) fn rest(&mut self, time: Duration) {
        self.rests_until = (!time.is_zero()).then(|| Instant::now() + time);
    }

    /// The question for a list, unless it has to wait: then there is no room until it is answered, so that what
    /// comes after it stays behind it.
    pub(super) fn unless_resting(&mut self, question: Frame) -> Option<Frame> {
        if self.rests_until.is_none_or(|until| Instant::now() >= until) {
            return Some(question);
        }
        self.postponed = Some(question);
        None
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
    use rexec_protocol::message::{Listing, Removed, Rooms};

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

    /// Its commands are not to wait for that.
    #[tokio::test]
    async fn who_has_asked_for_too_much_gets_the_next_list_later() {
        let mut answers = Answers::new();
        let question = |number| Frame::new(StreamId(number), Rooms {}.into());
        assert!(answers.unless_resting(question(1)).is_some());
        answers.rest(Duration::from_millis(1));
        assert!(answers.has_room(), "for anything else");
        answers.rest(Duration::from_secs(3600));
        assert_eq!(answers.unless_resting(question(2)), None);
        assert!(!answers.has_room(), "what comes after a list is not answered before it");
        answers.rest(Duration::from_millis(1));
        assert_eq!(answers.room().await, Some(question(2)));
        assert!(answers.has_room());
        answers.rest(Duration::ZERO);
        assert!(answers.unless_resting(question(3)).is_some());
    }
}
