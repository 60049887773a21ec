//! What a room knows, without its lock: the log, who is in, and who was cut off.

use super::{Limits, is_line};
use rexec_guard::holds;
use rexec_protocol::message::{Event, Happening, Missed, Resume};
use rexec_protocol::{Frame, StreamId, msgpack};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What an event costs beside its bytes.
pub(super) const OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct State {
    pub(super) records: VecDeque<Record>,
    /// The number of the first record; the first of all has 1.
    pub(super) first: u64,
    pub(super) bytes: usize,
    /// Lines that were said so far.
    pub(super) lines: u64,
    pub(super) members: BTreeMap<u64, Membership>,
    /// Members that were cut off, the last one at the end.
    pub(super) lost: VecDeque<(u64, Remembered)>,
    pub(super) last_member: u64,
    pub(super) empty_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Record {
    /// An `event` on no stream: its body and digest are made once, for all members.
    pub(super) frame: Frame,
    /// How many lines were said before it.
    pub(super) lines_before: u64,
}

#[derive(Debug)]
pub(super) struct Membership {
    pub(super) key: u64,
    pub(super) owner: String,
    pub(super) from: SocketAddr,
    pub(super) since_ms: u64,
    pub(super) said: u64,
    /// Another connection takes this place.
    pub(super) out: CancellationToken,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) owner: String,
    pub(super) since_ms: u64,
    pub(super) said: u64,
    /// The others know that it is gone.
    pub(super) announced: bool,
}

/// Where a member is in the log.
#[derive(Debug)]
pub struct Cursor {
    pub(super) next: u64,
}

/// A member that says it was here before.
pub(super) enum Known {
    Present(Remembered),
    /// With its place among the lost.
    Lost(usize, Remembered),
}

impl State {
    pub(super) fn empty() -> Self {
        Self {
            records: VecDeque::new(),
            first: 1,
            bytes: 0,
            lines: 0,
            members: BTreeMap::new(),
            lost: VecDeque::new(),
            last_member: 0,
            empty_since: Some(Instant::now()),
        }
    }

    /// The number of the next event.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    pub(super) fn append(&mut self, happening: &Happening, limits: Limits) {
        let (event, body) = (Event { seq: self.end() }.into(), msgpack::encode(happening));
        let frame = Frame::with_body(StreamId::CONNECTION, event, body);
        let lines_before = self.lines;
        self.lines += u64::from(is_line(happening.kind));
        self.bytes += frame.body.len() + OVERHEAD;
        self.records.push_back(Record { frame, lines_before });
        while self.records.len() > limits.events || self.bytes > limits.bytes {
            let Some(record) = self.records.pop_front() else { break };
            self.bytes -= record.frame.body.len() + OVERHEAD;
            self.first += 1;
        }
    }

    pub(super) fn known(&self, member: u64, owner: &str) -> Option<Known> {
        if let Some(stay) = self.members.get(&member)
            && holds("rooms.own_seat", stay.owner == owner)
        {
            let Membership { since_ms, said, .. } = *stay;
            let owner = owner.to_owned();
            let before = Remembered { owner, since_ms, said, announced: false };
            return Some(Known::Present(before));
        }
        let is_own = |(number, before): &(u64, Remembered)| {
            *number == member && holds("rooms.own_seat_again", before.owner == owner)
        };
        let place = self.lost.iter().position(is_own)?;
        self.lost.get(place).map(|(_, before)| Known::Lost(place, before.clone()))
    }

    /// Who had the place before has to go.
    pub(super) fn replace(&mut self, member: u64, stay: Membership) {
        if let Some(before) = self.members.insert(member, stay) {
            before.out.cancel();
        }
    }

    pub(super) fn cursor(&self, resume: Option<Resume>, history: u64) -> Cursor {
        let end = self.end();
        let next = match resume {
            Some(resume) => resume.next.clamp(1, end),
            None => end.saturating_sub(history).max(self.first),
        };
        Cursor { next }
    }

    /// How many lines were said before the event of this number, or before the first that is kept.
    pub(super) fn lines_before(&self, seq: u64) -> u64 {
        let index = usize::try_from(seq.saturating_sub(self.first)).ok();
        let record = index.and_then(|index| self.records.get(index));
        record.map_or(self.lines, |record| record.lines_before)
    }

    pub(super) fn read(&self, cursor: &mut Cursor) -> Option<Frame> {
        if cursor.next < self.first {
            cursor.next = self.first;
            let lines = self.lines_before(self.first);
            let missed = Missed { to: self.first, lines };
            return Some(Frame::new(StreamId::CONNECTION, missed.into()));
        }
        let index = usize::try_from(cursor.next - self.first).ok()?;
        let record = self.records.get(index)?;
        cursor.next += 1;
        Some(record.frame.clone())
    }
}
