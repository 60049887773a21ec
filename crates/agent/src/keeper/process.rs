//! The zygote's own process: small, with one thread, and warm, so that a keeper costs one fork.
//!
//! It forks ahead. A few keepers are always ready and wait on the zygote's own socket, where the
//! agent puts its launches; one of them takes each, and tells the zygote to make another. So
//! neither the fork nor anything else that could be prepared is waited for. While one is still
//! ready, the next is made a moment later: the command that was just taken needs the processors.

use super::cgroup::Parent;
use super::heritage::Heritage;
use super::limits::Controllers;
use super::wire::{self, Failure, Inbox, Report, Stage};
use super::{job, sys};
use crate::descriptors;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, dup2_stdin, pipe2, setsid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// The word that turns this program into a zygote.
pub const ZYGOTE: &str = "zygote";
/// After it, for tests: do without cgroups.
pub(super) const NO_CGROUP: &str = "no-cgroup";

/// How many keepers are kept ready. One would do for commands that come one after the other; the
/// second is for the time in which the first is replaced.
pub(super) const READY: usize = 2;
/// For how long nothing must have been taken before another is made while one is ready, in milliseconds.
/// Most commands have started by then.
const PAUSE_MS: u8 = 4;
/// How soon a fork that failed is tried again, in milliseconds.
const RETRY_MS: u8 = 50;

/// The whole program, when its first argument is `zygote`. The keepers that it forks never return
/// from this. No thread may have been started.
pub fn zygote_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        // Who started it by hand sees the status; the agent sees that the socket has closed.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    // What the agent's own parent has left open is not for every command to hold.
    sys::close_from(3);
    sys::default_signals();
    descriptors::take_over()?;
    let control = own_stdin()?;
    // A session of its own: Ctrl-C in the agent's terminal is for the agent. Fails if it has one.
    let _ = setsid();
    chdir("/")?;
    prctl::set_dumpable(false)?;
    let _ = prctl::set_name(c"rexec-zygote");
    let children = watch_children()?;
    let with_cgroup = std::env::args_os().nth(2).is_none_or(|word| word != NO_CGROUP);
    let (parent, controllers) = if with_cgroup {
        (Parent::find(), Controllers::find())
    } else {
        (None, Controllers::default())
    };
    let heritage = Heritage::own();
    let (taken, takes) = pipe2(OFlag::O_CLOEXEC)?;
    let (taken, ready) = (taken.into(), Vec::new());
    let mut zygote = Zygote { control, taken, children, ready, has_failed: false };
    wire::send(zygote.control.as_fd(), b"r", &[])?;
    let mut is_calm = true;
    loop {
        zygote.has_failed = false;
        while zygote.ready.len() < if is_calm { READY } else { 1 } {
            match sys::fork() {
                Ok(Some(pid)) => zygote.ready.push(pid),
                Ok(None) => {
                    let control = zygote.into_control();
                    let take = || take(control, takes);
                    job::keep(parent.as_ref(), &controllers, heritage.as_ref(), take);
                    parent.iter().for_each(Parent::remove_released);
                    // Exit handlers are the zygote's, and would touch a third of the pages that a
                    // keeper ever touches.
                    sys::exit_now(0);
                }
                Err(errno) => {
                    zygote.refuse(errno)?;
                    zygote.has_failed = true;
                    break;
                }
            }
        }
        match zygote.wait()? {
            Woken::Alone => return Ok(()),
            woken => is_calm = woken == Woken::InTime,
        }
    }
}

/// In a keeper: waits for a launch and says that it was taken. The zygote's socket is closed after
/// that: when the agent closes it, or nobody is left to read it, the other side has to see it.
fn take(control: OwnedFd, takes: OwnedFd) -> Option<OwnedFd> {
    let mut inbox = Inbox::default();
    inbox.fill(control.as_fd()).ok()?;
    let socket = inbox.take_fds().next();
    let _ = File::from(takes).write_all(&std::process::id().to_ne_bytes());
    socket
}

/// Makes SIGCHLD something to be read.
pub(super) fn watch_children() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGCHLD);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Moves the socket that the agent gave as stdin out of the way of stdio.
fn own_stdin() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?)?;
    Ok(control)
}

struct Zygote {
    control: OwnedFd,
    /// Where keepers write their process id when they take a launch.
    taken: File,
    children: SignalFd,
    ready: Vec<Pid>,
    /// The last fork did.
    has_failed: bool,
}

/// What ended a wait.
#[derive(PartialEq, Eq)]
enum Woken {
    /// Nothing happened for the time that was waited for.
    InTime,
    /// A launch was taken, or a child has ended.
    Early,
    /// The agent is gone.
    Alone,
}

impl Zygote {
    /// What a keeper keeps of this. Nothing else here is its business.
    fn into_control(self) -> OwnedFd {
        self.control
    }

    /// Waits until keepers are missing, or for a moment if they are missing already.
    fn wait(&mut self) -> io::Result<Woken> {
        let mut fds = [
            PollFd::new(self.taken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            // Nothing is read here; that the other side has hung up is told all the same.
            PollFd::new(self.control.as_fd(), PollFlags::empty()),
        ];
        let timeout = match self.ready.len() {
            READY.. => PollTimeout::NONE,
            _ if self.has_failed => PollTimeout::from(RETRY_MS),
            _ => PollTimeout::from(PAUSE_MS),
        };
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => return Ok(Woken::Early),
            Ok(0) => return Ok(Woken::InTime),
            polled => polled?,
        };
        let [taken, _, control] = fds.map(|fd| fd.any().unwrap_or(false));
        if taken {
            // Each id is written at once, so a read returns whole ones.
            let mut ids = [0; 64 * size_of::<u32>()];
            let n = self.taken.read(&mut ids)?;
            for id in ids.get(..n).unwrap_or_default().as_chunks().0 {
                self.is_no_longer_ready(Pid::from_raw(u32::from_ne_bytes(*id) as i32));
            }
        }
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let sys::Wait::Ended(pid, ..) = sys::wait_any() {
            self.is_no_longer_ready(pid);
        }
        Ok(if control { Woken::Alone } else { Woken::Early })
    }

    fn is_no_longer_ready(&mut self, pid: Pid) {
        self.ready.retain(|ready| *ready != pid);
    }

    /// Answers a launch that waits in vain, because there is no keeper and none can be made.
    fn refuse(&self, errno: Errno) -> io::Result<()> {
        let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        if !self.ready.is_empty() || poll(&mut fds, PollTimeout::ZERO) != Ok(1) {
            return Ok(());
        }
        let mut inbox = Inbox::default();
        inbox.fill(self.control.as_fd())?;
        let failed = wire::frame(&Report::Failed(Failure::new(Stage::Resources, errno)))?;
        for socket in inbox.take_fds() {
            let _ = wire::send(socket.as_fd(), &failed, &[]);
        }
        Ok(())
    }
}
