//! Commands that keep the agent out of their own pipes with splice(2) hold up nobody.

use crate::hostile::neighbour::Neighbour;
use crate::support::TestAgent;
use crate::support::cli::code;
use crate::support::proc::{eventually, running_with};
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::signal::Signal as Kill;
use rexec_client::{Child, OnDisconnect, Outcome, Session, Signal, Stdio};
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::thread::available_parallelism;
use std::time::Duration;

/// How long the pipe is held each time; without a remedy so long is everybody held up.
const HOLD: Duration = Duration::from_secs(2);
/// What a command holds is in this variable.
const HELD: &str = "REXEC_TEST_HELD";
/// What the agent logs once it knows.
const KNOWN: &str = "seems to hold the pipe";

/// Not a test, but the command of the others: prints, and then holds its stdout, or its stdin once there
/// is something in it, for as long as it can; and that again and again.
#[test]
fn holder() {
    let Some(held) = std::env::var_os(HELD) else { return };
    let (socket, other) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(HOLD)).unwrap();
    socket.set_write_timeout(Some(HOLD)).unwrap();
    other.set_nonblocking(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    while (&socket).write(&[0; 4096]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    loop {
        println!("ready");
        io::stdout().flush().unwrap();
        let (length, flags) = (1 << 16, SpliceFFlags::empty());
        // Nobody sends anything to the socket, and nobody reads what is in it.
        let _ = if held == "stdin" {
            splice(io::stdin(), None, &socket, None, length, flags)
        } else {
            splice(&socket, None, io::stdout(), None, length, flags)
        };
    }
}

/// The line that runs it. It is in a session of its own, where no signal to a group reaches it.
fn line(held: &str, mark: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let program = program.display();
    format!(
        "{HELD}={held} setsid -w {program} --exact held_pipes::holder --nocapture --skip '{mark}'"
    )
}

/// Returns once it has said that it is there.
async fn started(session: &Session, held: &str, mark: &str) -> Child {
    let command = session.shell(line(held, mark)).on_disconnect(OnDisconnect::Keep {});
    let mut child = command.stdin(Stdio::Piped).spawn().await.unwrap();
    said_ready(&mut child).await;
    child
}

async fn said_ready(child: &mut Child) {
    let mut said = Vec::new();
    while !said.ends_with(b"ready\n") {
        said.extend_from_slice(&child.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap());
    }
}

/// Whether a thread of the agent is in a wait that nothing interrupts.
fn waits(agent: &TestAgent) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.contains(") D "))
}

fn known(agent: &TestAgent, jobs: usize) {
    eventually("the agent knows all of them", || agent.log().matches(KNOWN).count() >= jobs);
}

/// More than the agent has threads for, and each is cancelled, killed, or left to the next agent.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_hold_their_stdout_hold_up_nobody() {
    let mut agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("mark.{}", agent.pid());
    let session = agent.session().await;
    let workers = available_parallelism().unwrap().get().div_ceil(2);
    let mut holders = Vec::new();
    for _ in 0..workers + 2 {
        holders.push(started(&session, "stdout", &mark).await);
    }
    known(&agent, holders.len());
    let neighbour = Neighbour::of(&agent).await;
    // What they print comes, also once they are known.
    for holder in &mut holders {
        said_ready(holder).await;
        said_ready(holder).await;
    }
    assert_eq!(code(&agent.run(["true"])), 0);
    neighbour.was_undisturbed().await;
    let mut child = holders.pop().unwrap();
    child.cancel_with(Signal::TERM, Duration::from_millis(200)).await;
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
    let mut left = Vec::new();
    for child in holders {
        left.push(child.job().to_string());
        drop(child);
    }
    drop(session);
    agent.signal(Kill::SIGTERM);
    assert!(agent.wait().success());
    agent.start_again();
    for job in &left {
        assert_eq!(code(&agent.jobs(&["kill", "HOST", job])), 0);
        agent.jobs(&["wait", "HOST", job]);
    }
    eventually("all are gone", || running_with(&mark).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_hold_their_stdin_hold_up_nobody() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("mark.{}", agent.pid());
    let session = agent.session().await;
    let mut holders = Vec::new();
    for _ in 0..available_parallelism().unwrap().get().div_ceil(2) + 1 {
        let mut child = started(&session, "stdin", &mark).await;
        let mut stdin = child.stdin.take().unwrap();
        // Until the agent has to wait for it.
        let feeding = tokio::spawn(async move {
            while stdin.send(vec![b'x'; 100].into()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        holders.push((child, feeding));
    }
    known(&agent, holders.len());
    let neighbour = Neighbour::of(&agent).await;
    for (holder, _) in &mut holders {
        said_ready(holder).await;
        said_ready(holder).await;
    }
    neighbour.was_undisturbed().await;
    for (mut child, feeding) in holders {
        child.cancel_with(Signal::TERM, Duration::from_millis(200)).await;
        assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
        feeding.await.unwrap();
    }
    eventually("all are gone", || running_with(&mark).is_empty());
}

/// What a read that was under way brings is not output after the end of the output.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_stops_reading_while_a_pipe_is_held() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("mark.{}", agent.pid());
    let session = agent.session().await;
    let mut child = started(&session, "stdout", &mark).await;
    known(&agent, 1);
    eventually("the agent waits again", || waits(&agent));
    drop(child.stdout.take());
    // It panics when it cannot print any more.
    assert_eq!(child.wait().await.unwrap().code(), Some(101));
}

/// Their output is read by threads that may block; there are only so many of those, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_is_on_disk_is_interrupted_too() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("mark.{}", agent.pid());
    let session = agent.session().await;
    let job = session.shell(line("stdout", &mark)).detach().await.unwrap();
    known(&agent, 1);
    assert_eq!(code(&agent.jobs(&["kill", "HOST", job.as_str()])), 0);
    eventually("it is gone", || running_with(&mark).is_empty());
}
