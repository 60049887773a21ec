//! No orphans: whoever dies, what the command started goes with it. And no surprise kills.

use crate::support::TestAgent;
use crate::support::proc::{eventually, is_running, running_with};
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;
use rexec_client::{Connector, Outcome, Session, Signal};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

/// A shell line that starts a child in the same group, one in a session of its own that has let go
/// of everything, and one that ignores the polite signals, and then says "ready".
fn tree(mark: &str) -> String {
    format!(
        "sleep 1000.{mark} & setsid sh -c 'sleep 1001.{mark} <&- >&- 2>&- & exit' ; \
         sh -c 'trap \"\" HUP INT TERM; while :; do sleep 1002.{mark}; done' & echo ready; wait"
    )
}

async fn started(session: &Session, mark: &str) -> rexec_client::Child {
    let mut child = session.shell(tree(mark)).spawn().await.unwrap();
    let ready = child.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap();
    assert_eq!(&*ready, b"ready\n");
    drop(ready);
    eventually("all are there", || running_with(mark).len() >= 3);
    child
}

fn gone(mark: &str) {
    eventually("nothing is left of the tree", || running_with(mark).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_the_whole_tree() {
    let agent = TestAgent::start();
    let mark = format!("{}1", agent.pid());
    let mut child = started(&agent.session().await, &mark).await;
    child.cancel_with(Signal::INT, Duration::from_millis(200)).await;
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
    gone(&mark);
}

/// Also when there is more time for the tree than the output is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn that_a_tree_which_is_being_ended_held_its_output_is_told() {
    let agent = TestAgent::with("[limits]\ndrain_quiet = '50ms'");
    let session = agent.session().await;
    let line = "sh -c 'trap \"\" HUP INT TERM; echo ready; while :; do sleep 1; done' & wait";
    let mut child = session.shell(line).spawn().await.unwrap();
    child.stdout.as_mut().unwrap().chunk().await.unwrap().unwrap();
    child.cancel_with(Signal::TERM, Duration::from_millis(800)).await;
    let status = child.wait().await.unwrap();
    assert!(status.held() && status.outcome() == &Outcome::Cancelled, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_the_whole_tree() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("{}2", agent.pid());
    let session = agent.session().await;
    let command = session.shell(tree(&mark)).timeout(Duration::from_millis(300));
    assert_eq!(command.output().await.unwrap().status.outcome(), &Outcome::TimedOut);
    gone(&mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_ends_the_whole_tree() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("{}3", agent.pid());
    let session = agent.session().await;
    let child = started(&session, &mark).await;
    drop((child, session));
    gone(&mark);
}

#[test]
fn a_killed_client_leaves_nothing_behind() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = format!("{}4", agent.pid());
    let mut rexec = agent.rexec();
    let mut client =
        rexec.arg(agent.target()).arg(tree(&mark)).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    client.kill().unwrap();
    client.wait().unwrap();
    gone(&mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_that_nobody_replaces_leaves_nothing_behind() {
    let agent = TestAgent::with("[jobs]\nlease_silent = '300ms'");
    let mark = format!("{}5", agent.pid());
    let connector = Connector::new(&agent.files()).unwrap().reconnect_for(Duration::ZERO);
    let session = connector.connect("127.0.0.1", agent.port).await.unwrap();
    let mut child = started(&session, &mark).await;
    agent.signal(Kill::SIGKILL);
    let error = child.wait().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}");
    gone(&mark);
}

/// A daemon that was started on purpose stays when its command has ended well.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_not_killed() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = "setsid sleep 1000 <&- >&- 2>&- & echo $!";
    let output = session.shell(line).output().await.unwrap();
    assert!(output.status.success() && !output.status.held());
    let pid: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    // The keeper has let go by the time a later command is through.
    session.command("true").status().await.unwrap();
    drop(session);
    assert!(is_running(pid));
    kill(Pid::from_raw(pid as i32), Kill::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_command_can_be_cancelled() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.shell("kill -STOP $$; exit 3").spawn().await.unwrap();
    eventually("it has stopped", || {
        std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") T")
    });
    child.cancel().await;
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
}

/// Ctrl-C at the program cancels the tree; the exit code says so.
#[test]
fn ctrl_c_cancels_the_remote_tree() {
    let agent = TestAgent::start();
    let mark = format!("{}6", agent.pid());
    let line = format!("trap 'echo caught; exit' INT; sleep 1003.{mark} & echo ready; wait");
    let mut rexec = agent.rexec();
    let rexec = rexec.arg(agent.target()).arg(line).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = rexec.spawn().unwrap();
    let mut stdout = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(client.id() as i32), Kill::SIGINT).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "caught\n");
    assert_eq!(client.wait().unwrap().code(), Some(130));
    gone(&mark);
}

/// The second Ctrl-C leaves at once, and says what may still run.
#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let agent = TestAgent::with("[limits]\nkill_grace = '300ms'");
    let mark = format!("{}7", agent.pid());
    let line = format!("trap '' INT HUP TERM; echo ready; while :; do sleep 1004.{mark}; done");
    let mut rexec = agent.rexec();
    let rexec = rexec.arg(agent.target()).arg(line).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = rexec.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = BufReader::new(client.stderr.take().unwrap());
    let interrupt = || kill(Pid::from_raw(client.id() as i32), Kill::SIGINT).unwrap();
    interrupt();
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("again"), "{said}");
    interrupt();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("was told to end, and may still be at it"), "{said}");
    assert_eq!(client.wait().unwrap().code(), Some(255), "the end is not known");
    gone(&mark);
}
