//! Ports of the agent's machine that lead to this side: `rexec-ssh -R`, and what hostile clients make of them.

use crate::forward::{
    Front, by_socks, end_of, free_port, front_of, reset, server, stuck_and_eight_others,
};
use crate::resume::echo_through;
use crate::support::TestAgent;
use crate::support::agent::own_user;
use crate::support::chaos::{Chaos, Plan};
use crate::support::cli::code;
use crate::support::proc::{eventually, running_with};
use crate::support::raw::wire::{
    bin, data, eof, exec_spec, frame, hello, map, sha256, text, uint, with_body,
};
use crate::support::raw::{FakeAgent, Raw};
use nix::sys::signal::Signal;
use rexec_client::{Connector, Incoming, Listener, NeverStarted, Outcome, Session};
use rexec_net::credentials::Credentials;
use rexec_net::tls::client_config;
use rexec_protocol::Message;
use rexec_protocol::message::Refusal;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// A policy that lets everybody open these ports, and run everything else.
fn policy(listen: &str) -> String {
    let user = own_user();
    format!(
        "[[rule]]\nname = 'ports'\nusers = ['*']\nas = ['{user}']\nlisten = [{listen}]\n\
         commands = 'any'\n"
    )
}

/// A port of the agent's that leads to a port here.
fn leads(port: u16, here: u16) -> String {
    format!("127.0.0.1:{port}:127.0.0.1:{here}")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Sends some bytes, and reads what comes back to the end.
fn say(port: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.write_all(bytes)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Both halves of each end apart: the server answers when it has read to the end.
#[test]
fn a_port_there_carries_many_connections_at_once_and_is_free_again() {
    let (here, _told) = server();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let front = Front::start(&agent, &["-R", &leads(there, here)], there);
    let stuck = stuck_and_eight_others(there);
    let listens = format!("listen\0127.0.0.1\0{there}");
    assert_eq!(running_with(&listens).len(), 1);
    let audit = std::fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    assert!(audit.contains(&format!("\"listen\",\"127.0.0.1\",\"{there}\"")), "{audit}");
    assert!(audit.contains("\"accept\",\""), "{audit}");
    assert_eq!(front.end(), "");
    eventually("the port is free", || is_free(there));
    eventually("its process has ended", || running_with(&listens).is_empty());
    drop(stuck);
}

/// Which is told as ssh tells it, and nothing else is said.
#[test]
fn a_port_that_is_left_to_the_agent_is_told() {
    let (here, _told) = server();
    let agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    for (forward, to) in
        [(leads(0, here), format!("127.0.0.1:{here}")), ("127.0.0.1:0".into(), "socks:0".into())]
    {
        let mut command = agent.rexec_ssh();
        command.args(["-N", "-R", &forward, "127.0.0.1"]).stderr(Stdio::piped());
        let mut front = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(front.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.strip_prefix("Allocated port ").unwrap_or_else(|| panic!("{line}"));
        let port = port.strip_suffix(&format!(" for remote forward to {to}\n"));
        let port = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        if to == "socks:0" {
            assert_eq!(by_socks(port, "localhost", here), b"hihi");
        } else {
            assert_eq!(say(port, b"hi").unwrap(), b"hihi");
        }
        // Who came to which port is on record.
        let audit = std::fs::read_to_string(agent.path("audit.jsonl")).unwrap();
        assert!(audit.contains("\"peer\":\"127.0.0.1:"), "{audit}");
        let listening = || {
            let audit = std::fs::read_to_string(agent.path("audit.jsonl")).unwrap();
            let mut lines = audit.lines().filter(|line| line.contains("\"event\":\"listening\""));
            lines.any(|line| line.contains(&format!("\"port\":{port}")))
        };
        eventually("the port is on record", listening);
        front.kill().unwrap();
        front.wait().unwrap();
    }
}

/// Be it named by an option or by a file; `-g` is about ports here.
#[test]
fn with_a_command_the_ports_live_as_long_as_it() {
    let (here, _told) = server();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'localhost:{there}'")));
    let forward = format!("RemoteForward {there} 127.0.0.1:{here}");
    std::fs::write(agent.path("config"), format!("Host 127.*\n {forward}\n")).unwrap();
    for words in [["-o", &forward], ["-F", agent.path("config").to_str().unwrap()]] {
        let mut command = agent.rexec_ssh();
        command.args(words).args(["-g", "127.0.0.1", "echo up; cat"]);
        let mut front = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 3];
        front.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert_eq!(say(there, b"hi").unwrap(), b"hihi");
        drop(front.stdin.take());
        assert!(front.wait().unwrap().success());
        eventually("the port is free", || is_free(there));
    }
}

#[test]
fn a_port_that_cannot_be_had_is_a_warning_or_the_end() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    for (forward, says) in [
        (format!("127.0.0.1:{port}:127.0.0.1:1"), "in use"),
        (format!("{port}:127.0.0.1:1"), "may not listen on 'localhost'"),
        (format!("*:{port}"), "may not listen on '*'"),
    ] {
        let output =
            agent.rexec_ssh().args(["-R", &forward, "127.0.0.1", "echo ran"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"ran\n"[..]));
        let words = format!("warning: remote port forwarding failed for listen port {port}: ");
        assert!(said.contains(&words) && said.contains(says), "{said}");
        let mut strict = agent.rexec_ssh();
        strict.args(["-oExitOnForwardFailure=yes", "-R", &forward, "127.0.0.1", "echo ran"]);
        let output = strict.output().unwrap();
        assert_eq!((code(&output), output.stdout.as_slice()), (255, &b""[..]));
        // As with ssh.
        let mut cleared = agent.rexec_ssh();
        cleared.args(["-oClearAllForwardings=yes", "-R", &forward, "127.0.0.1", "echo ran"]);
        let output = cleared.output().unwrap();
        assert_eq!((code(&output), output.stderr.as_slice()), (0, &b""[..]));
    }
}

/// What leads nowhere is reset, and not left waiting.
#[test]
fn a_connection_that_leads_nowhere_ends_and_says_why() {
    let (there, here) = (free_port(), free_port());
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let front = Front::start(&agent, &["-R", &leads(there, here)], there);
    let mut socket = TcpStream::connect(("127.0.0.1", there)).unwrap();
    let end = socket.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    let said = front.end();
    assert!(said.contains(&format!("cannot connect to 127.0.0.1 port {here} here: ")), "{said}");
}

/// What is said here first, and ends first, is not the end of what is said there.
#[test]
fn the_half_from_here_may_end_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let port = listener.local_addr().unwrap().port();
    let _front = Front::start(&agent, &["-R", &leads(there, port)], there);
    // The look whether the port is served came and went.
    let (mut looked, _) = listener.accept().unwrap();
    assert_eq!(looked.read(&mut [0]).unwrap(), 0);
    let mut far = TcpStream::connect(("127.0.0.1", there)).unwrap();
    let (mut near, _) = listener.accept().unwrap();
    near.write_all(b"that is all").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).unwrap();
    assert_eq!(text, "that is all");
    far.write_all(b"well").unwrap();
    drop(far);
    let mut text = String::new();
    near.read_to_string(&mut text).unwrap();
    assert_eq!(text, "well");
}

#[test]
fn a_port_that_nobody_uses_outlives_a_restart() {
    let (here, _told) = server();
    let there = free_port();
    let mut agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let front = Front::start(&agent, &["-R", &leads(there, here)], there);
    for _ in 0..2 {
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        // While there is no agent at all it is open, and who comes waits.
        let mut waits = TcpStream::connect(("127.0.0.1", there)).unwrap();
        waits.write_all(b"hi").unwrap();
        waits.shutdown(Shutdown::Write).unwrap();
        agent.start_again();
        assert_eq!(end_of(&mut waits), (b"hihi".to_vec(), Ok(())));
    }
    assert_eq!(front.end(), "");
}

/// Unlike a port here, it does not come back by itself; who restarts such programs has to hear of it.
#[test]
fn a_port_that_is_lost_there_ends_what_only_serves_ports() {
    let (here, _told) = server();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let mut command = agent.rexec_ssh();
    let mut front = command
        .args(["-N", "-R", &leads(there, here), "127.0.0.1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the port is served", || !is_free(there));
    let listens = format!("listen\0127.0.0.1\0{there}");
    for pid in running_with(&listens) {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }
    let mut said = String::new();
    front.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(front.wait().unwrap().code(), Some(255));
    assert!(said.contains(&format!("port {there} of the agent's machine is closed")), "{said}");
    assert!(said.contains("KILL"), "{said}");
}

/// A connection outlives lines and agents, and none that comes meanwhile is missed or told twice.
#[tokio::test(flavor = "multi_thread")]
async fn cut_lines_and_restarts_lose_no_connection_and_nothing_of_one() {
    let mut agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    let chaos = Chaos::start(agent.port, Plan::cut_in_turn).await;
    let connector = Connector::new(&agent.files()).unwrap();
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let mut listener = session.listen("127.0.0.1", 0).start().await.unwrap();
    let there = listener.port();
    let echo = thread::spawn(move || {
        let socket = TcpStream::connect(("127.0.0.1", there)).unwrap();
        io::copy(&mut &socket, &mut &socket).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
    });
    let incoming = listener.accept().await.unwrap();
    let echoed = tokio::spawn(echo_through(incoming.take().await.unwrap(), 8 << 20));
    let clients: Vec<TcpStream> = tokio::task::block_in_place(|| {
        eventually("it was cut", || {
            chaos.connections.load(std::sync::atomic::Ordering::Relaxed) > 3
        });
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        let clients = (0..5).map(|_| TcpStream::connect(("127.0.0.1", there)).unwrap()).collect();
        agent.start_again();
        clients
    });
    echoed.await.unwrap();
    echo.join().unwrap();
    let mut expected: Vec<_> = clients.iter().map(|one| one.local_addr().unwrap()).collect();
    let mut told = Vec::new();
    for _ in &clients {
        told.push(listener.accept().await.unwrap().peer_addr());
    }
    expected.sort();
    told.sort();
    assert_eq!(told, expected);
}

fn is_refused(outcome: &Outcome, reason: NeverStarted) -> bool {
    matches!(outcome, Outcome::NeverStarted { reason: found, .. } if *found == reason)
}

/// The listener of a session, and a connection that waits there.
async fn one_waiting(session: &Session) -> (Listener, Incoming, TcpStream) {
    let mut listener = session.listen("127.0.0.1", 0).start().await.unwrap();
    let socket = TcpStream::connect(("127.0.0.1", listener.port())).unwrap();
    let incoming = listener.accept().await.unwrap();
    assert_eq!(incoming.peer_addr(), socket.local_addr().unwrap());
    (listener, incoming, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_taken_once() {
    let agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    let session = agent.session().await;
    let (listener, incoming, mut socket) = one_waiting(&session).await;
    let again = incoming.clone();
    let taken = incoming.take().await.unwrap();
    let error = again.take().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Local { .. }), "{error:?}");
    assert!(error.to_string().contains("was taken, or has waited for too long"), "{error}");
    socket.write_all(b"once").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let output = taken.wait_with_output().await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"once"[..], &b""[..]));
    drop(listener);
}

fn raw(agent: &TestAgent, name: &str) -> Raw {
    let own = Credentials::load(&agent.files_of(name)).unwrap();
    Raw::connect(agent.port, &client_config(&own).unwrap()).unwrap()
}

/// How a request ends that no client of ours would make.
fn by_hand(agent: &TestAgent, name: &str, spec: &[u8]) -> Outcome {
    outcome_of(agent, name, &exec_spec(1, spec))
}

fn outcome_of(agent: &TestAgent, name: &str, exec: &[u8]) -> Outcome {
    let mut raw = raw(agent, name);
    raw.send(&[&hello(), exec].concat()).unwrap();
    loop {
        if let Message::Exit(exit) = raw.next().unwrap().unwrap().message {
            return exit.outcome;
        }
    }
}

/// What becomes of the wish for the first connection of a job.
fn taken_by(agent: &TestAgent, name: &str, job: &str) -> Outcome {
    let accept = map(&[("job", text(job)), ("number", uint(1))]);
    let command = map(&[("accept", accept)]);
    by_hand(agent, name, &map(&[("command", command), ("stdin", vec![0xc3])]))
}

/// One does not take what another listens for, even as the same local user, nor what nobody listens for.
#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_others_and_of_ended_jobs_are_not_to_be_had() {
    let agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    let session = agent.session().await;
    let (listener, incoming, mut socket) = one_waiting(&session).await;
    let job = listener.job().as_str().to_owned();
    agent.session_as("bob").await;
    let by_bob = taken_by(&agent, "bob", &job);
    assert!(is_refused(&by_bob, NeverStarted::NotFound), "{by_bob:?}");
    // That there is such a job is not told either.
    let none = taken_by(&agent, "bob", "no-such-job");
    assert_eq!(by_bob.to_string().replace(&job, "no-such-job"), none.to_string());
    // One that runs and does not listen.
    let child = session.command("cat").spawn().await.unwrap();
    let outcome = taken_by(&agent, "alice", child.job().as_str());
    assert!(is_refused(&outcome, NeverStarted::NotFound), "{outcome:?}");
    let there = listener.port();
    drop(listener);
    // It was nobody's, and is cut off with its port.
    let end = socket.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    tokio::task::block_in_place(|| eventually("the port is free", || is_free(there)));
    assert!(is_refused(&outcome_soon(incoming).await, NeverStarted::NotFound));
}

/// The agent may see the end of a process a little later than the test does.
async fn outcome_soon(incoming: Incoming) -> Outcome {
    loop {
        match incoming.clone().take().await.unwrap_err().outcome().clone() {
            Outcome::Local { .. } => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

/// What no policy is asked about cannot be slipped in, and nonsense is none of a resolver's business.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_none_is_refused() {
    let agent = TestAgent::with_policy(&policy("'*:*'"));
    let session = agent.session().await;
    for host in ["", "a\0b", "127.1", "0", "0x7f000001", "127.0.0.0/8", "::1%lo", "*:1"] {
        let error = session.listen(host, 0).start().await.unwrap_err();
        assert!(is_refused(error.outcome(), NeverStarted::Invalid), "{host:?}: {error:?}");
    }
    for host in ["no-such-host.invalid", "192.0.2.1", "--help; reboot", "**"] {
        let error = session.listen(host, 0).start().await.unwrap_err();
        let begins = format!("cannot listen on {host} port 0: ");
        assert!(error.to_string().starts_with(&begins), "{error}");
    }
    // Without its stdin, by a client that does not look.
    let listen = map(&[("host", text("127.0.0.1")), ("port", uint(0))]);
    let outcome = by_hand(&agent, "alice", &map(&[("command", map(&[("listen", listen)]))]));
    assert!(is_refused(&outcome, NeverStarted::Invalid), "{outcome:?}");
}

/// Policy and certificate are asked about no more once nobody is there for it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_about_connections_outlives_its_client() {
    let there = free_port();
    let agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    let (yes, window) = (|| vec![0xc3], || [("window", uint(1 << 62)), ("digest", text("sha256"))]);
    let place = map(&[("host", text("127.0.0.1")), ("port", uint(there.into()))]);
    let listen = map(&[("listen", place.clone())]);
    let accept = map(&[("accept", map(&[("job", text("x")), ("number", uint(1))]))]);
    for command in [listen.clone(), map(&[("connect", place)]), accept] {
        let spec = [("command", command), ("stdin", yes())];
        let then = ("on_disconnect", map(&[("keep", map(&[]))]));
        let outcome = by_hand(&agent, "alice", &map(&[&spec[..], &[then]].concat()));
        assert!(is_refused(&outcome, NeverStarted::Invalid), "{outcome:?}");
        let spec = map(&spec);
        let args = [&window()[..], &[("detach", yes())]].concat();
        let detached = with_body("exec", 1, &args, &spec, sha256(&spec));
        let outcome = outcome_of(&agent, "alice", &detached);
        assert!(is_refused(&outcome, NeverStarted::Invalid), "{outcome:?}");
    }
    // Nor by who leaves it later; whoever is told that it is kept would count on it.
    let mut raw = raw(&agent, "alice");
    let spec = map(&[("command", listen), ("stdin", yes())]);
    let args = [&window()[..], &[("job", text("port"))]].concat();
    let exec = with_body("exec", 1, &args, &spec, sha256(&spec));
    raw.send(&[hello(), exec].concat()).unwrap();
    raw.wait_for("data");
    assert!(!is_free(there));
    raw.send(&frame("detach", 1, &[])).unwrap();
    let refused = loop {
        match raw.next().unwrap().unwrap().message {
            Message::Refused(refused) => break refused,
            Message::Detach(_) => panic!("it is kept"),
            _ => {}
        }
    };
    assert_eq!(refused.reason, Refusal::Invalid, "{refused:?}");
    tokio::task::block_in_place(|| eventually("the port is free", || is_free(there)));
}

/// Whoever can reach a port decides how many connections it has, and about nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_to_a_port_keep_its_owner_from_no_command() {
    let user = own_user();
    let policy = format!(
        "[[rule]]\nname = 'ports'\nusers = ['*']\nas = ['{user}']\nlisten = ['127.0.0.1:*']\n\
         commands = 'any'\n[rule.limits]\ncommands = 1\n"
    );
    let config = "[limits]\ncommands_per_identity = 1\nforwards_per_identity = 4\n";
    let mut agent = TestAgent::with_both(config, &policy);
    let session = agent.session().await;
    let mut listener = session.listen("127.0.0.1", 0).start().await.unwrap();
    let mut sockets = Vec::new();
    let mut come = async || {
        sockets.push(TcpStream::connect(("127.0.0.1", listener.port())).unwrap());
        listener.accept().await.unwrap()
    };
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(come().await.take().await.unwrap());
    }
    let said = "4 forwarded connections and ports of 'alice' are open, which is the limit \
                (limits.forwards_per_identity)";
    for round in 0..2 {
        let refused = agent.log().matches(said).count();
        let waits = tokio::spawn(come().await.take());
        tokio::task::block_in_place(|| {
            eventually("it was refused", || agent.log().matches(said).count() > refused);
        });
        waits.abort();
        assert!(session.command("true").status().await.unwrap().success());
        if round == 0 {
            // As much after a restart.
            tokio::task::block_in_place(|| {
                agent.signal(Signal::SIGTERM);
                assert!(agent.wait().success());
                agent.start_again();
            });
        }
    }
    // A connection can wait for a minute, and an agent that is busy may not be for so long.
    let refused = agent.log().matches(said).count();
    let waits = tokio::spawn(come().await.take());
    tokio::task::block_in_place(|| {
        eventually("it was refused", || agent.log().matches(said).count() > refused);
    });
    taken.pop().unwrap().kill().await.unwrap();
    taken.push(waits.await.unwrap().unwrap());
}

/// A client believes no agent that says of a port what it should not, and none for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_nonsense_of_a_port_is_not_believed() {
    let fake = FakeAgent::new();
    let endless = "x".repeat(1000);
    for (says, is_open) in [
        ("port 0\n", false),
        ("1 127.0.0.1:1\n", false),
        ("\n", false),
        (endless.as_str(), false),
        ("port 8080\nport 8080\n", true),
        ("port 8080\n0 127.0.0.1:1\n", true),
        ("port 8080\n1 here\n", true),
        // Numbers count up from 1.
        ("port 8080\n2 127.0.0.1:1\n", true),
        ("port 8080\n1 127.0.0.1:1\n1 127.0.0.1:1\n", true),
        ("port 8080\n1 127.0.0.1:1\n3 127.0.0.1:1\n", true),
    ] {
        let bytes = says.as_bytes().to_vec();
        let agent = fake.serve(fake.config(), move |mut raw: Raw| {
            raw.wait_for("exec");
            let started = [("job", text("x")), ("pid", uint(1))];
            let told = [hello(), frame("started", 1, &started), data(1, "out", 0, &bytes, &bytes)];
            let ended = [eof(1, "out", &bytes), eof(1, "err", b"")];
            let _ = raw.send(&[told.concat(), ended.concat()].concat());
            // Until the client has left.
            raw.errors()
        });
        let connector = Connector::new(&fake.files("alice")).unwrap();
        let connector = connector.reconnect_for(Duration::ZERO);
        let session = connector.connect("127.0.0.1", fake.port).await.unwrap();
        let started = session.listen("localhost", 0).start().await;
        assert_eq!(started.is_ok(), is_open, "{started:?}");
        let error = match started {
            Ok(mut listener) => {
                assert_eq!(listener.port(), 8080);
                loop {
                    match listener.accept().await {
                        Ok(incoming) => {
                            assert!(says.contains(&format!("\n1 {}\n", incoming.peer_addr())))
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        assert!(matches!(error.outcome(), Outcome::Incomplete { .. }), "{error:?}");
        drop(session);
        tokio::task::spawn_blocking(move || agent.join()).await.unwrap().unwrap().unwrap();
    }
}

/// Lines that were lost with an agent: how many connections that were is known, and half a line is none.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_an_agent_has_forgotten_are_counted() {
    let fake = FakeAgent::new();
    let agent = fake.serve(fake.config(), move |mut raw: Raw| {
        raw.wait_for("exec");
        let started = [("job", text("x")), ("pid", uint(1))];
        let before = b"port 8080\n1 127.0.0.1:1\n2 127.0.0.1:2";
        let at = before.len() as u64 + 100;
        let gap = frame("gap", 1, &[("channel", text("out")), ("to", uint(at))]);
        // With what was before it, the first of these would be a line.
        let after = b"0\n7 127.0.0.1:7\n8 127.0.0.1:8\n10 127.0.0.1:10\n";
        let told = [hello(), frame("started", 1, &started), data(1, "out", 0, before, before)];
        let _ = raw.send(&[told.concat(), gap, data(1, "out", at, after, b"")].concat());
        raw.errors()
    });
    let connector = Connector::new(&fake.files("alice")).unwrap();
    let session = connector.connect("127.0.0.1", fake.port).await.unwrap();
    let mut listener = session.listen("localhost", 0).start().await.unwrap();
    for (port, missed) in [(1, 0), (7, 5), (8, 0)] {
        let incoming = listener.accept().await.unwrap();
        assert_eq!((incoming.peer_addr().port(), incoming.missed()), (port, missed));
    }
    // A gap lets one number be skipped, not any later one.
    let error = listener.accept().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Incomplete { .. }), "{error:?}");
    drop((listener, session));
    tokio::task::spawn_blocking(move || agent.join()).await.unwrap().unwrap().unwrap();
}

/// It was waited for ever, and the port was open there all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_told_to_nobody_is_given_up() {
    let fake = FakeAgent::new();
    let agent = fake.serve(fake.config(), move |mut raw: Raw| {
        raw.wait_for("exec");
        let started = frame("started", 1, &[("job", text("x")), ("pid", uint(1))]);
        let gap = frame("gap", 1, &[("channel", text("out")), ("to", uint(10))]);
        raw.send(&[hello(), started, gap].concat()).unwrap();
        raw.wait_for("cancel");
        raw.errors()
    });
    let connector = Connector::new(&fake.files("alice")).unwrap();
    let session = connector.connect("127.0.0.1", fake.port).await.unwrap();
    let error = session.listen("localhost", 0).start().await.unwrap_err();
    assert!(error.to_string().contains("which port is open"), "{error}");
    drop(session);
    tokio::task::spawn_blocking(move || agent.join()).await.unwrap().unwrap().unwrap();
}

/// What an agent says instead of `taken`, by a process of its own.
fn never_taken(mut raw: Raw) {
    raw.wait_for("exec");
    let started = |stream| frame("started", stream, &[("job", text("x")), ("pid", uint(stream))]);
    let lines = b"port 8080\n1 127.0.0.1:1\n";
    let told = [hello(), started(1), data(1, "out", 0, lines, lines)];
    raw.send(&told.concat()).unwrap();
    raw.wait_for("exec");
    let words = b"it went away\n";
    let tally = |bytes: &[u8]| {
        map(&[("size", uint(bytes.len() as u64)), ("hash", bin(sha256(bytes).as_bytes()))])
    };
    let outcome = map(&[("kind", text("exited")), ("code", uint(1))]);
    let exit = frame(
        "exit",
        2,
        &[
            ("outcome", outcome),
            ("stdout", tally(b"")),
            ("stderr", tally(words)),
            ("stdin", tally(b"")),
        ],
    );
    let ended =
        [started(2), eof(2, "out", b""), data(2, "err", 0, words, words), eof(2, "err", words)];
    raw.send(&[ended.concat(), exit].concat()).unwrap();
    raw.errors();
}

/// A connection that is gone there leads to none here, and why it is gone is told.
#[test]
fn nothing_is_connected_to_for_a_connection_that_is_gone() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    here.set_nonblocking(true).unwrap();
    for forward in [leads(8080, here.local_addr().unwrap().port()), "8080".to_owned()] {
        let fake = FakeAgent::new();
        let agent = fake.serve(fake.config(), never_taken);
        let mut front = front_of(&fake, &["-R", &forward]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(front.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.ends_with("to the agent's machine: it went away\n"), "{line}");
        assert_eq!(here.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        front.kill().unwrap();
        front.wait().unwrap();
        agent.join().unwrap().unwrap();
    }
}

#[test]
fn a_connection_that_is_reset_there_is_reset_here() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let port = here.local_addr().unwrap().port();
    let front = Front::start(&agent, &["-R", &leads(there, port)], there);
    drop(here.accept().unwrap());
    let mut far = TcpStream::connect(("127.0.0.1", there)).unwrap();
    far.write_all(b"half of it").unwrap();
    let (mut near, _) = here.accept().unwrap();
    near.read_exact(&mut [0; 10]).unwrap();
    reset(far);
    assert_eq!(end_of(&mut near), (Vec::new(), Err(io::ErrorKind::ConnectionReset)));
    assert!(front.end().contains("broke"));
}

/// Each port has its share of what is carried at once; and that it is closed is seen also while that is used up.
#[test]
fn a_port_without_a_place_waits_for_one_and_is_still_seen_to_close() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let (there, other) = (free_port(), free_port());
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let forward = leads(there, here.local_addr().unwrap().port());
    // So many that there is one place for each.
    let others: Vec<_> = (2..=200).map(|n| format!("-L127.0.0.{n}:{other}:db:1")).collect();
    let mut words: Vec<&str> = others.iter().map(String::as_str).collect();
    words.extend(["-R", &forward]);
    let mut front = Front::start(&agent, &words, there);
    drop(here.accept().unwrap());
    let mut first = TcpStream::connect(("127.0.0.1", there)).unwrap();
    first.write_all(b"1").unwrap();
    let (mut near, _) = here.accept().unwrap();
    near.read_exact(&mut [0]).unwrap();
    let mut second = TcpStream::connect(("127.0.0.1", there)).unwrap();
    second.write_all(b"2").unwrap();
    // Both ends of it, or it goes on.
    drop((first, near));
    let (mut near, _) = here.accept().unwrap();
    let mut byte = [0];
    near.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"2");
    let _third = TcpStream::connect(("127.0.0.1", there)).unwrap();
    for pid in running_with(&format!("listen\0127.0.0.1\0{there}")) {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }
    let mut said = String::new();
    front.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains(&format!("port {there} of the agent's machine is closed")), "{said}");
}

/// A request for a name by SOCKS 5: the code of the answer.
fn asked_for(socks: u16, name: &str, port: u16) -> u8 {
    let mut socket = TcpStream::connect(("127.0.0.1", socks)).unwrap();
    let name = [&[name.len() as u8], name.as_bytes()].concat();
    let request = [&[5, 1, 0, 5, 1, 0, 3][..], &name, &port.to_be_bytes()].concat();
    socket.write_all(&request).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..3], [5, 0, 5]);
    answer[3]
}

/// Whoever can reach such a port can otherwise reach all that this side reaches.
#[test]
fn a_socks_port_there_leads_where_it_may() {
    let (here, _told) = server();
    let there = free_port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let permit = format!("PermitRemoteOpen localhost:{here}");
    std::fs::write(agent.path("config"), format!("{permit}\nPermitRemoteOpen any\n")).unwrap();
    let (socks, config) = (format!("127.0.0.1:{there}"), agent.path("config"));
    for words in [["-o", &permit], ["-F", config.to_str().unwrap()]] {
        let front = Front::start(&agent, &[&words[..], &["-R", &socks]].concat(), there);
        assert_eq!(by_socks(there, "localhost", here), b"hihi");
        assert_eq!(asked_for(there, "127.0.0.1", here), 2);
        let said = front.end();
        let refused = format!("PermitRemoteOpen does not let it lead to 127.0.0.1 port {here}");
        assert!(said.contains(&refused), "{said}");
        eventually("the port is free", || is_free(there));
    }
}
