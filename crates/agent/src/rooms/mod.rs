//! Rooms: people who are connected to one agent see what each of them says.
//!
//! # Theory of operation
//!
//! A [`Room`] is one bounded log of events in one order. Whoever joins gets a seat and a cursor; a
//! [`Member`] is the task that carries what the cursor finds to the client, as credit and the
//! connection allow. Who is slow, or dead, waits for nobody and holds up nobody: its cursor falls
//! behind, and it is told how many lines it missed.
//!
//! A room opens when the first member joins. It is forgotten when the last one leaves, unless
//! something was said: then it stays for [`Settings::keep_empty`], so that a line can be left for
//! those who come later; or unless somebody was cut off from it: then it stays for [`room::UNUSED`].
//! Each job has a room of its own, for whom policy lets watch the job.
//!
//! An agent that ends in good order leaves its rooms to the next one; see [`handover`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`room`] | one room: log, seats, cursors |
//! | [`member`] | one client in one room |
//! | [`handover`] | rooms that outlive the agent |
//! | `pace` | how fast |
//! | [`settings`] | how much of everything |

pub mod handover;
pub mod member;
pub(crate) mod pace;
pub mod room;
pub mod settings;

pub use member::Member;
pub use room::Room;
pub use settings::Settings;

use pace::Pace;
use rexec_guard::holds;
use rexec_protocol::message::{HappeningKind, Join, Joined, RoomInfo};
use rexec_protocol::{JobId, RoomName};
use room::{Cursor, Departure, Full, LeftRoom, Limits, Seat};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The room that is there for everybody, and for which there is always a place.
pub const LOBBY: &str = "lobby";

/// How many lines of a job's room those are told a second who are at the job, and how many at once: they
/// have a terminal in front of them to work at.
const OVERHEARD: (u32, u32) = (1, 10);

/// All rooms of an agent.
#[derive(Debug)]
pub struct Rooms {
    settings: Settings,
    table: Mutex<HashMap<RoomName, Arc<Room>>>,
    pace: Pace,
    /// Who has talked much may still have to tell everybody something.
    walls: Pace,
    /// By job: how often those who are at it are told what is said in its room.
    overheard: Pace,
}

impl Rooms {
    /// The rooms that the agent before has left.
    pub fn new(settings: Settings, left: Vec<LeftRoom>) -> Self {
        let pace = || Pace::new(settings.lines_per_second, settings.lines_burst);
        let (pace, walls) = (pace(), pace());
        let limits = limits(&settings);
        let rooms = chosen(left, settings.rooms).into_iter();
        let rooms = rooms.filter_map(|left| Room::inherit(left, limits));
        let table = rooms.map(|room| (room.name.clone(), Arc::new(room))).collect();
        let overheard = Pace::new(OVERHEARD.0, OVERHEARD.1);
        Self { settings, table: Mutex::new(table), pace, walls, overheard }
    }

    /// What the next agent gets.
    pub fn leave_behind(&self) -> Vec<LeftRoom> {
        self.all().iter().filter_map(|room| room.leave_behind()).collect()
    }

    /// Announces those who were in rooms of the agent before and have not come back.
    pub fn miss_absent(&self) {
        self.all().iter().for_each(|room| room.miss_absent());
    }

    /// Forgets what is empty for long enough, and rooms of jobs that are not known any more.
    pub fn tidy(&self, has_job: impl Fn(&JobId) -> bool) {
        // Jobs have a lock of their own, so they are asked for before the table is locked.
        let is_over = |room: &Arc<Room>| room.name.job().is_some_and(|job| !has_job(&job));
        let over: Vec<Arc<Room>> = self.all().into_iter().filter(is_over).collect();
        let mut table = self.lock();
        self.sweep(&mut table, Instant::now());
        for room in over.iter().filter(|room| room.population() == 0) {
            table.remove(&room.name);
        }
    }

    /// How many rooms one connection may be in.
    pub fn per_connection(&self) -> usize {
        self.settings.rooms_per_connection
    }

    /// Joins a room, which opens if need be. The error is for the client.
    pub fn join(
        &self,
        owner: &str,
        from: SocketAddr,
        join: &Join,
    ) -> Result<(Arc<Room>, Seat, Cursor, Joined), String> {
        let (mut table, now) = (self.lock(), Instant::now());
        // Coming back counts as well: it makes two events, and could flush what others have said. Whoever
        // comes back with many places at once waits a little for the last of them.
        if !self.pace.allows(owner, now) {
            return Err(self.too_fast());
        }
        let room = match table.get(&join.room) {
            Some(room) => Arc::clone(room),
            None => {
                self.sweep(&mut table, now);
                self.demand_place(&table, owner, &join.room)?;
                let limits = limits(&self.settings);
                let room = Arc::new(Room::new(join.room.clone(), owner, limits));
                table.insert(join.room.clone(), Arc::clone(&room));
                room
            }
        };
        // With the table locked, so that the room is not forgotten just now.
        let (seat, cursor, joined) =
            room.join(owner, from, join).map_err(|full| self.full(full))?;
        Ok((room, seat, cursor, joined))
    }

    fn full(&self, full: Full) -> String {
        let members = self.settings.members;
        match full {
            Full::Room => format!("{members} are in this room, which is the limit (rooms.members)"),
            Full::Own => {
                let own = members.div_ceil(2);
                format!(
                    "{own} of those in this room are you, which is half of its places (rooms.members)"
                )
            }
        }
    }

    /// A member goes, and with the last one perhaps the room.
    pub fn leave(&self, room: &Arc<Room>, seat: &Seat, why: Departure) {
        let mut table = self.lock();
        room.leave(seat, why);
        // Whose place was taken may be so slow to go that another room has the name by now.
        let is_open = table.get(&room.name).is_some_and(|open| Arc::ptr_eq(open, room));
        if is_open && room.is_of_no_use() {
            table.remove(&room.name);
        }
    }

    /// Counts a line of `owner`; otherwise why it may not be said now.
    pub fn may_talk(&self, owner: &str) -> Result<(), String> {
        if self.pace.allows(owner, Instant::now()) { Ok(()) } else { Err(self.too_fast()) }
    }

    /// The same for a word to all. Those are counted for themselves.
    pub fn may_wall(&self, owner: &str) -> Result<(), String> {
        if self.walls.allows(owner, Instant::now()) {
            return Ok(());
        }
        let allowed = self.settings.lines_per_second;
        Err(format!(
            "too fast: {allowed} lines to all a second are allowed (rooms.lines_per_second)"
        ))
    }

    /// Counts a line in the room of a job; false if those who are at the job were told too many.
    pub fn may_be_overheard(&self, job: &JobId) -> bool {
        self.overheard.allows(job.as_str(), Instant::now())
    }

    /// The room of this name, if it is open.
    pub fn find(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// Says it in every room; in how many.
    pub fn wall(&self, user: &str, text: &str) -> u64 {
        let all = self.all();
        all.iter().for_each(|room| room.announce(HappeningKind::Wall, user, text));
        all.len() as u64
    }

    /// Tells the room of a job, if it is open, what happens to the job.
    pub fn tell(&self, job: &JobId, kind: HappeningKind, user: &str) {
        if let Some(room) = self.find(&RoomName::of_job(job)) {
            room.announce(kind, user, "");
        }
    }

    /// All that are open, by their names.
    pub fn list(&self) -> Vec<RoomInfo> {
        let mut list: Vec<RoomInfo> = self.all().iter().map(|room| room.info()).collect();
        list.sort_by(|one, other| one.room.as_str().cmp(other.room.as_str()));
        list
    }

    /// How many are open, and how many members are in them together.
    pub fn count(&self) -> (usize, usize) {
        let all = self.all();
        (all.len(), all.iter().map(|room| room.population()).sum())
    }

    fn sweep(&self, table: &mut HashMap<RoomName, Arc<Room>>, now: Instant) {
        table.retain(|_, room| !room.is_forgotten(self.settings.keep_empty, now));
    }

    fn demand_place(
        &self,
        table: &HashMap<RoomName, Arc<Room>>,
        owner: &str,
        name: &RoomName,
    ) -> Result<(), String> {
        if name.as_str() == LOBBY {
            return Ok(());
        }
        let Settings { rooms, rooms_per_identity, .. } = self.settings;
        let counted = || table.values().filter(|room| room.name.as_str() != LOBBY);
        let own = counted().filter(|room| room.opened_by == owner).count();
        if !holds("rooms.per_identity", own < rooms_per_identity) {
            return Err(format!(
                "{rooms_per_identity} rooms that you have opened are still kept, which is the limit (rooms.rooms_per_identity)"
            ));
        }
        if !holds("rooms.in_all", counted().count() < rooms) {
            return Err(format!("{rooms} rooms are open, which is the limit (rooms.rooms)"));
        }
        Ok(())
    }

    fn too_fast(&self) -> String {
        format!(
            "too fast: {} lines a second are allowed, in all rooms together (rooms.lines_per_second); joining and coming back count as one each",
            self.settings.lines_per_second
        )
    }

    fn all(&self) -> Vec<Arc<Room>> {
        self.lock().values().map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RoomName, Arc<Room>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as there may be, beside the lobby: those in which something happened last.
fn chosen(mut left: Vec<LeftRoom>, rooms: usize) -> Vec<LeftRoom> {
    left.sort_by_key(|room| (room.name().as_str() != LOBBY, Reverse(room.last_ms())));
    let has_lobby = left.first().is_some_and(|room| room.name().as_str() == LOBBY);
    let most = rooms.saturating_add(usize::from(has_lobby));
    if left.len() > most {
        let forgotten = left.len() - most;
        tracing::warn!(forgotten, rooms, "the agent before has left more rooms than may be here");
    }
    left.truncate(most);
    left
}

fn limits(settings: &Settings) -> Limits {
    let Settings { members, history, history_kib, .. } = *settings;
    Limits { members, events: history, bytes: history_kib * 1024 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::message::Resume;
    use std::time::Duration;

    fn rooms(settings: Settings) -> Rooms {
        Rooms::new(Settings { lines_burst: 1000, ..settings }, Vec::new())
    }

    fn enter(rooms: &Rooms, owner: &str, name: &str) -> Result<(Arc<Room>, Seat), String> {
        enter_again(rooms, owner, name, None).map(|(room, seat, _)| (room, seat))
    }

    fn enter_again(
        rooms: &Rooms,
        owner: &str,
        name: &str,
        resume: Option<Resume>,
    ) -> Result<(Arc<Room>, Seat, Resume), String> {
        let room = RoomName::new(name).unwrap();
        let join = Join { window: 0, room, history: 0, resume };
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let (room, seat, _, Joined { epoch, member, next, .. }) = rooms.join(owner, from, &join)?;
        Ok((room, seat, Resume { epoch, member, next }))
    }

    #[test]
    fn a_room_in_which_nothing_was_said_is_forgotten() {
        let rooms = rooms(Settings::default());
        let (room, seat) = enter(&rooms, "alice", "quiet").unwrap();
        assert_eq!(rooms.count(), (1, 1));
        rooms.leave(&room, &seat, Departure::Left);
        assert_eq!(rooms.count(), (0, 0));
        let (room, seat) = enter(&rooms, "alice", "deploys").unwrap();
        assert!(room.say(&seat, 1, "deploying", false));
        rooms.leave(&room, &seat, Departure::Left);
        assert_eq!(rooms.count(), (1, 0), "somebody may come for it");
    }

    /// It has the place of one that took its own, and is so slow that both the room and that one are
    /// gone when it goes.
    #[test]
    fn who_goes_late_leaves_the_next_room_of_that_name_alone() {
        let rooms = rooms(Settings::default());
        let (room, slow, resume) = enter_again(&rooms, "alice", "quiet", None).unwrap();
        let (_, quick, _) = enter_again(&rooms, "alice", "quiet", Some(resume)).unwrap();
        rooms.leave(&room, &quick, Departure::Left);
        assert_eq!(rooms.count(), (0, 0));
        let (next, _bob) = enter(&rooms, "bob", "quiet").unwrap();
        rooms.leave(&room, &slow, Departure::Left);
        assert_eq!(rooms.count(), (1, 1));
        assert!(Arc::ptr_eq(&rooms.find(&next.name).unwrap(), &next));
    }

    /// Each time makes two events: whoever is cut off all the time does not flush what others have said.
    #[test]
    fn coming_back_counts_against_the_pace() {
        let settings = Settings { lines_per_second: 1, lines_burst: 10, ..Settings::default() };
        let rooms = Rooms::new(settings, Vec::new());
        let (room, mut seat, mut resume) = enter_again(&rooms, "alice", "flaky", None).unwrap();
        let mut comebacks = 0;
        let error = loop {
            rooms.leave(&room, &seat, Departure::Lost);
            match enter_again(&rooms, "alice", "flaky", Some(resume)) {
                Ok(again) => (_, seat, resume) = again,
                Err(error) => break error,
            }
            comebacks += 1;
            assert!(comebacks < 100, "there is no limit");
        };
        assert!(error.contains("too fast"), "{error}");
        assert_eq!(comebacks, 9);
        // It is known as before when it tries again.
        let fresh = Rooms::new(Settings::default(), rooms.leave_behind());
        let (_, _, again) = enter_again(&fresh, "alice", "flaky", Some(resume)).unwrap();
        assert_eq!((again.epoch, again.member), (resume.epoch, resume.member));
        // And others are not held up.
        enter_again(&rooms, "bob", "flaky", None).unwrap();
    }

    #[test]
    fn a_room_in_which_nothing_was_said_waits_minutes_for_who_was_cut_off() {
        let rooms = rooms(Settings::default());
        for name in ["quiet", "deploys"] {
            let (room, seat) = enter(&rooms, "alice", name).unwrap();
            if name == "deploys" {
                assert!(room.say(&seat, 1, "deploying", false));
            }
            rooms.leave(&room, &seat, Departure::Lost);
        }
        let (_room, _present) = enter(&rooms, "bob", "busy").unwrap();
        rooms.sweep(&mut rooms.lock(), Instant::now() + room::UNUSED / 2);
        assert_eq!(rooms.count(), (3, 1));
        rooms.sweep(&mut rooms.lock(), Instant::now() + room::UNUSED);
        let names = ["quiet", "deploys", "busy"].map(|name| RoomName::new(name).unwrap());
        assert_eq!(names.map(|name| rooms.find(&name).is_some()), [false, true, true]);
    }

    /// Whatever was said there: nobody can come to it any more.
    #[test]
    fn the_room_of_a_job_goes_with_the_job() {
        let rooms = rooms(Settings::default());
        let mut seats = Vec::new();
        for name in ["job:gone", "job:there", "job:full", "deploys"] {
            let (room, seat) = enter(&rooms, "alice", name).unwrap();
            assert!(room.say(&seat, 1, "hm", false));
            seats.push((room, seat));
        }
        let full = seats.remove(2);
        seats.iter().for_each(|(room, seat)| rooms.leave(room, seat, Departure::Left));
        rooms.tidy(|job| job.as_str() == "there");
        let names = || {
            let mut names: Vec<String> =
                rooms.all().iter().map(|room| room.name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["deploys", "job:full", "job:there"]);
        rooms.leave(&full.0, &full.1, Departure::Lost);
        rooms.tidy(|_| false);
        assert_eq!(names(), ["deploys"]);
    }

    #[test]
    fn more_rooms_than_there_may_be_are_not_taken_over() {
        let before = rooms(Settings::default());
        for name in ["a", LOBBY, "b", "c"] {
            let (room, seat) = enter(&before, "alice", name).unwrap();
            assert!(room.say(&seat, 1, "hm", false));
        }
        // Of the same millisecond there is no last one.
        let left = || {
            let mut left = serde_json::to_value(before.leave_behind()).unwrap();
            for room in left.as_array_mut().unwrap() {
                let name = room["name"].as_str().unwrap();
                let time = ["a", LOBBY, "b", "c"].iter().position(|one| *one == name).unwrap();
                for event in room["events"].as_array_mut().unwrap() {
                    event["time_ms"] = time.into();
                }
            }
            serde_json::from_value(left).unwrap()
        };
        let some = Rooms::new(Settings { rooms: 2, ..Settings::default() }, left());
        let has = |name: &str| some.find(&RoomName::new(name).unwrap()).is_some();
        assert_eq!(["a", LOBBY, "b", "c"].map(has), [false, true, true, true]);
        assert_eq!(Rooms::new(Settings::default(), left()).count().0, 4);
    }

    #[test]
    fn one_who_opens_rooms_leaves_some_for_others() {
        let settings = Settings { rooms: 5, rooms_per_identity: 3, ..Settings::default() };
        let rooms = rooms(Settings { keep_empty: Duration::from_secs(3600), ..settings });
        for n in 0..3 {
            let (room, seat) = enter(&rooms, "mallory", &format!("r{n}")).unwrap();
            assert!(room.say(&seat, 1, "mine", false));
            rooms.leave(&room, &seat, Departure::Left);
        }
        let error = enter(&rooms, "mallory", "r3").unwrap_err();
        assert!(error.contains("rooms_per_identity"), "{error}");
        enter(&rooms, "mallory", "r1").unwrap();
        enter(&rooms, "alice", "a").unwrap();
        enter(&rooms, "bob", "b").unwrap();
        let error = enter(&rooms, "carol", "c").unwrap_err();
        assert!(error.contains("5 rooms are open"), "{error}");
        enter(&rooms, "mallory", LOBBY).unwrap();
    }

    #[test]
    fn an_empty_room_makes_room_after_a_while() {
        let settings = Settings { rooms: 1, keep_empty: Duration::ZERO, ..Settings::default() };
        let rooms = rooms(settings);
        let (room, seat) = enter(&rooms, "alice", "a").unwrap();
        assert!(room.say(&seat, 1, "x", false));
        assert!(enter(&rooms, "bob", "b").is_err());
        rooms.leave(&room, &seat, Departure::Left);
        enter(&rooms, "bob", "b").unwrap();
    }
}
