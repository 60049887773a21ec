//! A port of the agent's machine, and the connections that come to it.

use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::error::Error;
use crate::session::Session;
use crate::streams::ChildStdout;
use rexec_protocol::listen::{MAX_SAID, Said};
use rexec_protocol::{Algorithm, JobId, Outcome};
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;

/// What is kept of an error message, in bytes.
const MESSAGE: u64 = 1024;

/// A port of the agent's machine that is to be opened, built up as a [`Command`] is.
///
/// ```no_run
/// # async fn example(session: rexec_client::Session) -> Result<(), rexec_client::Error> {
/// let mut listener = session.listen("localhost", 8080).start().await?;
/// loop {
///     let (connection, from) = listener.accept().await?;
///     println!("{from} has connected");
///     let mut child = connection.spawn().await?; // its stdin goes there, its stdout comes from there
///     tokio::spawn(async move { child.wait().await });
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
    port: u16,
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
        let mut listener = Listener { command, child, stdout, rest: Vec::new(), port: 0 };
        match listener.hear().await? {
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

    /// Waits for the next connection: what takes it over when it is spawned, and where it comes from. The command
    /// is as that of [`Session::connect_to`](crate::Session::connect_to), with the user and the digest of this. A
    /// connection that is not taken within a minute is reset, and no more than 64 wait. Safe to cancel.
    ///
    /// # Errors
    /// The port is closed, for the reason that [`Error::outcome`] tells.
    pub async fn accept(&mut self) -> Result<(Command, SocketAddr), Error> {
        match self.hear().await? {
            Said::Arrival { number, from } => {
                Ok((self.command.accept(self.job().clone(), number), from))
            }
            Said::Port(_) => Err(nonsense()),
        }
    }

    /// The next line.
    async fn hear(&mut self) -> Result<Said, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let said = self.rest.get(..end).and_then(Said::parse);
                self.rest.drain(..=end);
                return said.ok_or_else(nonsense);
            }
            if self.rest.len() >= MAX_SAID {
                return Err(nonsense());
            }
            let Some(stdout) = &mut self.stdout else { return Err(self.end().await) };
            match stdout.chunk().await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk),
                // A cut is told with the end.
                Ok(None) | Err(_) => self.stdout = None,
            }
        }
    }

    /// Why the port is closed.
    async fn end(&mut self) -> Error {
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Again, the end tells of a cut.
            let _ = stderr.take(MESSAGE).read_to_end(&mut words).await;
        }
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        match self.child.wait().await {
            Err(error) => error,
            Ok(status) => match status.outcome() {
                Outcome::Exited { .. } if !words.is_empty() => Error::local(words),
                outcome => Error::local(format!("the agent has closed the port: {outcome}")),
            },
        }
    }
}

fn nonsense() -> Error {
    Error::incomplete("the agent says of a port what it should not")
}
