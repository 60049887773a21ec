//! The start of a command, seen from its keeper.
//!
//! Pipes and cgroup are made before there is a launch. When there is one, the keeper reads it and
//! prepares what can go wrong. Then it makes the command's process, which borrows the keeper's
//! memory until it executes the program: nothing is copied for it, and nothing given back.

use super::cgroup::own_name;
use super::cgroup::{Cgroup, Parent};
use super::exec::{Image, Site, Stdio, become_clean};
use super::limits::Controllers;
use super::spawn::spawn;
use super::terminal::Pair;
use super::wire::{self, Failure, Hatching, Inbox, Launch, Report, Stage};
use super::{LaunchSpec, Program, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid, pipe2};
use rexec_protocol::message::TerminalSize;
use serde_bytes::ByteBuf;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

/// What a command gets that is the same for all.
pub(super) struct Outfit {
    stdio: Stdio,
    /// The agent's ends of its pipes: stdin, stdout, stderr.
    ends: [OwnedFd; 3],
    cgroup: Option<Cgroup>,
}

/// A command that runs.
pub(super) struct Started {
    /// Its process, and its group and session.
    pub(super) pid: Pid,
    /// Its process and the keeper's, where the system has handles to processes.
    pub(super) handles: Vec<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
    /// The agent's end of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

impl Outfit {
    pub(super) fn new(parent: Option<&Parent>) -> io::Result<Self> {
        let (stdin, to_stdin) = pipe2(OFlag::O_CLOEXEC)?;
        let (from_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (from_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            stdio: Stdio { stdin, stdout, stderr },
            ends: [to_stdin, from_stdout, from_stderr],
            cgroup: parent.and_then(Parent::make),
        })
    }

    /// Starts the command that the agent sends on `agent`. Returns when it is executed, or when it
    /// cannot be.
    pub(super) fn start(
        self,
        agent: &OwnedFd,
        controllers: &Controllers,
    ) -> Result<Started, Failure> {
        match self.execute(agent, controllers) {
            Ok((pid, terminal)) => {
                let handles: nix::Result<_> =
                    [pid, getpid()].into_iter().map(sys::pidfd_open).collect();
                let handles = handles.unwrap_or_default();
                Ok(Started { pid, handles, cgroup: self.cgroup, terminal })
            }
            Err(failure) => {
                self.discard();
                Err(failure)
            }
        }
    }

    fn execute(
        &self,
        agent: &OwnedFd,
        controllers: &Controllers,
    ) -> Result<(Pid, Option<OwnedFd>), Failure> {
        let at = |stage| move |errno| Failure::new(stage, errno);
        let launch: Option<Launch> = Inbox::default().wait(agent.as_fd()).unwrap_or_default();
        // Otherwise the agent has gone, or speaks in tongues.
        let spec = launch.ok_or(Failure::new(Stage::Order, Errno::EPROTO))?.spec;
        let inherited = inherited(&spec.program).map_err(at(Stage::Resources))?;
        let image = Image::new(&spec, inherited).map_err(at(Stage::Order))?;
        let pair = UnixStream::pair();
        let (line, theirs) = pair.map_err(|error| {
            Failure::new(
                Stage::Resources,
                Errno::from_raw(error.raw_os_error().unwrap_or_default()),
            )
        })?;
        let path = self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        let site = Site { controllers, cgroup: path, name: own_name() };
        let process = |joins: Option<&Cgroup>| {
            let failure = self.become_command(joins, agent, &theirs, (&spec, &image), &site);
            let _ = tell(&theirs, &Hatching::Failed(failure), &[]);
            sys::exit_now(127)
        };
        let pid = self.spawn(&process).map_err(at(Stage::Resources))?;
        drop(theirs);
        let (mut inbox, mut terminal) = (Inbox::default(), None);
        loop {
            match inbox.wait(line.as_fd()) {
                Ok(Some(Hatching::Terminal {})) => terminal = inbox.take_fds().next(),
                Ok(Some(Hatching::Failed(failure))) => {
                    let _ = waitpid(pid, None);
                    return Err(failure);
                }
                // Closed by exec. One that was killed before is reported as a command that was killed
                // right after its start, since no one can tell the difference.
                Ok(None) | Err(_) => return Ok((pid, terminal)),
            }
        }
    }

    /// Makes the process, in the cgroup if there is one. It is told which cgroup it still has to
    /// join: where the kernel cannot start one in it (before 5.7), or will not.
    fn spawn(&self, process: &dyn Fn(Option<&Cgroup>) -> Infallible) -> nix::Result<Pid> {
        let outside = |joins| spawn(&|| process(joins), None);
        let Some(cgroup) = &self.cgroup else { return outside(None) };
        match spawn(&|| process(None), Some(cgroup.as_fd())) {
            result @ (Ok(_) | Err(Errno::EAGAIN | Errno::ENOMEM)) => result,
            Err(_) => outside(Some(cgroup)),
        }
    }

    /// In the new process: says who it is, and executes the program; or says why not.
    fn become_command(
        &self,
        joins: Option<&Cgroup>,
        agent: &OwnedFd,
        keeper: &UnixStream,
        (spec, image): (&LaunchSpec, &Image),
        site: &Site<'_>,
    ) -> Failure {
        let become_clean = || become_clean(&self.stdio, joins);
        if let Err(errno) = become_clean().and_then(|()| self.introduce(agent)) {
            return Failure::new(Stage::Resources, errno);
        }
        let terminal = spec.terminal.map(|size| open_terminal(size, spec, keeper));
        let slave = match terminal.transpose() {
            Ok(slave) => slave,
            Err(errno) => return Failure::new(Stage::Terminal, errno),
        };
        let stdin = slave.as_ref().or(Some(&self.stdio.stdin).filter(|_| spec.stdin));
        image.become_command(stdin, slave.as_ref(), site)
    }

    /// In the new process: tells the agent of it and of its keeper, before anything of the command
    /// runs that could stop or kill that.
    fn introduce(&self, agent: &OwnedFd) -> nix::Result<()> {
        let (own, keeper) = (getpid(), getppid());
        let id = |pid: Pid| pid.as_raw().unsigned_abs();
        let path = |group: &Cgroup| ByteBuf::from(group.path().as_os_str().as_bytes());
        let cgroup = self.cgroup.as_ref().map(path);
        let taken = Report::Taken { pid: id(own), keeper: id(keeper), cgroup };
        let handles: nix::Result<Vec<_>> = [own, keeper].into_iter().map(sys::pidfd_open).collect();
        let handles = handles.unwrap_or_default();
        let fds: Vec<_> = self.ends.iter().chain(&handles).map(AsRawFd::as_raw_fd).collect();
        let frame = wire::frame(&taken).map_err(|_| Errno::E2BIG)?;
        let sent = wire::send(agent.as_fd(), &frame, &fds);
        sent.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
    }

    /// Removes what nobody will use.
    pub(super) fn discard(self) {
        if let Some(cgroup) = self.cgroup {
            cgroup.remove();
        }
    }
}

fn tell(keeper: &UnixStream, word: &Hatching, fds: &[RawFd]) -> io::Result<()> {
    wire::send(keeper.as_fd(), &wire::frame(word)?, fds)
}

/// What the command is to inherit.
fn inherited(program: &Program) -> nix::Result<Option<OwnedFd>> {
    match program {
        Program::Script { text, name, .. } => sealed(text, name).map(Some),
        Program::Own { input, .. } => sealed(input, b"request").map(Some),
        Program::Argv { .. } => Ok(None),
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
