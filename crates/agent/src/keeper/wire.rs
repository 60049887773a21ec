//! What the agent and a keeper say to each other: a `u32` length, a MessagePack map, and
//! descriptors beside them. Every loop over partial reads and writes of these sockets is here.

use super::limits::Controller;
use super::{Channel, LaunchSpec, Status, sys};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use rexec_protocol::Signal;
use rexec_protocol::message::Usage;
use rexec_protocol::msgpack::{self, Limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest message: a command of the largest size that the protocol can carry, and room for the
/// environment that the agent adds.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// An argv of the most words that the protocol can carry, and room for the same.
const LIMITS: Limits = Limits { values: msgpack::BODY.values + 16 * 1024 };
/// The most descriptors beside one message: stdin, stdout, stderr, ledger, command, keeper.
const MAX_FDS: usize = 6;

/// The first message, read by the process that will be the command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) spec: LaunchSpec,
}

/// The later ones.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Signal {
        signal: Signal,
    },
    End {
        signal: Signal,
        grace_ms: u64,
    },
    Release {},
    /// As `Release`; but a keeper below which nothing is left takes another launch on this socket, and says so
    /// with another `Taken`.
    Again {},
    /// What to do if the agent dies. The agent's ends and its ledger are beside it.
    Will(Will),
    /// The agent has closed its end of a pipe.
    Close {
        channel: Channel,
    },
}

/// What an agent leaves to its successor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Will {
    /// What it has to know of the job.
    pub(super) memo: ByteBuf,
    /// Where it will listen.
    pub(super) socket: ByteBuf,
    /// How long to wait for it; `None`: for ever.
    pub(super) lease_ms: Option<u64>,
    /// How long the command may run, from its start.
    pub(super) timeout_ms: Option<u64>,
    /// How long it then has to end.
    pub(super) grace_ms: u64,
    /// Whose ends are beside this, before the ledger; none if this only replaces the words.
    pub(super) ends: Vec<Channel>,
}

/// The first message of a keeper to an agent that did not start it. What is new in it must be
/// optional: keepers live longer than agents.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Adopt {
    pub(super) version: u32,
    pub(super) memo: ByteBuf,
    pub(super) pid: u32,
    pub(super) keeper: u32,
    pub(super) cgroup: Option<ByteBuf>,
    pub(super) terminal: bool,
    /// How long ago the command was started.
    pub(super) age_ms: u64,
    /// It has run for too long, and was told to end.
    pub(super) timed_out: bool,
    /// It was told to end, and how much time it has.
    #[serde(default)]
    pub(super) ending: bool,
    /// Whose ends are beside this, then the ledger if there is one, then handles as beside `Started`.
    pub(super) ends: Vec<Channel>,
    pub(super) ledger: bool,
}

/// What a keeper says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Who is about to start it, before anything of it runs: a command of the same user can stop or
    /// kill its keeper at once. Stdin, stdout and stderr are beside this, and, from Linux 5.3 on,
    /// handles to the two processes.
    Taken {
        pid: u32,
        keeper: u32,
        cgroup: Option<ByteBuf>,
    },
    /// It runs. Beside this is its terminal, if it has one.
    Started {},
    Failed(Failure),
    Exited {
        status: Status,
        usage: Usage,
        out_of_memory: bool,
    },
    TreeGone {
        survivors: u32,
    },
}

/// What an embryo says to its keeper. When it is the command, its socket is closed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Hatching {
    /// The master of the command's terminal is beside this.
    Terminal {},
    Failed(Failure),
}

/// Why a command did not start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) errno: i32,
    /// The program exists, whatever the errno says.
    pub(super) found: bool,
}

impl Failure {
    pub(super) fn new(stage: Stage, errno: Errno) -> Self {
        Self { stage, errno: errno as i32, found: false }
    }
}

/// What was being done when a launch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Reading the order.
    Order,
    /// Making pipes, the script's file, the process.
    Resources,
    /// Opening a terminal.
    Terminal,
    /// Setting a limit for the whole job.
    Limit(Controller),
    /// Becoming the user.
    Credentials,
    /// Entering the working directory.
    Cwd,
    /// Executing the program.
    Exec,
}

/// A message as it is sent.
pub(crate) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = msgpack::encode(message);
    if body.len() > MAX_MESSAGE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok([&(body.len() as u32).to_be_bytes()[..], &body].concat())
}

/// Sends bytes, and the descriptors with the first of them. For a blocking socket.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let mut sent = send_some(socket, bytes, fds)?;
    while sent < bytes.len() {
        sent += send_some(socket, bytes.get(sent..).unwrap_or_default(), &[])?;
    }
    Ok(())
}

/// One sendmsg(2), without SIGPIPE.
pub(super) fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let beside = if fds.is_empty() { &[][..] } else { &rights[..] };
    loop {
        let iov = [IoSlice::new(bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &iov, beside, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// The receiving side of a socket: what has arrived and was not yet taken. It holds all the state
/// of a half-read message, so a reader that is dropped in the middle loses nothing.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// One recvmsg(2). 0 is the end of the stream.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let mut beside = cmsg_space!([RawFd; MAX_FDS]);
        let mut iov = [IoSliceMut::new(&mut chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let (n, fds) = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut beside), flags) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(message) => {
                    let fds = message.cmsgs()?.filter_map(|beside| match beside {
                        ControlMessageOwned::ScmRights(fds) => Some(fds),
                        _ => None,
                    });
                    break (message.bytes, fds.flatten().collect());
                }
            }
        };
        self.fds.extend(sys::own(fds));
        self.bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
        Ok(n)
    }

    /// The next message, if all of it has arrived.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_MESSAGE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = msgpack::decode(body, LIMITS).map_err(io::Error::other)?;
        self.bytes.drain(..prefix.len() + length);
        Ok(Some(message))
    }

    /// Like [`Inbox::take`], but waits. For a blocking socket; `None` at the end of the stream.
    pub(crate) fn wait<T: DeserializeOwned>(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.fill(socket)? == 0 {
                return Ok(None);
            }
        }
    }

    /// The descriptors that have arrived, in their order.
    pub(crate) fn take_fds(&mut self) -> std::vec::IntoIter<OwnedFd> {
        std::mem::take(&mut self.fds).into_iter()
    }
}
