//! Readers of a log: where they are, and what they get.

use super::state::Record;
use crate::spool::{Ended, Mark};
use bytes::Buf;
use rexec_protocol::Frame;
use rexec_protocol::message::{Data, Eof, Message, Offsets};
use std::collections::VecDeque;

/// A reader's place in the log.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The number of the next record.
    pub(super) next: u64,
    /// How much of each channel the reader has, or was told that it is gone.
    pub(super) at: Offsets,
    /// Output before this is not for this reader.
    pub(super) begin: Offsets,
    /// Ends that lie before where the reader began.
    pub(super) skipped: Ended,
    /// Ends that the reader was told of.
    pub(super) ended: Ended,
    /// Where the reader was told that the digest does not go on.
    pub(super) torn: Ended,
    /// Records from the disk that come next, the first of which has this number.
    pub(super) fetched: (u64, VecDeque<Record>),
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

impl Cursor {
    /// The number of the first record that is still to come.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A reader to whom all before `mark` is of no interest.
    pub(super) fn at(mark: &Mark) -> Self {
        Self {
            next: mark.number,
            at: Offsets::default(),
            begin: mark.at,
            skipped: mark.ended,
            ended: Ended::default(),
            torn: Ended::default(),
            fetched: (0, VecDeque::new()),
        }
    }

    /// The next record, if it was fetched.
    pub(super) fn fetched(&mut self) -> Option<Record> {
        let (first, records) = &mut self.fetched;
        while *first < self.next && records.pop_front().is_some() {
            *first += 1;
        }
        if *first != self.next {
            return None;
        }
        let record = records.pop_front()?;
        *first += 1;
        Some(record)
    }

    /// What this reader gets of a record, after which it goes on; `None` if it has all of it.
    pub(super) fn take(&mut self, record: &Record) -> Option<Item> {
        let number = self.next;
        self.next += 1;
        let frame = self.cut(&record.frame)?;
        Some(Item { frame, record: number, time_ms: record.time_ms })
    }

    /// The frame for this reader: less what it has.
    fn cut(&mut self, frame: &Frame) -> Option<Frame> {
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
