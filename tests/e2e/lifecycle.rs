//! Agents and connections that come, go, and break.

use crate::support::certs::write_private;
use crate::support::proc::{descriptors, eventually, running_with};
use crate::support::{TestAgent, cli};
use nix::sys::signal::Signal;
use rexec_client::{Connector, NeverStarted, Outcome};
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// SIGINT: running commands end in peace, new ones are refused, then the agent is gone.
#[tokio::test(flavor = "multi_thread")]
async fn sigint_drains() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.shell("echo ready; read x; echo \"$x\"; exit 4").spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"ready\n");
    agent.signal(Signal::SIGINT);
    eventually("the agent has heard", || agent.log().contains("running commands may finish"));
    let error = session.command("true").status().await.unwrap_err();
    let reason = NeverStarted::Busy;
    assert!(
        matches!(error.outcome(), Outcome::NeverStarted { reason: r, .. } if *r == reason),
        "{error:?}"
    );
    child.stdin.take().unwrap().write_all(b"in peace\n").await.unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"in peace\n");
    assert_eq!(child.wait().await.unwrap().code(), Some(4));
    assert!(agent.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigint_ends_the_commands() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.command("sleep").arg("1000").spawn().await.unwrap();
    agent.signal(Signal::SIGINT);
    eventually("the agent has heard", || agent.log().contains("running commands may finish"));
    agent.signal(Signal::SIGINT);
    assert_eq!(child.wait().await.unwrap().signal(), Some(rexec_client::Signal::TERM));
    assert!(agent.wait().success());
}

/// Idle connections do not hold up a stop.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end_with_the_agent() {
    let mut agent = TestAgent::start();
    let session = agent.session().await;
    session.ping().await.unwrap();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    eventually("the session knows", || {
        let session = session.clone();
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async move { session.ping().await.is_err() })
        })
    });
}

/// The connection is cut after so many bytes from the agent, wherever in a frame that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_lost_never_a_success() {
    let config = "[limits]\nkill_grace = '200ms'\n[jobs]\nlease_closed = '100ms'";
    let agent = TestAgent::with(config);
    let mark = format!("1005.{}", agent.pid());
    for cut in [3_000, 5_000, 70_000, 1_000_001] {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = proxy.local_addr().unwrap().port();
        let upstream = agent.port;
        let relay = tokio::spawn(async move {
            let (client, _) = proxy.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
            let (mut client_read, mut client_write) = client.into_split();
            let (server_read, mut server_write) = server.into_split();
            let up =
                tokio::spawn(
                    async move { tokio::io::copy(&mut client_read, &mut server_write).await },
                );
            tokio::io::copy(&mut server_read.take(cut), &mut client_write).await.unwrap();
            up.abort();
        });
        let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
        let session = connector.connect("127.0.0.1", port).await.unwrap();
        let line = format!("cat /dev/zero & sleep {mark}; exit 0");
        let error = session.shell(line).output().await.unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Lost { .. }), "cut at {cut}: {error:?}");
        relay.await.unwrap();
        eventually("nothing is left", || running_with(&mark).is_empty());
    }
}

/// After a thousand commands, and connections that ended in all ways, the agent holds no more than
/// before.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks() {
    let agent = TestAgent::with("[limits]\nkill_grace = '100ms'");
    let load = || async {
        let session = agent.session().await;
        for _ in 0..50 {
            session.command("true").output().await.unwrap();
        }
        let _ = session.command("no-such-program").output().await;
        drop(session.command("sleep").arg("1000").spawn().await.unwrap());
        drop(session);
        drop(TcpStream::connect(("127.0.0.1", agent.port)).await.unwrap());
    };
    load().await;
    let zombies = || {
        let ps = Command::new("ps").args(["-eo", "stat,ppid"]).output().unwrap();
        let pid = agent.pid().to_string();
        String::from_utf8_lossy(&ps.stdout)
            .lines()
            .filter(|l| l.starts_with('Z') && l.ends_with(&pid))
            .count()
    };
    let settled = || tokio::time::sleep(Duration::from_millis(10));
    let mut before = descriptors(agent.pid());
    for _ in 0..100 {
        settled().await;
        before = before.min(descriptors(agent.pid()));
    }
    for _ in 0..20 {
        load().await;
    }
    eventually("all descriptors are closed", || descriptors(agent.pid()) <= before);
    assert_eq!(zombies(), 0);
}

#[test]
fn certificates_are_re_read() {
    let agent = TestAgent::start();
    assert!(agent.run(["true"]).status.success());
    // A new authority for everyone: the old user is refused, the new one is served.
    let new = crate::support::Authority::new();
    std::fs::write(agent.path("authority.crt"), new.pem()).unwrap();
    write_private(agent.dir.path(), "agent.pem", &new.issue_agent());
    eventually("the agent has taken the new files", || {
        agent.log().contains("certificates reloaded")
    });
    let refused = agent.run(["true"]);
    assert_eq!(cli::code(&refused), 255, "{refused:?}");
    write_private(agent.dir.path(), "alice.pem", &new.issue_user("alice"));
    assert!(agent.run(["true"]).status.success());
    // A broken file changes nothing.
    std::fs::write(agent.path("authority.crt"), "broken").unwrap();
    eventually("the agent says that it is broken", || agent.log().contains("ERROR"));
    std::fs::write(agent.path("authority.crt"), new.pem()).unwrap();
    assert!(agent.run(["true"]).status.success());
}

#[test]
fn check_tells_what_is_wrong() {
    let agent = TestAgent::start();
    let check = |identity: &str| {
        let mut command = Command::new(crate::support::program("rexec-agent"));
        command.arg("--check").arg("--config").arg(agent.path("agent.toml"));
        command.arg("--policy").arg(agent.path("policy.toml"));
        command.arg("--authority").arg(agent.path("authority.crt"));
        command.arg("--identity").arg(agent.path(identity)).output().unwrap()
    };
    let good = check("agent.pem");
    assert!(good.status.success(), "{good:?}");
    let bad = check("nowhere.pem");
    assert!(!bad.status.success());
    assert!(String::from_utf8_lossy(&bad.stdout).contains("nowhere.pem"), "{bad:?}");
}

/// The command has ended, its last output waits for credit that will never come, and the client
/// dies: nothing may wait for it, and the agent must be able to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_dies_stalled_leaves_nothing() {
    let mut agent = TestAgent::start();
    let mut client = agent.rexec();
    let (reader, writer) = std::io::pipe().unwrap();
    client.arg(agent.target()).arg("head -c 2500000 /dev/zero").stdout(writer);
    let mut client = client.spawn().unwrap();
    let blocked = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut waits = tasks.map(|task| std::fs::read_to_string(task.path().join("wchan")));
        waits.any(|wait| wait.is_ok_and(|wait| wait.contains("pipe_write")))
    };
    eventually("the client is blocked by its stdout", || blocked(client.id()));
    eventually("the command has ended", || running_with("head -c 2500000").len() <= 1);
    client.kill().unwrap();
    client.wait().unwrap();
    drop(reader);
    eventually("the command is over", || agent.log().contains("command ended"));
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
}

/// Two SIGINTs end an agent even while a client reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_does_not_hold_up_a_stop() {
    let mut agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let session = agent.session().await;
    let child = session.command("cat").arg("/dev/zero").spawn().await.unwrap();
    agent.signal(Signal::SIGINT);
    eventually("the agent has heard", || agent.log().contains("running commands may finish"));
    agent.signal(Signal::SIGINT);
    assert!(agent.wait().success());
    drop(child);
}
