//! What to run, built up as with `tokio::process::Command`.

use crate::child::{Child, ExitStatus, Output, kill};
use crate::error::Error;
use crate::remote::{End, Remote, WINDOW};
use crate::session::Session;
use rexec_protocol::files::FilesRequest;
use rexec_protocol::message::{
    self, Drain, Exec, ExecSpec, OnDisconnect, OnFull, Started, Terminal, TerminalSize,
};
use rexec_protocol::{Algorithm, JobId, Outcome};
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
    algorithm: Option<Algorithm>,
    kill_on_drop: bool,
    /// The caller's own id for it, or one made here.
    job: Option<JobId>,
    durable: bool,
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

    pub(crate) fn login(session: Session) -> Self {
        Self::new(session, message::Command::Login {})
    }

    pub(crate) fn subsystem(session: Session, name: String) -> Self {
        Self::new(session, message::Command::Subsystem(name))
    }

    pub(crate) fn connect(session: Session, host: String, port: u16) -> Self {
        Self::new(session, message::Command::Connect { host, port })
    }

    pub(crate) fn listen(session: Session, host: String, port: u16) -> Self {
        Self::new(session, message::Command::Listen { host, port })
    }

    /// The same choices, for a connection that came to a job which listens.
    pub(crate) fn accept(&self, job: JobId, number: u64) -> Self {
        let command = Self::new(self.session.clone(), message::Command::Accept { job, number });
        let spec = ExecSpec { user: self.spec.user.clone(), ..command.spec };
        Self { spec, algorithm: self.algorithm, ..command }
    }

    pub(crate) fn script(session: Session, text: Vec<u8>) -> Self {
        let command = message::Command::Script { text: ByteBuf::from(text), args: Vec::new() };
        Self::new(session, command)
    }

    pub(crate) fn files(session: Session, request: FilesRequest) -> Self {
        Self::new(session, message::Command::Files(request))
    }

    fn new(session: Session, command: message::Command) -> Self {
        let spec = ExecSpec::new(command);
        Self {
            session,
            spec,
            stdin: None,
            algorithm: Some(Algorithm::Sha256),
            kill_on_drop: false,
            job: None,
            durable: false,
            fault: None,
        }
    }

    /// Adds an argument; it arrives as it is. A shell line takes none: spawning it is then an error.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let arg = bytes(arg.as_ref());
        match &mut self.spec.command {
            message::Command::Argv(words) => words.push(arg),
            message::Command::Script { args, .. } => args.push(arg),
            message::Command::Login {} => self.fault = Some("a login shell takes no arguments"),
            message::Command::Connect { .. }
            | message::Command::Listen { .. }
            | message::Command::Accept { .. } => {
                self.fault = Some("a connection takes no arguments")
            }
            message::Command::Subsystem(_) => self.fault = Some("a subsystem takes no arguments"),
            // Nobody gets one of these to add words to.
            message::Command::Files(_) => {}
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

    /// Runs it on a terminal of this type (the value of `TERM`) and size. All its output is then
    /// stdout. What is written to stdin is what a person types: its end means nothing, and the character
    /// for Ctrl-C is a signal. When its client is gone, or it is cancelled, it is hung up.
    ///
    /// Output that nobody fetched in time is dropped, unless [`Command::on_full`] says otherwise: what
    /// a terminal shows can be drawn again, with [`Child::redraw`].
    pub fn terminal(mut self, term: impl AsRef<OsStr>, size: TerminalSize) -> Self {
        let term = bytes(term.as_ref());
        self.spec.on_full = OnFull::DiscardOldest;
        self.spec.terminal = Some(Terminal { term, size, locale: Vec::new() });
        self
    }

    /// The language and characters of who sits at the terminal that was asked for: `LANG` and the
    /// `LC_…`. The agent leaves out what is no name of a locale.
    pub fn locale<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = variables.into_iter();
        let mut pairs = pairs.map(|(name, value)| (bytes(name.as_ref()), bytes(value.as_ref())));
        match &mut self.spec.terminal {
            Some(terminal) => terminal.locale.extend(pairs),
            None if pairs.next().is_some() => {
                self.fault = Some("a locale comes with a terminal, and there is none");
            }
            None => {}
        }
        self
    }

    /// How long the output is waited for once the command has ended, while something that it left
    /// behind holds it open: by default a few seconds, and [`ExitStatus::held`] tells.
    pub fn drain(mut self, drain: Drain) -> Self {
        self.spec.drain = drain;
        self
    }

    /// Puts into its environment what sshd puts there: `SSH_CONNECTION`, `SSH_CLIENT`, and
    /// `SSH_ORIGINAL_COMMAND` where policy has another command in its place.
    pub fn ssh_env(mut self, wanted: bool) -> Self {
        self.spec.ssh_env = wanted;
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
        self.algorithm = Some(algorithm);
        self
    }

    /// Leaves the digest of the streams to the agent: it takes the fastest that both have, and
    /// [`ExitStatus::algorithm`](crate::ExitStatus::algorithm) says which it was.
    pub fn any_digest(mut self) -> Self {
        self.algorithm = None;
        self
    }

    /// Ends the command when its [`Child`] is dropped before it was waited for. By default it goes
    /// on for as long as the session lives, with its stdout and stderr closed.
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// Submits the command under an id of the caller's own. Whoever submits the same command under
    /// the same id again, from whatever program, gets the job that is there, or its outcome: it runs
    /// at most once for as long as the agent keeps ids, a week by default, also if the agent is
    /// restarted. Another command under that id is refused.
    pub fn id(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self.durable = true;
        self
    }

    /// The id that it will be submitted under: the caller's own, or one that is made now.
    pub fn job_id(&mut self) -> JobId {
        self.job.get_or_insert_with(new_job_id).clone()
    }

    /// What becomes of the command when this client is gone without having said what it wants. By
    /// default it is ended a minute after the client fell silent, or ten seconds after its system
    /// closed the connection, unless the client comes back before that.
    pub fn on_disconnect(mut self, then: OnDisconnect) -> Self {
        self.spec.on_disconnect = Some(then);
        self
    }

    /// What happens when the output that the agent keeps of it reaches its limit: by default the
    /// command waits until somebody reads.
    pub fn on_full(mut self, then: OnFull) -> Self {
        self.spec.on_full = then;
        self
    }

    /// Starts the command and leaves it to itself: it goes on without any client. Returns once it
    /// runs, or has run if it was submitted before under the same id. Its stdin is null; at a terminal
    /// somebody may sit down later.
    pub async fn detach(mut self) -> Result<JobId, Error> {
        self.spec.stdin = self.spec.terminal.is_some();
        let remote = self.submit(true).await?;
        let job = remote.wait_started().await?.job;
        match remote.wait_over().await? {
            // Submitted before, and of its end it is not known that it was one.
            End::Exit(exit) if matches!(exit.outcome, Outcome::Lost { .. }) => {
                Err(exit.outcome.into())
            }
            End::Detached | End::Exit(_) => Ok(job),
        }
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
        let remote = self.submit(false).await?;
        let guard = Unwanted { session: &self.session, remote: &remote, armed: true };
        let started = guard.wait().await?;
        Ok(Child::new(self.session, remote, started, self.spec.stdin, self.kill_on_drop))
    }

    async fn submit(&mut self, detach: bool) -> Result<Arc<Remote>, Error> {
        if let Some(fault) = self.fault.or_else(|| self.spec.fault()) {
            return Err(Error::invalid(fault));
        }
        let (job, durable) = (Some(self.job_id()), self.durable);
        let exec = Exec { job, durable, detach, ..Exec::new(WINDOW, self.algorithm) };
        self.session.submit(exec, &self.spec).await
    }
}

/// An id that no other job has: a UUID of version 7, which begins with the time.
pub fn new_job_id() -> JobId {
    let id = uuid::Uuid::now_v7().to_string();
    JobId::new(&id).unwrap_or_else(|| unreachable!("a UUID is a job id"))
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
