//! What to run, built up as with `tokio::process::Command`.

use crate::child::{Child, ExitStatus, Output, kill};
use crate::error::Error;
use crate::remote::Remote;
use crate::session::Session;
use rexec_protocol::Algorithm;
use rexec_protocol::message::{self, ExecSpec, Started};
use serde_bytes::ByteBuf;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A command to be run on a session's agent.
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Command {
    session: Session,
    spec: ExecSpec,
    stdin: Option<Stdio>,
    algorithm: Algorithm,
    kill_on_drop: bool,
    /// What was asked for and cannot be done.
    fault: Option<&'static str>,
}

/// What the command's stdin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// What is written to [`Child::stdin`].
    Piped,
}

impl Command {
    pub(crate) fn argv(session: Session, program: &OsStr) -> Self {
        Self::new(session, message::Command::Argv(vec![bytes(program)]))
    }

    pub(crate) fn line(session: Session, line: &OsStr) -> Self {
        Self::new(session, message::Command::Line(bytes(line)))
    }

    pub(crate) fn script(session: Session, text: Vec<u8>) -> Self {
        let command = message::Command::Script { text: ByteBuf::from(text), args: Vec::new() };
        Self::new(session, command)
    }

    fn new(session: Session, command: message::Command) -> Self {
        let spec = ExecSpec::new(command);
        Self {
            session,
            spec,
            stdin: None,
            algorithm: Algorithm::Sha256,
            kill_on_drop: false,
            fault: None,
        }
    }

    /// Adds an argument; it arrives as it is. A shell line takes none: spawning it is then an error.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let arg = bytes(arg.as_ref());
        match &mut self.spec.command {
            message::Command::Argv(words) => words.push(arg),
            message::Command::Script { args, .. } => args.push(arg),
            message::Command::Line(_) => {
                self.fault = Some("a shell line takes no arguments: they would need quoting");
            }
        }
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable. Nothing of the local environment is sent by itself.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.spec.env.push((bytes(name.as_ref()), bytes(value.as_ref())));
        self
    }

    /// Sets several environment variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        variables.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Sets the working directory, an absolute path; by default it is the remote user's home.
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.spec.cwd = Some(bytes(dir.as_ref().as_os_str()));
        self
    }

    /// Asks to run as this user of the remote machine.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = Some(user.into());
        self
    }

    /// Has the agent end the command, with all that it started, after this long. The agent counts,
    /// so it works without a connection too. Rounded up to milliseconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        self.spec.timeout_ms = Some(u64::try_from(ms).unwrap_or(u64::MAX));
        self
    }

    /// Sets stdin; by default it is piped for [`Command::spawn`], and null otherwise.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Chooses the digest of the streams; SHA-256 by default.
    pub fn digest(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Ends the command when its [`Child`] is dropped before it was waited for. By default it goes
    /// on for as long as the session lives, with its stdout and stderr closed.
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the command; returns once it runs.
    pub async fn spawn(self) -> Result<Child, Error> {
        self.spawn_with(Stdio::Piped).await
    }

    /// Runs the command to its end and collects its output in memory.
    pub async fn output(self) -> Result<Output, Error> {
        self.spawn_with(Stdio::Null).await?.wait_with_output().await
    }

    /// Runs the command to its end; its output is received, verified and dropped.
    pub async fn status(self) -> Result<ExitStatus, Error> {
        let mut child = self.spawn_with(Stdio::Null).await?;
        child.stdin = None;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let drain_out = async {
            if let Some(out) = stdout {
                out.drain().await
            }
        };
        let drain_err = async {
            if let Some(err) = stderr {
                err.drain().await
            }
        };
        tokio::join!(drain_out, drain_err, child.wait()).2
    }

    async fn spawn_with(mut self, default: Stdio) -> Result<Child, Error> {
        self.spec.stdin = self.stdin.unwrap_or(default) == Stdio::Piped;
        if let Some(fault) = self.fault.or_else(|| self.spec.fault()) {
            return Err(Error::invalid(fault));
        }
        let remote = self.session.request(&self.spec, self.algorithm).await?;
        let guard = Unwanted { session: &self.session, remote: &remote, armed: true };
        let started = guard.wait().await?;
        Ok(Child::new(self.session, remote, started, self.spec.stdin, self.kill_on_drop))
    }
}

/// Ends a command that nobody waits for any more before it has even started.
struct Unwanted<'a> {
    session: &'a Session,
    remote: &'a Arc<Remote>,
    armed: bool,
}

impl Unwanted<'_> {
    async fn wait(mut self) -> Result<Started, Error> {
        let started = self.remote.wait_started().await;
        self.armed = false;
        started
    }
}

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        if self.armed {
            kill(self.session.clone(), Arc::clone(self.remote));
        }
    }
}

fn bytes(text: &OsStr) -> ByteBuf {
    ByteBuf::from(text.as_bytes())
}
