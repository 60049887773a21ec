//! Agents that are gone, and those that come after them.

use super::*;
use crate::keeper::wire;
use crate::listen::handover;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rexec_protocol::message::Channel;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

const LEASE: Duration = Duration::from_secs(60);

/// Where agents listen.
pub(super) struct Place(Scratch);

impl Place {
    pub(super) fn new(name: &str) -> Self {
        Self(Scratch::new(name))
    }

    fn socket(&self) -> PathBuf {
        self.0.0.join("adopt.sock")
    }

    pub(super) fn will(&self, lease: Duration) -> Will {
        Will {
            memo: b"what it is".to_vec(),
            socket: self.socket(),
            lease: Some(lease),
            timeout: None,
            grace: GRACE,
        }
    }

    pub(super) async fn adopt(&self) -> Adopted {
        let adoptions = Adoptions::open(&self.socket()).unwrap();
        let orphan = timeout(PATIENCE, adoptions.next()).await.unwrap().unwrap();
        orphan.adopt().await.unwrap()
    }
}

fn ledger() -> OwnedFd {
    memfd_create(c"ledger", MFdFlags::MFD_CLOEXEC).unwrap()
}

/// Leaves all of it to the next agent.
pub(super) async fn leave(running: &mut Running, will: &Will) {
    let mut ends = vec![(Channel::Out, running.stdout.as_fd())];
    ends.extend(running.stdin.as_ref().map(|stdin| (Channel::In, stdin.as_fd())));
    ends.extend(running.stderr.as_ref().map(|stderr| (Channel::Err, stderr.as_fd())));
    running.keeper.leave(will, &ends, ledger().as_fd()).await.unwrap();
}

async fn line(stdout: &mut Reader) -> String {
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.unwrap().unwrap();
    line
}

#[tokio::test]
async fn a_command_notices_nothing_of_another_agent() {
    let (zygote, place) = (zygote().await, Place::new("adopt"));
    let mut running =
        launch(&zygote, LaunchSpec { stdin: true, ..sh("echo $$; exec cat; exit 9") }).await;
    let command = announced(&mut running.stdout).await;
    leave(&mut running, &place.will(LEASE)).await;
    drop((running, zygote));
    for round in ["one\n", "two\n"] {
        let mut adopted = place.adopt().await;
        assert_eq!(adopted.memo, b"what it is");
        assert_eq!(adopted.pid, command.pid);
        assert!(adopted.ledger.is_some() && !adopted.timed_out && !adopted.ending);
        adopted.stdin.as_mut().unwrap().write_all(round.as_bytes()).await.unwrap();
        assert_eq!(line(adopted.stdout.as_mut().unwrap()).await, round);
        assert!(command.lives());
    }
    let mut adopted = place.adopt().await;
    drop(adopted.stdin.take());
    adopted.keeper.close(Channel::In).await.unwrap();
    assert_eq!(exited(&mut adopted.keeper).await, Status::Code(0));
    adopted.keeper.release().await;
}

#[tokio::test]
async fn what_an_agent_closes_is_closed_for_the_command_too() {
    let (zygote, place) = (zygote().await, Place::new("close"));
    let mut running = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    leave(&mut running, &place.will(LEASE)).await;
    drop(running.stdin.take());
    running.keeper.close(Channel::In).await.unwrap();
    assert_eq!(exited(&mut running.keeper).await, Status::Code(0));

    let mut running = launch(&zygote, spec(&["yes"])).await;
    leave(&mut running, &place.will(LEASE)).await;
    let Running { stdout, mut keeper, .. } = running;
    drop(stdout);
    keeper.close(Channel::Out).await.unwrap();
    assert_eq!(
        exited(&mut keeper).await,
        Status::Signal(Signal::from_number(libc::SIGPIPE).unwrap())
    );
}

#[tokio::test]
async fn what_happens_between_two_agents_is_told_to_the_second() {
    let (zygote, place) = (zygote().await, Place::new("between"));
    let mut running = launch(&zygote, sh("echo $$; kill -STOP $$; echo last words; exit 7")).await;
    let command = announced(&mut running.stdout).await;
    leave(&mut running, &place.will(LEASE)).await;
    drop(running);
    command.is_stopped().await;
    command.signal(libc::SIGCONT);
    command.dies().await;
    let mut adopted = place.adopt().await;
    assert_eq!(line(adopted.stdout.as_mut().unwrap()).await, "last words\n");
    assert_eq!(exited(&mut adopted.keeper).await, Status::Code(7));
    adopted.keeper.end(Signal::TERM, GRACE).await.unwrap();
    tree_gone(&mut adopted.keeper).await;
}

#[tokio::test]
async fn a_lease_that_nobody_takes_up_ends_the_tree() {
    let (zygote, place) = (zygote().await, Place::new("lease"));
    let mut running = launch(&zygote, sh("trap '' HUP; echo $$; sleep 1000")).await;
    let command = announced(&mut running.stdout).await;
    let keeper = Watched::new(parent_of(command.pid));
    leave(&mut running, &place.will(Duration::from_millis(300))).await;
    drop(running);
    command.dies().await;
    keeper.dies().await;
}

/// That an agent listens and says nothing, or is stopped, makes no lease longer.
#[tokio::test]
async fn an_agent_that_says_nothing_has_no_job() {
    let (zygote, place) = (zygote().await, Place::new("mute"));
    let mut running = launch(&zygote, sh("echo $$; exec sleep 1000")).await;
    let command = announced(&mut running.stdout).await;
    let _mute = UnixListener::bind(place.socket()).unwrap();
    leave(&mut running, &place.will(Duration::from_millis(300))).await;
    drop(running);
    command.dies().await;
}

#[tokio::test]
async fn a_timeout_counts_while_there_is_no_agent() {
    let (zygote, place) = (zygote().await, Place::new("timeout"));
    let mut running = launch(&zygote, sh("echo $$; exec sleep 1000")).await;
    let command = announced(&mut running.stdout).await;
    let timeout = Some(Duration::from_millis(400));
    leave(&mut running, &Will { timeout, ..place.will(LEASE) }).await;
    drop(running);
    command.dies().await;
    let mut adopted = place.adopt().await;
    assert!(adopted.timed_out && adopted.age >= Duration::from_millis(400));
    assert_eq!(exited(&mut adopted.keeper).await, Status::Signal(Signal::TERM));
    tree_gone(&mut adopted.keeper).await;
}

/// To be told once more would cut the time that it was given.
#[tokio::test]
async fn a_job_that_is_being_ended_is_known_as_such_to_the_next_agent() {
    let (zygote, place) = (zygote().await, Place::new("ending"));
    let mut running = launch(&zygote, sh("trap '' TERM; echo $$; sleep 1000; sleep 1000")).await;
    let command = announced(&mut running.stdout).await;
    leave(&mut running, &place.will(LEASE)).await;
    running.keeper.end(Signal::TERM, LEASE).await.unwrap();
    drop(running);
    let mut adopted = place.adopt().await;
    assert!(adopted.ending && command.lives());
    adopted.keeper.end(Signal::TERM, Duration::ZERO).await.unwrap();
    command.dies().await;
}

#[test]
fn a_place_that_cannot_be_listened_at_is_named() {
    let path = Path::new("/tmp").join("x".repeat(200)).join("adopt.sock");
    let error = Adoptions::open(&path).unwrap_err().to_string();
    assert!(error.contains("xxx/adopt.sock") && error.contains("'state_dir'"), "{error}");
}

#[tokio::test]
async fn a_will_that_is_amended_keeps_the_pipes() {
    let (zygote, place) = (zygote().await, Place::new("amend"));
    let mut running = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    leave(&mut running, &place.will(Duration::ZERO)).await;
    let new = Will { memo: b"changed".to_vec(), ..place.will(LEASE) };
    running.keeper.amend(&new).await.unwrap();
    drop(running);
    let adopted = place.adopt().await;
    assert_eq!(adopted.memo, b"changed");
    assert!(adopted.stdin.is_some() && adopted.stdout.is_some() && adopted.stderr.is_some());
}

#[tokio::test]
async fn a_terminal_goes_from_agent_to_agent() {
    let (zygote, place) = (zygote().await, Place::new("terminal"));
    let size = TerminalSize { columns: 80, rows: 25, width: 0, height: 0 };
    let spec = LaunchSpec {
        stdin: true,
        terminal: Some(size),
        ..sh("stty -echo; echo ready; read word; echo got $word; stty size")
    };
    let mut running = launch(&zygote, spec).await;
    assert_eq!(line(&mut running.stdout).await, "ready\r\n");
    leave(&mut running, &place.will(LEASE)).await;
    drop(running);
    let mut adopted = place.adopt().await;
    let size = TerminalSize { columns: 132, ..size };
    adopted.terminal.as_ref().unwrap().resize(size).unwrap();
    adopted.stdin.as_mut().unwrap().write_all(b"it\n").await.unwrap();
    let mut said = Vec::new();
    // A terminal ends with an error.
    let _ = timeout(PATIENCE, adopted.stdout.unwrap().read_to_end(&mut said)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "got it\r\n25 132\r\n");
}

/// The other side of a socket, as somebody else: `who` does `what` at `path`.
pub(crate) fn somebody(what: &str, path: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("rexec-stranger").args([what.as_ref(), path.as_os_str()]);
    command.uid(65_534).gid(65_534);
    command
}

/// What [`somebody`] does, before there is a test harness.
pub(super) fn stranger(what: &str, path: &Path) {
    let heard = match what {
        "ask" => handover::tests::ask(path.to_str().unwrap()),
        "squat" => handover::tests::squat(path.to_str().unwrap()),
        "offer" => {
            let mut socket = UnixStream::connect(path).unwrap();
            let adopt = wire::Adopt {
                version: 1,
                memo: bytes("of a stranger"),
                pid: 1,
                keeper: 1,
                cgroup: None,
                terminal: false,
                age_ms: 0,
                timed_out: false,
                ending: false,
                ends: Vec::new(),
                ledger: false,
            };
            // It may be closed already.
            let _ = io::Write::write_all(&mut socket, &wire::frame(&adopt).unwrap());
            // Until it is closed.
            io::Read::read(&mut socket, &mut [0]).unwrap_or(0)
        }
        _ => {
            let listener = UnixListener::bind(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            let (mut socket, _) = listener.accept().unwrap();
            io::Read::read(&mut socket, &mut [0; 64]).unwrap_or(0)
        }
    };
    // The status says whether anything was heard.
    sys::exit_now(i32::from(heard > 0));
}

/// A folder that anybody may enter and write to, which no agent's is.
fn open_to_all(name: &str) -> Option<Place> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    let place = Place::new(name);
    fs::set_permissions(&place.0.0, fs::Permissions::from_mode(0o777)).unwrap();
    Some(place)
}

#[tokio::test]
async fn a_stranger_cannot_offer_a_job() {
    let Some(place) = open_to_all("offer") else { return };
    let adoptions = Adoptions::open(&place.socket()).unwrap();
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut stranger = somebody("offer", &place.socket()).spawn().unwrap();
    let gone = tokio::task::spawn_blocking(move || stranger.wait().unwrap());
    tokio::select! {
        orphan = adoptions.next() => panic!("{orphan:?} was let in"),
        gone = gone => assert!(gone.unwrap().success()),
    }
}

#[tokio::test]
async fn a_stranger_gets_no_job() {
    let Some(place) = open_to_all("stranger") else { return };
    let zygote = zygote().await;
    let mut running = launch(&zygote, sh("echo $$; exec sleep 1000")).await;
    let command = announced(&mut running.stdout).await;
    let mut stranger = somebody("listen", &place.socket()).spawn().unwrap();
    eventually("the stranger listens", || place.socket().exists()).await;
    leave(&mut running, &place.will(LEASE)).await;
    drop(running);
    let heard = tokio::task::spawn_blocking(move || stranger.wait().unwrap()).await.unwrap();
    assert!(heard.success(), "it was told of the job");
    // The right one gets it.
    let adopted = place.adopt().await;
    assert!(command.lives());
    assert_eq!(fcntl(adopted.ledger.unwrap(), FcntlArg::F_GETFD), Ok(1), "close-on-exec");
}
