//! Jobs of the agent before this one: their keepers come to a socket and hand them over.

use super::cgroup;
use super::force::{Force, Handle};
use super::handle::{Keeper, Line};
use super::terminal::Terminal;
use super::wire::Adopt;
use super::{Channel, Reader, Writer};
use nix::unistd::{Pid, Uid};
use rexec_guard::holds;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::timeout;

/// How long a keeper may take to say which job it has.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where keepers without an agent come to; see [`super::Will::socket`].
#[derive(Debug)]
pub struct Adoptions(UnixListener);

/// A keeper that has come, and has not said yet which job it has.
#[derive(Debug)]
pub struct Orphan(Line);

/// The job of an agent that is gone.
#[derive(Debug)]
pub struct Adopted {
    /// What that agent left to be known of it.
    pub memo: Vec<u8>,
    /// The command's process.
    pub pid: u32,
    /// How long ago it was started.
    pub age: Duration,
    /// It has run for longer than it may, and was told to end.
    pub timed_out: bool,
    /// It was told to end, and how much time it has; an old keeper does not say.
    pub ending: bool,
    /// The agent's ends, but for those that were closed on purpose.
    pub stdin: Option<Writer>,
    /// See `stdin`.
    pub stdout: Option<Reader>,
    /// See `stdin`.
    pub stderr: Option<Reader>,
    /// Its terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// How far that agent had come.
    pub ledger: Option<OwnedFd>,
    /// The process that watches over it …
    pub keeper_pid: u32,
    /// … and the line to it. That the command has ended meanwhile is its first word.
    pub keeper: Keeper,
}

impl Adoptions {
    /// Listens at `path`, in a folder that only this user can enter. Whoever listened there before is
    /// gone, or should be.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fault = |error: io::Error| {
            let (path, hint) = (path.display(), "name another, short folder with 'state_dir'");
            let text = format!("cannot listen at {path}: {error}; {hint}");
            io::Error::new(error.kind(), text)
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(fault)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fault)?;
        Ok(Self(listener))
    }

    /// The next keeper that comes. Safe to cancel.
    pub async fn next(&self) -> io::Result<Orphan> {
        loop {
            let (socket, _) = self.0.accept().await?;
            let peer = socket.peer_cred()?;
            if holds("adopt.keeper", peer.uid() == Uid::effective().as_raw()) {
                return Ok(Orphan(Line::new(socket.into_std()?)?));
            }
            tracing::warn!(uid = peer.uid(), "somebody who is not this agent offers a job");
        }
    }
}

impl Orphan {
    /// Takes the job. It is this agent's once the keeper has heard from it: [`Keeper::amend`].
    pub async fn adopt(self) -> io::Result<Adopted> {
        let Self(mut line) = self;
        let adopt = timeout(DEADLINE, line.hear::<Adopt>()).await??;
        adopted(line, adopt.ok_or(io::ErrorKind::UnexpectedEof)?)
    }
}

fn adopted(mut line: Line, adopt: Adopt) -> io::Result<Adopted> {
    let mut fds = line.inbox.take_fds();
    let mut end = || fds.next().ok_or(io::ErrorKind::UnexpectedEof);
    let (mut stdin, mut stdout, mut stderr, mut terminal) = (None, None, None, None);
    for channel in adopt.ends {
        let end = end()?;
        match channel {
            Channel::Out if adopt.terminal => {
                let master = Terminal::new(end)?;
                stdout = Some(Reader::Terminal(master.clone()));
                terminal = Some(master);
            }
            // The same terminal.
            Channel::In if adopt.terminal => stdin = Some(Writer::Terminal(Terminal::new(end)?)),
            Channel::In => stdin = Some(Writer::pipe(end)?),
            Channel::Out => stdout = Some(Reader::pipe(end)?),
            Channel::Err => stderr = Some(Reader::pipe(end)?),
        }
    }
    let ledger = if adopt.ledger { Some(end()?) } else { None };
    let handle = |pid: u32, fd| Handle { pid: Pid::from_raw(pid as i32), fd };
    // Both, or none.
    let (command, keeper) = (handle(adopt.pid, fds.next()), handle(adopt.keeper, fds.next()));
    let cgroup = adopt.cgroup.map(|path| PathBuf::from(OsStr::from_bytes(&path)));
    if let Some(path) = &cgroup {
        // That agent may have been killed during a pause.
        cgroup::thaw(path);
    }
    tracing::debug!(version = adopt.version, pid = adopt.pid, "a keeper has come");
    Ok(Adopted {
        memo: adopt.memo.into_vec(),
        pid: adopt.pid,
        age: Duration::from_millis(adopt.age_ms),
        timed_out: adopt.timed_out,
        ending: adopt.ending,
        stdin,
        stdout,
        stderr,
        terminal,
        ledger,
        keeper_pid: adopt.keeper,
        keeper: Keeper::new(line, Force { keeper, command, cgroup }, Weak::new()),
    })
}
