//! A room that goes from an agent to the next: the same opening, the same numbers, the same members.
//! Whoever was in it comes back as after a cut, and misses nothing.

use super::state::Record;
use super::*;
use rexec_protocol::msgpack;
use serde::{Deserialize, Serialize};

/// No agent has counted so many events, lines or members of a room.
const BEYOND: u64 = 1 << 62;

/// A room as it is left.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftRoom {
    name: RoomName,
    opened_by: String,
    epoch: u64,
    /// The number of the first event.
    first: u64,
    events: Vec<Happening>,
    /// Lines that were said so far.
    lines: u64,
    last_member: u64,
    away: Vec<(u64, Remembered)>,
}

impl LeftRoom {
    /// Its name.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// When something happened in it last, by the clock of the agent before.
    pub fn last_ms(&self) -> u64 {
        self.events.last().map_or(0, |event| event.time_ms)
    }

    /// Whether its numbers can be those of a room, and can go on.
    fn is_sound(&self) -> bool {
        let Self { first, lines, last_member, .. } = *self;
        (1..BEYOND).contains(&first)
            && lines < BEYOND
            && last_member < BEYOND
            && self.away.iter().all(|(member, _)| (1..=last_member).contains(member))
    }
}

impl Room {
    /// Leaves the room to the next agent. Its members have left it, or are about to; `None` if nobody
    /// may come back to it, and nothing was said.
    pub fn leave_behind(&self) -> Option<LeftRoom> {
        let state = self.lock();
        let present = state.members.iter().map(|(&member, stay)| {
            let Membership { owner, since_ms, said, .. } = stay;
            let (owner, since_ms, said) = (owner.clone(), *since_ms, *said);
            (member, Remembered { owner, since_ms, said, announced: false })
        });
        let away: Vec<_> = state.lost.iter().cloned().chain(present).collect();
        if away.is_empty() && state.lines == 0 {
            return None;
        }
        let decode = |record: &Record| msgpack::decode(&record.frame.body, msgpack::BODY).ok();
        Some(LeftRoom {
            name: self.name.clone(),
            opened_by: self.opened_by.clone(),
            epoch: self.epoch,
            first: state.first,
            events: state.records.iter().filter_map(decode).collect(),
            lines: state.lines,
            last_member: state.last_member,
            away,
        })
    }

    /// Goes on with a room that the agent before has left; `None` if it is none.
    pub fn inherit(left: LeftRoom, limits: Limits) -> Option<Self> {
        if !left.is_sound() {
            return None;
        }
        let LeftRoom { name, opened_by, epoch, first, events, lines, last_member, away } = left;
        let kept = events.iter().filter(|event| is_line(event.kind)).count() as u64;
        let lines_before = lines.saturating_sub(kept);
        let mut state = State { first, lines: lines_before, last_member, ..State::empty() };
        // The last ones, as if they had been cut off from this one.
        let extra = away.len().saturating_sub(limits.remembered());
        state.lost = away.into_iter().skip(extra).collect();
        events.iter().for_each(|event| state.append(event, limits));
        Some(Self::with(name, opened_by, epoch, limits, state))
    }

    /// Announces those who have not come back, where that is not known yet.
    pub fn miss_absent(&self) {
        let mut absent = Vec::new();
        for (member, before) in &mut self.lock().lost {
            if !std::mem::replace(&mut before.announced, true) {
                absent.push((*member, before.owner.clone()));
            }
        }
        for (member, owner) in absent {
            self.append(self.lock(), happening(HappeningKind::Lost, owner, member));
        }
    }
}
