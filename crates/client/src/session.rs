//! A connection to one agent, and the commands on it.

use crate::command::Command;
use crate::connector::{Connector, DEFAULT_PORT};
use crate::error::Error;
use crate::remote::{Remote, WINDOW};
use rexec_net::credentials::Files;
use rexec_net::handshake::{Connection, Deadline, error_code};
use rexec_net::{NetError, Outbox};
use rexec_protocol::hello::Terms;
use rexec_protocol::message::{Exec, ExecSpec, Goodbye, Hello, Message, Ping, Pong};
use rexec_protocol::outcome::printable;
use rexec_protocol::{Algorithm, ErrorCode, Frame, ProtocolError, StreamId, msgpack};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An encoded request may be this long: one frame body.
const MAX_REQUEST: usize = rexec_protocol::frame::MAX_BODY as usize;
/// Numbers of pings that were asked for; below are those of the keepalive.
const FIRST_PING: u64 = 1 << 32;

/// A connection to one agent. Cheap to clone; the connection is closed, and commands that still run
/// on it are ended, when the last clone and the last [`crate::Child`] are gone.
///
/// Whether the agent's certificate was revoked is asked when the connection is made, and again within
/// a few seconds of a new revocation list: then the connection ends, and what runs on it is lost.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner(Arc<Shared>);

/// What the reading task and the handles share.
#[derive(Debug)]
struct Shared {
    outbox: Outbox,
    routes: Mutex<Routes>,
    opened: Arc<AtomicU64>,
    /// The last answer to a ping; `None` once the connection is gone.
    pong: watch::Sender<Option<Pong>>,
    pings: tokio::sync::Mutex<u64>,
    /// The id of the last request. Held until a request is queued, so that requests are sent in the
    /// order of their ids.
    last: tokio::sync::Mutex<StreamId>,
    /// What was agreed on, once the agent has answered; it may then have begun what it was asked.
    terms: watch::Sender<Option<Terms>>,
    /// Nobody holds the session any more.
    dropped: CancellationToken,
}

#[derive(Debug, Default)]
struct Routes {
    remotes: HashMap<StreamId, Arc<Remote>>,
    /// The agent has answered a request, whichever.
    served: bool,
    /// Why there is no connection any more.
    gone: Option<String>,
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
        let nonce = FIRST_PING + *count;
        let mut pong = shared.pong.subscribe();
        let start = Instant::now();
        let ping = Frame::new(StreamId::CONNECTION, Ping { nonce }.into());
        // If the connection goes just now, no pong will tell.
        let _ = shared.outbox.control(ping).await;
        let answer =
            pong.wait_for(|answered| answered.is_none_or(|last| last.nonce == nonce)).await;
        let pong = answer.ok().and_then(|answer| *answer);
        pong.map(|pong| (start.elapsed(), pong)).ok_or_else(|| shared.gone())
    }

    pub(crate) fn start(
        connection: Connection,
        ours: Hello,
        deadline: Deadline,
        explain: impl FnOnce(NetError) -> NetError + Send + 'static,
        distrusted: impl Future<Output = NetError> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            outbox: connection.outbox.clone(),
            routes: Mutex::default(),
            opened: Arc::clone(&connection.opened),
            pong: watch::Sender::new(Some(Pong { nonce: 0, time_ms: None })),
            pings: tokio::sync::Mutex::new(0),
            last: tokio::sync::Mutex::new(StreamId::CONNECTION),
            terms: watch::Sender::new(None),
            dropped: CancellationToken::new(),
        });
        tokio::spawn(read(connection, Arc::clone(&shared), ours, deadline, explain, distrusted));
        Self(Arc::new(Inner(shared)))
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
        let shared = &self.0.0;
        shared.agree(algorithm).await?;
        let mut last = shared.last.lock().await;
        *last = last.next();
        let remote = shared.open(*last, algorithm)?;
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
        self.0.outbox.close(Some(Frame::new(StreamId::CONNECTION, goodbye.into())));
        self.0.dropped.cancel();
    }
}

impl Shared {
    /// Makes a route before the request is sent, so that no answer can come too early.
    fn open(&self, stream: StreamId, algorithm: Algorithm) -> Result<Arc<Remote>, Error> {
        let mut routes = self.routes();
        if routes.gone.is_some() {
            drop(routes);
            return Err(self.gone());
        }
        let remote = Remote::new(stream, algorithm, self.outbox.clone());
        routes.remotes.insert(stream, Arc::clone(&remote));
        self.opened.fetch_max(stream.0, Ordering::AcqRel);
        Ok(remote)
    }

    fn route(&self, frame: Frame) -> Result<(), ProtocolError> {
        if let Message::Pong(pong) = frame.message {
            // The others answer the keepalive.
            if pong.nonce >= FIRST_PING {
                self.pong.send_replace(Some(pong));
            }
            return Ok(());
        }
        if let Message::Goodbye(goodbye) = &frame.message {
            tracing::info!(reason = goodbye.reason, "the agent says goodbye");
            return Ok(());
        }
        let stream = frame.stream;
        // Frames of a command that is over, or was forgotten, are late, not wrong.
        let remote = {
            let mut routes = self.routes();
            routes.served = true;
            routes.remotes.get(&stream).cloned()
        };
        let Some(remote) = remote else { return Ok(()) };
        if remote.receive(frame)? {
            self.routes().remotes.remove(&stream);
        }
        Ok(())
    }

    /// Tells everyone that the connection is gone.
    ///
    /// The first request travels with the hello, so an agent that was cut off may have begun it even
    /// if it was never heard. Only a refusal proves that it has not: one instead of a hello, or one
    /// with a code that is sent before anything is served.
    fn fail(&self, error: &NetError) {
        let (remotes, served) = {
            let mut routes = self.routes();
            routes.gone = Some(error.to_string());
            (std::mem::take(&mut routes.remotes), routes.served)
        };
        let greeted = self.terms.borrow().is_some();
        let refused = match error {
            NetError::Peer { code: ErrorCode::Busy | ErrorCode::Identity, .. } => !served,
            NetError::Refused(_)
            | NetError::Peer { .. }
            | NetError::Protocol(ProtocolError::Version { .. }) => !greeted,
            _ => false,
        };
        let end = if refused { Error::unreachable } else { Error::lost };
        for remote in remotes.into_values() {
            remote.fail(end(error.to_string()));
        }
        self.pong.send_replace(None);
        // Wakes those that wait for terms which will not come.
        self.terms.send_modify(|_| {});
    }

    /// Every agent has SHA-256. For another digest the agent's hello must be waited for.
    async fn agree(&self, algorithm: Algorithm) -> Result<(), Error> {
        if algorithm == Algorithm::Sha256 {
            return Ok(());
        }
        let mut terms = self.terms.subscribe();
        let known = terms.wait_for(|terms| terms.is_some() || self.routes().gone.is_some()).await;
        match known.as_deref() {
            Ok(Some(terms)) if terms.digests.contains(&algorithm) => Ok(()),
            Ok(Some(terms)) => {
                let software = printable(&terms.software);
                Err(Error::invalid(&format!("the agent ({software}) does not have {algorithm}")))
            }
            _ => Err(self.gone()),
        }
    }

    /// Why nothing can be asked any more.
    fn gone(&self) -> Error {
        let reason = self.routes().gone.clone();
        Error::unreachable(reason.unwrap_or_else(|| "the session is over".to_owned()))
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the connection ends or nobody holds the session, and then ends both.
async fn read(
    mut connection: Connection,
    shared: Arc<Shared>,
    ours: Hello,
    deadline: Deadline,
    explain: impl FnOnce(NetError) -> NetError,
    distrusted: impl Future<Output = NetError>,
) {
    let end = tokio::select! {
        end = distrusted => end,
        end = read_frames(&mut connection, &shared, &ours, deadline, explain) => end,
        () = shared.dropped.cancelled() => NetError::Closed,
    };
    // First the last words: whoever hears of the end may drop the session, which has some of its own.
    match end {
        NetError::Protocol(_)
        | NetError::Silent(_)
        | NetError::Deadline { .. }
        | NetError::Untrusted { .. } => {
            connection.accuse(error_code(&end), &end.to_string());
        }
        _ => connection.outbox.close(None),
    }
    shared.fail(&end);
    connection.finish().await;
}

async fn read_frames(
    connection: &mut Connection,
    shared: &Shared,
    ours: &Hello,
    deadline: Deadline,
    explain: impl FnOnce(NetError) -> NetError,
) -> NetError {
    let greeting = deadline.bound("the agent's hello", connection.receive_hello(ours)).await;
    match greeting.flatten() {
        Ok(terms) => {
            tracing::debug!(agent = terms.software, "the agent greets");
            shared.terms.send_replace(Some(terms));
        }
        Err(error) => return explain(error),
    }
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
