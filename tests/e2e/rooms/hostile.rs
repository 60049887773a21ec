//! What a hostile member, or a hostile agent, can do to others: nothing.

use super::{PATIENCE, agent, hear, heard, open_to_all};
use crate::hostile::agent_side::client_config;
use crate::support::TestAgent;
use crate::support::proc::memory;
use crate::support::raw::{FakeAgent, Raw, wire};
use rexec_client::{Connector, Outcome};
use rexec_protocol::message::{Event, Happening, HappeningKind, Hello, Joined, Missed};
use rexec_protocol::{ErrorCode, Frame, Message, StreamId, hello, msgpack};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

fn join(stream: u64, room: &[u8]) -> Vec<u8> {
    let name = [&[0xda][..], &(room.len() as u16).to_be_bytes(), room].concat();
    let args = [("window", wire::uint(1 << 20)), ("room", name), ("history", wire::uint(0))];
    wire::frame("join", stream, &args)
}

fn say(stream: u64, id: u64, text: &[u8]) -> Vec<u8> {
    wire::with_body("say", stream, &[("id", wire::uint(id))], text, wire::sha256(text))
}

/// A member of the lobby that sends what it likes, and the answers to its lines.
fn member(agent: &TestAgent) -> Raw {
    let mut raw = Raw::connect(agent.port, &client_config(agent)).unwrap();
    raw.send(&[wire::hello(), join(1, b"lobby")].concat()).unwrap();
    raw.wait_for("joined");
    raw
}

fn answer(raw: &mut Raw) -> String {
    loop {
        match raw.next().unwrap().unwrap().message {
            Message::Said(said) => return format!("said {}", said.id),
            Message::Unsaid(unsaid) => return format!("unsaid {}: {}", unsaid.id, unsaid.message),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_none_are_refused_and_reach_nobody() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let before = memory(agent.pid(), "VmHWM");
    let big = vec![b'x'; 1 << 20];
    let bad: [(&[u8], &str); 11] = [
        (&big, "1048576 bytes; at most 4096"),
        (b"\x1b]0;title\x07", "control character"),
        (b"\x1b[2J\x1b[H", "control character"),
        (b"a\nmallory: b", "control character"),
        ("\u{202e}evil".as_bytes(), "\\u{202e}"),
        ("\u{200b}\u{2060}".as_bytes(), "\\u{200b}"),
        ("\u{2800}".as_bytes(), "\\u{2800}"),
        ("z\u{301}\u{301}\u{301}\u{301}\u{301}".as_bytes(), "\\u{301}"),
        (b"\xff\xfe\x9b", "not UTF-8"),
        (b"", "empty"),
        (b" \t ".as_slice(), "empty"),
    ];
    let mut raw = tokio::task::block_in_place(|| member(&agent));
    tokio::task::block_in_place(|| {
        for (n, (text, says)) in bad.into_iter().enumerate() {
            raw.send(&say(1, n as u64 + 1, text)).unwrap();
            let answer = answer(&mut raw);
            assert!(answer.starts_with("unsaid") && answer.contains(says), "{answer}");
        }
        raw.send(&say(1, 100, b"fine")).unwrap();
        assert_eq!(answer(&mut raw), "said 100");
        // Once is once.
        raw.send(&say(1, 100, b"fine")).unwrap();
        assert!(answer(&mut raw).contains("was said already"));
    });
    assert_eq!(hear(&mut room, 3).await, ["joined bob", "joined alice", "alice: fine"]);
    let grown = memory(agent.pid(), "VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_room_has_break_the_protocol() {
    let agent = agent();
    let names: [&[u8]; 7] = [b"", b"../../etc", b"a b", b"a\x1b[2J", b"job:", &[b'x'; 65], b"\xff"];
    tokio::task::block_in_place(|| {
        for name in names {
            let mut raw = Raw::connect(agent.port, &client_config(&agent)).unwrap();
            raw.send(&[wire::hello(), join(1, name)].concat()).unwrap();
            assert_eq!(raw.errors(), [ErrorCode::Malformed], "{name:?}");
        }
        // Verbs that belong to jobs.
        let mut raw = member(&agent);
        raw.send(&wire::signal(1, "TERM")).unwrap();
        assert_eq!(raw.errors(), [ErrorCode::WrongState]);
    });
}

/// Ten thousand rooms are not opened, and whoever is there does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_open_all_rooms() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let mallory = agent.session_as("mallory").await;
    let mut refused = 0;
    let mut opened = Vec::new();
    for n in 0..10_000 {
        match mallory.room(&format!("r{n}")).history(0).join().await {
            Ok(room) => opened.push(room),
            Err(error) => {
                assert!(error.to_string().contains("rooms_per_connection"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((opened.len(), refused), (16, 9_984));
    // And not by one after the other.
    for room in &opened {
        room.say("mine").await.unwrap();
        room.leave().await;
    }
    drop(opened);
    let mut words = String::new();
    for n in 0..1_000 {
        match mallory.room(&format!("s{n}")).history(0).join().await {
            Ok(room) => {
                room.say("mine").await.unwrap();
                room.leave().await;
            }
            Err(error) if error.to_string().contains("rooms_per_connection") => {}
            Err(error) => words = error.to_string(),
        }
    }
    assert!(words.contains("rooms_per_identity"), "{words}");
    let mut other = bob.join("mine-too").await.unwrap();
    other.say("still here").await.unwrap();
    assert_eq!(hear(&mut other, 2).await, ["joined bob", "bob: still here"]);
    assert_eq!(heard(&mut room).await, "joined bob");
}

/// One member's flood is its own affair.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_held_to_the_rate() {
    let agent = TestAgent::with_both("", &open_to_all());
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let mallory = agent.session_as("mallory").await;
    let flooding = mallory.join("lobby").await.unwrap();
    let (mut said, mut refused) = (0, 0);
    for n in 0..500 {
        match flooding.say(&format!("{n}")).await {
            Ok(()) => said += 1,
            Err(error) => {
                assert!(error.to_string().contains("too fast: 10 lines a second"), "{error}");
                refused += 1;
            }
        }
    }
    assert!((40..200).contains(&said) && refused > 200, "{said} said, {refused} refused");
    // Another one is as fast as before.
    room.say("calm").await.unwrap();
    while heard(&mut room).await != "bob: calm" {}
    // Who does not even wait for the answers is put out.
    let codes = tokio::task::block_in_place(|| {
        let mut raw = member(&agent);
        let lines: Vec<u8> = (0..5_000).flat_map(|n| say(1, n + 1, b"x")).collect();
        let _: io::Result<()> = raw.send(&lines);
        raw.errors()
    });
    assert_eq!(codes, [ErrorCode::Flood]);
    room.say("still calm").await.unwrap();
    while heard(&mut room).await != "bob: still calm" {}
}

/// Events out of their order, credit that is not kept to, a second answer: a client takes none of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_breaks_the_order_is_left() {
    let stream = StreamId(1);
    let joined =
        Joined { epoch: 1, member: 1, next: 5, lines: 0, said: Some(0), members: 1, post: true };
    let event = |seq| {
        let (kind, user, text) = (HappeningKind::Said, "bob".to_owned(), "hi".to_owned());
        let what = Happening { time_ms: 0, kind, user, member: 2, id: 1, text };
        Frame::with_body(stream, Event { seq }.into(), msgpack::encode(&what))
    };
    let missed = |to| Frame::new(stream, Missed { to, lines: 0 }.into());
    let first = || Frame::new(stream, joined.clone().into());
    let faults: [(&str, Vec<Frame>); 6] = [
        ("an event before joined", vec![event(5)]),
        ("joined twice", vec![first(), first()]),
        ("a gap", vec![first(), event(6)]),
        ("an event twice", vec![first(), event(5), event(5)]),
        ("nothing missed", vec![first(), missed(5)]),
        ("missed backwards", vec![first(), event(5), missed(3)]),
    ];
    for (what, frames) in faults {
        let fake = FakeAgent::new();
        let serving = fake.serve(fake.config(), move |mut raw| {
            raw.wait_for_all(&["hello", "join"]);
            let hello: Hello = hello::ours("fake/1");
            let mut bytes = bytes::BytesMut::new();
            for frame in
                std::iter::once(Frame::new(StreamId::CONNECTION, hello.into())).chain(frames)
            {
                frame.encode_head(&mut bytes);
                bytes.extend_from_slice(&frame.body);
            }
            raw.send(&bytes).unwrap();
            raw.errors()
        });
        let connector = Connector::new(&fake.files("alice")).unwrap();
        let connector = connector.reconnect_for(Duration::ZERO);
        let session = connector.connect("127.0.0.1", fake.port).await.unwrap();
        let ended = async {
            let mut room = session.join("lobby").await?;
            while room.next().await?.is_some() {}
            Ok::<_, rexec_client::Error>(())
        };
        let error = timeout(PATIENCE, ended).await.expect("in time").unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Unreachable { .. }), "{what}: {error:?}");
        let codes = tokio::task::block_in_place(|| serving.join().unwrap().unwrap());
        assert_eq!(codes, [ErrorCode::WrongState], "{what}");
    }
}
