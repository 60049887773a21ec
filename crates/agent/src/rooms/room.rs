//! One room: a log of what happened in it, and its members, each with a cursor.
//!
//! It is to people what [`crate::log`] is to a command: one bounded log, one order for all, and any
//! number of readers who fall behind on their own account. Yet the two share no code. A job's log has
//! one writer that waits for its owner to read, three kinds of records with offsets and a digest, and
//! an end; a room has many writers whom nobody may hold up, and none of the rest. What is common is
//! the shape of the cursor, and that is a few lines.

use crate::log::now_ms;
use rexec_guard::holds;
use rexec_protocol::message::{
    ConnectionInfo, Event, Happening, HappeningKind, Join, Joined, Missed, Resume,
};
use rexec_protocol::{Frame, RoomName, StreamId, msgpack};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod inherit;

pub use inherit::LeftRoom;

/// What an event costs beside its bytes.
const OVERHEAD: usize = 256;
/// How many members that were cut off a room remembers, so that they can come back as themselves.
const REMEMBERED: usize = 1024;
/// How long an empty room in which nothing was said waits for those who were cut off from it.
pub const UNUSED: Duration = Duration::from_secs(300);

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

#[derive(Debug)]
struct State {
    records: VecDeque<Record>,
    /// The number of the first record; the first of all has 1.
    first: u64,
    bytes: usize,
    /// Lines that were said so far.
    lines: u64,
    members: BTreeMap<u64, Membership>,
    /// Members that were cut off, the last one at the end.
    lost: VecDeque<(u64, Remembered)>,
    last_member: u64,
    empty_since: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    /// An `event` on no stream: its body and digest are made once, for all members.
    frame: Frame,
    /// How many lines were said before it.
    lines_before: u64,
}

#[derive(Debug)]
struct Membership {
    key: u64,
    owner: String,
    from: SocketAddr,
    since_ms: u64,
    said: u64,
    /// Another connection takes this place.
    out: CancellationToken,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    owner: String,
    since_ms: u64,
    said: u64,
    /// The others know that it is gone.
    announced: bool,
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

/// Where a member is in the log.
#[derive(Debug)]
pub struct Cursor {
    next: u64,
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

    /// A member comes, or comes back; `None` if the room is full. That it may is decided before.
    pub fn join(
        &self,
        owner: &str,
        from: SocketAddr,
        join: &Join,
    ) -> Option<(Seat, Cursor, Joined)> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let mut state = self.lock();
        let resume = join.resume.filter(|resume| resume.epoch == self.epoch);
        let known = resume.and_then(|resume| state.known(resume.member, owner));
        if !matches!(known, Some(Known::Present(_)))
            && !holds("rooms.members", state.members.len() < self.limits.members)
        {
            return None;
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
        Some((Seat { member, key, out }, cursor, joined))
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

/// A member that says it was here before.
enum Known {
    Present(Remembered),
    /// With its place among the lost.
    Lost(usize, Remembered),
}

impl State {
    fn empty() -> Self {
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
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn append(&mut self, happening: &Happening, limits: Limits) {
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

    fn known(&self, member: u64, owner: &str) -> Option<Known> {
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
    fn replace(&mut self, member: u64, stay: Membership) {
        if let Some(before) = self.members.insert(member, stay) {
            before.out.cancel();
        }
    }

    fn cursor(&self, resume: Option<Resume>, history: u64) -> Cursor {
        let end = self.end();
        let next = match resume {
            Some(resume) => resume.next.clamp(1, end),
            None => end.saturating_sub(history).max(self.first),
        };
        Cursor { next }
    }

    /// How many lines were said before the event of this number, or before the first that is kept.
    fn lines_before(&self, seq: u64) -> u64 {
        let index = usize::try_from(seq.saturating_sub(self.first)).ok();
        let record = index.and_then(|index| self.records.get(index));
        record.map_or(self.lines, |record| record.lines_before)
    }

    fn read(&self, cursor: &mut Cursor) -> Option<Frame> {
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

fn happening(kind: HappeningKind, user: String, member: u64) -> Happening {
    Happening { time_ms: now_ms(), kind, user, member, id: 0, text: String::new() }
}

fn is_line(kind: HappeningKind) -> bool {
    matches!(kind, HappeningKind::Said | HappeningKind::Action | HappeningKind::Wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::Message;

    const LIMITS: Limits = Limits { members: 3, events: 8, bytes: 1 << 20 };

    fn room() -> Room {
        Room::new(RoomName::new("lobby").unwrap(), "alice", LIMITS)
    }

    fn wish(resume: Option<Resume>) -> Join {
        let room = RoomName::new("lobby").unwrap();
        Join { window: 1 << 20, room, history: u64::MAX, resume }
    }

    fn enter(room: &Room, owner: &str, resume: Option<Resume>) -> (Seat, Cursor, Joined) {
        room.join(owner, SocketAddr::from(([127, 0, 0, 1], 1)), &wish(resume)).unwrap()
    }

    /// Everything that is there for a member: number, kind, name and text of each event, or what
    /// was missed.
    fn read(room: &Room, cursor: &mut Cursor) -> Vec<String> {
        let told = |frame: Frame| match frame.message {
            Message::Event(Event { seq }) => {
                let body = frame.verified_body().unwrap();
                let what: Happening = msgpack::decode(body.as_bytes(), msgpack::BODY).unwrap();
                format!("{seq} {:?} {} {}", what.kind, what.user, what.text).trim_end().to_owned()
            }
            Message::Missed(missed) => format!("missed to {} lines {}", missed.to, missed.lines),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| room.lock().read(cursor)).map(told).collect()
    }

    #[test]
    fn all_see_the_same_in_the_same_order() {
        let room = room();
        let (alice, mut at_alice, joined) = enter(&room, "alice", None);
        assert_eq!((joined.member, joined.next, joined.said, joined.members), (1, 1, Some(0), 1));
        assert!(room.say(&alice, 1, "hi", false));
        let (bob, mut at_bob, joined) = enter(&room, "bob", None);
        assert_eq!((joined.member, joined.next, joined.lines), (2, 1, 0));
        assert!(room.say(&bob, 1, "waves", true));
        room.leave(&alice, Departure::Left);
        let all = ["1 Joined alice", "2 Said alice hi", "3 Joined bob", "4 Action bob waves"];
        assert_eq!(read(&room, &mut at_bob)[..4], all);
        assert_eq!(read(&room, &mut at_alice), read_all(&room));
        assert_eq!(read_all(&room)[4..], ["5 Left alice"]);
    }

    fn read_all(room: &Room) -> Vec<String> {
        read(room, &mut Cursor { next: 1 })
    }

    #[test]
    fn who_is_slow_is_told_what_it_missed() {
        let room = room();
        let (seat, mut cursor, joined) = enter(&room, "alice", None);
        for id in 1..=20 {
            assert!(room.say(&seat, id, &format!("line {id}"), false));
        }
        let seen = read(&room, &mut cursor);
        // Of 20 lines and one joining the last 8 are kept.
        assert_eq!(joined.lines, 0);
        assert_eq!(seen[0], "missed to 14 lines 12");
        assert_eq!((seen.len(), &*seen[1]), (9, "14 Said alice line 13"));
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let limits = Limits { bytes: 10 * OVERHEAD, events: 1000, members: 3 };
        let room = Room::new(RoomName::new("lobby").unwrap(), "alice", limits);
        let (seat, ..) = enter(&room, "alice", None);
        for id in 1..100 {
            assert!(room.say(&seat, id, &"x".repeat(OVERHEAD), false));
        }
        let state = room.lock();
        assert!(state.bytes <= 10 * OVERHEAD && state.records.len() < 10);
        let sum: usize = state.records.iter().map(|r| r.frame.body.len() + OVERHEAD).sum();
        assert_eq!(sum, state.bytes);
    }

    #[test]
    fn a_line_with_the_same_id_is_said_once() {
        let room = room();
        let (seat, ..) = enter(&room, "alice", None);
        assert!(room.say(&seat, 1, "once", false));
        assert!(!room.say(&seat, 1, "once", false));
        assert_eq!(read_all(&room).len(), 2);
    }

    /// Cut off, and back before or after that was noticed: no event is missing, none comes twice, and
    /// what was said is known.
    #[test]
    fn who_comes_back_goes_on_where_it_was() {
        let room = room();
        let (first, _, joined) = enter(&room, "alice", None);
        let (bob, ..) = enter(&room, "bob", None);
        assert!(room.say(&first, 4, "before", false));
        let resume = Resume { epoch: joined.epoch, member: joined.member, next: 3 };
        let (second, mut cursor, again) = enter(&room, "alice", Some(resume));
        assert!(first.out.is_cancelled());
        assert_eq!((again.member, again.said, again.members), (1, Some(4), 2));
        // Too late: the place is another's by now.
        room.leave(&first, Departure::Lost);
        assert_eq!(read(&room, &mut cursor), ["3 Said alice before"]);
        room.leave(&second, Departure::Lost);
        assert!(room.say(&bob, 1, "meanwhile", false));
        let resume = Resume { next: 4, ..resume };
        let (_third, mut cursor, again) = enter(&room, "alice", Some(resume));
        assert_eq!((again.member, again.said), (1, Some(4)));
        let seen = read(&room, &mut cursor);
        assert_eq!(seen, ["4 Lost alice", "5 Said bob meanwhile", "6 Returned alice"]);
    }

    /// The same numbers in the next agent, without a word about it; those who do not come back are
    /// missed in the end.
    #[test]
    fn a_room_goes_on_in_the_next_agent() {
        let room = room();
        let (alice, _, joined) = enter(&room, "alice", None);
        let (bob, ..) = enter(&room, "bob", None);
        assert!(room.say(&alice, 7, "before", false));
        room.leave(&alice, Departure::Replaced);
        let text = serde_json::to_vec(&room.leave_behind().unwrap()).unwrap();
        // Bob was still there, and says what nobody will hear.
        assert!(room.say(&bob, 1, "too late", false));
        let room = Room::inherit(serde_json::from_slice(&text).unwrap(), LIMITS).unwrap();
        let resume = Resume { epoch: joined.epoch, member: joined.member, next: 3 };
        let (seat, mut cursor, again) = enter(&room, "alice", Some(resume));
        assert_eq!((again.epoch, again.member, again.said), (joined.epoch, 1, Some(7)));
        assert!(room.say(&seat, 8, "after", false));
        assert_eq!(read(&room, &mut cursor), ["3 Said alice before", "4 Said alice after"]);
        let (_, _, carol) = enter(&room, "carol", None);
        assert_eq!((carol.member, carol.lines), (3, 0));
        for _ in 0..2 {
            room.miss_absent();
        }
        assert_eq!(read(&room, &mut cursor), ["5 Joined carol", "6 Lost bob"]);
        let (.., late) = enter(&room, "bob", Some(Resume { member: 2, ..resume }));
        assert_eq!((late.member, late.said), (2, Some(0)));
        assert_eq!(read(&room, &mut cursor), ["7 Returned bob"]);
    }

    /// Also where the next agent keeps less, the number of lines that are missed is exact.
    #[test]
    fn a_shorter_history_is_cut_when_it_is_inherited() {
        let room = room();
        let (seat, mut cursor, _) = enter(&room, "alice", None);
        for id in 1..=20 {
            assert!(room.say(&seat, id, &format!("line {id}"), false));
        }
        let left = room.leave_behind().unwrap();
        let room = Room::inherit(left, Limits { events: 2, ..LIMITS }).unwrap();
        let seen = read(&room, &mut cursor);
        assert_eq!(
            seen,
            ["missed to 20 lines 18", "20 Said alice line 19", "21 Said alice line 20"]
        );
        assert!(Room::new(RoomName::new("x").unwrap(), "alice", LIMITS).leave_behind().is_none());
    }

    /// Whatever is in the file: it does no harm.
    #[test]
    fn numbers_that_no_room_has_are_not_taken_over() {
        let room = room();
        let (seat, ..) = enter(&room, "alice", None);
        assert!(room.say(&seat, 1, "hi", false));
        let good = serde_json::to_value(room.leave_behind().unwrap()).unwrap();
        for n in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            for key in ["/first", "/lines", "/last_member", "/epoch", "/away/0/0", "/away/0/1/said"]
            {
                let mut left = good.clone();
                *left.pointer_mut(key).unwrap() = n.into();
                let left = serde_json::from_value(left).unwrap();
                let Some(room) = Room::inherit(left, LIMITS) else { continue };
                let (seat, mut cursor, _) = enter(&room, "bob", None);
                assert!(room.say(&seat, 1, "on", false));
                assert!(!read(&room, &mut cursor).is_empty(), "{key} {n}");
                room.miss_absent();
            }
        }
        let mut crowd = good.clone();
        let one = crowd.pointer("/away/0").unwrap().clone();
        *crowd.pointer_mut("/away").unwrap() = vec![one; 5000].into();
        let room = Room::inherit(serde_json::from_value(crowd).unwrap(), LIMITS).unwrap();
        assert_eq!(room.lock().lost.len(), REMEMBERED);
    }

    #[test]
    fn nobody_takes_another_s_place() {
        let room = room();
        let (seat, _, joined) = enter(&room, "alice", None);
        let resume = Resume { epoch: joined.epoch, member: joined.member, next: 1 };
        let (_, _, mallory) = enter(&room, "mallory", Some(resume));
        assert_eq!((mallory.member, mallory.said), (2, None));
        assert!(!seat.out.is_cancelled());
        room.leave(&seat, Departure::Lost);
        let (_, _, mallory) = enter(&room, "mallory", Some(resume));
        assert_eq!(mallory.member, 3);
        let other = Resume { epoch: joined.epoch + 1, ..resume };
        let (_, cursor, again) = enter(&room, "alice", Some(other));
        assert_eq!((again.member, again.said, cursor.next), (4, None, 1));
    }

    #[test]
    fn a_full_room_takes_nobody_new() {
        let room = room();
        let (_, _, joined) = enter(&room, "alice", None);
        enter(&room, "bob", None);
        enter(&room, "carol", None);
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(room.join("dave", from, &wish(None)).is_none());
        let resume = Resume { epoch: joined.epoch, member: 1, next: 1 };
        assert!(room.join("alice", from, &wish(Some(resume))).is_some());
    }

    #[test]
    fn who_finds_the_room_full_is_known_when_it_tries_again() {
        let room = room();
        let (alice, _, joined) = enter(&room, "alice", None);
        assert!(room.say(&alice, 5, "before", false));
        room.leave(&alice, Departure::Lost);
        let (bob, ..) = enter(&room, "bob", None);
        enter(&room, "carol", None);
        enter(&room, "dave", None);
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let resume = Resume { epoch: joined.epoch, member: joined.member, next: 3 };
        assert!(room.join("alice", from, &wish(Some(resume))).is_none());
        room.leave(&bob, Departure::Left);
        let (.., again) = enter(&room, "alice", Some(resume));
        assert_eq!((again.member, again.said), (joined.member, Some(5)));
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_is_said() {
        let room = room();
        let (seat, mut cursor, _) = enter(&room, "alice", None);
        room.next(&mut cursor).await;
        let reading = room.next(&mut cursor);
        let said = async { room.say(&seat, 1, "hi", false) };
        let (frame, _) = tokio::join!(reading, said);
        assert_eq!(frame.message, Event { seq: 2 }.into());
    }
}
