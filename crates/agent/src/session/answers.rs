//! Room for the answers that a connection has not taken yet: without room nothing more is read.
//!
//! A client may ask a thousand things in one write, and may be slow to read what it is told. It waits then,
//! as with any other server: its requests stay in the socket until it has taken some answers. The same client
//! reads what it is sent, whatever it has to write itself, so nobody waits for the other.

use rexec_protocol::Frame;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of answers that may wait; the one that passes this is the last. Those to a thousand small
/// requests fit.
const ROOM: usize = 1024 * 1024;
/// What an answer takes at least, in bytes: its frame, and the task that sends it. Also the unit of counting.
const UNIT: usize = 1024;

/// Counts the answers of one connection.
#[derive(Debug)]
pub(super) struct Answers(Arc<Semaphore>);

/// The room that an answer takes until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _units: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// All is free.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM / UNIT)))
    }

    /// Whether another request may be read.
    pub(super) fn has_room(&self) -> bool {
        self.0.available_permits() > 0
    }

    /// Returns once there is room. Safe to cancel.
    pub(super) async fn room(&self) {
        // It is never closed.
        let _ = self.0.acquire().await;
    }

    /// Takes what `frames` need, or all that there is.
    pub(super) fn take(&self, frames: &[Frame]) -> Place {
        let bytes: usize = frames.iter().map(|frame| frame.body.len()).sum();
        let units = (bytes / UNIT).saturating_add(frames.len());
        // Nobody else takes any, so that they are still there.
        let units = u32::try_from(units.min(self.0.available_permits())).unwrap_or(u32::MAX);
        Place { _units: Arc::clone(&self.0).try_acquire_many_owned(units).ok() }
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
        assert_eq!(answers.0.available_permits(), ROOM / UNIT);
    }
}
