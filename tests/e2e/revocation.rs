//! Certificates that were good once: revoked, or expired, while their owner is connected.

use crate::rooms::open_to_all;
use crate::support::certs::{replace, serial, user_params, write_private};
use crate::support::proc::{eventually, running_with};
use crate::support::{TestAgent, cli, program};
use rcgen::SerialNumber;
use rexec_client::{Child, Connector, Files, Outcome, Session};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

async fn session_of(agent: &TestAgent, name: &str) -> Session {
    let connector = Connector::new(&agent.files_of(name)).unwrap();
    connector.connect("127.0.0.1", agent.port).await.unwrap()
}

fn add_user(agent: &TestAgent, name: &str) {
    write_private(agent.dir.path(), &format!("{name}.pem"), &agent.authority.issue_user(name));
}

fn serial_of(agent: &TestAgent, name: &str) -> SerialNumber {
    serial(&fs::read_to_string(agent.path(&format!("{name}.pem"))).unwrap())
}

/// Starts a line that says "ready" when it runs.
async fn start(session: &Session, line: &str) -> Child {
    let mut child = session.shell(format!("echo ready; {line}")).spawn().await.unwrap();
    let first = child.stdout.as_mut().unwrap().chunk().await.unwrap();
    assert_eq!(&*first.unwrap(), b"ready\n");
    child
}

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a command whose connection is to be cut.
async fn cut(child: &mut Child) -> rexec_client::Error {
    timeout(PATIENCE, child.wait()).await.expect("it goes on").unwrap_err()
}

/// Waits until the agent has closed a connection.
async fn closes(session: &Session) {
    let gone = async { while session.ping().await.is_ok() {} };
    timeout(PATIENCE, gone).await.expect("it stays");
}

/// Both streams of a run.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Row F26: the connection of a revoked user is cut within five seconds, its commands are ended with
/// all that they have started, and there is no way back in; nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_is_cut_off() {
    let agent = TestAgent::revoking("[limits]\nkill_grace = '500ms'");
    add_user(&agent, "bob");
    let (alice, bob) = (session_of(&agent, "alice").await, session_of(&agent, "bob").await);
    let idle = session_of(&agent, "alice").await;
    idle.ping().await.unwrap();
    let mark = format!("1006.{}", agent.pid());
    let mut hers = start(&alice, &format!("(trap '' HUP; sleep {mark}) & sleep {mark}")).await;
    let mut his = start(&bob, "read line; echo \"$line\"").await;
    assert!(!running_with(&mark).is_empty());

    let revoked = agent.authority.list([serial_of(&agent, "alice")], time::Duration::DAY);
    replace(agent.dir.path(), "authority.crl", &revoked);
    let start = Instant::now();
    let error = cut(&mut hers).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let words = error.outcome().to_string();
    assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}");
    assert!(
        words.contains("was revoked by its authority") && words.contains("(revoked)"),
        "{words}"
    );
    closes(&idle).await;
    assert!(start.elapsed() < Duration::from_secs(5), "an idle connection stays");
    eventually("the tree is gone", || running_with(&mark).is_empty());

    let output = agent.run(["true"]);
    assert_eq!(cli::code(&output), 255, "{}", said(&output));
    assert!(said(&output).contains("its authority has revoked the certificate"), "{output:?}");
    assert!(said(&output).contains("nothing was started"), "{output:?}");
    assert!(agent.log().contains("rexec:user:alice) was revoked by its authority"));

    his.stdin.take().unwrap().write_all(b"still here\n").await.unwrap();
    assert_eq!(&*his.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap(), b"still here\n");
    assert!(his.wait().await.unwrap().success());
    assert!(bob.command("true").status().await.unwrap().success());
}

/// The same with a list of 100,000 others (row F27), and the certificate gone instead of the user:
/// an authority that is not trusted any more takes its users along.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_and_a_new_authority_cut_as_well() {
    let agent = TestAgent::revoking("");
    add_user(&agent, "bob");
    let (alice, bob) = (session_of(&agent, "alice").await, session_of(&agent, "bob").await);
    let (mut hers, mut his) = (start(&alice, "sleep 1007").await, start(&bob, "sleep 1007").await);
    let others = (1..100_000_u64).map(SerialNumber::from);
    let serials = others.chain([serial_of(&agent, "alice")]);
    let long = agent.authority.list(serials, time::Duration::DAY);
    let begin = Instant::now();
    replace(agent.dir.path(), "authority.crl", &long);
    cut(&mut hers).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(bob.command("true").status().await.unwrap().success());

    let other = crate::support::Authority::new();
    replace(agent.dir.path(), "authority.crt", other.pem());
    eventually("the half is refused", || agent.log().contains("cannot be used; those in use stay"));
    assert!(bob.command("true").status().await.unwrap().success(), "the last good version stays");
    replace(agent.dir.path(), "authority.crl", &other.list([], time::Duration::DAY));
    let words = cut(&mut his).await.outcome().to_string();
    assert!(words.contains("not signed by the authority in"), "{words}");
}

/// Row F26, the other way round.
#[test]
fn a_revoked_agent_is_refused() {
    let agent = TestAgent::start();
    let run = || {
        agent
            .rexec()
            .env("REXEC_CRL", agent.path("authority.crl"))
            .arg(agent.target())
            .arg("true")
            .output()
            .unwrap()
    };
    assert!(run().status.success());
    let revoked = agent.authority.list([serial_of(&agent, "agent")], time::Duration::DAY);
    replace(agent.dir.path(), "authority.crl", &revoked);
    let output = run();
    assert_eq!(cli::code(&output), 255, "{output:?}");
    let words = said(&output);
    assert!(
        words.contains("the agent's certificate (localhost, 127.0.0.1) was revoked"),
        "{words}"
    );
    assert!(words.contains("nothing was started"), "{words}");
    assert!(agent.run(["true"]).status.success(), "who has no list does not know");
}

/// An agent that is revoked while a command runs on it: the client leaves, and says why.
#[tokio::test]
async fn a_client_leaves_an_agent_that_is_revoked() {
    let agent = TestAgent::start();
    let files = Files { revocations: Some(agent.path("authority.crl")), ..agent.files() };
    let connector = Connector::new(&files).unwrap();
    let session = connector.connect("127.0.0.1", agent.port).await.unwrap();
    let mut child = start(&session, "exec sleep 600").await;
    let others = agent.authority.list([], time::Duration::days(20));
    replace(agent.dir.path(), "authority.crl", &others);
    assert!(session.command("true").status().await.unwrap().success());

    let revoked = agent.authority.list([serial_of(&agent, "agent")], time::Duration::DAY);
    replace(agent.dir.path(), "authority.crl", &revoked);
    let since = Instant::now();
    let error = cut(&mut child).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(error.to_string().contains("was revoked"), "{error}");
    assert!(session.command("true").status().await.is_err());
}

/// A connector that was made before the revocation still takes the agent in, but not for long.
#[tokio::test]
async fn a_connector_with_an_older_list_does_not_keep_a_revoked_agent() {
    let agent = TestAgent::start();
    let files = Files { revocations: Some(agent.path("authority.crl")), ..agent.files() };
    let connector = Connector::new(&files).unwrap();
    let revoked = agent.authority.list([serial_of(&agent, "agent")], time::Duration::DAY);
    replace(agent.dir.path(), "authority.crl", &revoked);
    let session = connector.connect("127.0.0.1", agent.port).await.unwrap();
    let mut child = start(&session, "exec sleep 600").await;
    let error = cut(&mut child).await;
    assert!(error.to_string().contains("was revoked"), "{error}");
}

/// Row F27: without a usable list the agent does not start, and the client does not connect.
#[test]
fn lists_that_cannot_be_used() {
    let agent = TestAgent::start();
    let crl = agent.path("bad.crl");
    let other = crate::support::Authority::new().list([], time::Duration::DAY);
    let good = agent.authority.list([], time::Duration::DAY);
    for (row, content, words) in [
        ("missing", None, "cannot be read: No such file"),
        ("empty", Some(String::new()), "holds no revocation list"),
        ("cut", Some(good[..good.len() / 2].to_owned()), "damaged PEM"),
        ("stale", Some(agent.authority.list([], -time::Duration::HOUR)), "was to be replaced by"),
        ("of another key", Some(other), "has not signed"),
        ("writable", Some(good), "chmod go-w"),
    ] {
        let _ = fs::remove_file(&crl);
        if let Some(content) = content {
            fs::write(&crl, content).unwrap();
            let mode = if row == "writable" { 0o666 } else { 0o644 };
            fs::set_permissions(&crl, Permissions::from_mode(mode)).unwrap();
        }
        let check = |command: &mut Command, code: i32| {
            let output = command.output().unwrap();
            let text = said(&output);
            assert_eq!(cli::code(&output), code, "{row}: {text}");
            assert!(text.contains("bad.crl") && text.contains(words), "{row}: {text}");
        };
        let config = agent.path("agent.toml");
        let mut daemon = Command::new(program("rexec-agent"));
        daemon.arg("--config").arg(config).args(["--listen", "127.0.0.1:0", "--identity"]);
        daemon.arg(agent.path("agent.pem")).arg("--authority").arg(agent.path("authority.crt"));
        check(daemon.arg("--crl").arg(&crl), 1);
        check(daemon.arg("--check"), 1);
        // A file that was named but is not there has words of its own.
        if row != "missing" {
            check(agent.rexec().arg("--crl").arg(&crl).arg(agent.target()).arg("true"), 125);
        }
    }
    let absent = agent.rexec().env("REXEC_CRL", "/nowhere/x.crl").args(["web1", "x"]).output();
    let text = said(&absent.unwrap());
    assert!(
        text.contains("no revocation list: /nowhere/x.crl") && text.contains("ca crl"),
        "{text}"
    );
}

/// A list that goes stale in a running agent: nobody new, nothing new, and what runs goes on. A new
/// list mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_goes_stale_stops_what_is_new() {
    let agent = TestAgent::revoking("");
    let session = session_of(&agent, "alice").await;
    let mut child = start(&session, "read line; echo \"$line\"").await;
    let brief = agent.authority.list([], time::Duration::seconds(2));
    replace(agent.dir.path(), "authority.crl", &brief);
    eventually("it is stale", || agent.log().contains("every client is refused"));
    let error = session.command("true").status().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Denied { .. }), "{error:?}");
    assert!(error.outcome().to_string().contains("authority.crl was to be replaced by"), "{error}");
    let output = agent.run(["true"]);
    assert!(said(&output).contains("has no current revocation list"), "{output:?}");
    child.stdin.take().unwrap().write_all(b"on\n").await.unwrap();
    assert!(child.wait().await.unwrap().success());

    replace(agent.dir.path(), "authority.crl", &agent.authority.list([], time::Duration::DAY));
    eventually("it is current", || agent.log().contains("lists are current again"));
    assert!(session.command("true").status().await.unwrap().success());
}

/// Row F25: after its end a certificate begins nothing new; a running command has the grace, an idle
/// connection has not.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_begins_nothing_new() {
    let agent = TestAgent::with("[limits]\nexpired_grace = '4s'\nkill_grace = '500ms'");
    let mut params = user_params(&["rexec:user:brief"]);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(2);
    write_private(agent.dir.path(), "brief.pem", &agent.authority.issue(params));
    let (busy, idle) = (session_of(&agent, "brief").await, session_of(&agent, "brief").await);
    let mark = format!("1008.{}", agent.pid());
    let mut child = start(&busy, &format!("sleep {mark} & while read x; do echo $x; done")).await;
    let mut stdin = child.stdin.take().unwrap();
    idle.ping().await.unwrap();
    let denied = loop {
        match busy.command("true").status().await {
            Ok(status) => assert!(status.success()),
            Err(error) => break error,
        }
    };
    assert!(matches!(denied.outcome(), Outcome::Denied { .. }), "{denied:?}");
    let words = denied.outcome().to_string();
    assert!(words.contains("your certificate expired on") && words.contains("ca renew"), "{words}");
    closes(&idle).await;
    let error = idle.command("true").status().await.unwrap_err().outcome().to_string();
    assert!(error.contains("certificate_expired"), "{error}");
    // The running one does not notice yet.
    stdin.write_all(b"on\n").await.unwrap();
    assert_eq!(&*child.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap(), b"on\n");
    let lost = cut(&mut child).await;
    assert!(matches!(lost.outcome(), Outcome::Lost { .. }), "{lost:?}");
    assert!(lost.outcome().to_string().contains("certificate_expired"), "{lost}");
    eventually("the tree is gone", || running_with(&mark).is_empty());
    let output = agent
        .rexec()
        .arg("-i")
        .arg(agent.path("brief.pem"))
        .arg(agent.target())
        .arg("true")
        .output()
        .unwrap();
    assert!(said(&output).contains("by its clock the certificate has expired"), "{output:?}");
}

/// With no grace at all, commands end with the certificate; and once the last one has ended, an
/// expired connection does not linger.
#[tokio::test(flavor = "multi_thread")]
async fn the_grace_can_be_nothing_or_end_early() {
    for grace in ["0s", "1h"] {
        let agent = TestAgent::with(&format!("[limits]\nexpired_grace = '{grace}'"));
        let mut params = user_params(&["rexec:user:brief"]);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(1);
        write_private(agent.dir.path(), "brief.pem", &agent.authority.issue(params));
        let session = session_of(&agent, "brief").await;
        let line = if grace == "0s" { "sleep 1009" } else { "read line" };
        let mut child = start(&session, line).await;
        if grace == "1h" {
            while session.command("true").status().await.is_ok() {}
            drop(child.stdin.take());
            assert_eq!(child.wait().await.unwrap().code(), Some(1));
        } else {
            let words = cut(&mut child).await.outcome().to_string();
            assert!(words.contains("certificate_expired"), "{words}");
        }
        closes(&session).await;
    }
}

/// A connection that lasts for a command's sake tells nothing more, and hears nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_asks_and_hears_nothing() {
    let agent = TestAgent::with_both("[limits]\nexpired_grace = '1h'", &open_to_all());
    let mut params = user_params(&["rexec:user:brief"]);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(2);
    write_private(agent.dir.path(), "brief.pem", &agent.authority.issue(params));
    let brief = session_of(&agent, "brief").await;
    let mut child = start(&brief, "read line").await;
    let mut room = brief.join("lobby").await.unwrap();
    let alice = agent.session().await.join("lobby").await.unwrap();
    brief.who().await.unwrap();
    brief.jobs().await.unwrap();
    while brief.command("true").status().await.is_ok() {}
    for error in [brief.who().await.unwrap_err(), brief.jobs().await.unwrap_err()] {
        assert!(matches!(error.outcome(), Outcome::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains("your certificate expired on"), "{error}");
    }
    alice.say("a secret").await.unwrap();
    let end = loop {
        match timeout(PATIENCE, room.next()).await.expect("it goes on") {
            Ok(event) => assert!(!format!("{event:?}").contains("secret"), "it is heard"),
            Err(end) => break end,
        }
    };
    assert!(matches!(end.outcome(), Outcome::Denied { .. }), "{end:?}");
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}
