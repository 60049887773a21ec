//! One output channel of a job: what came of it, verified, and is to be read.

use rexec_net::inbox::{End, Inbox};
use rexec_protocol::message::{Data, Eof, Gap};
use rexec_protocol::stream::{Receiver, Tally};
use rexec_protocol::{Algorithm, Frame, ProtocolError};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// The receiving end of stdout, or of stderr.
#[derive(Debug)]
pub(crate) struct Half {
    state: Mutex<State>,
    /// What is to be read.
    pub(crate) inbox: Inbox,
    /// Something is missing, which nothing may come after.
    torn: Notify,
}

#[derive(Debug)]
struct State {
    receiver: Receiver,
    /// Bytes that were to come, and never will.
    missing: u64,
    /// Those of them since the last piece.
    gap: u64,
    /// What is in the inbox, piece by piece; only kept for who came to a job that was there.
    pieces: Option<VecDeque<Arrival>>,
}

/// A piece of output as the agent sent it. The inbox joins small ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// How many pieces of both channels came before.
    pub(crate) number: u64,
    /// When the agent read it, if that was asked for.
    pub(crate) time: Option<SystemTime>,
    /// How many bytes are missing right before it.
    pub(crate) gap: u64,
    /// How much of it is still to be read.
    left: usize,
}

impl Half {
    /// With `in_pieces`, remembers how its output was cut when it came.
    pub(crate) fn new(algorithm: Algorithm, in_pieces: bool) -> Self {
        let state = State {
            receiver: Receiver::new(algorithm),
            missing: 0,
            gap: 0,
            pieces: in_pieces.then(VecDeque::new),
        };
        Self { state: Mutex::new(state), inbox: Inbox::default(), torn: Notify::new() }
    }

    /// Begins again at offset 0; nothing must have come yet.
    pub(crate) fn restart(&self, algorithm: Algorithm) {
        self.lock().receiver = Receiver::new(algorithm);
    }

    /// What is before `at` is not wanted.
    pub(crate) fn skip_to(&self, at: u64) {
        if at > 0 {
            // A new receiver is at 0.
            let _ = self.lock().receiver.gap(at);
        }
    }

    /// Takes a `data` frame, the one of this `number` on its stream.
    pub(crate) fn data(&self, data: Data, frame: Frame, number: u64) -> Result<(), ProtocolError> {
        let mut state = self.lock();
        let received = state.receiver.data(data.offset, frame.body, frame.hash)?.into_bytes();
        let gap = std::mem::take(&mut state.gap);
        if let Some(pieces) = &mut state.pieces {
            let time = data
                .time_ms
                .and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
            // Before the bytes, so that who reads them finds it.
            pieces.push_back(Arrival { number, time, gap, left: received.len() });
        }
        drop(state);
        self.inbox.push(received);
        Ok(())
    }

    /// Takes a `gap` frame. With `begins_late`, what is missing at the start was not asked for.
    pub(crate) fn gap(&self, gap: Gap, begins_late: bool) -> Result<(), ProtocolError> {
        let mut state = self.lock();
        let from = state.receiver.offset();
        state.receiver.gap(gap.to)?;
        if !(begins_late && from == 0) {
            state.missing = state.missing.saturating_add(gap.to.saturating_sub(from));
            state.gap = state.gap.saturating_add(gap.to.saturating_sub(from));
            // One word is kept for who is not waiting just now.
            self.torn.notify_one();
        }
        Ok(())
    }

    /// Waits until something is missing. For one who waits.
    pub(crate) async fn torn(&self) {
        while self.missing() == 0 {
            self.torn.notified().await;
        }
    }

    /// Takes an `eof` frame. With `may_repeat`, it came before, on another stream.
    pub(crate) fn eof(&self, eof: Eof, may_repeat: bool) -> Result<(), ProtocolError> {
        let mut state = self.lock();
        if may_repeat && state.receiver.offset() == eof.size {
            return Ok(());
        }
        state.receiver.eof(eof.tally())?;
        drop(state);
        self.inbox.finish(End::Eof);
        Ok(())
    }

    /// How the next `length` bytes of the inbox came, or the first of them.
    pub(crate) fn arrived(&self, length: usize) -> Option<(Arrival, usize)> {
        let mut state = self.lock();
        let pieces = state.pieces.as_mut()?;
        let first = pieces.front_mut()?;
        let arrival = *first;
        let taken = first.left.min(length);
        first.left -= taken;
        first.gap = 0;
        if first.left == 0 {
            pieces.pop_front();
        }
        Some((arrival, taken))
    }

    /// How many bytes will never come, as far as is known.
    pub(crate) fn missing(&self) -> u64 {
        self.lock().missing
    }

    /// The place in the channel.
    pub(crate) fn offset(&self) -> u64 {
        self.lock().receiver.offset()
    }

    /// Whether the end came.
    pub(crate) fn ended(&self) -> bool {
        self.lock().receiver.ended()
    }

    /// What came, if that is all from the first byte on.
    pub(crate) fn tally(&self) -> Option<Tally> {
        self.lock().receiver.tally()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::StreamId;
    use rexec_protocol::message::{Channel, Message};
    use rexec_protocol::stream::Sender;

    fn send(half: &Half, sender: &mut Sender, text: &'static str, number: u64) {
        let frame = sender.data(StreamId(1), text.into());
        let Message::Data(data) = frame.message else { panic!() };
        half.data(Data { time_ms: Some(number * 1000), ..data }, frame, number).unwrap();
    }

    /// The inbox joins small pieces; when each came is still known.
    #[tokio::test]
    async fn pieces_keep_their_times() {
        let half = Half::new(Algorithm::Sha256, true);
        let mut sender = Sender::new(Channel::Out, Algorithm::Sha256);
        send(&half, &mut sender, "one", 0);
        send(&half, &mut sender, "three", 2);
        let joined = half.inbox.next().await.unwrap();
        assert_eq!(joined, "onethree");
        let (first, taken) = half.arrived(joined.len()).unwrap();
        assert_eq!((first.number, taken), (0, 3));
        // Whoever takes less finds the rest of it.
        for (length, rest) in [(2, 2), (3, 3)] {
            let (second, taken) = half.arrived(length).unwrap();
            assert_eq!((second.number, taken), (2, rest));
            assert_eq!(second.time, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)));
        }
        assert!(half.arrived(1).is_none());
    }

    #[test]
    fn what_was_not_asked_for_is_not_missing() {
        let gap = |to| Gap { channel: Channel::Out, to };
        let late = Half::new(Algorithm::Sha256, true);
        late.gap(gap(10), true).unwrap();
        assert_eq!((late.missing(), late.tally()), (0, None));
        late.gap(gap(15), true).unwrap();
        assert_eq!(late.missing(), 5);
        let half = Half::new(Algorithm::Sha256, true);
        half.skip_to(10);
        half.gap(gap(12), false).unwrap();
        assert_eq!(half.missing(), 2);
    }
}
