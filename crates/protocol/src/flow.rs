//! Credit: how many body bytes of a stream may be sent before the reader has consumed any.
//!
//! A window is an absolute limit on the total of bytes sent in one direction of one stream, as
//! QUIC's is (RFC 9000 section 4.1). Limits can therefore be coalesced, repeated and reordered
//! without harm: the largest one counts.

use crate::error::ProtocolError;
use crate::frame::MAX_DATA;
use crate::message::Window;
use rexec_guard::holds;

/// Bytes that a client may send on a stream's stdin before the agent's first word about it.
pub const INITIAL_WINDOW: u64 = 64 * 1024;

/// A receiver that has consumed this part of its window says so.
const PARTS: u64 = 8;

/// After so many bodies a receiver that has consumed all of them says so, however small they were: a
/// sender may keep them until then, to send them again on another connection.
pub const MAX_UNTOLD: u32 = 256;

/// The sender's side of a window.
#[derive(Debug, Clone, Copy)]
pub struct SendWindow {
    sent: u64,
    limit: u64,
}

impl SendWindow {
    /// A window that allows the first `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { sent: 0, limit }
    }

    /// How many bytes may be sent now.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Counts `n` bytes as sent; false, and nothing is counted, if they do not fit.
    #[must_use]
    pub fn take(&mut self, n: u64) -> bool {
        let fits = n <= self.available();
        if fits {
            self.sent += n;
        }
        fits
    }

    /// The reader allows `limit` bytes in all. A limit below an earlier one changes nothing.
    pub fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// The reader's side of a window.
#[derive(Debug, Clone, Copy)]
pub struct RecvWindow {
    size: u64,
    granted: u64,
    received: u64,
    consumed: u64,
    /// Bytes of an earlier stream that are still to be consumed, and take room until then.
    before: u64,
    /// Bodies that came since the peer was last told a limit.
    untold: u32,
}

impl RecvWindow {
    /// A window that keeps at most `size` bytes unconsumed, of which `granted` are allowed already.
    pub fn new(size: u64, granted: u64) -> Self {
        Self::after(0, size, granted)
    }

    /// A window of a stream that goes on for one that was cut: `before` bytes of that are still to be
    /// consumed, first of all, and count as part of `size`. However often it is cut, not more is kept.
    pub fn after(before: u64, size: u64, granted: u64) -> Self {
        Self { size, granted, received: 0, consumed: 0, before, untold: 0 }
    }

    /// The limit the peer was last told.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Counts `n` bytes that came in.
    pub fn received(&mut self, n: u64) -> Result<(), ProtocolError> {
        let granted = |total: &u64| holds("flow.window", *total <= self.granted);
        let total = self.received.checked_add(n).filter(granted);
        self.received = total.ok_or(ProtocolError::Flow)?;
        self.untold = self.untold.saturating_add(1);
        Ok(())
    }

    /// Counts `n` bytes that the consumer is done with. Answers with a new limit for the peer once
    /// an eighth of the window is used up: limits are rare then, and a sender that keeps what was not
    /// consumed does not run out of room for want of the news. It answers sooner if nothing is left to
    /// consume, but the sender may be waiting for room for the largest body, or has sent so many small
    /// ones that it will want to forget them.
    #[must_use]
    pub fn consumed(&mut self, n: u64) -> Option<Window> {
        let own = n.saturating_sub(self.before);
        self.before = self.before.saturating_sub(n);
        self.dropped(own)
    }

    /// The same for bytes that came on this stream and are not for the consumer.
    #[must_use]
    pub fn dropped(&mut self, n: u64) -> Option<Window> {
        self.consumed = self.consumed.saturating_add(n).min(self.received);
        let limit = self.consumed.saturating_add(self.size.saturating_sub(self.before));
        let more = limit.saturating_sub(self.granted);
        let left = self.granted.saturating_sub(self.received);
        let is_idle = self.consumed == self.received && self.before == 0;
        let sender_waits = is_idle && more > 0 && left < MAX_DATA as u64;
        let are_many = is_idle && more > 0 && self.untold >= MAX_UNTOLD;
        let worth_telling = more >= self.size.div_ceil(PARTS) || sender_waits || are_many;
        worth_telling.then(|| {
            self.granted = limit;
            self.untold = 0;
            Window { limit, consumed: self.consumed }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of sends, consumptions and late limits, a sender that respects its
        /// window is never refused, never has more than the window in flight, and never starves.
        #[test]
        fn sender_and_reader_agree(size in 1u64..5_000, steps in prop::collection::vec((any::<bool>(), 1u64..3_000), 0..200)) {
            let mut send = SendWindow::new(size);
            let mut recv = RecvWindow::new(size, size);
            let mut in_flight = 0u64;
            for (sending, n) in steps {
                if sending {
                    let n = n.min(send.available());
                    prop_assert!(send.take(n));
                    recv.received(n).unwrap();
                    in_flight += n;
                } else {
                    let n = n.min(in_flight);
                    in_flight -= n;
                    if let Some(window) = recv.consumed(n) {
                        send.raise(window.limit);
                        send.raise(window.limit / 2);
                    }
                }
                prop_assert!(in_flight <= size);
                prop_assert!(in_flight > 0 || send.available() > 0, "nothing in flight and no credit");
            }
        }
    }

    /// A sender waits until a whole body fits; without this it and the reader would wait for each
    /// other with much, but less than a body's worth, of a small window left.
    #[test]
    fn a_sender_that_waits_for_a_whole_body_gets_its_credit() {
        let largest = MAX_DATA as u64;
        for size in [largest, largest + 1, largest * 3 / 2, largest * 2 - 1, largest * 2] {
            let (mut send, mut recv) = (SendWindow::new(size), RecvWindow::new(size, size));
            for body in [100, largest / 3, largest, 1, largest, largest - 1, largest] {
                assert!(send.take(body), "{body} of {size}: {send:?} {recv:?}");
                recv.received(body).unwrap();
                recv.consumed(body).into_iter().for_each(|window| send.raise(window.limit));
            }
        }
    }

    /// A sender that keeps what is not acknowledged would otherwise be full of bodies of one byte long
    /// before an eighth of a window is used up, and wait for ever.
    #[test]
    fn many_small_bodies_are_acknowledged() {
        let mut recv = RecvWindow::new(1 << 20, 1 << 20);
        for _ in 1..MAX_UNTOLD {
            recv.received(1).unwrap();
            assert_eq!(recv.consumed(1), None);
        }
        recv.received(2).unwrap();
        assert_eq!(recv.consumed(1), None, "one byte is still to be consumed");
        let consumed = u64::from(MAX_UNTOLD) + 1;
        assert_eq!(recv.consumed(1), Some(Window { limit: (1 << 20) + consumed, consumed }));
    }

    #[test]
    fn more_than_granted_is_refused() {
        let mut recv = RecvWindow::new(10, 10);
        assert!(recv.received(10).is_ok());
        assert_eq!(recv.received(1), Err(ProtocolError::Flow));
        assert_eq!(recv.received(u64::MAX), Err(ProtocolError::Flow));
    }

    /// Whoever cuts and comes back again and again has no more under way than one window.
    #[test]
    fn what_an_earlier_stream_left_takes_room() {
        let mut recv = RecvWindow::after(1000, 1000, 0);
        assert_eq!(recv.consumed(0), None);
        assert_eq!(recv.received(1), Err(ProtocolError::Flow));
        assert_eq!(recv.consumed(124), None);
        assert_eq!(recv.consumed(1), Some(Window { limit: 125, consumed: 0 }));
        recv.received(125).unwrap();
        assert_eq!(recv.consumed(975), Some(Window { limit: 1100, consumed: 100 }));
    }

    #[test]
    fn the_first_limit_may_be_smaller_than_the_window() {
        let mut recv = RecvWindow::new(1000, 10);
        assert!(recv.received(10).is_ok());
        assert_eq!(recv.consumed(1), Some(Window { limit: 1001, consumed: 1 }));
    }
}
