//! One try to have a keeper start a command.

use super::error::LaunchError;
use super::force::{Force, Handle};
use super::handle::Line;
use super::room::Room;
use super::wire::Report;
use nix::unistd::Pid;
use rexec_protocol::NeverStarted;
use serde_bytes::ByteBuf;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long it, or the start of a zygote, may take before it is given up: a program on a file server that has gone
/// away cannot be executed, nor can the attempt be ended.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How long those who have not answered may take to die. Then their end of the socket tells whether the order was
/// read.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) enum Attempt {
    Answered(Answer),
    /// Nobody has read it, so it may be tried again. If it is taken, its keeper was known.
    NotTaken {
        error: io::Error,
        is_taken: bool,
    },
    /// Nobody has read it in time.
    Stuck,
    /// It was sent whole, so that it may have been carried out, and no answer came.
    Unknown {
        error: io::Error,
        is_taken: bool,
    },
}

/// A keeper's last word on a launch.
pub(super) struct Answer {
    pub(super) line: Line,
    pub(super) report: Report,
    pub(super) taken: Option<Taken>,
}

impl Attempt {
    /// What is to be told, or, where another try is harmless, why there was no answer.
    pub(super) fn verdict(self) -> Result<io::Result<Answer>, LaunchError> {
        match self {
            Self::Answered(answer) => Ok(Ok(answer)),
            Self::NotTaken { error, .. } => Ok(Err(error)),
            Self::Stuck => Err(LaunchError::new(
                NeverStarted::Resource,
                format!("nobody took the command within {} seconds", DEADLINE.as_secs()),
            )),
            // What was started is being killed; and the socket is closed by now, so that a keeper that
            // comes to it late finds nobody, and ends what it started.
            Self::Unknown { error, .. } => {
                Err(LaunchError::unknown("lost the command's keeper", &error))
            }
        }
    }

    /// Whether the zygote is dead or, perhaps, stopped. If it is not the latter, it is the command's own affair
    /// that nobody answers: its directory hangs, say, or its user has stopped it.
    pub(super) fn blames_zygote(&self) -> bool {
        match self {
            Self::Answered(_) => false,
            Self::NotTaken { is_taken, .. } => !is_taken,
            Self::Stuck => true,
            Self::Unknown { error, is_taken } => {
                error.kind() == io::ErrorKind::TimedOut && !is_taken
            }
        }
    }
}

/// Waits for what comes of an order that was sent whole. `taken` is who its keeper is, if that was said before.
pub(super) async fn answer(
    mut line: Line,
    mut taken: Option<Taken>,
    room: Room,
    deadline: Instant,
) -> Attempt {
    let answer = async {
        line.speaks().await?;
        drop(room);
        let report = line.hear().await?;
        let Some(Report::Taken { pid, keeper, cgroup }) = report else { return Ok(report) };
        taken = Some(Taken::new([pid, keeper], cgroup, line.inbox.take_fds())?);
        line.hear().await
    };
    let mut answer = timeout_at(deadline, answer).await.map_err(|_| io::ErrorKind::TimedOut.into());
    let is_taken = taken.is_some();
    if !matches!(&answer, Ok(Ok(Some(_))))
        && let Some(taken) = taken.take()
    {
        // Its keeper was stopped or killed as soon as the command ran, or before.
        Arc::new(taken.force).kill();
        if answer.is_err()
            && let Ok(Err(error)) = timeout(LAST_WORD, line.hear::<Report>()).await
        {
            answer = Ok(Err(error));
        }
    }
    match answer.flatten() {
        Ok(Some(report)) => Attempt::Answered(Answer { line, report, taken }),
        // So Linux says that the other end was closed with some of the order still unread. Who
        // has not read all of it has started nothing.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Attempt::NotTaken { error, is_taken }
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let words = format!("no answer within {} seconds", DEADLINE.as_secs());
            Attempt::Unknown { error: io::Error::new(io::ErrorKind::TimedOut, words), is_taken }
        }
        Err(error) => Attempt::Unknown { error, is_taken },
        Ok(None) => Attempt::Unknown { error: io::ErrorKind::UnexpectedEof.into(), is_taken },
    }
}

/// A command that is about to run.
#[derive(Debug)]
pub(super) struct Taken {
    /// Of its stdin, stdout and stderr.
    pub(super) pipes: [OwnedFd; 3],
    pub(super) force: Force,
}

impl Taken {
    pub(super) fn new(
        [pid, keeper]: [u32; 2],
        cgroup: Option<ByteBuf>,
        mut fds: impl Iterator<Item = OwnedFd>,
    ) -> io::Result<Self> {
        let mut pipe = || fds.next().ok_or(io::ErrorKind::UnexpectedEof);
        let pipes = [pipe()?, pipe()?, pipe()?];
        let handle = |pid: u32, fd| Handle { pid: Pid::from_raw(pid as i32), fd };
        // Both, or none.
        let (command, keeper) = (handle(pid, fds.next()), handle(keeper, fds.next()));
        let cgroup = cgroup.map(|path| PathBuf::from(OsStr::from_bytes(&path)));
        Ok(Self { pipes, force: Force { keeper, command, cgroup } })
    }
}
