//! What a log holds at one moment; what decides here does not wait.

use super::cursor::{Cursor, Item};
use super::disk::Disk;
use super::now_ms;
use crate::ledger;
use crate::spool::{Ended, Known, Mark, Prefix};
use bytes::Bytes;
use rexec_protocol::message::{Channel, Eof, Exit, Gap, Message, Offsets};
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{Algorithm, Frame, Hasher, StreamId};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a record costs beside its bytes.
const OVERHEAD: usize = 256;
/// Both output channels.
pub(super) const OUTPUTS: [Channel; 2] = [Channel::Out, Channel::Err];

#[derive(Debug)]
pub(super) struct State {
    out: Side,
    err: Side,
    /// The newest records, in memory: all that are kept, or the last of those on disk.
    pub(super) records: VecDeque<Record>,
    /// The place before them.
    pub(super) first: Mark,
    /// Where the oldest output that is kept begins, in memory or on disk.
    pub(super) kept: Mark,
    /// Where the log ends now; the exit not counted.
    pub(super) end: Mark,
    /// The last record. It is never forgotten.
    pub(super) exit: Option<Record>,
    /// What the records in memory cost.
    pub(super) size: usize,
    /// Nobody will read: bytes are counted and digested, but not kept.
    pub(super) abandoned: bool,
    /// The owner has all records before this number.
    pub(super) acknowledged: u64,
    /// What is before `stored` is there.
    pub(super) disk: Option<Arc<Disk>>,
    /// Where the index on disk ends.
    pub(super) stored: Mark,
    /// All of it was deleted.
    pub(super) removed: bool,
    /// Channels whose digest does not reach back to the start of the stream: not even a reader who has
    /// all output before this log can check what follows.
    pub(super) torn: Ended,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    /// On no stream yet: each reader has its own.
    pub(super) frame: Frame,
    pub(super) time_ms: u64,
    /// Its bytes are on disk already, if not yet in the index.
    pub(super) is_written: bool,
}

/// One channel.
#[derive(Debug)]
enum Side {
    Open(Sender),
    /// Of another agent process, and over.
    Over(Tally),
}

/// What comes next for a reader.
#[allow(clippy::large_enum_variant, reason = "one value at a time, for one step")]
pub(super) enum Step {
    Item(Item),
    /// Nothing yet.
    Wait,
    /// It is on disk: the records from the first of these numbers to before the second.
    Fetch(Arc<Disk>, u64, u64),
}

impl State {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let start = Mark::default();
        let side = |channel| Side::Open(Sender::new(channel, algorithm));
        Self {
            out: side(Channel::Out),
            err: side(Channel::Err),
            records: VecDeque::new(),
            first: start,
            kept: start,
            end: start,
            exit: None,
            size: 0,
            abandoned: false,
            acknowledged: 0,
            disk: None,
            stored: start,
            removed: false,
            torn: Ended::default(),
        }
    }

    /// That of a log of which only the places are known where it goes on.
    pub(super) fn after(out: &ledger::Place, err: &ledger::Place, algorithm: Algorithm) -> Self {
        let (mut at, mut ended, mut torn) = <(Offsets, Ended, Ended)>::default();
        let mut side = |channel, place: &ledger::Place| {
            // What was being read counts as read: its reader hears that something is missing.
            let offset = place.offset.saturating_add(place.under_way.into());
            *at.of_mut(channel) = offset;
            if place.ended {
                ended.set(channel);
                return Side::Over(Tally { size: place.offset, hash: place.hash });
            }
            let hasher = place.hasher(algorithm).filter(|_| place.under_way == 0);
            if hasher.is_none() {
                torn.set(channel);
            }
            let hasher = hasher.unwrap_or_else(|| Hasher::new(algorithm));
            Side::Open(Sender::after(channel, offset, hasher))
        };
        let (out, err) = (side(Channel::Out, out), side(Channel::Err, err));
        let mark = Mark { number: 0, at, ended };
        Self {
            out,
            err,
            first: mark,
            kept: mark,
            end: mark,
            stored: mark,
            torn,
            ..Self::new(algorithm)
        }
    }

    /// How far a channel is.
    pub(super) fn place_of(&self, channel: Channel) -> ledger::Place {
        let side = if channel == Channel::Err { &self.err } else { &self.out };
        let place = match side {
            Side::Open(sender) => ledger::Place::of(sender.offset(), sender.hasher()),
            Side::Over(tally) => ledger::Place::over(*tally),
        };
        place.with_end(self.end.ended.has(channel))
    }

    /// That of a log that is on disk.
    pub(super) fn resumed(algorithm: Algorithm, content: &crate::spool::Content) -> Self {
        let mut torn = Ended::default();
        let mut side = |channel| {
            let offset = content.end.at.of(channel);
            match content.known(channel) {
                Known::Running(hasher) => {
                    Side::Open(Sender::after(channel, offset, hasher.clone()))
                }
                Known::Fixed(_) if content.end.ended.has(channel) => {
                    Side::Over(content.tally(channel))
                }
                Known::Fixed(_) => {
                    torn.set(channel);
                    Side::Open(Sender::after(channel, offset, Hasher::new(algorithm)))
                }
            }
        };
        let (out, err) = (side(Channel::Out), side(Channel::Err));
        Self {
            out,
            err,
            torn,
            first: content.end,
            kept: content.kept,
            end: content.end,
            stored: content.end,
            ..Self::new(algorithm)
        }
    }

    fn side(&mut self, channel: Channel) -> &mut Side {
        if channel == Channel::Err { &mut self.err } else { &mut self.out }
    }

    pub(super) fn tally(&self, channel: Channel) -> Tally {
        let side = if channel == Channel::Err { &self.err } else { &self.out };
        match side {
            Side::Open(sender) => sender.tally(),
            Side::Over(tally) => *tally,
        }
    }

    /// The digests so far, with their states.
    pub(super) fn prefixes(&self) -> (Prefix, Prefix) {
        let prefix = |side: &Side| match side {
            Side::Open(sender) => Prefix::of(sender.hasher()),
            Side::Over(tally) => Prefix { hash: tally.hash, state: None },
        };
        (prefix(&self.out), prefix(&self.err))
    }

    /// Appends output.
    pub(super) fn data(&mut self, channel: Channel, bytes: Bytes, is_written: bool) {
        // One that is over has no writer.
        let Side::Open(sender) = self.side(channel) else { return };
        let frame = sender.data(StreamId::CONNECTION, bytes);
        self.append(frame, is_written);
    }

    /// Appends the end of a channel.
    pub(super) fn eof(&mut self, channel: Channel) {
        if !self.end.ended.has(channel) {
            let frame = self.eof_frame(channel);
            self.append(frame, true);
        }
    }

    fn eof_frame(&self, channel: Channel) -> Frame {
        let Tally { size, hash } = self.tally(channel);
        Frame::new(StreamId::CONNECTION, Eof { channel, size, hash }.into())
    }

    fn append(&mut self, frame: Frame, is_written: bool) {
        self.end.pass(&frame);
        self.size += cost(&frame);
        self.records.push_back(Record { frame, time_ms: now_ms(), is_written });
        if self.abandoned && self.disk.is_none() {
            self.forget(|_, _| true);
        }
    }

    /// Forgets the oldest records in memory for as long as `may` says so of their numbers and frames.
    pub(super) fn forget(&mut self, may: impl Fn(u64, &Frame) -> bool) {
        while let Some(record) = self.records.front()
            && may(self.first.number, &record.frame)
        {
            self.first.pass(&record.frame);
            self.size -= cost(&record.frame);
            self.records.pop_front();
        }
        if self.disk.is_none() {
            self.kept = self.first;
        }
    }

    /// Forgets everything, wherever it is; a place on disk that is to be punched is for the caller.
    pub(super) fn forget_all(&mut self) {
        self.records.clear();
        self.size = 0;
        (self.first, self.kept, self.stored) = (self.end, self.end, self.end);
    }

    /// Of what is on disk and in memory, only as many bytes stay in memory.
    pub(super) fn trim(&mut self, bytes: usize) {
        let stored = self.stored.number;
        while self.size > bytes
            && self.first.number < stored
            && let Some(record) = self.records.pop_front()
        {
            self.first.pass(&record.frame);
            self.size -= cost(&record.frame);
        }
    }

    /// The oldest records that are not on disk, at most `limit`, and the place before them.
    pub(super) fn not_stored(&self, limit: usize) -> (Mark, Vec<Record>) {
        let skip = self.stored.number.saturating_sub(self.first.number);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        (self.stored, self.records.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Records come back into memory, before those that are there; the first begins at `kept`.
    pub(super) fn take_back(&mut self, kept: Mark, mut older: VecDeque<Record>) {
        self.size += older.iter().map(|record| cost(&record.frame)).sum::<usize>();
        older.append(&mut self.records);
        // Where they were written is about to be deleted.
        older.iter_mut().for_each(|record| record.is_written = false);
        (self.records, self.first, self.kept) = (older, kept, kept);
    }

    /// The first place that is in memory where `is_past` holds, which it does for all that follow.
    pub(super) fn place(&self, is_past: impl Fn(&Record) -> bool) -> Mark {
        let mut mark = self.first;
        for record in self.records.iter().take_while(|record| !is_past(record)) {
            mark.pass(&record.frame);
        }
        mark
    }

    /// Whether a reader cannot have this much. Who has what was lost since can: the job's end says so.
    pub(super) fn is_more_than_there_was(&self, have: Offsets) -> bool {
        let end = match self.exit.as_ref().map(|record| &record.frame.message) {
            Some(Message::Exit(end)) => (end.stdout.size, end.stderr.size),
            _ => (0, 0),
        };
        have.out > self.end.at.out.max(end.0) || have.err > self.end.at.err.max(end.1)
    }

    pub(super) fn read(&self, cursor: &mut Cursor) -> Step {
        cursor.next = cursor.next.max(self.kept.number);
        if let Some(item) = self.gap(cursor).or_else(|| self.forgotten_end(cursor)) {
            return Step::Item(item);
        }
        loop {
            let Some(index) = cursor.next.checked_sub(self.first.number) else {
                match (cursor.fetched(), &self.disk) {
                    (Some(record), _) => match cursor.take(&record) {
                        Some(item) => return Step::Item(item),
                        None => continue,
                    },
                    (None, Some(disk)) => {
                        return Step::Fetch(Arc::clone(disk), cursor.next, self.first.number);
                    }
                    (None, None) => return Step::Wait,
                }
            };
            let record = usize::try_from(index).ok().and_then(|index| self.records.get(index));
            let exit = || self.exit.as_ref().filter(|_| cursor.next == self.end.number);
            let Some(record) = record.or_else(exit) else { return Step::Wait };
            if let Message::Exit(end) = &record.frame.message
                && let Some(item) = lost_end(cursor, end)
            {
                return Step::Item(item);
            }
            if let Some(item) = cursor.take(record) {
                return Step::Item(item);
            }
        }
    }

    /// What this reader misses, of one channel.
    fn gap(&self, cursor: &mut Cursor) -> Option<Item> {
        let missed = |channel: Channel| {
            let to = self.kept.at.of(channel).max(cursor.begin.of(channel));
            // A gap of nothing says that the digest does not go on.
            let is_torn = self.torn.has(channel) && !cursor.torn.has(channel);
            let to = to.max(cursor.at.of(channel));
            (is_torn || to > cursor.at.of(channel)).then_some(Gap { channel, to })
        };
        let gap = OUTPUTS.into_iter().find_map(missed)?;
        cursor.torn.set(gap.channel);
        *cursor.at.of_mut(gap.channel) = gap.to;
        let frame = Frame::new(StreamId::CONNECTION, gap.into());
        Some(Item { frame, record: cursor.next, time_ms: now_ms() })
    }

    /// The end of a channel whose record is forgotten, or was skipped.
    fn forgotten_end(&self, cursor: &mut Cursor) -> Option<Item> {
        let Ended { out, err } = self.kept.ended;
        let is_past = |channel| if channel == Channel::Err { err } else { out };
        let untold = |channel: &Channel| {
            (is_past(*channel) || cursor.skipped.has(*channel)) && !cursor.ended.has(*channel)
        };
        let channel = OUTPUTS.into_iter().find(untold)?;
        cursor.ended.set(channel);
        let frame = self.eof_frame(channel);
        Some(Item { frame, record: cursor.next, time_ms: now_ms() })
    }
}

/// What a job had printed when it ended, and another agent process did not find on its disk: its end says how
/// much there was.
fn lost_end(cursor: &mut Cursor, end: &Exit) -> Option<Item> {
    let tally = |channel| if channel == Channel::Err { end.stderr } else { end.stdout };
    let message: Message = OUTPUTS.into_iter().find_map(|channel| {
        let Tally { size, hash } = tally(channel);
        let is_short = size > cursor.at.of(channel);
        if is_short {
            *cursor.at.of_mut(channel) = size;
            return Some(Gap { channel, to: size }.into());
        }
        if !cursor.ended.has(channel) {
            cursor.ended.set(channel);
            return Some(Eof { channel, size, hash }.into());
        }
        None
    })?;
    let frame = Frame::new(StreamId::CONNECTION, message);
    Some(Item { frame, record: cursor.next, time_ms: now_ms() })
}

/// Whether a reader who has this much has all of a record.
pub(super) fn is_had(frame: &Frame, have: Offsets) -> bool {
    match &frame.message {
        Message::Data(data) => data.offset + frame.body.len() as u64 <= have.of(data.channel),
        Message::Eof(eof) => eof.size <= have.of(eof.channel),
        _ => false,
    }
}

fn cost(frame: &Frame) -> usize {
    frame.body.len() + OVERHEAD
}
