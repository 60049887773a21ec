//! A job's output: one log of records in the order of arrival, read through cursors.
//!
//! The supervisor appends, and stops reading the command's pipes while the log is full. Any number of
//! readers follow, each with a [`Cursor`]. What the job's owner has acknowledged is forgotten; a reader
//! that comes to a place that is forgotten is told of the gap. The exit is the last record, so it
//! cannot overtake data, and it is never forgotten.

use bytes::{Buf, Bytes};
use rexec_protocol::message::{Channel, Data, Eof, Exit, Gap, Message, Offsets};
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{Algorithm, Frame, StreamId};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::Notify;

/// Bytes kept before the command has to wait.
const CAPACITY: usize = 1536 * 1024;
/// What a record costs beside its bytes.
const OVERHEAD: usize = 256;
/// Both output channels.
const OUTPUTS: [Channel; 2] = [Channel::Out, Channel::Err];

/// The log of one job.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    appended: Notify,
    released: Notify,
}

#[derive(Debug)]
struct State {
    out: Sender,
    err: Sender,
    records: VecDeque<Record>,
    /// The number of the first record in `records`.
    first: u64,
    /// Where the oldest output that is kept begins.
    kept_from: Offsets,
    ended: Ended,
    size: usize,
    /// Nobody will read: bytes are counted and digested, but not kept.
    abandoned: bool,
}

/// Which channels have ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    out: bool,
    err: bool,
}

#[derive(Debug)]
struct Record {
    /// On no stream yet: each reader has its own.
    frame: Frame,
    time_ms: u64,
}

/// A reader's place in the log.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The number of the next record.
    next: u64,
    /// How much of each channel the reader has, or was told that it is gone.
    at: Offsets,
    /// Output before this is not for this reader.
    begin: Offsets,
    /// Ends that lie before where the reader began.
    skipped: Ended,
    /// Ends that the reader was told of.
    ended: Ended,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After what it has.
    Have(Offsets),
    /// Now.
    Live,
    /// With what was read at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// What a reader gets.
#[derive(Debug)]
pub struct Item {
    /// A `data`, `gap`, `eof` or `exit` frame on no stream.
    pub frame: Frame,
    /// The number of the record that it was made of.
    pub record: u64,
    /// When it was appended, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Item {
    /// True for the one that ends a log.
    pub fn is_last(&self) -> bool {
        matches!(self.frame.message, Message::Exit(_))
    }
}

impl Log {
    /// An empty log.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = State {
            out: Sender::new(Channel::Out, algorithm),
            err: Sender::new(Channel::Err, algorithm),
            records: VecDeque::new(),
            first: 0,
            kept_from: Offsets::default(),
            ended: Ended::default(),
            size: 0,
            abandoned: false,
        };
        Self { state: Mutex::new(state), appended: Notify::new(), released: Notify::new() }
    }

    /// Appends output.
    pub fn output(&self, channel: Channel, bytes: Bytes) {
        let mut state = self.lock();
        let frame = state.sender(channel).data(StreamId::CONNECTION, bytes);
        self.append(state, frame);
    }

    /// Appends the end of a channel.
    pub fn eof(&self, channel: Channel) {
        let mut state = self.lock();
        let frame = state.sender(channel).eof(StreamId::CONNECTION);
        self.append(state, frame);
    }

    /// Appends the last record.
    pub fn exit(&self, exit: Exit) {
        self.append(self.lock(), Frame::new(StreamId::CONNECTION, exit.into()));
    }

    /// Size and digest of a channel so far.
    pub fn tally(&self, channel: Channel) -> Tally {
        self.lock().sender(channel).tally()
    }

    /// How much output there was so far, and from where on it is kept.
    pub fn extent(&self) -> (Offsets, Offsets) {
        let state = self.lock();
        (state.size_so_far(), state.kept_from)
    }

    /// Bytes of memory that the records take.
    pub fn memory(&self) -> usize {
        self.lock().size
    }

    /// True while there is room for more output.
    pub fn has_room(&self) -> bool {
        self.lock().size < CAPACITY
    }

    /// Waits until there is room for more output.
    pub async fn room(&self) {
        loop {
            // Before the look, so that what happens after it is not missed.
            let released = self.released.notified();
            if self.has_room() {
                return;
            }
            released.await;
        }
    }

    /// A cursor at `place`; `None` if the reader says that it has more than there is.
    pub fn cursor(&self, place: Place) -> Option<Cursor> {
        let state = self.lock();
        let all = state.size_so_far();
        match place {
            Place::Have(have) if have.out > all.out || have.err > all.err => None,
            Place::Have(have) => {
                let cursor = state.cursor_after(0);
                Some(Cursor { at: have, begin: have, ..cursor })
            }
            Place::Live => Some(state.cursor_after(state.records.len())),
            Place::Time(time_ms) => {
                let older = state.records.partition_point(|record| record.time_ms < time_ms);
                Some(state.cursor_after(older))
            }
        }
    }

    /// What comes next for `cursor`, which then moves on; waits for it.
    pub async fn next(&self, cursor: &mut Cursor) -> Item {
        loop {
            let appended = self.appended.notified();
            if let Some(item) = self.try_next(cursor) {
                return item;
            }
            appended.await;
        }
    }

    /// [`Log::next`] if it is there already.
    pub fn try_next(&self, cursor: &mut Cursor) -> Option<Item> {
        self.lock().read(cursor)
    }

    /// Forgets all output up to and with the record of this number: who counts has it.
    pub fn release(&self, record: u64) {
        self.lock().forget(|first, _| first <= record);
        self.released.notify_waiters();
    }

    /// Forgets all output before these places: who counts has it, from another connection.
    pub fn release_before(&self, have: Offsets) {
        self.lock().forget(|_, record| match record.message {
            Message::Data(Data { channel, offset, .. }) => {
                offset + record.body.len() as u64 <= have.of(channel)
            }
            Message::Eof(Eof { channel, size, .. }) => size <= have.of(channel),
            _ => false,
        });
        self.released.notify_waiters();
    }

    /// Forgets all output that is kept.
    pub fn clear(&self) {
        self.lock().forget(|_, _| true);
        self.released.notify_waiters();
    }

    /// Nobody will read any more: later output is read, counted and dropped, so that the command is
    /// not held up by a full pipe. Its end is still recorded.
    pub fn abandon(&self) {
        self.lock().abandoned = true;
        self.clear();
    }

    fn append(&self, mut state: MutexGuard<'_, State>, frame: Frame) {
        let time_ms = now_ms();
        state.size += cost(&frame);
        state.records.push_back(Record { frame, time_ms });
        if state.abandoned {
            state.forget(|_, _| true);
        }
        drop(state);
        self.appended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sender(&mut self, channel: Channel) -> &mut Sender {
        if channel == Channel::Err { &mut self.err } else { &mut self.out }
    }

    fn size_so_far(&self) -> Offsets {
        Offsets { out: self.out.offset(), err: self.err.offset() }
    }

    /// Forgets the oldest records for as long as `may` says so of their numbers and frames; never the
    /// exit.
    fn forget(&mut self, may: impl Fn(u64, &Frame) -> bool) {
        while let Some(record) = self.records.front()
            && may(self.first, &record.frame)
            && !matches!(record.frame.message, Message::Exit(_))
        {
            match &record.frame.message {
                Message::Data(data) => {
                    let end = data.offset + record.frame.body.len() as u64;
                    *self.kept_from.of_mut(data.channel) = end;
                }
                Message::Eof(eof) => self.ended.set(eof.channel),
                _ => {}
            }
            self.size -= cost(&record.frame);
            self.records.pop_front();
            self.first += 1;
        }
    }

    /// For a reader to whom this many of the records are of no interest; the exit always is.
    fn cursor_after(&self, count: usize) -> Cursor {
        let (mut begin, mut skipped, mut next) = (self.kept_from, Ended::default(), self.first);
        for record in self.records.iter().take(count) {
            match &record.frame.message {
                Message::Data(data) => {
                    *begin.of_mut(data.channel) = data.offset + record.frame.body.len() as u64;
                }
                Message::Eof(eof) => skipped.set(eof.channel),
                _ => break,
            }
            next += 1;
        }
        Cursor { next, at: Offsets::default(), begin, skipped, ended: Ended::default() }
    }

    fn read(&self, cursor: &mut Cursor) -> Option<Item> {
        cursor.next = cursor.next.max(self.first);
        if let Some(item) = self.gap(cursor).or_else(|| self.forgotten_end(cursor)) {
            return Some(item);
        }
        loop {
            let index = usize::try_from(cursor.next.checked_sub(self.first)?).ok()?;
            let record = self.records.get(index)?;
            let number = cursor.next;
            cursor.next += 1;
            if let Some(frame) = cursor.take(&record.frame) {
                return Some(Item { frame, record: number, time_ms: record.time_ms });
            }
        }
    }

    /// What this reader misses, of one channel.
    fn gap(&self, cursor: &mut Cursor) -> Option<Item> {
        let missed = |channel: Channel| {
            let to = self.kept_from.of(channel).max(cursor.begin.of(channel));
            (to > cursor.at.of(channel)).then_some(Gap { channel, to })
        };
        let gap = OUTPUTS.into_iter().find_map(missed)?;
        *cursor.at.of_mut(gap.channel) = gap.to;
        let frame = Frame::new(StreamId::CONNECTION, gap.into());
        Some(Item { frame, record: cursor.next, time_ms: now_ms() })
    }

    /// The end of a channel whose record is forgotten, or was skipped.
    fn forgotten_end(&self, cursor: &mut Cursor) -> Option<Item> {
        let untold = |channel: &Channel| {
            let is_past = self.ended.has(*channel) || cursor.skipped.has(*channel);
            is_past && !cursor.ended.has(*channel)
        };
        let channel = OUTPUTS.into_iter().find(untold)?;
        cursor.ended.set(channel);
        let sender = if channel == Channel::Err { &self.err } else { &self.out };
        let frame = sender.eof(StreamId::CONNECTION);
        Some(Item { frame, record: cursor.next, time_ms: now_ms() })
    }
}

impl Cursor {
    /// The frame for this reader: less what it has; `None` if it has all of it.
    fn take(&mut self, frame: &Frame) -> Option<Frame> {
        match frame.message {
            Message::Data(Data { channel, offset, time_ms }) => {
                let end = offset + frame.body.len() as u64;
                let at = self.at.of(channel);
                if end <= at {
                    return None;
                }
                *self.at.of_mut(channel) = end;
                let mut frame = frame.clone();
                if offset < at {
                    // The digest is that of everything up to the end, wherever the body begins.
                    frame.body.advance(usize::try_from(at - offset).unwrap_or(usize::MAX));
                    frame.message = Data { channel, offset: at, time_ms }.into();
                }
                Some(frame)
            }
            Message::Eof(Eof { channel, .. }) => {
                self.ended.set(channel);
                Some(frame.clone())
            }
            _ => Some(frame.clone()),
        }
    }
}

impl Ended {
    fn has(self, channel: Channel) -> bool {
        if channel == Channel::Err { self.err } else { self.out }
    }

    fn set(&mut self, channel: Channel) {
        *(if channel == Channel::Err { &mut self.err } else { &mut self.out }) = true;
    }
}

fn cost(frame: &Frame) -> usize {
    frame.body.len() + OVERHEAD
}

/// The wall clock: it tells people when, and orders nothing.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rexec_protocol::Outcome;
    use rexec_protocol::stream::Receiver;

    fn log() -> Log {
        Log::new(Algorithm::Sha256)
    }

    fn start() -> Place {
        Place::Have(Offsets::default())
    }

    fn exit_of(log: &Log) -> Exit {
        let outcome = Outcome::Exited { code: 0 };
        let (stdout, stderr) = (log.tally(Channel::Out), log.tally(Channel::Err));
        Exit { stdout, stderr, ..Exit::of_nothing(outcome, Algorithm::Sha256) }
    }

    fn end(log: &Log) {
        log.eof(Channel::Out);
        log.eof(Channel::Err);
        log.exit(exit_of(log));
    }

    #[tokio::test]
    async fn records_come_in_order_with_offsets_per_channel() {
        let log = log();
        log.output(Channel::Out, "ab".into());
        log.output(Channel::Err, "x".into());
        log.output(Channel::Out, "c".into());
        let mut cursor = log.cursor(start()).unwrap();
        for (channel, offset) in [(Channel::Out, 0), (Channel::Err, 0), (Channel::Out, 2)] {
            let item = log.next(&mut cursor).await;
            assert_eq!(item.frame.message, Message::Data(Data { channel, offset, time_ms: None }));
        }
        assert!(log.try_next(&mut cursor).is_none());
        assert_eq!(log.tally(Channel::Out).size, 3);
    }

    #[tokio::test]
    async fn a_full_log_has_room_again_once_it_was_released() {
        let log = log();
        while log.has_room() {
            log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
        }
        let mut cursor = log.cursor(start()).unwrap();
        let item = log.next(&mut cursor).await;
        assert!(!log.has_room(), "reading alone does not release");
        log.release(item.record);
        log.room().await;
    }

    /// What was sent on a connection that broke is never acknowledged there.
    #[test]
    fn a_full_log_has_room_again_once_its_reader_came_back_and_said_what_it_has() {
        let log = log();
        log.output(Channel::Err, "x".into());
        while log.has_room() {
            log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
        }
        log.release_before(Offsets { out: 65536, err: 0 });
        assert!(!log.has_room(), "the first record is not its reader's yet");
        log.release_before(Offsets { out: 65536 + 1, err: 1 });
        assert!(log.has_room());
        assert_eq!(log.extent().1, Offsets { out: 65536, err: 1 });
    }

    #[test]
    fn an_abandoned_log_still_counts_and_still_ends() {
        let log = log();
        log.abandon();
        for _ in 0..100 {
            log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
        }
        assert!(log.has_room());
        assert_eq!(log.tally(Channel::Out).size, 100 * 65536);
        end(&log);
        let mut cursor = log.cursor(start()).unwrap();
        let messages: Vec<_> = std::iter::from_fn(|| log.try_next(&mut cursor))
            .map(|item| item.frame.message)
            .collect();
        let gap = Gap { channel: Channel::Out, to: 100 * 65536 };
        assert_eq!(messages[0], gap.into());
        assert!(matches!(messages[1..], [Message::Eof(_), Message::Eof(_), Message::Exit(_)]));
    }

    #[test]
    fn who_has_more_than_there_is_gets_no_cursor() {
        let log = log();
        log.output(Channel::Out, "ab".into());
        assert!(log.cursor(Place::Have(Offsets { out: 2, err: 0 })).is_some());
        assert!(log.cursor(Place::Have(Offsets { out: 3, err: 0 })).is_none());
        assert!(log.cursor(Place::Have(Offsets { out: 0, err: 1 })).is_none());
    }

    /// What one reader sees, checked as a client checks it; its bytes, with how many were missing.
    fn replay(log: &Log, cursor: &mut Cursor, have: Offsets, truth: [&[u8]; 2]) -> [u64; 2] {
        let hasher = |bytes: &[u8]| {
            let mut hasher = rexec_protocol::Hasher::new(Algorithm::Sha256);
            hasher.update(bytes);
            hasher
        };
        let cut = |channel: Channel, truth: &[u8]| {
            let at = have.of(channel);
            Receiver::after(at, hasher(&truth[..at as usize]))
        };
        let mut receivers = [cut(Channel::Out, truth[0]), cut(Channel::Err, truth[1])];
        while let Some(item) = log.try_next(cursor) {
            match item.frame.message {
                Message::Data(data) => {
                    let index = usize::from(data.channel == Channel::Err);
                    let at = data.offset as usize;
                    let body = &item.frame.body;
                    assert_eq!(body[..], truth[index][at..at + body.len()]);
                    receivers[index].data(data.offset, body.clone(), item.frame.hash).unwrap();
                }
                Message::Gap(gap) => {
                    receivers[usize::from(gap.channel == Channel::Err)].gap(gap.to).unwrap();
                }
                Message::Eof(eof) => {
                    receivers[usize::from(eof.channel == Channel::Err)].eof(eof.tally()).unwrap();
                }
                Message::Exit(exit) => {
                    let sizes = receivers.each_ref().map(Receiver::offset);
                    assert_eq!(sizes, [exit.stdout.size, exit.stderr.size]);
                    return receivers.map(|receiver| receiver.missing());
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("no exit");
    }

    proptest! {
        /// Whatever is written and forgotten, wherever a reader begins: it sees every byte from there
        /// on once and in order, or a gap in its place, and then both ends and the exit.
        #[test]
        fn every_reader_sees_all_or_a_gap(
            chunks in prop::collection::vec((any::<bool>(), 1usize..50), 0..40),
            forget in 0u64..50, out in 0u64..400, err in 0u64..400,
        ) {
            let log = log();
            let mut truth = [Vec::new(), Vec::new()];
            for (index, (is_err, length)) in chunks.into_iter().enumerate() {
                let bytes = vec![index as u8; length];
                truth[usize::from(is_err)].extend_from_slice(&bytes);
                log.output(if is_err { Channel::Err } else { Channel::Out }, bytes.into());
            }
            let truth = [&truth[0][..], &truth[1][..]];
            let have = Offsets { out: out.min(truth[0].len() as u64), err: err.min(truth[1].len() as u64) };
            let early = log.cursor(Place::Have(have)).unwrap();
            let mut live = log.cursor(Place::Live).unwrap();
            end(&log);
            if forget > 0 {
                log.release(forget - 1);
            }
            let (_, kept) = log.extent();
            let late = log.cursor(Place::Have(have)).unwrap();
            for mut cursor in [early.clone(), late] {
                let missing = replay(&log, &mut cursor, have, truth);
                let expected = [kept.out.saturating_sub(have.out), kept.err.saturating_sub(have.err)];
                prop_assert_eq!(missing, expected);
            }
            let mut at_the_end = log.cursor(Place::Live).unwrap();
            replay(&log, &mut at_the_end, Offsets::default(), truth);
            let all = truth.map(|bytes| bytes.len() as u64);
            prop_assert_eq!(replay(&log, &mut live, Offsets::default(), truth), all);
        }
    }
}
