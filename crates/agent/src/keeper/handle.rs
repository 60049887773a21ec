//! The agent's side of one keeper.

use super::Event;
use super::force::Force;
use super::pause::Reach;
use super::spares::Spares;
use super::wire::{self, Inbox, Order, Report};
use rexec_protocol::Signal;
use rexec_protocol::message::Channel;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a keeper may leave its orders unread: it reads at once, unless something stopped it.
const SAY_TIME: Duration = Duration::from_secs(2);

/// What a keeper does when the agent is gone: see [`Keeper::leave`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// What the next agent has to know of the job; the keeper does not read it.
    pub memo: Vec<u8>,
    /// Where that agent will listen, in a folder that is nobody else's. [`super::Adoptions`] does.
    pub socket: PathBuf,
    /// How long to wait for it; `None`: for ever.
    pub lease: Option<Duration>,
    /// How long the command may run, from its start.
    pub timeout: Option<Duration>,
    /// How long it then has to end.
    pub grace: Duration,
}

impl Will {
    fn order(&self, ends: Vec<Channel>) -> Order {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Order::Will(wire::Will {
            memo: ByteBuf::from(self.memo.as_slice()),
            socket: ByteBuf::from(self.socket.as_os_str().as_bytes()),
            lease_ms: self.lease.map(ms),
            timeout_ms: self.timeout.map(ms),
            grace_ms: ms(self.grace),
            ends,
        })
    }
}

/// The keeper of one running command. Dropping it is what the keeper takes for the agent's death:
/// unless it has a will, it ends the command's tree, with SIGHUP and five seconds of grace.
#[derive(Debug)]
pub struct Keeper {
    line: Line,
    /// `None`: it was used.
    force: Option<Arc<Force>>,
    /// Where it goes when its job is over; if that is nowhere, it ends.
    spares: Weak<Spares>,
}

impl Keeper {
    pub(super) fn new(line: Line, force: Force, spares: Weak<Spares>) -> Self {
        Self { line, force: Some(Arc::new(force)), spares }
    }

    /// Sends a signal to the command's process group. Without effect if the group is gone. Like
    /// every order it fails with [`io::ErrorKind::TimedOut`] when the keeper reads nothing.
    pub async fn signal(&mut self, signal: Signal) -> io::Result<()> {
        self.line.say(&Order::Signal { signal }).await
    }

    /// Ends the command and all that it has started, and all that those have: `signal` to its group
    /// now, TERM to every process after half the grace or when the command has ended, KILL after
    /// all of it. [`Event::TreeGone`] answers. A second request can only make it sooner.
    pub async fn end(&mut self, signal: Signal, grace: Duration) -> io::Result<()> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.line.say(&Order::End { signal, grace_ms }).await
    }

    /// Leaves the job to the next agent, if this one is gone before it releases it. `ends` are all of
    /// the agent's ends of the pipes that are open, one of each channel, or one terminal; from now on
    /// the keeper has them too, and each that the agent closes is to be closed there as well.
    pub async fn leave(
        &mut self,
        will: &Will,
        ends: &[(Channel, BorrowedFd<'_>)],
        ledger: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let channels = ends.iter().map(|(channel, _)| *channel).collect();
        let fds: Vec<_> = ends.iter().map(|(_, end)| *end).chain([ledger]).collect();
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        self.line.say_with(&will.order(channels), &fds).await
    }

    /// Changes the words of the will.
    pub async fn amend(&mut self, will: &Will) -> io::Result<()> {
        self.line.say(&will.order(Vec::new())).await
    }

    /// The agent has closed its end of a pipe: the command is to see that.
    pub async fn close(&mut self, channel: Channel) -> io::Result<()> {
        self.line.say(&Order::Close { channel }).await
    }

    /// Kills the command, all that is below the keeper, and the keeper, without its help: for one
    /// that is stuck. What takes longer than a moment is done in the background; it does not wait
    /// for anything to be dead. Has to be called in a tokio runtime.
    pub fn kill(&mut self) {
        if let Some(force) = self.force.take() {
            force.kill();
        }
    }

    /// What it takes to reach the processes of the job without the keeper, unless it was killed.
    pub fn reach(&self) -> Option<Reach> {
        self.force.clone().map(Reach)
    }

    /// Lets go: what the command has left running stays, and the keeper ends, unless it has nothing left below
    /// it and can be of use for another command.
    pub async fn release(mut self) {
        // One that was killed is of no more use.
        if self.force.is_some()
            && let Some(spares) = self.spares.upgrade()
            && spares.reserve()
        {
            return spares.take_back(self.line);
        }
        // A keeper that is gone already has let go as well.
        let _ = self.line.say(&Order::Release {}).await;
    }

    /// The next event. Safe to cancel. `None`: the keeper died, which only a KILL from outside can
    /// bring about; the command's cgroup, if it has one, and its group are then killed from here.
    pub async fn next(&mut self) -> Option<Event> {
        match self.line.hear().await {
            Ok(Some(Report::Exited { status, usage, out_of_memory })) => {
                Some(Event::Exited { status, usage, out_of_memory })
            }
            Ok(Some(Report::TreeGone { survivors })) => Some(Event::TreeGone { survivors }),
            _ => {
                self.kill();
                None
            }
        }
    }
}

/// A socket to a keeper, and what was read from it.
#[derive(Debug)]
pub(super) struct Line {
    socket: UnixStream,
    pub(super) inbox: Inbox,
}

impl Line {
    pub(super) fn new(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, inbox: Inbox::default() })
    }

    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.socket.write_all(frame).await
    }

    pub(super) async fn say(&mut self, order: &Order) -> io::Result<()> {
        // An order is so short that it is sent whole or not at all.
        timeout(SAY_TIME, self.send(&wire::frame(order)?)).await?
    }

    async fn say_with(&mut self, order: &Order, fds: &[RawFd]) -> io::Result<()> {
        let frame = wire::frame(order)?;
        let send = || wire::send_some(self.socket.as_fd(), &frame, fds);
        let sent = timeout(SAY_TIME, self.socket.async_io(Interest::WRITABLE, send)).await??;
        timeout(SAY_TIME, self.send(frame.get(sent..).unwrap_or_default())).await?
    }

    /// Returns once there is something to hear.
    pub(super) async fn speaks(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// `None` at the end. Safe to cancel: whatever was read is in the inbox.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(report) = self.inbox.take()? {
                return Ok(Some(report));
            }
            let (socket, inbox) = (&self.socket, &mut self.inbox);
            if socket.async_io(Interest::READABLE, || inbox.fill(socket.as_fd())).await? == 0 {
                return Ok(None);
            }
        }
    }
}
