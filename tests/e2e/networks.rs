//! Networks that are cut for a while, narrow, lossy, or that change bytes.

use crate::support::TestAgent;
use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::proc::eventually;
use crate::support::size_from_environment;
use rexec_client::{Connector, Outcome, Stdio};
use std::fs;
use std::process::{self, Command};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// F5: nothing passes for 5, 30 and 90 seconds while output comes; here all times are divided by thirty.
/// `REXEC_TEST_PARTITION_SCALE=30` takes the real ones: then the short ones must not be noticed at all.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_lose_nothing() {
    let scale = size_from_environment("REXEC_TEST_PARTITION_SCALE", 1);
    let scaled = |seconds: u64| Duration::from_millis(seconds * scale * 1000 / 30);
    let keepalive = scaled(15);
    let agent = TestAgent::with(&format!("[limits]\nkeepalive = '{}ms'", keepalive.as_millis()));
    for (seconds, should_be) in [(5, false), (30, false), (90, true)] {
        let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
        let connector = Connector::new(&agent.files()).unwrap().keepalive(keepalive);
        let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
        let go = agent.path(&format!("go.{seconds}"));
        let line = format!(
            "until [ -e {} ]; do head -c 10000 /dev/zero; sleep 0.01; done; echo over",
            go.display()
        );
        let mut child = session.shell(line).stdin(Stdio::Null).spawn().await.unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = stdout.chunk().await.unwrap().unwrap().to_vec();
        chaos.freeze(true);
        tokio::time::sleep(scaled(seconds)).await;
        fs::write(&go, "").unwrap();
        chaos.freeze(false);
        while let Some(chunk) = stdout.chunk().await.unwrap() {
            output.extend_from_slice(&chunk);
        }
        let status = child.wait().await.unwrap();
        assert!(status.is_verified() && status.success(), "{seconds} s: {status:?}");
        assert!(output.ends_with(b"\0over\n") && output.len() % 10_000 == 5, "{seconds} s");
        let made = chaos.connections.load(Ordering::Relaxed);
        // On a busy machine, a second divided is easily missed. Each attempt to come back is one more.
        let is_exact = scale >= 10;
        let is_noticed = made > 1;
        assert!(is_noticed == should_be || (!should_be && !is_exact), "{seconds} s: {made}");
    }
}

/// F8: a byte that is changed on the way, in the handshake and in what comes right after it: either nothing
/// comes of it, or it is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_flipped_anywhere_at_the_start_is_noticed() {
    let agent = TestAgent::start();
    let marks = agent.path("marks");
    let mut failed = 0;
    for (number, at) in (3..4_000).step_by(97).enumerate() {
        let faults = Faults { flip: Some(at), ..Faults::default() };
        let chaos = Chaos::start(agent.port, move |connection| match (connection, number % 2) {
            (0, 0) => Plan { up: faults, ..Plan::default() },
            (0, _) => Plan { down: faults, ..Plan::default() },
            _ => Plan::default(),
        })
        .await;
        let connector = Connector::new(&agent.files()).unwrap();
        let Ok(session) = connector.connect("127.0.0.1", chaos.port).await else {
            failed += 1;
            continue;
        };
        let line = format!("echo {at} >>{}; echo done", marks.display());
        match session.shell(line).output().await {
            Ok(output) => assert_eq!(output.stdout, b"done\n", "flipped at {at}"),
            Err(error) => {
                failed += 1;
                let outcome = error.outcome();
                let is_honest = matches!(outcome, Outcome::Lost { .. }) || error.nothing_ran();
                assert!(is_honest, "flipped at {at}: {error:?}");
            }
        }
        let text = fs::read_to_string(&marks).unwrap_or_default();
        let times = text.lines().filter(|line| *line == at.to_string()).count();
        assert!(times <= 1, "flipped at {at}: it ran {times} times");
    }
    assert!(failed > 10, "only {failed} were noticed");
}

/// A network of its own for an agent, with four megabits a second and room for eight packets: what does not
/// fit is dropped. Takes root; `None` if this machine cannot do that.
fn narrow_line() -> Option<&'static str> {
    const LINE: &str = "ip link set lo mtu 1500 up && \
                        tc qdisc add dev lo root tbf rate 4mbit burst 16kb limit 12kb";
    let mut try_it = Command::new("unshare");
    try_it.args(["--net", "sh", "-c", LINE]);
    let works = try_it.output().is_ok_and(|output| output.status.success());
    if !works || Command::new("nsenter").arg("--version").output().is_err() {
        eprintln!("skipped: a narrow network takes root, unshare, nsenter, ip and tc");
        return None;
    }
    Some(LINE)
}

/// F7: a line that is narrow and loses packets costs time, and nothing else.
#[test]
fn a_narrow_lossy_line_needs_no_resume() {
    let Some(line) = narrow_line() else { return };
    let agent = TestAgent::prepared("", |command| {
        let mut there = Command::new("unshare");
        there.args(["--net", "sh", "-c", &format!("{line} && exec \"$@\""), "sh"]);
        there.arg(command.get_program()).args(command.get_args());
        there.stdin(process::Stdio::null()).stdout(process::Stdio::null());
        there.stderr(process::Stdio::null());
        *command = there;
    });
    let text: String = (0..30_000).map(|n| format!("{n:06}\n")).collect();
    fs::write(agent.path("input"), &text).unwrap();
    let within = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &agent.pid().to_string()]).args(words);
        command
    };
    let rexec = agent.rexec();
    let mut client = within(&[]);
    client.arg(rexec.get_program()).env_clear();
    client.envs(rexec.get_envs().map(|(name, value)| (name, value.unwrap())));
    client.arg(agent.target()).arg("cat").stdin(fs::File::open(agent.path("input")).unwrap());
    let output = client.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == text.as_bytes(), "{} bytes came", output.stdout.len());
    let line = within(&["tc", "-s", "qdisc", "show", "dev", "lo"]).output().unwrap();
    let line = String::from_utf8(line.stdout).unwrap();
    assert!(!line.contains("dropped 0,"), "nothing was lost: {line}");
    let on_record = |event: &str| {
        let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        audit.matches(&format!("\"event\":\"{event}\"")).count()
    };
    eventually("its end is on record", || on_record("disconnected") == 1);
    assert_eq!(on_record("connected"), 1, "it was made again");
}
