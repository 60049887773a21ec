//! Connections that break while commands run: nothing is lost, nothing comes twice, nothing runs twice.

use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::proc::{eventually, running_with};
use crate::support::raw::wire::hello;
use crate::support::raw::{FakeAgent, Raw};
use crate::support::{TestAgent, size_from_environment};
use rexec_client::{
    Algorithm, Child, Connector, JobId, Link, OnDisconnect, Outcome, Session, Stdio,
};
use rexec_protocol::Hasher;
use sha2::{Digest, Sha256};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

async fn through(agent: &TestAgent, chaos: &Chaos) -> Session {
    let connector = Connector::new(&agent.files()).unwrap().keepalive(Duration::from_millis(200));
    connector.connect("127.0.0.1", chaos.port).await.unwrap()
}

/// The same for the same seed, and spread over all of a range.
fn scattered(seed: u64, n: u64) -> u64 {
    let mut x = seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Sends `bytes` bytes through `cat` and back, and checks every one of them.
pub async fn echo(session: &Session, bytes: u64) {
    echo_through(session.command("cat").spawn().await.unwrap(), bytes).await;
}

/// The same through a `cat` that runs.
pub async fn echo_through(child: Child, bytes: u64) {
    echo_by(Algorithm::Sha256, child, bytes).await;
}

pub async fn echo_by(algorithm: Algorithm, mut child: Child, bytes: u64) {
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let byte_at = |offset: u64| (scattered(7, offset / 8) >> (offset % 8 * 8)) as u8;
    let feed = async {
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(60_000);
            let piece: Vec<u8> = (offset..offset + length).map(byte_at).collect();
            // Why, says the end of the command.
            if stdin.send(piece.into()).await.is_err() {
                break;
            }
            offset += length;
        }
        drop(stdin);
    };
    let read = async {
        let (mut offset, mut hash) = (0, Hasher::new(algorithm));
        while let Ok(Some(chunk)) = stdout.chunk().await {
            let expected: Vec<u8> = (offset..offset + chunk.len() as u64).map(byte_at).collect();
            assert!(*chunk == expected, "wrong bytes after {offset}");
            offset += chunk.len() as u64;
            hash.update(&chunk);
        }
        (offset, hash.prefix())
    };
    let ((), (offset, hash)) = tokio::join!(feed, read);
    let status = child.wait().await.unwrap();
    assert!(status.success() && status.is_verified(), "{status:?}");
    assert_eq!(offset, bytes);
    assert_eq!(status.stdout().hash, hash);
    assert_eq!(status.stdin(), status.stdout());
}

/// Cuts at random places in both directions during a transfer each way. `REXEC_TEST_RESUME_MIB` and
/// `REXEC_TEST_CUTS` make it larger.
#[tokio::test(flavor = "multi_thread")]
async fn random_cuts_lose_nothing() {
    let agent = TestAgent::start();
    let bytes = size_from_environment("REXEC_TEST_RESUME_MIB", 8) << 20;
    let cuts = size_from_environment("REXEC_TEST_CUTS", 40) as usize;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    // So that the cuts are used up shortly before the end: a connection lasts this long on average.
    let span = bytes / cuts as u64 * 4 / 5;
    let chaos = Chaos::start(agent.port, move |number| {
        let after = 1 + scattered(seed, number as u64) % (2 * span);
        let cut = Faults { cut: Some(after), ..Faults::default() };
        match number {
            number if number >= cuts => Plan::default(),
            number if number % 2 == 0 => Plan { up: cut, ..Plan::default() },
            _ => Plan { down: cut, ..Plan::default() },
        }
    })
    .await;
    let (session, child) = loop {
        // The first connections may be cut before there is anything to go on with.
        let connector = Connector::new(&agent.files()).unwrap();
        if let Ok(session) = connector.connect("127.0.0.1", chaos.port).await
            && let Ok(child) = session.command("cat").spawn().await
        {
            break (session, child);
        }
    };
    let limit = Duration::from_secs(30 + (bytes >> 20));
    let echoed = tokio::time::timeout(limit, echo_through(child, bytes)).await;
    let made = chaos.connections.load(Ordering::Relaxed);
    assert!(echoed.is_ok(), "late after {made} connections: {:?}", *session.link().borrow());
    assert!(made > cuts / 2, "only {made} connections: hardly anything was cut");
    println!("{made} connections for {bytes} bytes each way");
}

/// Wherever in the first exchange the connection breaks, the command runs once, and its end is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_at_the_start_runs_the_command_once() {
    let agent = TestAgent::start();
    let marks = agent.path("marks");
    for (number, cut) in (1_300..4_600).step_by(150).enumerate() {
        let faults = Faults { cut: Some(cut), ..Faults::default() };
        let is_up = number % 2 == 0;
        let chaos = Chaos::start(agent.port, move |number| match (number, is_up) {
            (0, true) => Plan { up: faults, ..Plan::default() },
            (0, false) => Plan { down: faults, ..Plan::default() },
            _ => Plan::default(),
        })
        .await;
        let connector = Connector::new(&agent.files()).unwrap();
        // Cut in the handshake: nothing was asked for yet.
        let Ok(session) = connector.connect("127.0.0.1", chaos.port).await else { continue };
        let line = format!("echo {cut} >>{}; echo done", marks.display());
        let expected = match session.shell(line).output().await {
            Ok(output) => {
                assert_eq!(output.stdout, b"done\n", "cut at {cut}");
                1
            }
            // Cut before it was asked for.
            Err(error) => {
                assert!(error.nothing_ran(), "cut at {cut}: {error:?}");
                0
            }
        };
        let text = fs::read_to_string(&marks).unwrap_or_default();
        let times = text.lines().filter(|line| *line == cut.to_string()).count();
        assert_eq!(times, expected, "cut at {cut}");
    }
    assert!(fs::read_to_string(&marks).unwrap().lines().count() > 5);
}

/// The first sending does not arrive, so that the command starts on the second connection; its stdin was
/// waited for on both sides, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_was_cut_short_still_has_its_stdin() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |number| {
        let cut = Faults { cut: (number == 0).then_some(60_000), ..Faults::default() };
        Plan { up: cut, ..Plan::default() }
    })
    .await;
    let session = through(&agent, &chaos).await;
    let long = "x".repeat(100_000);
    let child = session.command("sh").args(["-c", "exec cat", &long]).spawn().await.unwrap();
    timeout(Duration::from_secs(60), echo_through(child, 300_000))
        .await
        .expect("it gets its stdin");
    assert_eq!(chaos.connections.load(Ordering::Relaxed), 2);
}

/// A bit that flips on the way is noticed by TLS; what came before it counts, and the rest comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_never_delivered() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |number| {
        let flip = Faults { flip: Some(300_000), ..Faults::default() };
        if number == 0 { Plan { down: flip, ..Plan::default() } } else { Plan::default() }
    })
    .await;
    let session = through(&agent, &chaos).await;
    let output = session.shell("head -c 1000000 /dev/zero").output().await;
    // Who alters bytes is not a network that is bad: the client does not try that again.
    match output {
        Ok(output) => assert_eq!(output.stdout, vec![0; 1_000_000]),
        Err(error) => assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}"),
    }
}

/// Nobody is told that a stalled network stalls; both sides notice by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_noticed_and_made_again() {
    let agent = TestAgent::with("[limits]\nkeepalive = '200ms'");
    let chaos = Chaos::start(agent.port, |number| {
        let stall = Faults { stall: Some(200_000), ..Faults::default() };
        if number == 0 { Plan { down: stall, up: Faults::default() } } else { Plan::default() }
    })
    .await;
    let session = through(&agent, &chaos).await;
    let output = session.shell("head -c 1000000 /dev/zero | tr '\\0' x").output().await.unwrap();
    assert_eq!(output.stdout, vec![b'x'; 1_000_000]);
    assert_eq!(chaos.connections.load(Ordering::Relaxed), 2);
}

/// Single bytes and small delays change nothing but the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sliced_connection_needs_no_resume() {
    let agent = TestAgent::start();
    let faults = Faults { slice: true, delay: Duration::from_millis(1), ..Faults::default() };
    let chaos = Chaos::start(agent.port, move |_| Plan { up: faults, down: faults }).await;
    let session = through(&agent, &chaos).await;
    echo(&session, 20_000).await;
    assert_eq!(chaos.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_says_so_and_names_the_job() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let connector = Connector::new(&agent.files()).unwrap();
    let connector = connector.reconnect_for(Duration::from_millis(300));
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let mut link = session.link();
    let mut child = session.command("sleep").arg("1000").spawn().await.unwrap();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    let error = child.wait().await.unwrap_err();
    let Outcome::Lost { message } = error.outcome() else { panic!("{error:?}") };
    assert!(message.contains(child.job().as_str()), "{message}");
    assert!(matches!(*link.borrow(), Link::Gone { .. }));
}

/// A cancel that is asked for while there is no connection is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_the_connection() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let session = through(&agent, &chaos).await;
    let mut link = session.link();
    let mut child = session.command("sleep").arg("1000").spawn().await.unwrap();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    child.cancel().await;
    chaos.refuse(false);
    let status = child.wait().await.unwrap();
    assert_eq!(status.outcome(), &Outcome::Cancelled);
}

/// What a client said about its absence holds: `keep` outlives everything, `kill` nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_the_tree_and_keep_does_not() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let mark = |what: &str| format!("20{what}.{}", agent.pid());
    let policies = [
        ("01", OnDisconnect::Kill {}),
        ("02", OnDisconnect::Lease { ms: 300 }),
        ("03", OnDisconnect::Lease { ms: 600_000 }),
        ("04", OnDisconnect::Keep {}),
    ];
    let mut children = Vec::new();
    for (what, then) in policies {
        let line = format!("sleep {} & sleep 1000; true", mark(what));
        children.push(session.shell(line).on_disconnect(then).spawn().await.unwrap());
        eventually("it runs", || !running_with(&mark(what)).is_empty());
    }
    chaos.cut();
    for ended in ["01", "02"] {
        eventually("its tree is gone", || running_with(&mark(ended)).is_empty());
    }
    for running in ["03", "04"] {
        assert!(!running_with(&mark(running)).is_empty(), "{running}");
    }
    // Its owner may come back, from anywhere, and end them.
    let session = agent.session().await;
    for child in &children[2..] {
        let mut back = session.attach(child.job().clone()).control(true).join().await.unwrap();
        assert!(back.attached());
        back.kill().await.unwrap();
    }
}

/// Who leaves on purpose need not wait for a lease to be over.
#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_ends_what_is_not_kept() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let session = agent.session().await;
    let mark = format!("2101.{}", agent.pid());
    let child = session.command("sleep").arg(&mark).spawn().await.unwrap();
    eventually("it runs", || !running_with(&mark).is_empty());
    drop((child, session));
    eventually("it is gone", || running_with(&mark).is_empty());
}

/// F36: what reads the output goes away while there is no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_is_closed_again_after_a_cut() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let session = through(&agent, &chaos).await;
    let mut link = session.link();
    let mut child = session.shell("exec cat /dev/zero").stdin(Stdio::Null).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).await.unwrap();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    drop(stdout);
    chaos.refuse(false);
    let signal = tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .expect("in time")
        .unwrap()
        .signal()
        .unwrap();
    assert_eq!(signal.to_string(), "PIPE");
}

/// A thousand submissions of one id over several connections: one run, and everybody learns its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_submissions_of_one_id_run_once() {
    let config = "[limits]\ncommands_per_connection = 1000\ncommands_per_identity = 1000";
    let agent = Arc::new(TestAgent::with(config));
    let marks = agent.path("marks");
    let id = JobId::new("deploy-2026-11-22-web1").unwrap();
    let line = format!("echo ran >>{}; sleep 0.3; exit 7", marks.display());
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(agent.session().await);
    }
    let mut tasks = Vec::new();
    for number in 0..1000 {
        let command = sessions[number % sessions.len()].shell(&line).id(id.clone());
        tasks.push(tokio::spawn(command.status()));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().code(), Some(7));
    }
    assert_eq!(fs::read_to_string(&marks).unwrap(), "ran\n");
    // Another command under that id is another matter.
    let error = agent.session().await.shell("true").id(id).status().await.unwrap_err();
    assert!(error.to_string().contains("another command"), "{error}");
    assert!(error.nothing_ran());
}

/// What was asked for under an id, and how it ended, is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_outlives_an_agent_that_is_killed() {
    let mut agent = TestAgent::start();
    let marks = agent.path("marks");
    let id = JobId::new("deploy-2026-11-26-web1").unwrap();
    let line = format!("echo ran >>{}; exit 7", marks.display());
    for _ in 0..3 {
        let session = agent.session().await;
        let status = session.shell(&line).id(id.clone()).status().await.unwrap();
        assert_eq!(status.code(), Some(7));
        let error = session.shell("true").id(id.clone()).status().await.unwrap_err();
        assert!(error.to_string().contains("another command"), "{error}");
        agent.kill();
        agent.start_again();
    }
    assert_eq!(fs::read_to_string(&marks).unwrap(), "ran\n");
}

/// Who types the same again gives the same stdin again, from its start: what the command has had is
/// not sent twice, and another stdin is not passed off as the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_typed_again_goes_on_with_its_stdin() {
    let agent = TestAgent::start();
    let text: Vec<u8> = (0..400_000).flat_map(|n| format!("{n:06}\n").into_bytes()).collect();
    let sum: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    for (number, held_back) in [0, 3_000, 1_000_000, 2_400_000].into_iter().enumerate() {
        let line = "sha256sum; sleep 1";
        let id = JobId::new(&format!("again-{number}")).unwrap();
        let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
        let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
        let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
        let mut child = session.shell(line).id(id.clone()).spawn().await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&text[..text.len() - held_back]).await.unwrap();
        if held_back == 0 {
            stdin.shutdown().await.unwrap();
        }
        session.ping().await.unwrap();
        chaos.cut();
        child.wait().await.unwrap_err();
        // By another process, whose words are the same and whose stdin is not.
        let again = agent.session().await.shell(line).id(id.clone());
        let mut other = again.clone().spawn().await.unwrap();
        let mut stdin = other.stdin.take().unwrap();
        stdin.write_all(&text[..100]).await.unwrap();
        stdin.shutdown().await.unwrap();
        let error = other.wait().await.unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}");
        drop((stdin, other));
        let mut child = again.spawn().await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&text).await.unwrap();
        stdin.shutdown().await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{sum}  -\n"));
        assert!(output.status.success() && output.status.is_verified());
        assert_eq!(output.status.stdin().hash.to_string(), sum);
    }
}

/// The same command typed again while nobody has noticed yet that the first client is gone: the job is that
/// of the second one by then, and its own.
#[tokio::test(flavor = "multi_thread")]
async fn who_types_the_same_again_too_early_is_not_killed_with_the_first() {
    let agent = TestAgent::with("[jobs]\nlease_closed = '100ms'");
    let text: Vec<u8> = (0..400_000).flat_map(|n| format!("{n:06}\n").into_bytes()).collect();
    let sum: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    for with_stdin in [false, true] {
        let (mark, go) = (agent.path("ready"), agent.path("go"));
        let _ = fs::remove_file(&go);
        let input = if with_stdin { "sha256sum" } else { "head -c 5000000 /dev/zero | sha256sum" };
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
        // More than the agent keeps for a client that does not read.
        let line =
            format!("{input}; head -c 3000000 /dev/zero; echo >{}; {wait}; exit 7", mark.display());
        let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
        let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
        let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
        let id = JobId::new(&format!("early-{with_stdin}")).unwrap();
        let stdin = || if with_stdin { Stdio::Piped } else { Stdio::Null };
        let first = session.shell(&line).id(id.clone()).stdin(stdin());
        let mut first = first.spawn().await.unwrap();
        if let Some(stdin) = &mut first.stdin {
            stdin.write_all(&text[..1_000_000]).await.unwrap();
        }
        let other = agent.session().await;
        let mut second = other.shell(&line).id(id).stdin(stdin()).spawn().await.unwrap();
        chaos.cut();
        first.wait().await.unwrap_err();
        let feed = second.stdin.take().map(|mut stdin| {
            let text = text.clone();
            tokio::spawn(async move {
                stdin.write_all(&text).await.unwrap();
                stdin.shutdown().await.unwrap();
            })
        });
        let mut stdout = second.stdout.take().unwrap();
        let mut output = Vec::new();
        // Longer than the lease.
        tokio::time::sleep(Duration::from_millis(500)).await;
        while output.len() < 3_000_000 {
            output.extend_from_slice(&stdout.chunk().await.unwrap().unwrap());
        }
        eventually("it has written all", || mark.exists());
        fs::write(&go, "").unwrap();
        while let Some(chunk) = stdout.chunk().await.unwrap() {
            output.extend_from_slice(&chunk);
        }
        let status = second.wait().await.unwrap();
        assert!(status.is_verified() && status.code() == Some(7), "{with_stdin}: {status:?}");
        if with_stdin {
            assert_eq!(output[..64], *sum.as_bytes());
        }
        if let Some(feed) = feed {
            feed.await.unwrap();
        }
        fs::remove_file(&mark).unwrap();
    }
}

/// A job that prints nothing must not hold what is left of the connection that it was submitted on.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_job_does_not_hold_its_lost_connection() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let command = session.command("sleep").arg("1000").on_disconnect(OnDisconnect::Keep {});
    let child = command.spawn().await.unwrap();
    chaos.cut();
    eventually("its end is on record", || {
        fs::read_to_string(agent.path("audit.jsonl")).unwrap().contains("disconnected")
    });
    let session = agent.session().await;
    let mut back = session.attach(child.job().clone()).control(true).join().await.unwrap();
    back.kill().await.unwrap();
}

/// Each connection gets a hello and ends. Otherwise the client would come back without a pause, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_greets_and_leaves_is_given_up_in_time() {
    let fake = FakeAgent::new();
    let files = fake.files("alice");
    let connector = Connector::new(&files).unwrap().reconnect_for(Duration::from_millis(600));
    let (port, connections) = (fake.port, Arc::new(AtomicUsize::new(0)));
    let served = Arc::clone(&connections);
    std::thread::spawn(move || {
        loop {
            let script = |mut raw: Raw| {
                let _ = raw.send(&hello());
                raw.wait_for("exec");
            };
            let served_one = fake.serve(fake.config(), script).join().unwrap();
            served.fetch_add(1, Ordering::Relaxed);
            drop(served_one);
        }
    });
    let session = connector.connect("127.0.0.1", port).await.unwrap();
    let id = JobId::new("once").unwrap();
    let run = async { session.shell("true").id(id).status().await };
    let error = timeout(Duration::from_secs(20), run).await.expect("given up").unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}");
    let connections = connections.load(Ordering::Relaxed);
    // One at once, one more, and then a pause of at least 80 ms before each.
    assert!((2..=10).contains(&connections), "{connections}");
}
