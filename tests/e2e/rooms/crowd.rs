//! Many in one room, some of them dead or dying: every healthy member hears every line once, and all
//! hear them in one order.

use super::{PATIENCE, open_to_all};
use crate::hostile::agent_side::client_config;
use crate::support::proc::{descriptors, eventually, memory};
use crate::support::raw::{Raw, wire};
use crate::support::{TestAgent, size_from_environment};
use rexec_client::{HappeningKind, Room, RoomEvent, Session};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

/// How much one member may cost the agent, in KiB: its TLS buffers and queues, however many lines were
/// said.
const PER_MEMBER: u64 = 256;
/// What the room's history and the rest may take, in KiB.
const BASE: u64 = 48 * 1024;

/// What one who is killed hears before that: half a second's worth.
const HEARD: usize = 50;
/// A crowd of one identity at one address.
const CONFIG: &str = "
[limits]
connections_per_identity = 5000
handshakes_per_source = 1000
handshakes_early_drop = 1000
handshakes = 1000
[rooms]
members = 5000
history = 100000
history_kib = 8192
lines_per_second = 100000
lines_burst = 100000
";

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_hears_every_line_once_in_one_order() {
    let members = size_from_environment("REXEC_TEST_MEMBERS", 60) as usize;
    let seconds = size_from_environment("REXEC_TEST_SECONDS", 3);
    let killed = size_from_environment("REXEC_TEST_KILLED", 3) as usize;
    let agent = Arc::new(TestAgent::with_both(CONFIG, &open_to_all()));
    // What is there before anybody comes.
    drop(agent.session().await.join("warm").await.unwrap());
    eventually("the first one is gone", || descriptors(agent.pid()) < 40);
    let before = (memory(agent.pid(), "VmRSS"), descriptors(agent.pid()));
    let mut crowd = Vec::new();
    for _ in 0..members {
        let session = agent.session().await;
        let room = session.room("lobby").history(0).join().await.unwrap();
        crowd.push((session, room));
    }
    let stalled = tokio::task::block_in_place(|| stalled(&agent));
    let kills = Arc::new(AtomicUsize::new(0));
    let dying: Vec<_> =
        (0..killed).map(|_| tokio::spawn(die(Arc::clone(&agent), Arc::clone(&kills)))).collect();
    let listening: Vec<_> =
        crowd.into_iter().map(|(session, room)| tokio::spawn(listen(session, room))).collect();
    let start = Instant::now();
    let count = talk(&agent, seconds).await;
    let mut orders = Vec::new();
    for listener in listening {
        let heard = timeout(PATIENCE, listener).await.expect("in time").unwrap();
        orders.push(heard);
    }
    let took = start.elapsed();
    for dying in dying {
        // Its last client hears nothing more, and is killed with it.
        dying.abort();
        assert!(dying.await.unwrap_err().is_cancelled());
    }
    let first = &orders[0];
    assert_eq!(first.len(), count, "every line, once");
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..count));
    assert!(orders.iter().all(|order| order == first), "one order for all");
    let grown = memory(agent.pid(), "VmHWM").saturating_sub(before.0);
    println!(
        "{members} members, {count} lines in {took:?}, {} killed, the agent grew by {grown} KiB",
        kills.load(Ordering::Relaxed)
    );
    assert!(kills.load(Ordering::Relaxed) >= killed);
    assert!(grown < BASE + PER_MEMBER * members as u64, "{grown} KiB");
    drop(stalled);
    eventually("all connections are gone", || descriptors(agent.pid()) <= before.1);
    let left = agent.session().await;
    assert_eq!(left.who().await.unwrap().len(), 1);
    let room = left.room("lobby").history(0).join().await.unwrap();
    assert_eq!(room.voice().members().await.unwrap().len(), 1, "nobody stays in the room");
}

/// The numbers of all lines, in the order in which they came.
async fn listen(session: Session, mut room: Room) -> Vec<usize> {
    let mut lines = Vec::new();
    loop {
        match room.next().await.unwrap().expect("nobody is put out") {
            RoomEvent::Happened(what) if what.kind == HappeningKind::Said => {
                if what.text == "the end" {
                    drop(session);
                    return lines;
                }
                lines.push(what.text.split(' ').next().unwrap().parse().unwrap());
            }
            RoomEvent::Happened(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Some who talk, together 100 lines a second; how many lines it were.
async fn talk(agent: &TestAgent, seconds: u64) -> usize {
    const TALKERS: usize = 5;
    let count = 100 * seconds as usize;
    let mut talkers = Vec::new();
    for talker in 0..TALKERS {
        let session = agent.session().await;
        let room = session.room("lobby").history(0).join().await.unwrap();
        talkers.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10 * TALKERS as u64));
            for n in (talker..count).step_by(TALKERS) {
                ticks.tick().await;
                room.say(&format!("{n} deploying to the next machine")).await.unwrap();
            }
            (session, room)
        }));
    }
    let mut last = None;
    for talker in talkers {
        last = Some(talker.await.unwrap());
    }
    let (_session, room) = last.unwrap();
    room.say("the end").await.unwrap();
    count
}

/// A member that joins and never reads.
fn stalled(agent: &TestAgent) -> Raw {
    let mut raw = Raw::connect(agent.port, &client_config(agent)).unwrap();
    let args = [
        ("window", wire::uint(u64::MAX)),
        ("room", wire::text("lobby")),
        ("history", wire::uint(0)),
    ];
    raw.send(&[wire::hello(), wire::frame("join", 1, &args)].concat()).unwrap();
    raw.wait_for("joined");
    raw
}

/// A client that joins, hears what is said for a while, and is killed, again and again.
async fn die(agent: Arc<TestAgent>, kills: Arc<AtomicUsize>) {
    loop {
        let mut command = tokio::process::Command::from(agent.rexec());
        command.args(["chat", "--read-only", "--history", "1", &agent.target()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..HEARD {
            lines.next_line().await.unwrap().expect("it is there until it is killed");
        }
        child.kill().await.unwrap();
        kills.fetch_add(1, Ordering::Relaxed);
    }
}
