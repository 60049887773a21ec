//! A connection to one agent, and the commands on it.

use crate::command::Command;
use crate::connector::{Connector, DEFAULT_PORT};
use crate::error::Error;
use crate::remote::{Remote, WINDOW};
use rexec_net::credentials::Files;
use rexec_net::handshake::{Connection, Deadline, error_code};
use rexec_net::{NetError, Outbox};
use rexec_protocol::message::{Exec, ExecSpec, Goodbye, Hello, Message, Ping};
use rexec_protocol::{Algorithm, Frame, ProtocolError, StreamId, msgpack};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An encoded request may be this long: one frame body.
const MAX_REQUEST: usize = rexec_protocol::frame::MAX_BODY as usize;
/// Numbers of pings that were asked for; below are those of the keepalive.
const FIRST_PING: u64 = 1 << 32;

/// A connection to one agent. Cheap to clone; the connection is closed, and commands that still run
/// on it are ended, when the last clone and the last [`crate::Child`] are gone.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// What the reading task and the handles share.
#[derive(Debug)]
struct Shared {
    outbox: Outbox,
    routes: Mutex<Routes>,
    opened: Arc<AtomicU64>,
    pong: watch::Sender<u64>,
    pings: tokio::sync::Mutex<u64>,
}

#[derive(Debug, Default)]
struct Routes {
    remotes: HashMap<StreamId, Arc<Remote>>,
    last: Option<StreamId>,
    /// The agent has answered, so it may have begun what it was asked.
    greeted: bool,
    /// Why there is no connection any more.
    gone: Option<Gone>,
}

#[derive(Debug, Clone)]
struct Gone {
    reason: String,
    greeted: bool,
}

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

    /// A command that sends a program along and runs it: by its `#!` line, or by `/bin/sh`. Program
    /// and arguments together may be as long as one request, a little under 1 MiB.
    pub fn script(&self, text: impl Into<Vec<u8>>) -> Command {
        Command::script(self.clone(), text.into())
    }

    /// The time of one round trip to the agent.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let shared = &self.0.shared;
        // One at a time: an agent answers only the last of several pings.
        let mut count = shared.pings.lock().await;
        *count += 1;
        let nonce = FIRST_PING + *count;
        let mut pong = shared.pong.subscribe();
        let start = Instant::now();
        let ping = Frame::new(StreamId::CONNECTION, Ping { nonce }.into());
        let sent = shared.outbox.control(ping).await;
        match (sent, pong.wait_for(|answered| *answered == nonce).await) {
            (Ok(()), Ok(_)) => Ok(start.elapsed()),
            _ => Err(shared.gone()),
        }
    }

    pub(crate) fn start(
        connection: Connection,
        ours: Hello,
        deadline: Deadline,
        explain: impl FnOnce(NetError) -> NetError + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            outbox: connection.outbox.clone(),
            routes: Mutex::default(),
            opened: Arc::clone(&connection.opened),
            pong: watch::Sender::new(0),
            pings: tokio::sync::Mutex::new(0),
        });
        let reader = tokio::spawn(read(connection, Arc::clone(&shared), ours, deadline, explain));
        Self(Arc::new(Inner { shared, reader }))
    }

    /// Sends a request; the answers arrive at the remote that is returned.
    pub(crate) async fn request(
        &self,
        spec: &ExecSpec,
        algorithm: Algorithm,
    ) -> Result<Arc<Remote>, Error> {
        let body = msgpack::encode(spec);
        if body.len() > MAX_REQUEST {
            return Err(Error::invalid(&format!(
                "the command with its arguments and environment takes {} bytes; at most {MAX_REQUEST} can be sent",
                body.len()
            )));
        }
        let shared = &self.0.shared;
        let remote = shared.open(algorithm)?;
        let exec = Exec { window: WINDOW, digest: algorithm };
        let frame = Frame::with_body(remote.stream, exec.into(), body);
        // If the connection goes just now, the remote hears of it like all others.
        let _ = shared.outbox.control(frame).await;
        Ok(remote)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let goodbye = Goodbye { reason: "the client is done".to_owned() };
        self.shared.outbox.close(Some(Frame::new(StreamId::CONNECTION, goodbye.into())));
        self.reader.abort();
    }
}

impl Shared {
    /// Makes a route before the request is sent, so that no answer can come too early.
    fn open(&self, algorithm: Algorithm) -> Result<Arc<Remote>, Error> {
        let mut routes = self.routes();
        if routes.gone.is_some() {
            drop(routes);
            return Err(self.gone());
        }
        let stream = routes.last.unwrap_or(StreamId::CONNECTION).next();
        routes.last = Some(stream);
        let remote = Remote::new(stream, algorithm, self.outbox.clone());
        routes.remotes.insert(stream, Arc::clone(&remote));
        self.opened.fetch_max(stream.0, Ordering::AcqRel);
        Ok(remote)
    }

    fn route(&self, frame: Frame) -> Result<(), ProtocolError> {
        if let Message::Pong(pong) = frame.message {
            self.pong.send_replace(pong.nonce);
            return Ok(());
        }
        if let Message::Goodbye(goodbye) = &frame.message {
            tracing::info!(reason = goodbye.reason, "the agent says goodbye");
            return Ok(());
        }
        let stream = frame.stream;
        // Frames of a command that is over, or was forgotten, are late, not wrong.
        let Some(remote) = self.routes().remotes.get(&stream).cloned() else { return Ok(()) };
        if remote.receive(frame)? {
            self.routes().remotes.remove(&stream);
        }
        Ok(())
    }

    /// Tells everyone that the connection is gone.
    fn fail(&self, error: &NetError) {
        let remotes = {
            let mut routes = self.routes();
            let greeted = routes.greeted;
            routes.gone = Some(Gone { reason: error.to_string(), greeted });
            std::mem::take(&mut routes.remotes)
        };
        for remote in remotes.into_values() {
            remote.fail(self.gone());
        }
        // Wakes those that wait for a pong.
        self.pong.send_replace(0);
    }

    /// Why nothing can be asked any more; before the agent's first word, nothing ran.
    fn gone(&self) -> Error {
        let gone = self.routes().gone.clone();
        match gone {
            Some(Gone { reason, greeted: false }) => Error::unreachable(reason),
            Some(Gone { reason, greeted: true }) => Error::lost(reason),
            None => Error::lost("the session is over"),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(
    mut connection: Connection,
    shared: Arc<Shared>,
    ours: Hello,
    deadline: Deadline,
    explain: impl FnOnce(NetError) -> NetError,
) {
    let greeting = deadline.bound("the agent's hello", connection.receive_hello(&ours)).await;
    let end = match greeting.flatten() {
        Ok(terms) => {
            tracing::debug!(agent = terms.software, "the agent greets");
            shared.routes().greeted = true;
            read_frames(&mut connection, &shared).await
        }
        Err(error) => explain(error),
    };
    shared.fail(&end);
    match end {
        NetError::Protocol(_) | NetError::Silent(_) | NetError::Deadline { .. } => {
            connection.refuse(error_code(&end), &end.to_string()).await;
        }
        _ => connection.outbox.close(None),
    }
}

async fn read_frames(connection: &mut Connection, shared: &Shared) -> NetError {
    loop {
        match connection.inbound.next().await {
            Ok(frame) => {
                if let Err(fault) = shared.route(frame) {
                    return fault.into();
                }
            }
            Err(end) => return end,
        }
    }
}

/// Splits `host`, `host:port`, `address`, `[address]` and `[address]:port`.
fn split_target(target: &str) -> Result<(&str, Option<u16>), Error> {
    let bad = || Error::local(format!("'{target}' is not HOST or HOST:PORT"));
    let (host, port) = match target.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
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
