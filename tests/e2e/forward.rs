//! Connections from the agent's machine: `rexec-ssh -W`, `-L` and `-D`.

use crate::resume::echo_through;
use crate::support::agent::own_user;
use crate::support::chaos::{Chaos, Plan};
use crate::support::cli::code;
use crate::support::proc::{eventually, running_with};
use crate::support::raw::wire::{data, eof, frame, hello, text, uint};
use crate::support::raw::{FakeAgent, Raw};
use crate::support::{TestAgent, program};
use nix::libc::linger;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use rexec_client::{Connector, NeverStarted, Outcome};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

/// A policy that lets everybody connect to the ports of this list, and run nothing.
fn policy(forward: &str) -> String {
    let user = own_user();
    format!("[[rule]]\nname = 'ports'\nusers = ['*']\nas = ['{user}']\nforward = [{forward}]\n")
}

/// A server that reads to the end, and then answers with all of it, twice.
pub fn server() -> (u16, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::sync_channel(16);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, tell) = (socket.unwrap(), tell.clone());
            thread::spawn(move || {
                let mut bytes = Vec::new();
                socket.read_to_end(&mut bytes).unwrap();
                let _ = tell.send(bytes.len());
                socket.write_all(&bytes.repeat(2)).unwrap();
            });
        }
    });
    (port, told)
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `rexec-ssh -N` with ports, ended when the test ends.
pub struct Front(pub Child);

impl Front {
    pub fn start(agent: &TestAgent, words: &[&str], port: u16) -> Self {
        let mut command = agent.rexec_ssh();
        // As with ssh, a command is one word too many, and nothing more.
        command.arg("-N").args(words).args(["127.0.0.1", "exit 3"]).stderr(Stdio::piped());
        let front = Self(command.spawn().unwrap());
        eventually("the port is served", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        front
    }

    /// Ends it, and returns what it had to say.
    pub fn end(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `rexec-ssh -N` with these words, to a peer that may be hostile.
pub fn front_of(fake: &FakeAgent, words: &[&str]) -> Command {
    let files = fake.files("alice");
    let mut front = Command::new(program("rexec-ssh"));
    // `scripts/guards` switches a check of the program off by this.
    let guard = std::env::var_os("REXEC_GUARD_OFF").map(|name| ("REXEC_GUARD_OFF", name));
    front.env_clear().envs(guard).env("REXEC_IDENTITY", files.identity);
    front.env("REXEC_AUTHORITY", files.authority).env("REXEC_PORT", fake.port.to_string());
    front.arg("-N").args(words).arg("127.0.0.1").stdin(Stdio::null()).stderr(Stdio::piped());
    front
}

/// Has the last close of a socket be a reset.
pub fn reset(socket: TcpStream) {
    setsockopt(&socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// How what comes through a socket ends.
pub fn end_of(socket: &mut TcpStream) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).map(|_| ()).map_err(|error| error.kind());
    (bytes, end)
}

fn with_stdin(mut command: Command, bytes: &'static [u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // What is refused may be gone before it reads.
    let _ = stdin.write_all(bytes);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// Its end is told there, and what comes after that still arrives.
#[test]
fn stdin_and_stdout_become_a_connection_whose_halves_end_apart() {
    let (port, told) = server();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let mut command = agent.rexec_ssh();
    // No variable comes along: this one would make the process complain.
    command.args(["-oSetEnv=LD_PRELOAD=/nowhere.so", "-W", &format!("127.0.0.1:{port}")]);
    command.args(["127.0.0.1", "echo a command, which is left out"]);
    let output = with_stdin(command, b"to and fro ");
    assert_eq!(told.recv().unwrap(), 11);
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"to and fro to and fro "[..]));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let audit = std::fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    assert!(audit.contains(&format!("\"connect\",\"127.0.0.1\",\"{port}\"")), "{audit}");
}

#[test]
fn a_connection_that_cannot_be_made_is_255_and_says_why() {
    let agent = TestAgent::with_policy(&policy("'127.0.0.1:*'"));
    let closed = format!("127.0.0.1:{}", free_port());
    let output = agent.rexec_ssh().args(["-W", &closed, "127.0.0.1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 255);
    assert!(said.contains("refused"), "{said}");
}

/// Running everything does not mean connecting anywhere.
#[test]
fn without_a_rule_nothing_is_connected_to() {
    let (port, told) = server();
    let here = format!("127.0.0.1:{port}");
    for agent in [TestAgent::start(), TestAgent::with_policy(&policy("'127.0.0.1:1'"))] {
        let output = agent.rexec_ssh().args(["-W", &here, "127.0.0.1"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 255);
        assert!(said.contains("denied") && said.contains("connect"), "{said}");
    }
    assert!(told.try_recv().is_err());
}

/// Connects to what leads to a [`server`]: once without ever reading the answer, and eight times as one should.
pub fn stuck_and_eight_others(port: u16) -> TcpStream {
    let bytes = vec![7; 3_000_000];
    let mut stuck = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stuck.write_all(&bytes.repeat(4)).unwrap();
    stuck.shutdown(Shutdown::Write).unwrap();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let bytes = bytes.clone();
            thread::spawn(move || {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let mut sender = socket.try_clone().unwrap();
                let sending = thread::spawn(move || {
                    sender.write_all(&bytes).unwrap();
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                let mut answer = Vec::new();
                socket.read_to_end(&mut answer).unwrap();
                sending.join().unwrap();
                answer.len()
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 6_000_000);
    }
    stuck
}

#[test]
fn a_local_port_carries_many_connections_at_once() {
    let (port, _told) = server();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{port}")], local);
    // One that nobody reads holds up no other.
    let stuck = stuck_and_eight_others(local);
    assert_eq!(running_with(&format!("connect\0127.0.0.1\0{port}")).len(), 1);
    drop(stuck);
    eventually("its process has ended", || running_with(&format!("\0{port}\0")).is_empty());
    drop(front);
}

/// What is carried belongs to whoever carries it.
#[test]
fn connections_end_with_the_client_that_made_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{port}")], local);
    // That the port is served was seen by a first connection.
    let (_first, _) = listener.accept().unwrap();
    let mut near = TcpStream::connect(("127.0.0.1", local)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    assert_eq!(front.end(), "");
    assert!(matches!(far.read(&mut [0]), Ok(0) | Err(_)));
    assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)));
}

/// The user that was asked for is the one whose connections these are to be.
#[test]
fn another_user_is_asked_of_policy() {
    let (port, told) = server();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let forward = format!("{local}:127.0.0.1:{port}");
    let front = Front::start(&agent, &["-l", "daemon", "-L", &forward], local);
    let mut socket = TcpStream::connect(("127.0.0.1", local)).unwrap();
    assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
    let said = front.end();
    assert!(said.contains("denied") && said.contains("daemon"), "{said}");
    assert!(told.try_recv().is_err());
}

/// A server that sends back what comes, at once.
fn echoing() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            thread::spawn(move || {
                io::copy(&mut &socket, &mut &socket).unwrap();
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// A connection outlives the one to the agent, and the agent too.
#[tokio::test(flavor = "multi_thread")]
async fn cut_lines_and_restarts_lose_nothing_of_a_connection() {
    let port = echoing();
    let mut agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let chaos = Chaos::start(agent.port, Plan::cut_in_turn).await;
    let connector = Connector::new(&agent.files()).unwrap();
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let child = session.connect_to("127.0.0.1", port).spawn().await.unwrap();
    let echo = tokio::spawn(echo_through(child, 8 << 20));
    tokio::task::block_in_place(|| {
        eventually("it was cut", || {
            chaos.connections.load(std::sync::atomic::Ordering::Relaxed) > 3
        });
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        agent.start_again();
    });
    echo.await.unwrap();
}

/// Who waits for connections waits for the agent, too.
#[test]
fn a_port_that_nobody_uses_works_again_after_a_restart() {
    let (port, _told) = server();
    let mut agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{port}")], local);
    for _ in 0..2 {
        // The connection that it was seen by, and the one of the round before.
        let mark = format!("connect\0127.0.0.1\0{port}");
        eventually("nothing runs", || running_with(&mark).is_empty());
        agent.signal(Signal::SIGTERM);
        assert!(agent.wait().success());
        agent.start_again();
        let mut socket = TcpStream::connect(("127.0.0.1", local)).unwrap();
        socket.write_all(b"again").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "againagain");
    }
    assert_eq!(front.end(), "");
}

/// What policy is not asked about cannot be slipped in.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_variables_or_a_terminal_is_none() {
    let (port, told) = server();
    let agent = TestAgent::with_policy(&policy("'*:*'"));
    let session = agent.session().await;
    for command in [
        session.connect_to("127.0.0.1", port).env("LD_PRELOAD", "/tmp/x.so"),
        session.connect_to("127.0.0.1", port).current_dir("/tmp"),
        session.connect_to("127.0.0.1", 0),
        session.connect_to("", port),
    ] {
        let outcome = match command.output().await {
            Ok(output) => output.status.outcome().clone(),
            Err(error) => error.outcome().clone(),
        };
        let is_invalid =
            matches!(&outcome, Outcome::NeverStarted { reason: NeverStarted::Invalid, .. });
        assert!(is_invalid, "{outcome:?}");
    }
    // A host is one word, whatever is in it.
    let output = session.connect_to("--help; reboot", port).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("cannot connect to --help; reboot port"), "{said}");
    assert!(told.try_recv().is_err());
}

/// What comes back of `hi` that is sent there through a SOCKS port.
pub fn by_socks(socks: u16, name: &str, port: u16) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", socks)).unwrap();
    let mut request = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
    request.extend(name.as_bytes());
    request.extend(port.to_be_bytes());
    socket.write_all(&request).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    let _ = socket.write_all(b"hi");
    let _ = socket.shutdown(Shutdown::Write);
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text);
    text
}

#[test]
fn a_socks_port_leads_where_it_is_asked_to_and_policy_lets() {
    let (port, _told) = server();
    let agent = TestAgent::with_policy(&policy(&format!("'localhost:{port}'")));
    let local = free_port();
    let front = Front::start(&agent, &["-D", &local.to_string()], local);
    assert_eq!(by_socks(local, "localhost", port), b"hihi");
    assert_eq!(by_socks(local, "127.0.0.1", port), b"", "another name is another destination");
    let said = front.end();
    assert!(said.contains("denied"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_a_warning_or_the_end() {
    let agent = TestAgent::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("127.0.0.1:{}:127.0.0.1:1", taken.local_addr().unwrap().port());
    let output =
        agent.rexec_ssh().args(["-L", &forward, "127.0.0.1", "echo ran"]).output().unwrap();
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"ran\n"[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: cannot listen"));
    let mut strict = agent.rexec_ssh();
    strict.args(["-oExitOnForwardFailure=yes", "-L", &forward, "127.0.0.1", "echo ran"]);
    let output = strict.output().unwrap();
    assert_eq!((code(&output), output.stdout.as_slice()), (255, &b""[..]));
}

/// Of two addresses of a name one is taken: it leads elsewhere, which is to be known.
#[test]
fn an_address_that_is_taken_is_named_even_if_the_name_has_another() {
    let agent = TestAgent::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let forward = format!("{port}:127.0.0.1:1");
    let output =
        agent.rexec_ssh().args(["-L", &forward, "127.0.0.1", "echo ran"]).output().unwrap();
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"ran\n"[..]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("warning: cannot listen on"), "{said}");
    let mut strict = agent.rexec_ssh();
    strict.args(["-oExitOnForwardFailure=yes", "-L", &forward, "127.0.0.1", "echo ran"]);
    assert_eq!(code(&strict.output().unwrap()), 255);
    // All addresses of this machine are one to the system, and that is no reason to warn.
    drop(taken);
    let forward = format!("*:{port}:127.0.0.1:1");
    let output = agent.rexec_ssh().args(["-L", &forward, "127.0.0.1", "true"]).output().unwrap();
    assert_eq!((code(&output), output.stderr.as_slice()), (0, &b""[..]), "{output:?}");
}

/// What a program here sent before it was cut off does not look complete there.
#[test]
fn a_local_program_that_is_cut_off_is_cut_off_there_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let _front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{port}")], local);
    // The look whether the port is served came and went.
    let (mut looked, _) = listener.accept().unwrap();
    assert_eq!(looked.read(&mut [0]).unwrap(), 0);
    let mut here = TcpStream::connect(("127.0.0.1", local)).unwrap();
    here.write_all(b"half of it").unwrap();
    let (mut there, _) = listener.accept().unwrap();
    let mut half = [0; 10];
    there.read_exact(&mut half).unwrap();
    reset(here);
    assert_eq!(end_of(&mut there).1, Err(io::ErrorKind::ConnectionReset));
}

/// Nor does what came from there look complete here, be it that nothing was said before, or half of it.
#[test]
fn a_connection_that_is_reset_there_is_reset_here() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{port}'")));
    let local = free_port();
    let front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{port}")], local);
    drop(listener.accept().unwrap());
    for answer in [&b""[..], b"half of it"] {
        let mut here = TcpStream::connect(("127.0.0.1", local)).unwrap();
        here.write_all(b"what is to be kept").unwrap();
        let (mut there, _) = listener.accept().unwrap();
        there.read_exact(&mut [0; 18]).unwrap();
        there.write_all(answer).unwrap();
        let mut seen = vec![0; answer.len()];
        here.read_exact(&mut seen).unwrap();
        reset(there);
        assert_eq!(end_of(&mut here).1, Err(io::ErrorKind::ConnectionReset), "{answer:?}");
    }
    let said = front.end();
    assert_eq!(said.matches(&format!("the connection to 127.0.0.1 port {port} broke")).count(), 2);
}

/// What nobody is let to, or nobody listens to, is no empty answer.
#[test]
fn what_leads_nowhere_is_reset() {
    let (closed, local) = (free_port(), free_port());
    for allowed in [closed, local] {
        let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{allowed}'")));
        let front = Front::start(&agent, &["-L", &format!("{local}:127.0.0.1:{closed}")], local);
        let mut here = TcpStream::connect(("127.0.0.1", local)).unwrap();
        assert_eq!(end_of(&mut here), (Vec::new(), Err(io::ErrorKind::ConnectionReset)));
        drop(front);
    }
}

/// Whatever was before and after it: the two parts are not the whole.
#[test]
fn what_was_lost_with_an_agent_cuts_a_connection_off() {
    for (before, after) in [("before", "after"), ("before", ""), ("", "after")] {
        let fake = FakeAgent::new();
        let agent = fake.serve(fake.config(), move |mut raw: Raw| {
            raw.wait_for("exec");
            let started = frame("started", 1, &[("job", text("x")), ("pid", uint(1))]);
            let (before, after) = (before.as_bytes(), after.as_bytes());
            let at = before.len() as u64 + 1000;
            let gap = frame("gap", 1, &[("channel", text("out")), ("to", uint(at))]);
            let size = at + after.len() as u64;
            let mut frames = vec![hello(), started];
            if !before.is_empty() {
                frames.push(data(1, "out", 0, before, before));
            }
            frames.push(gap);
            if !after.is_empty() {
                frames.push(data(1, "out", at, after, b""));
            }
            // No digest is looked at after a gap.
            frames.push(eof(1, "out", &vec![0; size as usize]));
            frames.push(eof(1, "err", b""));
            let _ = raw.send(&frames.concat());
            // Until the client has left.
            raw.errors()
        });
        let local = free_port();
        let forward = format!("127.0.0.1:{local}:db:1");
        let front = front_of(&fake, &["-L", &forward]).spawn().unwrap();
        let mut here = None;
        eventually("the port is served", || {
            here = TcpStream::connect(("127.0.0.1", local)).ok();
            here.is_some()
        });
        let (_, end) = end_of(&mut here.unwrap());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "{before:?} {after:?}");
        let said = Front(front).end();
        assert!(said.contains("1000 bytes of it were lost"), "{said}");
        agent.join().unwrap().unwrap();
    }
}

/// Whoever called it can rely on the ports as soon as it returns.
#[test]
fn in_the_background_ports_are_open_once_it_returns() {
    let (there, told) = server();
    let agent = TestAgent::with_policy(&policy(&format!("'127.0.0.1:{there}'")));
    let local = free_port();
    let forward = format!("127.0.0.1:{local}:127.0.0.1:{there}");
    let strict = ["-fN", "-oExitOnForwardFailure=yes", "-L", &forward, "127.0.0.1"];
    let mut front = agent.rexec_ssh();
    front.args(strict).stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(front.status().unwrap().code(), Some(0));
    let pids = running_with(&forward);
    let mut to = TcpStream::connect(("127.0.0.1", local)).unwrap();
    to.write_all(b"hello").unwrap();
    to.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    to.read_to_string(&mut all).unwrap();
    assert_eq!((all.as_str(), told.recv().unwrap()), ("hellohello", 5));
    // A second one cannot have the port, and says so before anything goes to the background.
    let output = agent.rexec_ssh().args(strict).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 255, "{said}");
    assert!(said.contains("cannot listen"), "{said}");
    let [pid] = pids[..] else { panic!("{pids:?}") };
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid, "it has left its terminal");
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    eventually("it is gone", || running_with(&forward).is_empty());
}

#[test]
fn in_the_background_a_command_runs_once_it_returns() {
    let agent = TestAgent::start();
    let (go, done) = (agent.path("go"), agent.path("done"));
    let line = format!(
        "until test -e {}; do sleep 0.02; done; cat; touch {}",
        go.display(),
        done.display()
    );
    let mut front = agent.rexec_ssh();
    front.args(["-f", "127.0.0.1", &line]).stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(front.status().unwrap().code(), Some(0));
    assert!(!done.exists());
    std::fs::write(go, "").unwrap();
    eventually("it went on to its end", || done.exists());
    for (words, said) in [
        (&["-f", "127.0.0.1"][..], "-f: nothing could go to the background"),
        (&["-f", "-l", "nobody-at-all", "127.0.0.1", "true"], "nobody-at-all"),
    ] {
        let output = agent.rexec_ssh().args(words).output().unwrap();
        assert_eq!(code(&output), 255, "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
