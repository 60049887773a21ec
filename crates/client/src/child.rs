//! A running command.

use crate::error::Error;
use crate::remote::{End, Remote};
use crate::session::Session;
use crate::streams::{ChildStderr, ChildStdin, ChildStdout};
use rexec_protocol::message::{
    Cancel, Channel, Detach, Exit, Offsets, Started, TerminalSize, Usage,
};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, JobId, Outcome, Signal};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

/// How long a command that is cancelled has before it is killed, unless said otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// How long a terminal has another size, so that its program notices.
const REDRAW: Duration = Duration::from_millis(100);

/// A running command, as `tokio::process::Child` is one.
///
/// Its output must be read, or dropped, for it to get on: what is not read fills a window of 2 MiB,
/// and then holds the command up. Dropping [`Child::stdout`] closes it, and the command gets
/// SIGPIPE, as with a local pipe.
#[derive(Debug)]
pub struct Child {
    /// The command's stdin; drop it to end it. `None` if it is null, or was taken.
    pub stdin: Option<ChildStdin>,
    /// The command's stdout, until it is taken.
    pub stdout: Option<ChildStdout>,
    /// The command's stderr, until it is taken.
    pub stderr: Option<ChildStderr>,
    session: Session,
    remote: Arc<Remote>,
    started: Started,
    /// How it is ended if this is dropped.
    on_drop: Option<Cancel>,
    waited: bool,
}

/// A proven end of a command, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    exit: Exit,
    algorithm: Algorithm,
    verified: bool,
    missing: Offsets,
}

/// What a client's place at a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one value, at the end")]
pub enum JobEnd {
    /// The job has ended.
    Exited(ExitStatus),
    /// The job goes on without this client.
    Detached,
}

/// The end of a command with all its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
}

impl Child {
    pub(crate) fn new(
        session: Session,
        remote: Arc<Remote>,
        started: Started,
        has_stdin: bool,
        kill_on_drop: bool,
    ) -> Self {
        Self {
            stdin: has_stdin.then(|| ChildStdin::new(Arc::clone(&remote))),
            stdout: Some(ChildStdout::new(Arc::clone(&remote), Channel::Out)),
            stderr: Some(ChildStderr::new(Arc::clone(&remote), Channel::Err)),
            session,
            remote,
            started,
            on_drop: kill_on_drop.then_some(Cancel { signal: Signal::KILL, grace_ms: 0 }),
            waited: false,
        }
    }

    /// Has it ended when this is dropped, with time to tidy up.
    pub(crate) fn cancel_on_drop(mut self) -> Self {
        let grace_ms = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        self.on_drop = Some(Cancel { signal: Signal::TERM, grace_ms });
        self
    }

    /// The process id on the agent's machine.
    pub fn id(&self) -> u32 {
        self.started.pid
    }

    /// The agent's name for this run.
    pub fn job(&self) -> &JobId {
        &self.started.job
    }

    /// The session the command runs on.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sends a signal to the command's process group. It does no harm if the command has ended.
    pub async fn signal(&self, signal: Signal) {
        self.send(rexec_protocol::message::Signal { signal }.into()).await;
    }

    /// Whether the command has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.started.terminal
    }

    /// Gives the command's terminal another size. The last one is told again on another connection.
    /// From who only watches it means nothing.
    pub async fn resize(&self, size: TerminalSize) {
        self.remote.resize(size).await;
    }

    /// Has a program that fills the screen draw it again, for who came late or missed some: its
    /// terminal has one line less for a moment.
    pub fn redraw(&self, size: TerminalSize) -> impl Future<Output = ()> + Send + use<> {
        let remote = Arc::clone(&self.remote);
        let other = if size.rows > 1 { size.rows - 1 } else { size.rows + 1 };
        async move {
            remote.resize(TerminalSize { rows: other, ..size }).await;
            // A program that looks only after both changes would see none.
            sleep(REDRAW).await;
            remote.resize(size).await;
        }
    }

    /// Ends the command and everything that it started: SIGTERM, and SIGKILL after 5 seconds.
    /// Returns at once; [`Child::wait`] tells when it is done.
    pub async fn cancel(&self) {
        self.cancel_with(Signal::TERM, GRACE).await;
    }

    /// [`Child::cancel`] with another first signal, and another time for it to work; at most a
    /// minute.
    pub async fn cancel_with(&self, signal: Signal, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.send(Cancel { signal, grace_ms }.into()).await;
    }

    /// Kills the command and everything that it started, and waits for the end. What was not read of
    /// its output is dropped, unless stdout or stderr was taken: then it must be read, or dropped,
    /// because the end comes after it.
    pub async fn kill(&mut self) -> Result<ExitStatus, Error> {
        // In this order, or the command might end of its closed pipe first.
        self.cancel_with(Signal::KILL, Duration::ZERO).await;
        (self.stdout, self.stderr) = (None, None);
        self.wait().await
    }

    /// Waits for the end. Closes stdin first, if it was not taken, so that a command that waits for
    /// its end is not waited for in vain.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        match self.end().await? {
            JobEnd::Exited(status) => Ok(status),
            JobEnd::Detached => Err(Error::lost("this client has left; the job goes on")),
        }
    }

    /// Waits for the end of the job, or of this client's place at it, whichever comes first.
    pub async fn end(&mut self) -> Result<JobEnd, Error> {
        let end = self.remote.wait_over().await?;
        self.waited = true;
        Ok(match end {
            End::Exit(exit) => {
                // Of a job that was lost the agent knows only what it has kept.
                let has_end = !matches!(exit.outcome, Outcome::Lost { .. });
                let verified = has_end && self.remote.is_verified(&exit);
                let missing = |channel| self.remote.output(channel).missing();
                let missing = Offsets { out: missing(Channel::Out), err: missing(Channel::Err) };
                let algorithm = self.started.digest;
                JobEnd::Exited(ExitStatus { exit, algorithm, verified, missing })
            }
            End::Detached => JobEnd::Detached,
        })
    }

    /// Leaves the job, which goes on without a client; unless it has just ended. Returns once the agent
    /// has said so, and has done what it was asked for before; while there is no connection, that may be
    /// later. [`Child::job`] is what to come back to.
    pub async fn detach(mut self) -> Result<JobEnd, Error> {
        self.leave().await;
        self.end().await
    }

    /// Asks to leave the job, as [`Child::detach`] does, and returns at once: [`Child::end`] tells when
    /// it is done.
    pub async fn leave(&self) {
        self.send(Detach {}.into()).await;
    }

    /// Whether the job was there before this client came to it.
    pub fn attached(&self) -> bool {
        self.started.attached
    }

    /// Waits for the end, collecting what was not read yet of stdout and stderr.
    pub async fn wait_with_output(mut self) -> Result<Output, Error> {
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut out, mut err) = (self.stdout.take(), self.stderr.take());
        let read_out = async {
            if let Some(out) = &mut out {
                // A cut is reported by `wait`, which knows the reason.
                let _ = out.read_to_end(&mut stdout).await;
            }
        };
        let read_err = async {
            if let Some(err) = &mut err {
                let _ = err.read_to_end(&mut stderr).await;
            }
        };
        let status = tokio::join!(read_out, read_err, self.wait()).2?;
        Ok(Output { status, stdout, stderr })
    }

    async fn send(&self, message: rexec_protocol::Message) {
        // If the connection is gone, `wait` says so.
        self.remote.send(message).await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(cancel) = self.on_drop.filter(|_| !self.waited) {
            end(self.session.clone(), Arc::clone(&self.remote), cancel);
        }
    }
}

/// Has a command killed that nobody waits for.
pub(crate) fn kill(session: Session, remote: Arc<Remote>) {
    end(session, remote, Cancel { signal: Signal::KILL, grace_ms: 0 });
}

/// Has a command ended; its session lives until that is sent.
fn end(session: Session, remote: Arc<Remote>, cancel: Cancel) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        // If the connection is gone, so is the command.
        remote.send(cancel.into()).await;
        drop(session);
    });
}

impl ExitStatus {
    /// True if all output from the first byte to the last came here, and its digests matched. Only who came to a
    /// job with [`crate::Attach`] can see anything else.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// How many bytes of stdout and of stderr were asked for and will never come: see [`crate::Attach`]. Those
    /// too that were under way when this side closed an output.
    pub fn missing(&self) -> Offsets {
        self.missing
    }

    /// True if the agent knows nothing of the job any more, so that there is nothing to come back to.
    pub fn is_unknown_job(&self) -> bool {
        self.exit.unknown
    }

    /// True for exit status 0 and nothing else.
    pub fn success(&self) -> bool {
        self.exit.outcome.success()
    }

    /// The exit status, unless the command was ended by a signal, a timeout or a cancel.
    pub fn code(&self) -> Option<u8> {
        match self.exit.outcome {
            Outcome::Exited { code } => Some(code),
            _ => None,
        }
    }

    /// The signal that ended the command, if one did.
    pub fn signal(&self) -> Option<Signal> {
        match self.exit.outcome {
            Outcome::Signaled { signal, .. } => Some(signal),
            _ => None,
        }
    }

    /// How the command ended.
    pub fn outcome(&self) -> &Outcome {
        &self.exit.outcome
    }

    /// Size and digest of stdout, as sent and as received.
    pub fn stdout(&self) -> Tally {
        self.exit.stdout
    }

    /// Size and digest of stderr, as sent and as received.
    pub fn stderr(&self) -> Tally {
        self.exit.stderr
    }

    /// Size and digest of what the agent received for stdin.
    pub fn stdin(&self) -> Tally {
        self.exit.stdin
    }

    /// The function that made the digests.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// True if something that the command left behind still held its stdout or stderr open; what
    /// that writes later is not part of the output.
    pub fn held(&self) -> bool {
        self.exit.held
    }

    /// What the command cost.
    pub fn usage(&self) -> Usage {
        self.exit.usage
    }
}
