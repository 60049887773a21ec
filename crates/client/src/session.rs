//! A session with one agent, and the commands on it.

use crate::attach::Attach;
use crate::command::Command;
use crate::connector::{Connector, DEFAULT_PORT, Dialer};
use crate::error::Error;
use crate::link::{self, Link, Shared};
use crate::listener::Listen;
use crate::membership::Membership;
use crate::remote::{Opening, Remote};
use crate::room::{Join, Room};
use rexec_net::credentials::Files;
use rexec_net::handshake::{Connection, Deadline};
use rexec_protocol::message::{
    self, ConnectionInfo, Exec, ExecSpec, JobInfo, JobList, Jobs, Message, Notice, Ping, Pong,
    PresentList, Remove, RoomInfo, RoomList, Rooms, Wall, Walled, Who,
};
use rexec_protocol::{Algorithm, Frame, JobId, ProtocolError, StreamId, msgpack};
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, watch};

/// An encoded request may be this long: one frame body.
const MAX_REQUEST: usize = rexec_protocol::frame::MAX_BODY as usize;

/// A session with one agent. Cheap to clone; it ends, and with it commands that still run on it, when
/// the last clone and the last [`crate::Child`] are gone. Those that are to outlive it are detached.
///
/// A connection that is lost while commands run is made again, for as long as
/// [`Connector::reconnect_for`] says, and the commands go on where they were: no byte is lost, and
/// none comes twice. One that is lost while nothing runs ends the session, unless it
/// [stays connected](Session::stay_connected).
///
/// Whether the agent's certificate was revoked is asked when the connection is made, and again within
/// a few seconds of a new revocation list: then the connection ends, and what runs on it is lost.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner(Arc<Shared>);

impl Session {
    /// Connects to `target`, written as `host`, `host:port` or `[address]:port`.
    ///
    /// For more choices, or many connections, see [`Connector`].
    pub async fn connect(target: &str, files: &Files) -> Result<Self, Error> {
        let (host, port) = split_target(target)?;
        Connector::new(files)?.connect(host, port.unwrap_or(DEFAULT_PORT)).await
    }

    /// A command that runs `program`, as `execve` takes it: nothing is quoted, split or expanded.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::argv(self.clone(), program.as_ref())
    }

    /// A command that has the remote user's login shell run `line`.
    pub fn shell(&self, line: impl AsRef<OsStr>) -> Command {
        Command::line(self.clone(), line.as_ref())
    }

    /// The remote user's login shell, as login(1) starts it: with [`Command::terminal`] for a person,
    /// without for one who writes commands to its stdin.
    pub fn login(&self) -> Command {
        Command::login(self.clone())
    }

    /// The command that the agent's configuration has under this name, such as `sftp`.
    pub fn subsystem(&self, name: impl Into<String>) -> Command {
        Command::subsystem(self.clone(), name.into())
    }

    /// A TCP connection from the agent's machine to `host`, as that machine knows it: what is written to
    /// stdin goes there, and its end ends that direction alone; stdout comes from there. If it cannot be
    /// made, or breaks, the status is 1 and stderr says why. Where the other side has ended in good order stderr ends
    /// without a word, and with stdout. It takes no variables, directory or terminal.
    pub fn connect_to(&self, host: impl Into<String>, port: u16) -> Command {
        Command::connect(self.clone(), host.into(), port)
    }

    /// A port of the agent's machine at `host`, a name or an address that it has, or `*` for all of them; with
    /// port 0 one that is free. See [`Listen`].
    pub fn listen(&self, host: impl Into<String>, port: u16) -> Listen {
        Listen::new(Command::listen(self.clone(), host.into(), port))
    }

    /// A command that sends a program along and runs it: by its `#!` line, or by `/bin/sh`. Program
    /// and arguments together may be as long as one request, a little under 1 MiB.
    pub fn script(&self, text: impl Into<Vec<u8>>) -> Command {
        Command::script(self.clone(), text.into())
    }

    /// The time of one round trip to the agent.
    pub async fn ping(&self) -> Result<Duration, Error> {
        self.exchange().await.map(|(round_trip, _)| round_trip)
    }

    /// What the agent's clock shows, as exact as a round trip is short; `None` from an agent that
    /// does not tell. To find a clock that is wrong, and for nothing else.
    pub async fn agent_time(&self) -> Result<Option<SystemTime>, Error> {
        let (_, pong) = self.exchange().await?;
        let since = pong.time_ms.map(Duration::from_millis);
        Ok(since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)))
    }

    async fn exchange(&self) -> Result<(Duration, Pong), Error> {
        let shared = &self.0.0;
        // One at a time: an agent answers only the last of several pings.
        let mut count = shared.pings.lock().await;
        *count += 1;
        let nonce = link::FIRST_PING + *count;
        let mut pong = shared.pong.subscribe();
        let outbox = shared.outbox().await?;
        let start = Instant::now();
        let ping = Frame::new(StreamId::CONNECTION, Ping { nonce }.into());
        // If the connection goes just now, no pong will tell.
        let _ = outbox.control(ping).await;
        let gone = async {
            let mut link = shared.link();
            // The sender is held here.
            let _ = link.wait_for(|link| !matches!(link, Link::Up)).await;
        };
        let answer = tokio::select! {
            answer = pong.wait_for(|answered| answered.is_some_and(|last| last.nonce == nonce)) => answer.ok().and_then(|answer| *answer),
            () = gone => None,
        };
        answer.map(|pong| (start.elapsed(), pong)).ok_or_else(|| shared.gone())
    }

    /// A client's place at a job that is there already; see [`Attach`].
    pub fn attach(&self, job: JobId) -> Attach {
        Attach::new(self.clone(), job)
    }

    /// The jobs on the agent that this identity may know of, the oldest first. Their texts come from
    /// another machine: pass them through [`crate::printable`] before a terminal shows them.
    pub async fn jobs(&self) -> Result<Vec<JobInfo>, Error> {
        let frames = self.0.0.ask(|stream| Frame::new(stream, Jobs {}.into())).await?;
        list_of(frames, |part| Ok(msgpack::decode::<JobList>(part, msgpack::BODY)?.jobs))
    }

    /// Has the agent forget a job that has ended, with its output.
    pub async fn remove(&self, job: &JobId) -> Result<(), Error> {
        let remove = Remove { job: job.clone() };
        self.0.0.ask(|stream| Frame::new(stream, remove.into())).await.map(drop)
    }

    /// A way into a room of the agent, with choices; see [`Join`].
    pub fn room(&self, room: &str) -> Join {
        Join::new(self.clone(), room)
    }

    /// Joins a room of the agent, with all of its history that is still there.
    pub async fn join(&self, room: &str) -> Result<Room, Error> {
        self.room(room).join().await
    }

    /// Tells a line to every room of the agent, and to everybody who is on one of its jobs.
    pub async fn wall(&self, text: &str) -> Result<Walled, Error> {
        let text = text.to_owned().into_bytes();
        let asked = self.0.0.ask(|stream| Frame::with_body(stream, Wall {}.into(), text));
        let walled = asked.await?.into_iter().find_map(|frame| match frame.message {
            Message::Walled(walled) => Some(walled),
            _ => None,
        });
        walled.ok_or_else(|| Error::local("the agent gave another answer than it should"))
    }

    /// Who is connected to the agent, the longest there first. Their texts come from another machine:
    /// pass them through [`crate::printable`] before a terminal shows them.
    pub async fn who(&self) -> Result<Vec<ConnectionInfo>, Error> {
        self.present(Who { room: None }).await
    }

    /// The rooms of the agent that are open and that this identity may be in, by their names.
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>, Error> {
        let frames = self.0.0.ask(|stream| Frame::new(stream, Rooms {}.into())).await?;
        list_of(frames, |part| Ok(msgpack::decode::<RoomList>(part, msgpack::BODY)?.rooms))
    }

    pub(crate) async fn present(&self, who: Who) -> Result<Vec<ConnectionInfo>, Error> {
        let frames = self.0.0.ask(|stream| Frame::new(stream, who.into())).await?;
        list_of(frames, |part| Ok(msgpack::decode::<PresentList>(part, msgpack::BODY)?.connections))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0.0)
    }

    pub(crate) async fn enter(&self, membership: Arc<Membership>) -> Result<(), Error> {
        self.0.0.enter(membership).await
    }

    /// What the agent wants the people on this connection to know, from now on: who watches their
    /// jobs, and what somebody tells everybody. Some are left out if there are many.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.0.0.notices.subscribe()
    }

    /// From now on a connection that is lost while nothing runs is made again too: for who waits for
    /// something to run.
    pub fn stay_connected(&self) {
        self.0.0.stays.store(true, Ordering::Release);
    }

    /// Whether there is a connection, to be watched.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.0.link()
    }

    /// Whether another session is with the agent at the same host and port, as they were named.
    pub(crate) fn is_as_named(&self, other: &Self) -> bool {
        let (one, two) = (&self.0.0.address, &other.0.0.address);
        one.1 == two.1 && one.0.eq_ignore_ascii_case(&two.0)
    }

    pub(crate) fn start(connection: Connection, dialer: Dialer, deadline: Deadline) -> Self {
        let shared = Arc::new(Shared::new(&connection, dialer.address()));
        tokio::spawn(link::run(connection, Arc::clone(&shared), dialer, deadline));
        Self(Arc::new(Inner(shared)))
    }

    /// Submits a command; the answers arrive at the remote that is returned.
    pub(crate) async fn submit(&self, exec: Exec, spec: &ExecSpec) -> Result<Arc<Remote>, Error> {
        let body = msgpack::encode(spec);
        if body.len() > MAX_REQUEST {
            return Err(Error::invalid(&format!(
                "the command with its arguments and environment takes {} bytes; at most {MAX_REQUEST} can be sent",
                body.len()
            )));
        }
        // Until the agent has said what it takes, it is the one that every agent has.
        let algorithm = exec.digest.unwrap_or_default();
        self.0.0.agree(algorithm).await?;
        let terminal = spec.terminal.is_some();
        // Lines of which some are missing are told from whole ones.
        let in_pieces = matches!(spec.command, message::Command::Listen { .. });
        self.open(Opening::Exec { exec, body, terminal, in_pieces }, algorithm).await
    }

    /// The fastest digest that the agent has.
    pub(crate) async fn fastest_digest(&self) -> Result<Algorithm, Error> {
        self.0.0.fastest_digest().await
    }

    pub(crate) async fn open(
        &self,
        opening: Opening,
        algorithm: Algorithm,
    ) -> Result<Arc<Remote>, Error> {
        let remote = Remote::new(opening, algorithm);
        self.0.0.open(Arc::clone(&remote)).await?;
        Ok(remote)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Splits `host`, `host:port`, `address`, `[address]` and `[address]:port`.
fn split_target(target: &str) -> Result<(&str, Option<u16>), Error> {
    let bad = || Error::local(format!("'{target}' is not HOST or HOST:PORT"));
    let (host, port) = match target.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (
                host,
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) },
            )
        }
        // More than one colon: an IPv6 address without a port.
        None => match target.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (target, None),
        },
    };
    let port = port.map(|port| port.parse().map_err(|_| bad())).transpose()?;
    if host.is_empty() || port == Some(0) { Err(bad()) } else { Ok((host, port)) }
}

/// An answer that is a list, in as many frames as it takes, which were verified when they came.
fn list_of<T>(
    frames: Vec<Frame>,
    decode: impl Fn(&[u8]) -> Result<Vec<T>, ProtocolError>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    for frame in frames {
        all.extend(decode(&frame.body).map_err(|fault| Error::incomplete(fault.to_string()))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (target, host, port) in [
            ("web1", "web1", None),
            ("web1:9", "web1", Some(9)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[::1]:9", "::1", Some(9)),
            ("127.0.0.1:8512", "127.0.0.1", Some(8512)),
        ] {
            assert_eq!(split_target(target), Ok((host, port)), "{target}");
        }
        for bad in ["", ":9", "web1:", "web1:0", "web1:70000", "web1:x", "[::1", "[::1]9", "[]:9"] {
            assert!(split_target(bad).is_err(), "{bad}");
        }
    }
}
