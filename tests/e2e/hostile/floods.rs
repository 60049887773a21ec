//! Too much, too slow, or not to the end.

use super::agent_side::Verdict::{Ignored, Told};
use super::agent_side::{State, client_config, is_sound, reach, verdict};
use super::neighbour::Neighbour;
use crate::support::TestAgent;
use crate::support::proc::{descriptors, eventually, memory, running_with, tcp_sockets};
use crate::support::raw::{Raw, wire};
use rexec_protocol::{ErrorCode, Message};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How much the agent may grow in all floods together, in KiB.
const GROWTH: u64 = 8 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_borne_or_refused() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("2002.{}", agent.pid());
    let neighbour = Neighbour::of(&agent).await;
    let (config, port, words) = (client_config(&agent), agent.port, mark.clone());
    drop(reach(port, &config, State::HalfClosed, &mark));
    let before = memory(agent.pid(), "VmHWM");
    let single_bytes = || -> Vec<u8> {
        let whole = vec![b'x'; 1 << 16];
        let frame = |n| wire::data(1, "in", n as u64, b"x", &whole[..=n]);
        (0..1 << 13).flat_map(frame).collect()
    };
    let cancelled = |mark: &str| -> Vec<u8> {
        let cancel = [("signal", wire::text("KILL")), ("grace_ms", wire::uint(0))];
        let both =
            |n| [wire::exec(n, &["sleep", mark], true), wire::frame("cancel", n, &cancel)].concat();
        (2..2_002).flat_map(both).collect()
    };
    let floods = [
        ("100,000 pings", wire::ping(1).repeat(100_000)),
        ("100,000 pongs", wire::frame("pong", 0, &[("nonce", wire::uint(1))]).repeat(100_000)),
        ("100,000 windows", (0..100_000).flat_map(|n| wire::window(1, n + (1 << 40))).collect()),
        ("10,000 signals", wire::signal(1, "WINCH").repeat(10_000)),
        ("8,192 bytes of stdin, one by one", single_bytes()),
        ("100,000 unknown verbs", wire::frame("dance", 0, &[]).repeat(100_000)),
        ("2,000 commands, each cancelled", cancelled(&mark)),
    ];
    let verdicts = tokio::task::spawn_blocking(move || {
        floods.map(|(name, bytes)| {
            let mut raw = reach(port, &config, State::Running, &words);
            let start = Instant::now();
            // It may be refused before all of it was sent.
            let _ = raw.send(&bytes);
            let sent = start.elapsed();
            let found = verdict(raw);
            println!("{name}: {found:?}, sent in {sent:?}, settled in {:?}", start.elapsed());
            (name, found, start.elapsed())
        })
    });
    let verdicts = verdicts.await.unwrap();
    is_sound(&agent);
    let grown = memory(agent.pid(), "VmHWM") - before;
    println!("the agent grew by {grown} KiB");
    neighbour.was_undisturbed().await;
    for (name, found, took) in verdicts {
        let must_end = name == "100,000 unknown verbs";
        // PROTOCOL.md, section 11: as many frames are no flood.
        let may_end = name != "10,000 signals";
        let is_fine =
            (found == Told(ErrorCode::Flood) && may_end) || (found == Ignored && !must_end);
        assert!(is_fine, "{name}: {found:?}");
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
    }
    assert!(grown < GROWTH, "the agent grew by {grown} KiB");
    eventually("no command is left behind", || running_with(&mark).is_empty());
}

/// More commands at once than the agent runs is no attack: those above the limit are refused one by
/// one, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_commands_are_refused_one_by_one() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let commands: Vec<_> = (0..400)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.command("sleep").arg("0.5").status().await })
        })
        .collect();
    let (mut ran, mut refused) = (0, 0);
    for command in commands {
        match command.await.unwrap() {
            Ok(status) => ran += usize::from(status.success()),
            Err(error) if error.nothing_ran() => refused += 1,
            Err(error) => panic!("{ran} ran, {refused} were refused, and then: {error}"),
        }
    }
    assert_eq!(ran + refused, 400);
}

/// PROTOCOL.md, section 11, says what is no flood. Nor is it one if it all comes in one write.
#[test]
fn what_the_protocol_allows_is_answered_also_in_one_write() {
    let agent = TestAgent::start();
    let mut raw = reach(agent.port, &client_config(&agent), State::Greeted, "");
    let requests: Vec<u8> = (1..=1_500).flat_map(|n| wire::frame("jobs", n, &[])).collect();
    raw.send(&requests).unwrap();
    let mut listings = 0;
    while listings < 1_500 {
        match raw.next() {
            Ok(Some(frame)) if frame.message.verb() == "listing" => listings += 1,
            other => panic!("after {listings} answers: {other:?}"),
        }
    }
    raw.send(&wire::frame("dance", 0, &[]).repeat(100)).unwrap();
    for n in 0..100 {
        match raw.next().map(|frame| frame.map(|frame| frame.message)) {
            Ok(Some(Message::Error(error))) if error.code == ErrorCode::UnknownVerb => {}
            other => panic!("after {n} answers: {other:?}"),
        }
    }
    is_sound(&agent);
}

/// It waits for itself: what it asks for stays in its socket.
#[test]
fn who_does_not_read_the_answers_is_not_read_either() {
    const ASKED: u64 = 60_000;
    let agent =
        TestAgent::with("[limits]\nframes_per_second = 10_000_000\nframes_burst = 10_000_000");
    let mut raw = reach(agent.port, &client_config(&agent), State::Greeted, "");
    let before = memory(agent.pid(), "VmHWM");
    raw.write_within(Duration::from_secs(1));
    let requests: Vec<u8> = (1..=ASKED).flat_map(|n| wire::frame("jobs", n, &[])).collect();
    // If not all of it fits on the way, the rest goes as the answers come.
    let _ = raw.send(&requests);
    for n in 1..=ASKED {
        match raw.next() {
            Ok(Some(frame)) if frame.message.verb() == "listing" => {}
            other => panic!("after {n} answers: {other:?}"),
        }
        if n % 1_000 == 0 {
            let _ = raw.send(&[]);
        }
    }
    let grown = memory(agent.pid(), "VmHWM") - before;
    println!("the agent grew by {grown} KiB");
    assert!(grown < GROWTH, "the agent grew by {grown} KiB");
    is_sound(&agent);
}

/// The peer has closed its window: what the agent has to say cannot be said, and it closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_is_closed_within_a_second() {
    let agent = TestAgent::start();
    let neighbour = Neighbour::of(&agent).await;
    let open = tcp_sockets(agent.pid());
    let mark = format!("2003.{}", agent.pid());
    let mut raw = reach(agent.port, &client_config(&agent), State::Greeted, "");
    raw.send(&wire::exec(1, &["yes", &mark], false)).unwrap();
    let is_blocked = || {
        running_with(&mark).first().is_some_and(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/wchan"))
                .is_ok_and(|at| at.contains("pipe_write"))
        })
    };
    // Blocked for good, not for the moment that the agent takes to read.
    let mut since = Instant::now();
    eventually("the agent can write no more", || {
        if !is_blocked() {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(500)
    });
    let start = Instant::now();
    raw.send(&[0; 4]).unwrap();
    let mut closed = false;
    while !closed && start.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(5));
        closed = tcp_sockets(agent.pid()) <= open;
    }
    drop(raw);
    is_sound(&agent);
    neighbour.was_undisturbed().await;
    assert!(closed, "the agent has not closed the connection");
}

/// Before the hello there is one deadline over everything; later, keepalive.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalling_peer_is_told_and_closed() {
    let agent = TestAgent::with("[limits]\nhandshake = '600ms'\nkeepalive = '200ms'");
    let mark = format!("2004.{}", agent.pid());
    let neighbour = Neighbour::of(&agent).await;
    let (config, port, words) = (client_config(&agent), agent.port, mark.clone());
    let found = tokio::task::spawn_blocking(move || {
        let header = wire::exec(9, &["sleep", &words], false);
        let stall = |state, length| {
            let mut raw = reach(port, &config, state, &words);
            let start = Instant::now();
            raw.send(&header[..length]).unwrap();
            (format!("{state:?}, {length} bytes"), raw.errors(), start.elapsed())
        };
        let states = [State::Tls, State::Greeted, State::Running, State::HalfClosed];
        let all =
            states.into_iter().flat_map(|state| [0, 3, 4, header.len() - 1].map(|n| (state, n)));
        let mut found: Vec<_> = std::thread::scope(|scope| {
            let stall = &stall;
            let stalls: Vec<_> =
                all.map(|(state, n)| scope.spawn(move || stall(state, n))).collect();
            stalls.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // Each byte counts as hearing, but not against the deadline of the hello.
        let mut raw = reach(port, &config, State::Tls, &words);
        let start = Instant::now();
        for byte in wire::hello() {
            std::thread::sleep(Duration::from_millis(100));
            if raw.send(&[byte]).is_err() {
                break;
            }
        }
        found.push(("byte by byte".to_owned(), raw.errors(), start.elapsed()));
        found
    });
    let found = found.await.unwrap();
    // Without TLS there is nobody to tell.
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let start = Instant::now();
        socket.write_all(bytes).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let end = socket.read_to_end(&mut Vec::new());
        assert!(start.elapsed() < Duration::from_secs(2), "{bytes:?}: {end:?}");
    }
    is_sound(&agent);
    neighbour.was_undisturbed().await;
    eventually("no command is left behind", || running_with(&mark).is_empty());
    let wrong = |(_, codes, took): &&(String, Vec<ErrorCode>, Duration)| {
        codes.as_slice() != [ErrorCode::Timeout] || *took > Duration::from_secs(2)
    };
    let wrong: Vec<_> = found.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A connection that ends anywhere, with and without TLS saying so, leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_leaves_nothing() {
    let agent = TestAgent::with("[limits]\nkill_grace = '100ms'");
    let mark = format!("2005.{}", agent.pid());
    let neighbour = Neighbour::of(&agent).await;
    let config = client_config(&agent);
    let open = descriptors(agent.pid());
    let exec = wire::exec(1, &["sleep", &mark], true);
    let all =
        [wire::hello(), exec, wire::data(1, "in", 0, b"abc", b"abc"), wire::signal(1, "WINCH")]
            .concat();
    for cut in (0..all.len()).step_by(7) {
        for in_order in [false, true] {
            let mut raw = Raw::connect(agent.port, &config).unwrap();
            raw.send(&all[..cut]).unwrap();
            if in_order {
                raw.close().unwrap();
                // The agent ends its side, too.
                raw.errors();
            }
        }
    }
    is_sound(&agent);
    neighbour.was_undisturbed().await;
    eventually("no command is left behind", || running_with(&mark).is_empty());
    eventually("all is closed", || descriptors(agent.pid()) <= open);
}
