//! Samples of the verbs of rooms.

use crate::samples::job;
use rexec_protocol::message::*;
use rexec_protocol::{ErrorCode, Frame, RoomName, StreamId, hello, msgpack};

const TIME: u64 = 1_763_764_800_123;

pub(crate) fn golden() -> Vec<(&'static str, Frame)> {
    let on = |stream, message: Message| Frame::new(StreamId(stream), message);
    let (text, words) = (|| b"deploying web1".to_vec(), || "reboot in 5 min".to_owned());
    let hello = Hello { software: "rexec/0.1.0".into(), notices: true, ..hello::ours("") };
    let kicked = Error { code: ErrorCode::Kicked, message: "by root".into() };
    let whole = Joined { said: Some(41), post: true, ..joined() };
    let action = Say { id: 42, action: true };
    let unsaid = Unsaid { id: 42, reason: Refusal::Busy, message: "too fast".into() };
    vec![
        ("hello-notices", on(0, hello.into())),
        ("error-kicked", on(0, kicked.into())),
        ("join", on(8, join(Some(Resume { epoch: 1 << 60, member: 7, next: 4711 })).into())),
        ("join-new", on(8, join(None).into())),
        ("joined", on(8, whole.into())),
        ("joined-unknown", on(8, joined().into())),
        ("event", event(&said())),
        ("event-left", event(&left())),
        ("missed", on(8, Missed { to: 5000, lines: 300 }.into())),
        ("say", Frame::with_body(StreamId(8), action.into(), text())),
        ("say-line", Frame::with_body(StreamId(8), Say { action: false, ..action }.into(), text())),
        ("said", on(8, Said { id: 42 }.into())),
        ("unsaid", on(8, unsaid.into())),
        ("wall", Frame::with_body(StreamId(9), Wall {}.into(), words().into_bytes())),
        ("walled", on(9, Walled { rooms: 3, connections: 12 }.into())),
        ("who", on(10, Who { room: Some(lobby()) }.into())),
        ("who-all", on(10, Who { room: None }.into())),
        ("present", present(true)),
        ("present-last", present(false)),
        ("rooms", on(11, Rooms {}.into())),
        ("directory", directory(true)),
        ("directory-last", directory(false)),
        ("notice", on(0, notice(Some(job()), words()).into())),
        ("notice-watching", on(0, watching().into())),
        ("notice-waiting", on(0, waiting().into())),
    ]
}

fn lobby() -> RoomName {
    RoomName::new("lobby").expect("well formed")
}

fn join(resume: Option<Resume>) -> Join {
    Join { window: 2 << 20, room: lobby(), history: 100, resume }
}

fn joined() -> Joined {
    let (epoch, next, lines) = (1 << 60, 4711, 250);
    Joined { epoch, member: 7, next, lines, said: None, members: 3, post: false }
}

fn said() -> Happening {
    let (user, text) = ("alice".into(), "deploying web1".into());
    Happening { time_ms: TIME, kind: HappeningKind::Said, user, member: 7, id: 42, text }
}

fn left() -> Happening {
    Happening { kind: HappeningKind::Left, id: 0, text: String::new(), ..said() }
}

fn event(happening: &Happening) -> Frame {
    Frame::with_body(StreamId(8), Event { seq: 4711 }.into(), msgpack::encode(happening))
}

fn present(more: bool) -> Frame {
    let info = ConnectionInfo {
        id: 3,
        user: "alice".into(),
        from: "192.0.2.7:40000".into(),
        since_ms: TIME,
        rooms: vec![lobby()],
        jobs: vec![job()],
        received: 4096,
        sent: 5_000_000_000,
    };
    let list = PresentList { connections: vec![info] };
    Frame::with_body(StreamId(10), Present { more }.into(), msgpack::encode(&list))
}

fn directory(more: bool) -> Frame {
    let info = RoomInfo { room: lobby(), members: 3, lines: 250 };
    let list = RoomList { rooms: vec![info] };
    Frame::with_body(StreamId(11), Directory { more }.into(), msgpack::encode(&list))
}

fn notice(job: Option<rexec_protocol::JobId>, text: String) -> Notice {
    Notice { time_ms: TIME, kind: HappeningKind::Wall, user: "bob".into(), job, text }
}

fn watching() -> Notice {
    Notice { kind: HappeningKind::Watching, ..notice(Some(job()), String::new()) }
}

fn waiting() -> Notice {
    let text = "there is no room".into();
    Notice { kind: HappeningKind::Waiting, user: String::new(), ..notice(Some(job()), text) }
}
