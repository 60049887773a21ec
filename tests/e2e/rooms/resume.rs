//! Connections that break while people talk: no line is missed, none comes twice, none is said twice.

use super::{FAST, PATIENCE, agent, heard, open_to_all};
use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::proc::eventually;
use crate::support::{TestAgent, size_from_environment};
use nix::sys::signal::Signal;
use rexec_client::{Connector, Link, Room, RoomEvent, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::timeout;

async fn through(agent: &TestAgent, chaos: &Chaos) -> Session {
    let connector = Connector::new(&agent.files()).unwrap();
    loop {
        // The first connections may be cut before there is a session.
        if let Ok(session) = connector.connect("127.0.0.1", chaos.port).await {
            return session;
        }
    }
}

/// Both directions are cut again and again while this side talks and listens.
#[tokio::test(flavor = "multi_thread")]
async fn many_cuts_lose_and_repeat_nothing() {
    let agent = agent();
    let cuts = size_from_environment("REXEC_TEST_CUTS", 40) as usize;
    let seed = u64::from(std::process::id());
    let chaos = Chaos::start(agent.port, move |number| {
        // After the handshake, within some lines.
        let after = 4_500 + (seed.wrapping_mul(number as u64 + 7) ^ (seed >> 3)) % 4_000;
        let cut = Faults { cut: Some(after), ..Faults::default() };
        match number {
            number if number >= cuts => Plan::default(),
            number if number % 2 == 0 => Plan { up: cut, ..Plan::default() },
            _ => Plan { down: cut, ..Plan::default() },
        }
    })
    .await;
    let witness = agent.session_as("bob").await;
    let mut witnessed = witness.join("lobby").await.unwrap();
    let session = through(&agent, &chaos).await;
    let mut room = timeout(PATIENCE, session.join("lobby")).await.expect("in time").unwrap();
    let voice = room.voice();
    let talking = async {
        let mut said = 0;
        // Until all cuts were made, and some more.
        while chaos.connections.load(Ordering::Relaxed) <= cuts || said < 200 {
            timeout(PATIENCE, voice.say(&format!("line {said}"))).await.expect("in time").unwrap();
            said += 1;
        }
        voice.say("the end").await.unwrap();
        said
    };
    let listening = async |room: &mut Room| {
        let mut lines = Vec::new();
        loop {
            let what = heard(room).await;
            assert!(!what.starts_with("missed"), "{what}");
            match what.strip_prefix("alice: ") {
                Some("the end") => return lines,
                Some(line) => lines.push(line.to_owned()),
                None => {}
            }
        }
    };
    let (said, lines, seen) =
        tokio::join!(talking, listening(&mut room), listening(&mut witnessed));
    let expected: Vec<String> = (0..said).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(seen, expected, "others heard it as often");
    println!("{} connections, {said} lines", chaos.connections.load(Ordering::Relaxed));
}

/// Whoever stops waiting has said the line whole or not at all, and what is said next has its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_may_be_given_up_at_any_time() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut witness = bob.join("lobby").await.unwrap();
    let room = agent.session().await.join("lobby").await.unwrap();
    for n in 0..2_000 {
        // Looked at once, or for as long as an answer may take.
        let patience = Duration::from_micros(n % 7 * 20);
        let _ = timeout(patience, room.say(&format!("line {n}"))).await;
    }
    room.say("line 2000").await.unwrap();
    let (mut last, mut lines) = (None, 0);
    while last != Some(2_000) {
        let what = heard(&mut witness).await;
        let Some(n) = what.strip_prefix("alice: line ") else { continue };
        let n: u32 = n.parse().unwrap();
        assert!(last.is_none_or(|last| n > last), "{n} after {last:?}");
        (last, lines) = (Some(n), lines + 1);
    }
    assert!(lines > 10, "{lines}");
    // Also the last one, with all that is to do for it given up at once.
    drop((timeout(Duration::ZERO, room.say("bye")).await, room));
    assert_eq!(heard(&mut witness).await, "alice: bye");
    assert_eq!(heard(&mut witness).await, "left alice");
}

/// What was said meanwhile comes, and the others see it go and come back.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_hears_what_was_said_meanwhile() {
    let agent = agent();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let session = through(&agent, &chaos).await;
    let mut link = session.link();
    let mut room = session.join("lobby").await.unwrap();
    let bob = agent.session_as("bob").await;
    let mut other = bob.join("lobby").await.unwrap();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    while heard(&mut other).await != "lost alice" {}
    other.say("one").await.unwrap();
    // Said into the void; it waits for the connection.
    let voice = room.voice();
    let waiting = tokio::spawn(async move { voice.say("two").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    chaos.refuse(false);
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != "alice: two") {
        all.push(heard(&mut room).await);
    }
    let expected =
        ["joined alice", "joined bob", "lost alice", "bob: one", "returned alice", "alice: two"];
    assert_eq!(all, expected);
    let again = super::hear(&mut other, 3).await;
    assert_eq!(again, ["bob: one", "returned alice", "alice: two"]);
}

/// As right after the agent is there again, and before it has answered who comes back: nobody but this side
/// can have the line, so it is known that it is not said yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_never_went_out_is_said_to_the_next_agent() {
    let mut agent = agent();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let session = through(&agent, &chaos).await;
    let mut link = session.link();
    let mut room = session.join("lobby").await.unwrap();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    let voice = room.voice();
    let mut waiting = std::pin::pin!(voice.say("wait for it"));
    assert!(
        timeout(Duration::ZERO, waiting.as_mut()).await.is_err(),
        "there is nobody to say it to"
    );
    block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
    chaos.refuse(false);
    timeout(PATIENCE, waiting).await.expect("in time").unwrap();
    let expected = ["joined alice", "OpenedAnew", "joined alice", "alice: wait for it"];
    assert_eq!(super::hear(&mut room, 4).await, expected);
}

/// Away for longer than the room remembers: the number of lines is exact.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_is_told_how_many_lines_it_missed() {
    let agent = TestAgent::with_both(&format!("{FAST}history = 10\n"), &open_to_all());
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let session = through(&agent, &chaos).await;
    let mut link = session.link();
    let mut room = session.join("lobby").await.unwrap();
    assert_eq!(heard(&mut room).await, "joined alice");
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    let bob = agent.session_as("bob").await;
    let other = bob.join("lobby").await.unwrap();
    for n in 0..100 {
        other.say(&n.to_string()).await.unwrap();
    }
    chaos.refuse(false);
    let what = heard(&mut room).await;
    // Of 10 events that are kept one may be its own return.
    assert!(["missed 90", "missed 91"].contains(&what.as_str()), "{what}");
    while heard(&mut room).await != "bob: 99" {}
}

/// As `systemctl restart`.
fn restart(agent: &mut TestAgent) {
    block_in_place(|| {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        agent.start_again();
    });
}

/// Until the last thing that can fail has not, what the agent before has left is the next one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_rooms_and_jobs_to_the_next() {
    let mut agent = agent();
    let alice = agent.session().await;
    let mut child = alice.command("cat").spawn().await.unwrap();
    let mut room = alice.join("lobby").await.unwrap();
    room.say("before").await.unwrap();
    let state = ["rooms", "handover"].map(|name| agent.path("state").join(name));
    let read = || state.each_ref().map(|file| std::fs::read(file).unwrap());
    block_in_place(|| {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        let before = read();
        assert!(!agent.start_in_vain().success());
        assert_eq!(read(), before);
        agent.start_again();
    });
    room.say("after").await.unwrap();
    let expected = ["joined alice", "alice: before", "alice: after"];
    assert_eq!(super::hear(&mut room, 3).await, expected);
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

/// A pipe in the place of the file into which nobody writes.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_that_are_no_file_do_not_hold_up_the_start() {
    let mut agent = agent();
    block_in_place(|| {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        let rooms = agent.path("state").join("rooms");
        std::fs::remove_file(&rooms).unwrap();
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&rooms, mode).unwrap();
        agent.start_again();
    });
    assert!(agent.log().contains("it is no regular file"), "{}", agent.log());
    let mut room = agent.session().await.join("lobby").await.unwrap();
    assert_eq!(heard(&mut room).await, "joined alice");
    assert!(!agent.path("state").join("rooms").exists());
}

/// Restarted again and again while two talk: each hears every line once, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_go_on_in_the_next_agent() {
    let mut agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let (mut first, mut second) =
        (alice.join("lobby").await.unwrap(), bob.join("lobby").await.unwrap());
    let (lines, restarts) = (300, 5);
    let said = Arc::new(AtomicUsize::new(0));
    let mut talking = Vec::new();
    for voice in [first.voice(), second.voice()] {
        let said = Arc::clone(&said);
        talking.push(tokio::spawn(async move {
            for n in 0..lines {
                voice.say(&n.to_string()).await.unwrap();
                said.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    for round in 1..=restarts {
        let mark = round * 2 * lines / (restarts + 1);
        while said.load(Ordering::Relaxed) < mark {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        restart(&mut agent);
    }
    for talking in talking {
        talking.await.unwrap();
    }
    let count = 2 + 2 * lines;
    let all = timeout(PATIENCE, super::hear(&mut first, count)).await.unwrap();
    assert_eq!(all[0], "joined alice");
    for name in ["alice", "bob"] {
        let said = all.iter().filter_map(|what| what.strip_prefix(&format!("{name}: ")));
        let expected: Vec<String> = (0..lines).map(|n| n.to_string()).collect();
        assert_eq!(said.collect::<Vec<_>>(), expected, "{name}");
    }
    assert_eq!(super::hear(&mut second, count).await, all, "one order for both");
    // Whoever comes later is shown what was said before.
    let mut third = agent.session_as("carol").await.join("lobby").await.unwrap();
    assert_eq!(super::hear(&mut third, count).await, all);
    // Coming back is no joining.
    let audit = agent.path("audit.jsonl");
    eventually("three have joined", || {
        let audit = std::fs::read_to_string(&audit).unwrap();
        audit.matches("\"event\":\"joined\"").count() == 3
    });
}

/// Killed, it leaves nothing: the room is empty, and whoever was in it knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_opens_its_rooms_anew() {
    let mut agent = agent();
    let session = agent.session().await;
    let mut room = session.join("lobby").await.unwrap();
    room.say("before").await.unwrap();
    assert_eq!(super::hear(&mut room, 2).await, ["joined alice", "alice: before"]);
    // And what another one has left is not taken for its own.
    restart(&mut agent);
    block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
    let event = timeout(PATIENCE, room.next()).await.unwrap().unwrap();
    assert_eq!(event, Some(RoomEvent::OpenedAnew));
    assert_eq!(heard(&mut room).await, "joined alice");
    room.say("after").await.unwrap();
    assert_eq!(heard(&mut room).await, "alice: after");
}

/// The room of a command that outlives its agent is the room of the same job.
#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_job_goes_where_the_job_goes() {
    let mut agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut child = alice.command("cat").spawn().await.unwrap();
    let mut room = bob.join(&format!("job:{}", child.job())).await.unwrap();
    assert_eq!(heard(&mut room).await, "joined bob");
    restart(&mut agent);
    room.say("still there?").await.unwrap();
    assert_eq!(heard(&mut room).await, "bob: still there?");
    let watching = bob.attach(child.job().clone()).join().await.unwrap();
    assert_eq!(heard(&mut room).await, "watching bob");
    watching.detach().await.unwrap();
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

/// Coming back counts as joining does; whoever has many places waits for the last of them, and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn more_places_than_one_may_take_at_once_outlive_a_kill() {
    let limits = "[rooms]\nlines_per_second = 20\nlines_burst = 5\n";
    let mut agent = TestAgent::with_both(limits, &open_to_all());
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let session = agent.session().await;
        for n in 0..10 {
            let room = loop {
                match session.join(&format!("r{n}")).await {
                    Ok(room) => break room,
                    Err(error) => assert!(error.is_busy(), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            rooms.push(room);
        }
    }
    block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
    for room in &mut rooms {
        loop {
            let event = timeout(PATIENCE, room.next()).await.expect("in time").unwrap();
            match event {
                Some(RoomEvent::OpenedAnew) => break,
                event => assert!(event.is_some(), "the place is gone"),
            }
        }
    }
    // In good order, each is the member that it was.
    restart(&mut agent);
    for room in &rooms {
        loop {
            match timeout(PATIENCE, room.say("here")).await.expect("in time") {
                Ok(()) => break,
                Err(error) => assert!(error.is_busy(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
