//! The start of a command, seen from its keeper.
//!
//! It comes in two parts. Before there is a launch, the keeper forks an [`Embryo`]: a process with
//! pipes, session, cgroup and clean signals, which lacks nothing but the command. When a launch is
//! there, the embryo reads it and becomes the command.

use super::cgroup::own_name;
use super::cgroup::{Cgroup, Parent};
use super::exec::{Image, Site, Stdio, become_clean};
use super::limits::Controllers;
use super::terminal::Pair;
use super::wire::{self, Failure, Hatching, Inbox, Launch, Stage};
use super::{LaunchSpec, Program, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, pipe2};
use rexec_protocol::message::TerminalSize;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// A process that will be a command.
pub(super) struct Embryo {
    /// Its process, and its group and session.
    pub(super) pid: Pid,
    /// The agent's ends of its pipes: stdin, stdout, stderr.
    pub(super) ends: [OwnedFd; 3],
    /// For the agent: its process and the keeper's, where the system has handles to processes.
    pub(super) handles: Vec<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
    /// Takes the agent's socket to it, and says why it could not become a command. Closed by exec.
    line: UnixStream,
}

impl Embryo {
    pub(super) fn new(parent: Option<&Parent>, controllers: &Controllers) -> io::Result<Self> {
        let (stdin, to_stdin) = pipe2(OFlag::O_CLOEXEC)?;
        let (from_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (from_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let (line, theirs) = UnixStream::pair()?;
        let cgroup = parent.and_then(Parent::make);
        let path = cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        let site = Site { controllers, cgroup: path, name: own_name() };
        let (forked, joins) = fork(cgroup.as_ref());
        let forked = match (forked, cgroup.as_ref()) {
            (Err(errno), Some(_)) => {
                cgroup.into_iter().for_each(Cgroup::remove);
                return Err(errno.into());
            }
            (forked, _) => forked?,
        };
        let Some(pid) = forked else {
            drop(line);
            // The agent has to be the only one who could hold these open.
            drop((to_stdin, from_stdout, from_stderr));
            grow(theirs, &Stdio { stdin, stdout, stderr }, joins, &site);
        };
        let handles: nix::Result<_> = [pid, getpid()].into_iter().map(sys::pidfd_open).collect();
        Ok(Self {
            pid,
            ends: [to_stdin, from_stdout, from_stderr],
            handles: handles.unwrap_or_default(),
            cgroup,
            line,
        })
    }

    /// Gives it the agent's socket, from which it reads what to become. An error is that it was killed.
    pub(super) fn take(&self, agent: &OwnedFd) -> io::Result<()> {
        wire::send(self.line.as_fd(), b"j", &[agent.as_raw_fd()])
    }

    /// Returns when it has become the command, with the agent's end of its terminal if it has one, or when it
    /// cannot. One that is killed from here on is reported as a command that was killed right after its start,
    /// since no one can tell the difference.
    pub(super) fn start(&self) -> Result<Option<OwnedFd>, Failure> {
        let (mut inbox, mut terminal) = (Inbox::default(), None);
        loop {
            match inbox.wait(self.line.as_fd()) {
                Ok(Some(Hatching::Terminal {})) => terminal = inbox.take_fds().next(),
                Ok(Some(Hatching::Failed(failure))) => return Err(failure),
                Ok(None) | Err(_) => return Ok(terminal),
            }
        }
    }

    /// Ends what has not become a command.
    pub(super) fn discard(self) {
        // It would exit by itself when nobody is left to send it a launch, but not if somebody has stopped it.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        if let Some(cgroup) = self.cgroup {
            cgroup.remove();
        }
    }
}

/// Forks, into the cgroup if there is one. A vfork(2) would copy nothing, and start commands a tenth faster; but then
/// the command's user could kill it in the middle of an allocation, in memory that it shares with root's keeper.
///
/// The second value is the cgroup that the child still has to join: where the kernel cannot fork into one (before
/// 5.7), or will not.
fn fork(cgroup: Option<&Cgroup>) -> (nix::Result<Option<Pid>>, Option<&Cgroup>) {
    match cgroup.map(|cgroup| sys::fork_into(cgroup.as_fd())) {
        None => (sys::fork(), None),
        Some(result @ (Ok(_) | Err(Errno::EAGAIN | Errno::ENOMEM))) => (result, None),
        Some(Err(_)) => (sys::fork(), cgroup),
    }
}

/// The life of an embryo. What it fails to prepare is told when there is someone to hear it.
fn grow(line: UnixStream, stdio: &Stdio, joins: Option<&Cgroup>, site: &Site<'_>) -> ! {
    let prepared = become_clean(stdio, joins);
    let mut inbox = Inbox::default();
    let agent = inbox.fill(line.as_fd()).ok().and_then(|_| inbox.take_fds().next());
    let Some(agent) = agent else { sys::exit_now(0) };
    let failure = match prepared {
        Err(errno) => Failure::new(Stage::Resources, errno),
        Ok(()) => match receive(&agent) {
            Ok(Some(launch)) => hatch(&launch, &line, stdio, site),
            // The agent has gone, or speaks in tongues.
            Ok(None) | Err(_) => Failure::new(Stage::Order, Errno::EPROTO),
        },
    };
    let _ = tell(&line, &Hatching::Failed(failure), &[]);
    sys::exit_now(127);
}

fn tell(keeper: &UnixStream, word: &Hatching, fds: &[RawFd]) -> io::Result<()> {
    wire::send(keeper.as_fd(), &wire::frame(word)?, fds)
}

/// Reads the launch, which the keeper has left untouched.
fn receive(agent: &OwnedFd) -> io::Result<Option<Launch>> {
    Inbox::default().wait(agent.as_fd())
}

/// Becomes the command.
fn hatch(launch: &Launch, keeper: &UnixStream, stdio: &Stdio, site: &Site<'_>) -> Failure {
    let spec = &launch.spec;
    let slave = match spec.terminal.map(|size| open_terminal(size, spec, keeper)).transpose() {
        Ok(slave) => slave,
        Err(errno) => return Failure::new(Stage::Terminal, errno),
    };
    let inherited = match &spec.program {
        Program::Script { text, name, .. } => sealed(text, name).map(Some),
        Program::Own { input, .. } => sealed(input, b"request").map(Some),
        Program::Argv { .. } => Ok(None),
    };
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(errno) => return Failure::new(Stage::Resources, errno),
    };
    let stdin = match &slave {
        Some(slave) => Some(slave),
        None => Some(&stdio.stdin).filter(|_| spec.stdin),
    };
    match Image::new(spec, inherited) {
        Ok(image) => image.become_command(stdin, slave.as_ref(), site),
        Err(errno) => Failure::new(Stage::Order, errno),
    }
}

/// Opens the command's terminal, and sends the agent's end of it on its way.
fn open_terminal(
    size: TerminalSize,
    spec: &LaunchSpec,
    keeper: &UnixStream,
) -> nix::Result<OwnedFd> {
    let Pair { master, slave } = Pair::open(size, spec.credentials.as_ref())?;
    tell(keeper, &Hatching::Terminal {}, &[master.as_raw_fd()]).map_err(|_| Errno::EPIPE)?;
    Ok(slave)
}

/// Bytes as a file in memory, which nobody can change any more: no name that could be taken,
/// no disk that could be full, nothing to clean up.
fn sealed(text: &[u8], name: &[u8]) -> nix::Result<OwnedFd> {
    /// Says that it is to be executed (Linux 6.3); older kernels do not know it and always allow.
    const MFD_EXEC: u32 = 0x10;
    // The name only shows in /proc. It has a limit, so it is cut.
    let name = CString::new(name.get(..name.len().min(200)).unwrap_or_default());
    let name = name.map_err(|_| Errno::EINVAL)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = flags | MFdFlags::from_bits_retain(MFD_EXEC);
    let fd = memfd_create(name.as_c_str(), executable)
        .or_else(|_| memfd_create(name.as_c_str(), flags))?;
    let mut file = File::from(fd);
    file.write_all(text)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}
