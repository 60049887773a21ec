//! One room: a log of what happened in it, and its members, each with a cursor.
//!
//! It is to people what [`crate::log`] is to a command: one bounded log, one order for all, and any
//! number of readers who fall behind on their own account. Yet the two share no code. A job's log has
//! one writer that waits for its owner to read, three kinds of records with offsets and a digest, and
//! an end; a room has many writers whom nobody may hold up, and none of the rest. What is common is
//! the shape of the cursor, and that is a few lines.

use crate::log::now_ms;
use rexec_guard::holds;
use rexec_protocol::message::{ConnectionInfo, Happening, HappeningKind, Join, Joined, RoomInfo};
use rexec_protocol::{Frame, RoomName};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

mod inherit;
mod state;
#[cfg(test)]
mod tests;

pub use inherit::LeftRoom;
pub use state::Cursor;
use state::{Known, Membership, Remembered, State};

/// How many members that were cut off a room remembers, so that they can come back as themselves.
const REMEMBERED: usize = 1024;
/// How long an empty room in which nothing was said waits for those who were cut off from it.
pub const UNUSED: Duration = Duration::from_secs(300);

/// From so many members on, what happens waits a moment for what happens next: to wake each of them, and to
/// write to it, costs the same for one event as for several.
const CROWD: usize = 100;
/// How long; nobody notices.
const MOMENT: Duration = Duration::from_millis(50);

/// A room.
#[derive(Debug)]
pub struct Room {
    /// Its name.
    pub name: RoomName,
    /// Who came first.
    pub opened_by: String,
    epoch: u64,
    limits: Limits,
    state: Mutex<State>,
    appended: Notify,
}

/// What a room may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members.
    pub members: usize,
    /// Events that are kept.
    pub events: usize,
    /// Bytes that they take.
    pub bytes: usize,
}

impl Limits {
    /// Members that were cut off.
    fn remembered(&self) -> usize {
        REMEMBERED.max(self.members)
    }
}

/// Why a member goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It wants to, or has to.
    Left,
    /// Its connection broke, so it may come back.
    Lost,
    /// The agent is about to be replaced. Nobody is told, because all come back to the next one.
    Replaced,
}

/// A place in a room, from joining to leaving.
#[derive(Debug)]
pub struct Seat {
    /// The number of the member.
    pub member: u64,
    /// Tells this stay from another of the same member.
    key: u64,
    /// Cancelled when another connection has taken the member's place.
    pub out: CancellationToken,
}

/// Why there is no place in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There is none for anybody.
    Room,
    /// One identity has half of them.
    Own,
}

impl Room {
    /// An empty room.
    pub fn new(name: RoomName, opened_by: &str, limits: Limits) -> Self {
        let (_, epoch) = uuid::Uuid::now_v7().as_u64_pair();
        Self::with(name, opened_by.to_owned(), epoch, limits, State::empty())
    }

    fn with(name: RoomName, opened_by: String, epoch: u64, limits: Limits, state: State) -> Self {
        Self { name, opened_by, epoch, limits, state: Mutex::new(state), appended: Notify::new() }
    }

    /// A member comes, or comes back, if there is a place. That it may is decided before.
    pub fn join(
        &self,
        owner: &str,
        from: SocketAddr,
        join: &Join,
    ) -> Result<(Seat, Cursor, Joined), Full> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let mut state = self.lock();
        let resume = join.resume.filter(|resume| resume.epoch == self.epoch);
        let known = resume.and_then(|resume| state.known(resume.member, owner));
        if !matches!(known, Some(Known::Present(_))) {
            if !holds("rooms.members", state.members.len() < self.limits.members) {
                return Err(Full::Room);
            }
            let own = state.members.values().filter(|stay| stay.owner == owner).count();
            if !holds("rooms.own_members", own < self.limits.members.div_ceil(2)) {
                return Err(Full::Own);
            }
        }
        // Not before: who finds the room full is still known when it tries again.
        if let Some(Known::Lost(place, _)) = known {
            state.lost.remove(place);
        }
        let cursor = state.cursor(resume, join.history);
        let (key, out) = (KEYS.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let (since_ms, stayer) = (now_ms(), owner.to_owned());
        let stay = Membership { key, owner: stayer, from, since_ms, said: 0, out: out.clone() };
        let member = resume.map_or(0, |resume| resume.member);
        let (member, said, announced) = match known {
            Some(Known::Present(before)) => {
                state.replace(
                    member,
                    Membership { since_ms: before.since_ms, said: before.said, ..stay },
                );
                (member, Some(before.said), None)
            }
            Some(Known::Lost(_, before)) => {
                state.replace(
                    member,
                    Membership { since_ms: before.since_ms, said: before.said, ..stay },
                );
                let announced = before.announced.then_some(HappeningKind::Returned);
                (member, Some(before.said), announced)
            }
            None => {
                state.last_member += 1;
                let member = state.last_member;
                state.replace(member, stay);
                // A new one has said nothing; of one that says it was here, nothing is known.
                (member, join.resume.is_none().then_some(0), Some(HappeningKind::Joined))
            }
        };
        state.empty_since = None;
        let joined = Joined {
            epoch: self.epoch,
            member,
            next: cursor.next.max(state.first),
            lines: state.lines_before(cursor.next),
            said,
            members: state.members.len() as u64,
            post: false,
        };
        if let Some(kind) = announced {
            self.append(state, happening(kind, owner.to_owned(), member));
        }
        Ok((Seat { member, key, out }, cursor, joined))
    }

    /// A member goes.
    pub fn leave(&self, seat: &Seat, why: Departure) {
        let mut state = self.lock();
        // Another connection may have the member's place by now.
        if state.members.get(&seat.member).is_none_or(|stay| stay.key != seat.key) {
            return;
        }
        let Some(stay) = state.members.remove(&seat.member) else { return };
        let Membership { owner, since_ms, said, .. } = stay;
        if state.members.is_empty() {
            state.empty_since = Some(Instant::now());
        }
        if why != Departure::Left {
            if state.lost.len() >= self.limits.remembered() {
                state.lost.pop_front();
            }
            let (owner, announced) = (owner.clone(), why == Departure::Lost);
            state.lost.push_back((seat.member, Remembered { owner, since_ms, said, announced }));
        }
        let kind = match why {
            Departure::Left => HappeningKind::Left,
            Departure::Lost => HappeningKind::Lost,
            Departure::Replaced => return,
        };
        self.append(state, happening(kind, owner, seat.member));
    }

    /// A member says something under a number of its own; false if it has said that before.
    #[must_use]
    pub fn say(&self, seat: &Seat, id: u64, text: &str, action: bool) -> bool {
        let mut state = self.lock();
        let stay = state.members.get_mut(&seat.member).filter(|stay| stay.key == seat.key);
        // Whose place another connection has taken is about to hear of it.
        let Some(stay) = stay else { return true };
        if !holds("rooms.once", id > stay.said) {
            return false;
        }
        stay.said = id;
        let user = stay.owner.clone();
        let kind = if action { HappeningKind::Action } else { HappeningKind::Said };
        let happening =
            Happening { id, text: text.to_owned(), ..happening(kind, user, seat.member) };
        self.append(state, happening);
        true
    }

    /// Something happened that no member of this room did.
    pub fn announce(&self, kind: HappeningKind, user: &str, text: &str) {
        let happening = Happening { text: text.to_owned(), ..happening(kind, user.to_owned(), 0) };
        self.append(self.lock(), happening);
    }

    /// What comes next for `cursor`, which then moves on; waits for it. An `event` or a `missed` frame
    /// on no stream.
    pub async fn next(&self, cursor: &mut Cursor) -> Frame {
        loop {
            // Before the look, so that what happens after it is not missed.
            let appended = self.appended.notified();
            if let Some(frame) = self.lock().read(cursor) {
                return frame;
            }
            appended.await;
            if self.population() >= CROWD {
                sleep(MOMENT).await;
            }
        }
    }

    /// Its members, as those see them who may ask.
    pub fn members(&self) -> Vec<ConnectionInfo> {
        let state = self.lock();
        let info = |(&id, stay): (&u64, &Membership)| ConnectionInfo {
            id,
            user: stay.owner.clone(),
            from: stay.from.to_string(),
            since_ms: stay.since_ms,
            rooms: vec![self.name.clone()],
            jobs: Vec::new(),
            received: 0,
            sent: 0,
        };
        state.members.iter().map(info).collect()
    }

    /// It, as in a list of rooms.
    pub fn info(&self) -> RoomInfo {
        let state = self.lock();
        let members = state.members.len() as u64;
        RoomInfo { room: self.name.clone(), members, lines: state.lines }
    }

    /// How many are in it.
    pub fn population(&self) -> usize {
        self.lock().members.len()
    }

    /// Whether nobody has been in it for `keep`, or for [`UNUSED`] if nothing was said.
    pub fn is_forgotten(&self, keep: Duration, now: Instant) -> bool {
        let state = self.lock();
        let keep = if state.lines == 0 { keep.min(UNUSED) } else { keep };
        state.empty_since.is_some_and(|since| now.saturating_duration_since(since) >= keep)
    }

    /// Whether nobody is in it, nobody may come back to it, and nothing was said.
    pub fn is_of_no_use(&self) -> bool {
        let state = self.lock();
        state.members.is_empty() && state.lost.is_empty() && state.lines == 0
    }

    fn append(&self, mut state: MutexGuard<'_, State>, happening: Happening) {
        state.append(&happening, self.limits);
        drop(state);
        self.appended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn happening(kind: HappeningKind, user: String, member: u64) -> Happening {
    Happening { time_ms: now_ms(), kind, user, member, id: 0, text: String::new() }
}

fn is_line(kind: HappeningKind) -> bool {
    matches!(kind, HappeningKind::Said | HappeningKind::Action | HappeningKind::Wall)
}
