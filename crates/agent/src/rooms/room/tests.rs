//! The tests of a room.

use super::state::OVERHEAD;
use super::*;
use rexec_protocol::message::{Event, Resume};
use rexec_protocol::{Message, msgpack};

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
    assert_eq!(seen, ["missed to 20 lines 18", "20 Said alice line 19", "21 Said alice line 20"]);
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
        for key in ["/first", "/lines", "/last_member", "/epoch", "/away/0/0", "/away/0/1/said"] {
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
    assert_eq!(room.join("dave", from, &wish(None)).unwrap_err(), Full::Room);
    let resume = Resume { epoch: joined.epoch, member: 1, next: 1 };
    assert!(room.join("alice", from, &wish(Some(resume))).is_ok());
}

/// One could take all of them, and nobody else came in.
#[test]
fn one_identity_has_half_of_the_places() {
    let room = room();
    enter(&room, "alice", None);
    let (_, _, joined) = enter(&room, "alice", None);
    let from = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(room.join("alice", from, &wish(None)).unwrap_err(), Full::Own);
    let resume = Resume { epoch: joined.epoch, member: joined.member, next: 1 };
    assert!(room.join("alice", from, &wish(Some(resume))).is_ok());
    enter(&room, "bob", None);
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
    assert!(room.join("alice", from, &wish(Some(resume))).is_err());
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

/// One at a time would wake each of many for each of many lines.
#[tokio::test]
async fn in_a_crowd_several_events_go_together() {
    let limits = Limits { members: 2 * CROWD, events: 1000, ..LIMITS };
    let room = Room::new(RoomName::new("lobby").unwrap(), "alice", limits);
    let (seat, mut cursor, _) = enter(&room, "alice", None);
    for _ in 0..CROWD {
        enter(&room, "bob", None);
    }
    read(&room, &mut cursor);
    let hearing = async {
        room.next(&mut cursor).await;
        room.lock().lines
    };
    let saying = async {
        assert!(room.say(&seat, 1, "one", false));
        tokio::task::yield_now().await;
        assert!(room.say(&seat, 2, "two", false));
    };
    let (there, ()) = tokio::join!(hearing, saying);
    assert_eq!(there, 2, "the second was said before the first was sent");
}
