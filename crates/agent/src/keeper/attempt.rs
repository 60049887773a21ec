//! One try to have a keeper start a command.

use super::force::{Force, Handle};
use super::handle::Line;
use super::room::Room;
use super::wire::Report;
use nix::unistd::Pid;
use serde_bytes::ByteBuf;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long it may take before it is given up: a program on a file server that has gone away cannot be
/// executed, nor can the attempt be ended.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) enum Attempt {
    Answered(Line, Report, Option<Taken>),
    /// Nobody has read it, so it may be tried again.
    NotTaken(io::Error),
    /// Nobody has read it in time.
    Stuck,
    /// It was sent whole, so that it may have been carried out, and no answer came; perhaps the word of a keeper
    /// that it has taken it.
    Unknown {
        error: io::Error,
        is_taken: bool,
    },
}

/// Waits for what comes of an order that was sent whole.
pub(super) async fn answer(mut line: Line, room: Room, deadline: Instant) -> Attempt {
    let mut taken = None;
    let answer = async {
        line.speaks().await?;
        drop(room);
        let report = line.hear().await?;
        let Some(Report::Taken { pid, keeper, cgroup }) = report else { return Ok(report) };
        taken = Some(Taken::new([pid, keeper], cgroup, line.inbox.take_fds())?);
        line.hear().await
    };
    let answer = timeout_at(deadline, answer).await;
    let is_taken = taken.is_some();
    if !matches!(&answer, Ok(Ok(Some(_))))
        && let Some(taken) = taken.take()
    {
        // Its keeper was stopped or killed as soon as the command ran.
        Arc::new(taken.force).kill();
    }
    match answer {
        Ok(Ok(Some(report))) => Attempt::Answered(line, report, taken),
        // So Linux says that the other end was closed with some of the order still unread. Who
        // has not read all of it has started nothing.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
            Attempt::NotTaken(error)
        }
        Ok(Err(error)) => Attempt::Unknown { error, is_taken },
        Ok(Ok(None)) => Attempt::Unknown { error: io::ErrorKind::UnexpectedEof.into(), is_taken },
        Err(_) => {
            let words = format!("no answer within {} seconds", DEADLINE.as_secs());
            let error = io::Error::new(io::ErrorKind::TimedOut, words);
            Attempt::Unknown { error, is_taken }
        }
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
