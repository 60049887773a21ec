//! A port of the agent's machine, and the connections that come to it.

use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::error::Error;
use crate::session::Session;
use crate::streams::{ChildStderr, ChildStdout};
use rexec_guard::holds;
use rexec_protocol::listen::{MAX_SAID, Said, TAKEN, WAITS};
use rexec_protocol::{Algorithm, JobId, NeverStarted, Outcome};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout_at};

/// What is kept of an error message, in bytes.
const MESSAGE: usize = 1024;
/// How long an agent that is at a limit is left alone before it is asked again, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A port of the agent's machine that is to be opened, built up as a [`Command`] is.
///
/// ```no_run
/// # async fn example(session: rexec_client::Session) -> Result<(), rexec_client::Error> {
/// let mut listener = session.listen("localhost", 8080).start().await?;
/// loop {
///     let incoming = listener.accept().await?;
///     println!("{} has connected", incoming.peer_addr());
///     tokio::spawn(async move {
///         let mut child = incoming.take().await?; // its stdin goes there, its stdout comes from there
///         child.wait().await
///     });
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "no port is opened before it is started"]
pub struct Listen {
    command: Command,
}

/// An open port of the agent's machine. It is closed when this is dropped; connections that were taken go on.
///
/// It lasts over lost connections and over agents that are restarted, as every command does, and what came to
/// it meanwhile is told afterwards.
#[derive(Debug)]
pub struct Listener {
    /// What connections are made like.
    command: Command,
    child: Child,
    stdout: Option<ChildStdout>,
    /// What was read of it, and is no whole line yet.
    rest: Vec<u8>,
    /// That begins within a line.
    is_torn: bool,
    /// Lines were lost, so that numbers may be.
    has_gap: bool,
    port: u16,
    /// The number of the last connection.
    count: u64,
    /// What it said on stderr.
    words: Vec<u8>,
}

/// A connection that has come to a [`Listener`], and waits to be taken.
#[derive(Debug, Clone)]
#[must_use = "a connection that nobody takes is reset after a minute"]
pub struct Incoming {
    command: Command,
    from: SocketAddr,
    missed: u64,
    until: Instant,
}

impl Listen {
    pub(crate) fn new(command: Command) -> Self {
        Self { command: command.stdin(Stdio::Piped).kill_on_drop(true) }
    }

    /// Asks to open it, and to have its connections, as this user of the remote machine.
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { command: self.command.user(user) }
    }

    /// Chooses the digest of the streams, also of each connection; SHA-256 by default.
    pub fn digest(self, algorithm: Algorithm) -> Self {
        Self { command: self.command.digest(algorithm) }
    }

    /// Leaves the digest of the streams to the agent, as [`Command::any_digest`] does.
    pub fn any_digest(self) -> Self {
        Self { command: self.command.any_digest() }
    }

    /// Opens the port; returns once it is open.
    ///
    /// # Errors
    /// Beside those of [`Command::spawn`], [`Outcome::Local`] with the words of the agent's machine if it cannot
    /// be opened.
    pub async fn start(self) -> Result<Listener, Error> {
        let command = self.command;
        let mut child = command.clone().spawn().await?;
        let stdout = child.stdout.take();
        let torn = stdout.as_ref().map(ChildStdout::torn);
        let (rest, words) = (Vec::new(), Vec::new());
        let (is_torn, has_gap, port, count) = (false, false, 0, 0);
        let mut listener =
            Listener { command, child, stdout, rest, is_torn, has_gap, port, count, words };
        let said = tokio::select! {
            biased;
            said = listener.hear() => said?,
            // It may have been the line that tells the port, and nothing may come after it for ever.
            Some(()) = async { torn?.await; Some(()) } => return Err(untold()),
        };
        match said {
            Said::Port(port) => listener.port = port,
            Said::Arrival { .. } => return Err(nonsense()),
        }
        Ok(listener)
    }
}

impl Listener {
    /// The port, also if it was left to the agent's machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The job that has it open.
    pub fn job(&self) -> &JobId {
        self.child.job()
    }

    /// The session that it is on.
    pub fn session(&self) -> &Session {
        self.child.session()
    }

    /// Waits for the next connection. One that is not taken within a minute is reset, and no more than 64 wait.
    /// Safe to cancel.
    ///
    /// # Errors
    /// The port is closed, for the reason that [`Error::outcome`] tells.
    pub async fn accept(&mut self) -> Result<Incoming, Error> {
        let Said::Arrival { number, from } = self.hear().await? else { return Err(nonsense()) };
        let next = self.count.saturating_add(1);
        let follows = number == next || (number > next && self.has_gap);
        if !holds("listener.number", follows) {
            return Err(nonsense());
        }
        (self.count, self.has_gap) = (number, false);
        let mut command = self.command.accept(self.job().clone(), number);
        command = command.stdin(Stdio::Piped).kill_on_drop(true);
        let (missed, until) = (number.saturating_sub(next), Instant::now() + WAITS);
        Ok(Incoming { command, from, missed, until })
    }

    /// The next line.
    async fn hear(&mut self) -> Result<Said, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let said = self.rest.get(..end).and_then(Said::parse);
                self.rest.drain(..=end);
                // Where it begins is not known, even if it looks whole.
                if std::mem::take(&mut self.is_torn) {
                    continue;
                }
                return said.ok_or_else(nonsense);
            }
            if self.rest.len() >= MAX_SAID {
                return Err(nonsense());
            }
            let Some(stdout) = &mut self.stdout else { return Err(self.end().await) };
            match stdout.chunk().await {
                Ok(Some(chunk)) => {
                    if chunk.missing_before() > 0 {
                        self.rest.clear();
                        (self.is_torn, self.has_gap) = (true, true);
                    }
                    self.rest.extend_from_slice(&chunk);
                }
                // A cut is told with the end.
                Ok(None) | Err(_) => self.stdout = None,
            }
        }
    }

    /// Why the port is closed. Safe to cancel, too.
    async fn end(&mut self) -> Error {
        listen_to(&mut self.child.stderr, &mut self.words).await;
        why(&mut self.child, &self.words, "the agent has closed the port").await
    }
}

impl Incoming {
    /// Where it comes from.
    pub fn peer_addr(&self) -> SocketAddr {
        self.from
    }

    /// How many connections came before it, and after the last that was told, of which nothing else is known: an
    /// agent was killed that had heard of them. Those are reset after a minute.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Takes it: what is written to stdin goes there, and its end ends that direction alone; stdout comes from there.
    /// If it breaks, the status is 1 and stderr says why. If the child is dropped, or killed, before its stdin has
    /// ended, it is reset.
    ///
    /// While the agent is at a limit it is asked again, for as long as the connection waits.
    ///
    /// # Errors
    /// Beside those of [`Command::spawn`], [`Outcome::Local`] with the words of the agent's machine if it is not there
    /// any more.
    pub async fn take(self) -> Result<Child, Error> {
        if Instant::now() >= self.until {
            return Err(Error::local("it was not taken within a minute, and is reset"));
        }
        let mut pause = PAUSE;
        loop {
            let taken = timeout_at(self.until, taken(self.command.clone())).await;
            match taken.unwrap_or_else(|_| Err(late())) {
                Err(error) if is_busy(&error) && Instant::now() + pause < self.until => {
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                taken => return taken,
            }
        }
    }
}

/// Takes a connection at the first attempt.
async fn taken(command: Command) -> Result<Child, Error> {
    let mut child = command.spawn().await?;
    let mut words = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        // No more than that, because what follows is for whoever has the child.
        while words.len() < TAKEN.len() {
            // A cut is told with the end.
            let Ok(byte) = stderr.read_u8().await else { break };
            words.push(byte);
        }
    }
    if words == TAKEN.as_bytes() {
        return Ok(child);
    }
    listen_to(&mut child.stderr, &mut words).await;
    Err(why(&mut child, &words, "the agent has not given the connection").await)
}

/// What is said on stderr, to its end, of which the beginning is kept.
async fn listen_to(stderr: &mut Option<ChildStderr>, words: &mut Vec<u8>) {
    while let Some(stream) = stderr {
        match stream.chunk().await {
            Ok(Some(chunk)) => {
                let room = MESSAGE.saturating_sub(words.len());
                words.extend(chunk.iter().take(room));
            }
            // Again, the end tells of a cut.
            Ok(None) | Err(_) => *stderr = None,
        }
    }
}

/// Why something has ended: in its own words, if it had any.
async fn why(child: &mut Child, words: &[u8], otherwise: &str) -> Error {
    let words = String::from_utf8_lossy(words).trim().to_owned();
    match child.wait().await {
        Err(error) => error,
        Ok(status) => match status.outcome() {
            Outcome::Exited { .. } if !words.is_empty() => Error::local(words),
            outcome => Error::local(format!("{otherwise}: {outcome}")),
        },
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(error.outcome(), Outcome::NeverStarted { reason: NeverStarted::Busy, .. })
}

fn late() -> Error {
    Error::local("the agent has not given the connection for a minute")
}

fn untold() -> Error {
    Error::local("an agent was killed before it told which port is open")
}

fn nonsense() -> Error {
    Error::incomplete("the agent says of a port what it should not")
}
