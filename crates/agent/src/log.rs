//! A job's output: one log of records in the order of arrival, read through cursors.
//!
//! The supervisor appends, and stops reading the command's pipes while the log is full; a reader
//! follows with a [`Cursor`] and releases what it has passed on. `exit` is the last record, so it
//! cannot overtake data.

use bytes::Bytes;
use rexec_protocol::message::{Channel, Exit, Message};
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{Algorithm, Frame, StreamId};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes kept before the command has to wait.
const CAPACITY: usize = 1024 * 1024;
/// What a record costs beside its bytes.
const OVERHEAD: usize = 256;

/// The log of one job.
#[derive(Debug)]
pub struct Log {
    stream: StreamId,
    state: Mutex<State>,
    appended: Notify,
    released: Notify,
}

#[derive(Debug)]
struct State {
    out: Sender,
    err: Sender,
    records: VecDeque<Frame>,
    /// The number of the first record in `records`.
    first: u64,
    size: usize,
    /// Nobody reads any more: bytes are counted and digested, but not kept.
    abandoned: bool,
}

/// A reader's place in the log.
#[derive(Debug, Default)]
pub struct Cursor(u64);

impl Log {
    /// An empty log whose records travel on `stream`.
    pub fn new(stream: StreamId, algorithm: Algorithm) -> Self {
        let state = State {
            out: Sender::new(Channel::Out, algorithm),
            err: Sender::new(Channel::Err, algorithm),
            records: VecDeque::new(),
            first: 0,
            size: 0,
            abandoned: false,
        };
        Self { stream, state: Mutex::new(state), appended: Notify::new(), released: Notify::new() }
    }

    /// Appends output.
    pub fn output(&self, channel: Channel, bytes: Bytes) {
        let mut state = self.lock();
        let record = state.sender(channel).data(self.stream, bytes);
        self.append(state, record);
    }

    /// Appends the end of a channel.
    pub fn eof(&self, channel: Channel) {
        let mut state = self.lock();
        let record = state.sender(channel).eof(self.stream);
        self.append(state, record);
    }

    /// Appends the last record.
    pub fn exit(&self, exit: Exit) {
        self.append(self.lock(), Frame::new(self.stream, exit.into()));
    }

    /// Size and digest of a channel so far.
    pub fn tally(&self, channel: Channel) -> Tally {
        self.lock().sender(channel).tally()
    }

    /// True while there is room for more output.
    pub fn has_room(&self) -> bool {
        self.lock().size < CAPACITY
    }

    /// Waits until there is room for more output.
    pub async fn room(&self) {
        while !self.has_room() {
            self.released.notified().await;
        }
    }

    /// The record at `cursor`, which then moves on; waits for it. One task may wait.
    pub async fn next(&self, cursor: &mut Cursor) -> Frame {
        loop {
            if let Some(record) = self.lock().at(cursor).cloned() {
                cursor.0 += 1;
                return record;
            }
            self.appended.notified().await;
        }
    }

    /// Forgets all records before `cursor`.
    pub fn release(&self, cursor: &Cursor) {
        let mut state = self.lock();
        while state.first < cursor.0 {
            let Some(record) = state.records.pop_front() else { break };
            state.size -= cost(&record);
            state.first += 1;
        }
        drop(state);
        self.released.notify_one();
    }

    /// The reader is gone for good: later output is read, counted and dropped, so that the command
    /// is not held up by a full pipe.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.records.clear();
        state.size = 0;
        drop(state);
        self.released.notify_one();
    }

    /// Whether nobody will read what is appended.
    pub fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    fn append(&self, mut state: MutexGuard<'_, State>, record: Frame) {
        if state.abandoned {
            return;
        }
        state.size += cost(&record);
        state.records.push_back(record);
        drop(state);
        self.appended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sender(&mut self, channel: Channel) -> &mut Sender {
        if channel == Channel::Err { &mut self.err } else { &mut self.out }
    }

    fn at(&self, cursor: &Cursor) -> Option<&Frame> {
        self.records.get(usize::try_from(cursor.0.checked_sub(self.first)?).ok()?)
    }
}

fn cost(record: &Frame) -> usize {
    record.body.len() + OVERHEAD
}

/// True for the record that ends a log.
pub fn is_last(record: &Frame) -> bool {
    matches!(record.message, Message::Exit(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::message::Data;

    fn log() -> Log {
        Log::new(StreamId(1), Algorithm::Sha256)
    }

    #[tokio::test]
    async fn records_come_in_order_with_offsets_per_channel() {
        let log = log();
        log.output(Channel::Out, "ab".into());
        log.output(Channel::Err, "x".into());
        log.output(Channel::Out, "c".into());
        let mut cursor = Cursor::default();
        for (channel, offset) in [(Channel::Out, 0), (Channel::Err, 0), (Channel::Out, 2)] {
            let record = log.next(&mut cursor).await;
            assert_eq!(record.message, Message::Data(Data { channel, offset }));
        }
        assert_eq!(log.tally(Channel::Out).size, 3);
    }

    #[tokio::test]
    async fn a_full_log_has_room_again_once_it_was_released() {
        let log = log();
        while log.has_room() {
            log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
        }
        let mut cursor = Cursor::default();
        log.next(&mut cursor).await;
        assert!(!log.has_room(), "reading alone does not release");
        log.release(&cursor);
        log.room().await;
    }

    #[test]
    fn an_abandoned_log_still_counts() {
        let log = log();
        log.abandon();
        for _ in 0..100 {
            log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
        }
        assert!(log.has_room());
        assert_eq!(log.tally(Channel::Out).size, 100 * 65536);
    }
}
