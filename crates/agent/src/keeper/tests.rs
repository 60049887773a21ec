//! Real processes. The test binary is its own zygote: before its `main`, [`become_zygote`] looks
//! whether it was started as one.

mod adopt;
mod end;
mod limits;
mod pause;
mod run_as;
mod spares;
mod start;
mod terminal;
mod zygote;

pub(crate) use adopt::somebody;

use super::process::{NO_CGROUP, ZYGOTE};
use super::spares::{IDLE, MOST};
use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rexec_protocol::{JobId, NeverStarted};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// Runs before `main`, because the test harness starts threads.
extern "C" fn become_zygote() {
    let words: Vec<_> = std::env::args().take(2).collect();
    if words == ["rexec-agent", ZYGOTE] {
        zygote_main();
        sys::exit_now(0);
    }
    let words: Vec<_> = std::env::args().take(3).collect();
    if let [name, what, path] = &words[..]
        && name == "rexec-stranger"
    {
        adopt::stranger(what, Path::new(path));
    }
}

#[used]
#[allow(unsafe_code)]
// SAFETY: the C library calls what is in this section, once, with the C calling convention.
#[unsafe(link_section = ".init_array")]
static BECOME_ZYGOTE: extern "C" fn() = become_zygote;

const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_millis(300);

async fn zygote() -> Zygote {
    Zygote::start(Path::new("/proc/self/exe")).await.unwrap()
}

async fn zygote_without_cgroup() -> Zygote {
    Zygote::start_with(Path::new("/proc/self/exe"), vec![ZYGOTE, NO_CGROUP], IDLE).await.unwrap()
}

fn job() -> JobId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    JobId::new(&format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

fn bytes(text: &str) -> ByteBuf {
    ByteBuf::from(text.as_bytes())
}

fn spec(words: &[&str]) -> LaunchSpec {
    LaunchSpec {
        program: Program::Argv { words: words.iter().map(|w| bytes(w)).collect(), argv0: None },
        env: vec![(bytes("PATH"), bytes("/usr/bin:/bin"))],
        cwd: bytes("/"),
        cwd_or_root: false,
        stdin: false,
        terminal: None,
        credentials: None,
        umask: 0o022,
        limits: Limits::default(),
    }
}

fn sh(line: &str) -> LaunchSpec {
    spec(&["sh", "-c", line])
}

async fn launch(zygote: &Zygote, spec: LaunchSpec) -> Running {
    zygote.launch_permitted(&job(), spec).await.unwrap()
}

/// Why it never started.
async fn failure(zygote: &Zygote, spec: LaunchSpec) -> (NeverStarted, String) {
    match zygote.launch_permitted(&job(), spec).await.unwrap_err() {
        LaunchError::NeverStarted { reason, message } => (reason, message),
        error => panic!("{error:?}"),
    }
}

/// Reads both streams to their ends and the status, then lets go.
async fn finish(mut running: Running) -> (Status, String, String) {
    drop(running.stdin.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut stderr = running.stderr.take().unwrap();
    let (a, b) = tokio::join!(running.stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
    a.unwrap();
    b.unwrap();
    let status = exited(&mut running.keeper).await;
    running.keeper.release().await;
    (status, String::from_utf8_lossy(&out).into(), String::from_utf8_lossy(&err).into())
}

async fn output(zygote: &Zygote, spec: LaunchSpec) -> String {
    let (status, out, err) = finish(launch(zygote, spec).await).await;
    assert_eq!((status, err.as_str()), (Status::Code(0), ""));
    out
}

async fn exited(keeper: &mut Keeper) -> Status {
    match timeout(PATIENCE, keeper.next()).await.unwrap() {
        Some(Event::Exited { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

async fn tree_gone(keeper: &mut Keeper) {
    let event = timeout(PATIENCE, keeper.next()).await.unwrap();
    assert_eq!(event, Some(Event::TreeGone { survivors: 0 }));
}

/// A process, and none that may get its id later.
struct Watched {
    pid: u32,
    /// `None`: it was dead from the start.
    handle: Option<OwnedFd>,
}

impl Watched {
    fn new(pid: u32) -> Self {
        let handle = sys::pidfd_open(nix::unistd::Pid::from_raw(pid as i32)).ok();
        Self { pid, handle }
    }

    async fn dies(self) {
        let Some(handle) = self.handle else { return };
        let wait = move || {
            let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PATIENCE.as_millis() as u16)
        };
        assert_eq!(tokio::task::spawn_blocking(wait).await.unwrap(), Ok(1), "it lives on");
    }

    async fn is_stopped(&self) {
        let end = Instant::now() + PATIENCE;
        while !fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap().contains(") T ") {
            assert!(Instant::now() < end, "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: i32) {
        if let Some(handle) = &self.handle {
            let _ = sys::pidfd_signal(handle, signal);
        }
    }

    /// False as soon as it has ended, whether or not somebody has reaped it.
    fn lives(&self) -> bool {
        let has_ended = |handle: &OwnedFd| {
            let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
        };
        self.handle.as_ref().is_some_and(|handle| !has_ended(handle))
    }
}

/// Reads a line that holds the id of a process, which then is watched.
async fn announced(stdout: &mut Reader) -> Watched {
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.unwrap().unwrap();
    let watched = Watched::new(line.trim().parse().unwrap());
    assert!(watched.lives());
    watched
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').nth(1).and_then(|parent| parent.parse().ok()).unwrap_or(0)
}

/// All children of a process, zombies included.
fn pids_with_parent(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == parent).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rexec-keeper-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &[u8], mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
