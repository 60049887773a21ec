//! What any one may have of an agent, before it is known who they are and after.

use crate::hostile::agent_side::Verdict::Told;
use crate::hostile::agent_side::{State, client_config, is_sound, reach, verdict};
use crate::hostile::neighbour::Neighbour;
use crate::support::certs::{user_params, write_private};
use crate::support::dial::{dial, is_closed};
use crate::support::proc::{cpu_time, descriptors, eventually};
use crate::support::raw::{Raw, wire};
use crate::support::{Authority, TestAgent};
use rexec_client::{Connector, NeverStarted, Outcome, Session, Signal};
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use rexec_protocol::ErrorCode;
use rustls::ClientConfig;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A machine of its own.
fn machine(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

/// How many lines of the agent's log hold all of these words.
fn lines(agent: &TestAgent, words: &[&str]) -> usize {
    let log = agent.log();
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn is_served(from: Ipv4Addr, agent: &TestAgent, config: &Arc<ClientConfig>) -> bool {
    let Ok(mut raw) = Raw::connect_from(from, agent.port, config) else { return false };
    // The agent's hello comes early; its pong only once it has accepted ours.
    let is_sent = raw.send(&[wire::hello(), wire::ping(1)].concat()).is_ok();
    is_sent && matches!([raw.next(), raw.next()], [Ok(Some(_)), Ok(Some(_))])
}

fn silent(from: Ipv4Addr, agent: &TestAgent, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| dial(from, agent.port).unwrap()).collect()
}

fn open(sockets: &[TcpStream]) -> usize {
    sockets.iter().filter(|socket| !is_closed(socket)).count()
}

async fn session_of(agent: &TestAgent, name: &str) -> Session {
    let connector = Connector::new(&agent.files_of(name)).unwrap();
    connector.connect("127.0.0.1", agent.port).await.unwrap()
}

/// An agent that knows Bob, too.
fn agent_with(config: &str) -> TestAgent {
    let agent = TestAgent::with(config);
    write_private(agent.dir.path(), "bob.pem", &agent.authority.issue_user("bob"));
    agent
}

async fn sleeper(session: &Session) -> rexec_client::Child {
    session.command("sleep").arg("1000").spawn().await.unwrap()
}

/// Why a command was not started: the agent's words.
async fn busy(session: &Session) -> String {
    let error = session.command("true").status().await.unwrap_err();
    match error.outcome() {
        Outcome::NeverStarted { reason: NeverStarted::Busy, message } => message.clone(),
        other => panic!("not busy: {other}"),
    }
}

#[test]
fn silent_connections_hinder_nobody_at_another_address() {
    let agent = TestAgent::with("[limits]\nhandshake = '2s'");
    let config = client_config(&agent);
    let start = Instant::now();
    let sockets = silent(machine(2), &agent, 40);
    let refused = ["DEBUG", "127.0.0.2", "limits.handshakes_per_source"];
    eventually("all above 16 are refused", || lines(&agent, &refused) == 24);
    eventually("the refused ones are closed", || open(&sockets) == 16);
    assert!(is_served(machine(3), &agent, &config));
    assert!(start.elapsed() < Duration::from_secs(2), "only after the others were gone");
    eventually("the silent ones are closed at their deadline", || open(&sockets) == 0);
    assert!(start.elapsed() >= Duration::from_secs(2), "before it");
    assert!(is_served(machine(2), &agent, &config), "places are given back");
}

#[test]
fn those_who_are_known_find_a_place_in_a_flood() {
    let agent = TestAgent::with("[limits]\nhandshakes = 32\nhandshakes_early_drop = 32");
    let config = client_config(&agent);
    assert!(is_served(machine(9), &agent, &config));
    let sockets: Vec<_> = (2..=4).flat_map(|n| silent(machine(n), &agent, 16)).collect();
    eventually("strangers have all places but four", || open(&sockets) == 28);
    assert!(!is_served(machine(8), &agent, &config), "a stranger");
    assert!(is_served(machine(9), &agent, &config), "an operator");
}

/// One after the other, so that each is judged before the next comes.
fn knock_and_leave(from: Ipv4Addr, agent: &TestAgent) {
    let mut socket = dial(from, agent.port).unwrap();
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.read_to_end(&mut Vec::new());
}

#[test]
fn a_source_that_fails_is_refused_for_a_while() {
    let agent = TestAgent::with(
        "[limits.penalties]\nexempt = []\nfailed = '1500ms'\nmin = '3s'\nmax = '4s'",
    );
    let stranger = Authority::new().issue(user_params(&["rexec:user:alice"]));
    write_private(agent.dir.path(), "stranger.pem", &stranger);
    let bad = Credentials::load(&agent.files_of("stranger")).unwrap();
    let (bad, good) = (tls::client_config(&bad).unwrap(), client_config(&agent));
    let mut attempts = 0;
    while lines(&agent, &["WARN", "127.0.0.2", "it is refused for now"]) == 0 {
        attempts += 1;
        assert!(attempts < 20, "it is never refused");
        assert!(!is_served(machine(2), &agent, &bad), "a certificate of another authority");
        eventually("the agent has judged it", || {
            lines(&agent, &["connection refused"]) == attempts
        });
    }
    let start = Instant::now();
    assert!(attempts >= 3, "refused after {attempts}");
    assert!(!is_served(machine(2), &agent, &good), "whatever it presents");
    assert!(is_served(machine(3), &agent, &good), "others are served");
    eventually("it is served again", || is_served(machine(2), &agent, &good));
    assert!(start.elapsed() > Duration::from_secs(2), "after {:?}", start.elapsed());
}

#[test]
fn a_flood_of_knocks_is_cut_off() {
    let agent = TestAgent::with("[limits.penalties]\nexempt = []");
    (0..60).for_each(|_| knock_and_leave(machine(2), &agent));
    eventually("all are judged", || {
        let judged = lines(&agent, &["closed the connection before TLS was set up"]);
        judged + lines(&agent, &["DEBUG", "limits.penalties"]) == 60
    });
    let let_in = lines(&agent, &["closed the connection before TLS was set up"]);
    assert!((16..=20).contains(&let_in), "{let_in} were let in");
}

#[test]
fn penalties_do_not_hit_exempt_networks() {
    let agent = TestAgent::start();
    (0..60).for_each(|_| knock_and_leave(machine(2), &agent));
    assert!(is_served(machine(2), &agent, &client_config(&agent)));
    assert_eq!(lines(&agent, &["it is refused for now"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_a_limit_of_connections() {
    let agent = agent_with("[limits]\nconnections_per_identity = 2");
    let (first, second) = (agent.session().await, agent.session().await);
    first.ping().await.unwrap();
    second.ping().await.unwrap();
    let error = agent.session().await.command("true").status().await.unwrap_err();
    assert!(error.nothing_ran(), "{error}");
    let said = error.to_string();
    assert!(said.contains("(limits.connections_per_identity)") && said.contains("busy"), "{said}");
    assert!(session_of(&agent, "bob").await.ping().await.is_ok());
    drop(first);
    eventually("the place is free", || lines(&agent, &["connection closed"]) >= 2);
    let third = agent.session().await;
    assert!(third.command("true").status().await.unwrap().success());
    second.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_together_have_a_limit() {
    let agent = agent_with("[limits]\nconnections = 1");
    let first = agent.session().await;
    first.ping().await.unwrap();
    let bob = session_of(&agent, "bob").await;
    let error = bob.command("true").status().await.unwrap_err();
    assert!(error.nothing_ran() && error.to_string().contains("(limits.connections)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_a_limit_of_commands_over_all_its_connections() {
    let agent = agent_with("[limits]\ncommands_per_identity = 3\ncommands = 4");
    let (one, other) = (agent.session().await, agent.session().await);
    let (mut first, _second, _third) =
        (sleeper(&one).await, sleeper(&one).await, sleeper(&other).await);
    for session in [&one, &other] {
        let said = busy(session).await;
        assert!(said.contains("3 commands of 'alice' are running"), "{said}");
        assert!(said.contains("limits.commands_per_identity"), "{said}");
    }
    let bob = session_of(&agent, "bob").await;
    let _fourth = sleeper(&bob).await;
    let said = busy(&bob).await;
    assert!(said.contains("in all") && said.contains("(limits.commands)"), "{said}");
    first.kill().await.unwrap();
    assert!(other.command("true").status().await.unwrap().success());
    assert!(bob.command("true").status().await.unwrap().success());
}

/// A peer that opens and cancels gets no more work done at once than one that does not cancel.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_counts_until_it_is_gone() {
    let agent = TestAgent::with("[limits]\ncommands_per_identity = 1");
    let session = agent.session().await;
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = session.shell(stubborn).spawn().await.unwrap();
    let ready = child.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap();
    assert_eq!(&*ready, b"ready\n");
    drop(ready);
    child.cancel_with(Signal::TERM, Duration::from_secs(2)).await;
    busy(&session).await;
    // Nor is a command of a connection that is gone.
    busy(&agent.session().await).await;
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
    assert!(session.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_small_frames_is_closed_and_told_so() {
    let agent = TestAgent::with(
        "[limits]\nframes_per_second = 1000\nframes_burst = 2000\nerrors_per_connection = 5\n\
         kill_grace = '200ms'",
    );
    let neighbour = Neighbour::of(&agent).await;
    let (config, port) = (client_config(&agent), agent.port);
    let mark = format!("2005.{}", agent.pid());
    let floods = [
        ("pings", wire::ping(1).repeat(10_000)),
        ("windows", (0..10_000).flat_map(|n| wire::window(1, n + (1 << 40))).collect()),
        ("frames for a command that is over", wire::signal(1, "WINCH").repeat(10_000)),
        ("unknown verbs", wire::frame("dance", 0, &[]).repeat(6)),
        ("errors", wire::error(0, "unknown_verb", "what?").repeat(6)),
    ];
    let verdicts = tokio::task::spawn_blocking(move || {
        floods.map(|(name, bytes)| {
            let mut raw = reach(port, &config, State::Running, &mark);
            // It may be refused before all of it was sent.
            let _ = raw.send(&bytes);
            (name, verdict(raw))
        })
    });
    for (name, found) in verdicts.await.unwrap() {
        assert_eq!(found, Told(ErrorCode::Flood), "{name}");
    }
    is_sound(&agent);
    neighbour.was_undisturbed().await;
}

/// Limits what an agent that runs already may open. False if there is no program for that.
fn limit_descriptors(agent: &TestAgent, limit: &str) -> bool {
    let pid = agent.pid().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, &format!("--nofile={limit}")]);
    prlimit.status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_descriptors_closes_connections_and_recovers() {
    const LIMIT: usize = 64;
    let agent = TestAgent::with(
        "[limits]\nhandshake = '60s'\nhandshakes = 1000\nhandshakes_early_drop = 1000\n\
         handshakes_per_source = 1000",
    );
    let session = agent.session().await;
    let mut cat = session.command("cat").spawn().await.unwrap();
    let (mut stdin, mut stdout) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    if !limit_descriptors(&agent, &LIMIT.to_string()) {
        println!("skipped: there is no prlimit program (util-linux)");
        return;
    }
    let (start, before) = (Instant::now(), cpu_time(agent.pid()));
    let sockets = silent(machine(1), &agent, 200);
    eventually("the agent has no descriptor left", || descriptors(agent.pid()) >= LIMIT);
    eventually("what it cannot serve is closed", || open(&sockets) < LIMIT);
    // The loop must not spin once it has nothing to close, either.
    eventually("some time has passed", || start.elapsed() > Duration::from_secs(2));
    let (took, used) = (start.elapsed(), cpu_time(agent.pid()) - before);
    println!("{used:?} of {took:?}");
    assert!(used < took / 20, "the agent used {used:?} of {took:?}");
    assert!(lines(&agent, &["cannot accept connections"]) <= 2, "a line per connection");

    lacks_resources(&session).await;
    stdin.send("still here\n".into()).await.unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"still here\n");

    drop(sockets);
    eventually("the sockets are closed", || descriptors(agent.pid()) < LIMIT / 2);
    assert!(session.command("true").status().await.unwrap().success());
    assert!(agent.session().await.command("true").status().await.unwrap().success());
    drop((stdin, stdout));
    assert_eq!(cat.wait().await.unwrap().code(), Some(0));
    is_sound(&agent);
}

async fn lacks_resources(session: &Session) {
    let error = session.command("true").status().await.unwrap_err();
    let Outcome::NeverStarted { reason, .. } = error.outcome() else { panic!("{error}") };
    assert_eq!(*reason, NeverStarted::Resource, "{error}");
}

/// With room for some of its descriptors it would run, and nobody could say what came of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_room_for_all_its_descriptors_is_not_begun() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    session.ping().await.unwrap();
    for free in 0..6 {
        let is_free = |n: &usize| !Path::new(&format!("/proc/{}/fd/{n}", agent.pid())).exists();
        let limit = (0..).filter(is_free).nth(free).unwrap();
        if !limit_descriptors(&agent, &format!("{limit}:")) {
            println!("skipped: there is no prlimit program (util-linux)");
            return;
        }
        lacks_resources(&session).await;
    }
    assert!(limit_descriptors(&agent, "1024:"));
    assert!(session.command("true").status().await.unwrap().success());
}

/// The agent uses the whole of what it may have open; commands have what the agent was started with.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_raises_its_own_limit_of_descriptors() {
    let wrapped = |command: &mut Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -Sn 300; exec \"$0\" \"$@\""]);
        shell.arg(command.get_program()).args(command.get_args());
        *command = shell;
    };
    let agent = TestAgent::prepared("", wrapped);
    let session = agent.session().await;
    let mut commands = Vec::new();
    for _ in 0..100 {
        commands.push(sleeper(&session).await);
    }
    assert!(descriptors(agent.pid()) > 300);
    let output = session.shell("ulimit -Sn").output().await.unwrap();
    assert_eq!(output.stdout, b"300\n");
    drop(commands);
}
