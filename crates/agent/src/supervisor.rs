//! The supervisor of a job: owns its pipes, its keeper and its timers, and writes its log.
//!
//! A job is over when three facts are there: the command was reaped, stdout ended, stderr ended. A
//! process that the command left behind may hold a pipe open for ever, so the last two are waited
//! for only a bounded time once the first is there, and the exit record says so; a client that asked
//! for it waits for them as long as it stays.

use crate::clock::at;
use crate::config::Limits;
use crate::heir::{Heir, Terms};
use crate::intake::{Got, Intake};
use crate::jobs::orders::Orders;
use crate::jobs::{Attendance, Controls, Job};
use crate::keeper::{Event, Keeper, Reader, Status, Terminal, Writer};
use crate::output::Output;
use crate::policy::Permit;
use crate::stdin::{self, Feed};
use crate::unstick::Watch;
use rexec_protocol::message::{Cancel, Channel, Drain, Exit, TerminalSize, Usage};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Outcome, Signal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

mod orders;

const KEEPER_DIED: &str = "the process that watched the command died or hangs, and with it the \
                           knowledge of how the command ended";
const TORN: &str = "the agent was killed while it wrote to the command's stdin, so that nobody knows \
                    which bytes the command has; it was ended";
/// How long a keeper may take to report, after the time that the command has to end, that it is done.
const OVERDUE: Duration = Duration::from_secs(5);
/// The longest grace a client may ask for.
const MAX_GRACE: Duration = Duration::from_secs(60);

/// What a client asks of a running job.
#[derive(Debug, Clone)]
pub enum Control {
    /// Send a signal to the process group.
    Signal(Signal),
    /// End the whole tree.
    Cancel(Cancel),
    /// The terminal has another size.
    Resize(TerminalSize),
    /// The client reads no more of this channel.
    Stop(Channel),
    /// The job goes on without a client from now on: what it prints is kept on disk. It is told once the
    /// keeper was told that this holds even if this agent is killed, or could not be.
    Keep(CancellationToken),
    /// The agent stops.
    Shutdown,
}

/// Why a job is being ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It ran for as long as it may.
    TimedOut,
    /// A client wanted it.
    Cancelled,
    /// The agent did, or a limit that must not be outlived.
    Shutdown,
    /// The client is gone, so nobody will see the outcome but the agent's log.
    Disconnected,
    /// An agent died while it wrote to the command's stdin, and nobody knows how far it came.
    Torn,
}

/// What a supervisor takes over: a command that was just started, or one that was adopted.
pub struct Watched {
    /// The command's stdin, and what is to be written to it.
    pub stdin: Option<(Writer, Arc<Feed>)>,
    /// Its stdout, unless that was closed.
    pub stdout: Option<Reader>,
    /// Its stderr, unless that was closed.
    pub stderr: Option<Reader>,
    /// Its terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// Who watches over it.
    pub keeper: Keeper,
    /// On what terms it runs.
    pub terms: Terms,
    /// When it was started.
    pub started: Instant,
    /// Why it is being ended, if it is.
    pub cause: Option<Cause>,
    /// The keeper does so already, and knows how much time there is.
    pub is_ending: bool,
    /// Who leaves it to the next agent; `None`: nobody can, so that it ends with this one.
    pub heir: Option<Heir>,
}

enum Next {
    Read(Got),
    Keeper(Option<Event>),
    Control(Control),
    /// The client is gone, and the time is over that it had to come back.
    Unattended,
    TimedOut,
    Overdue,
    /// Everything that came for stdin was written, or the command takes no more.
    Fed,
    /// The agent leaves.
    Leave,
    DrainOver,
    /// Look at everything again.
    Again,
}

/// What becomes of what a command leaves behind when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftovers {
    /// Their output is waited for a while; then they are left alone.
    #[default]
    Left,
    /// Their output is waited for to its end.
    Awaited,
    /// They end with it.
    Ended,
}

impl Leftovers {
    /// What they come to for a command that was permitted.
    pub fn of(permit: &Permit) -> Self {
        if permit.grant().limits.are_of_the_tree() {
            // A limit that what is left behind could outlive would be none.
            Self::Ended
        } else if permit.spec().drain == Drain::Wait {
            Self::Awaited
        } else {
            Self::Left
        }
    }
}

/// A running command and everything that is known of it.
pub struct Supervisor {
    job: Arc<Job>,
    limits: Limits,
    intake: Intake,
    /// What both outputs are, if it is a terminal.
    terminal: Option<Terminal>,
    keeper: Keeper,
    orders: Orders,
    attended: watch::Receiver<Attendance>,
    /// The job was abandoned: nobody's absence matters any more.
    abandoned: bool,
    started: Instant,
    timeout: Option<Instant>,
    terms: Terms,
    heir: Option<Heir>,
    /// The agent leaves its jobs to another.
    leaving: CancellationToken,
    /// Writes stdin.
    feeding: Option<AbortOnDropHandle<()>>,
    /// Why the command was ended, if it did not end by itself.
    cause: Option<Cause>,
    /// The keeper was told to end the tree.
    ending: bool,
    tree_gone: bool,
    /// When the keeper should have reported the end of the tree.
    overdue: Option<Instant>,
    ended: Option<Ended>,
    /// Something that the command left behind still held a pipe when the wait for it was over.
    held: bool,
}

/// The command was reaped.
struct Ended {
    /// `None`: its keeper died, and nobody knows.
    status: Option<Status>,
    usage: Usage,
    /// The kernel killed it because it wanted more memory than its rule allows.
    out_of_memory: bool,
    /// When to stop waiting for the pipes: at the earlier one, of which output moves the first on.
    quiet: Instant,
    max: Instant,
}

impl Supervisor {
    /// Takes over a command. When `leaving` is cancelled it is left to the next agent, or ended if that
    /// cannot be or is not wanted.
    pub fn new(
        watched: Watched,
        job: Arc<Job>,
        controls: Controls,
        limits: Limits,
        leaving: CancellationToken,
        watch: Arc<Watch>,
    ) -> Self {
        let Watched { stdin, stdout, stderr, terminal, keeper, terms, .. } = watched;
        let Watched { started, cause, is_ending, heir, .. } = watched;
        let ledger = heir.as_ref().map(|heir| Arc::clone(&heir.ledger));
        let longest = MAX_GRACE.max(limits.kill_grace);
        let output = |pipe| Output::new(pipe, Arc::clone(&watch));
        let outputs = (output(stdout), output(stderr));
        let mut intake = Intake::new(Arc::clone(&job), outputs, ledger.clone(), Arc::clone(&watch));
        if job.is_kept() {
            intake.keep();
        }
        let feed = |(pipe, feed)| {
            AbortOnDropHandle::new(tokio::spawn(stdin::run(feed, pipe, ledger, watch)))
        };
        Self {
            job,
            limits,
            intake,
            terminal,
            keeper,
            feeding: stdin.map(feed),
            leaving,
            orders: controls.orders,
            attended: controls.attended,
            abandoned: false,
            started,
            timeout: terms.timeout().and_then(|timeout| started.checked_add(timeout)),
            terms,
            heir,
            cause,
            ending: is_ending,
            tree_gone: false,
            // Which grace was asked for is not known here.
            overdue: is_ending.then(|| Instant::now() + longest + OVERDUE),
            ended: None,
            held: false,
        }
    }

    /// Runs the job to its end, and returns its exit record; `None` if it was left to the next agent.
    pub async fn run(mut self) -> Option<Exit> {
        if let Some(cause) = self.cause
            && !self.ending
        {
            // Asked for by an agent that died before it could say so. To say it again would cut the time
            // that the command was given.
            self.end(cause, self.polite(), None).await;
        }
        while !self.is_over() {
            match self.next().await {
                Next::Read(Got::Leftover(channel)) => {
                    self.held = true;
                    self.close(channel).await;
                }
                Next::Read(got) => self.read(got),
                Next::Keeper(event) => {
                    self.keeper_said(event);
                    let is_contained = self.terms.leftovers == Leftovers::Ended;
                    if is_contained && self.ended.is_some() && !self.ending {
                        self.end(Cause::Shutdown, self.polite(), None).await;
                    }
                }
                Next::Control(control) => self.control(control).await,
                Next::Unattended => self.abandon().await,
                Next::TimedOut => {
                    self.timeout = None;
                    self.end(Cause::TimedOut, self.polite(), None).await;
                }
                Next::Overdue => self.give_up_on_keeper(),
                Next::Fed => {
                    self.feeding = None;
                    // A terminal's input is its output, too.
                    if self.terminal.is_none() {
                        self.closed(Channel::In).await;
                    }
                }
                Next::Leave if self.heir.is_some() && self.job.outlives_agent() => {
                    self.leave().await;
                    return None;
                }
                Next::Leave => {
                    // Said once is enough.
                    self.leaving = CancellationToken::new();
                    self.end(Cause::Shutdown, self.polite(), None).await;
                }
                Next::DrainOver => self.sweep().await,
                Next::Again => {}
            }
        }
        self.intake.settle().await;
        Some(self.finish().await)
    }

    async fn next(&mut self) -> Next {
        let has_room = self.intake.has_room();
        let attendance = *self.attended.borrow_and_update();
        let until = match attendance {
            _ if self.abandoned => None,
            Attendance::Gone => return Next::Unattended,
            Attendance::Until(until) => Some(until),
            Attendance::Attended => None,
        };
        let keeper_matters = !self.keeper_is_done();
        // Also of one that its client has asked to end, however gently: that buys it no time.
        let timeout = self.timeout.filter(|_| self.ended.is_none());
        let drain = self.ended.as_ref().map(|ended| ended.quiet.min(ended.max));
        // Unless the whole tree is being ended, and something holds the output even so.
        let drain = drain.filter(|_| self.terms.leftovers != Leftovers::Awaited || self.ending);
        tokio::select! {
            () = self.leaving.cancelled() => Next::Leave,
            event = self.keeper.next(), if keeper_matters => Next::Keeper(event),
            () = fed(&mut self.feeding) => Next::Fed,
            control = self.orders.next() => Next::Control(control),
            // The job holds the other end.
            Ok(()) = self.attended.changed() => Next::Again,
            () = at(until) => Next::Unattended,
            got = self.intake.next(), if self.intake.is_open() => Next::Read(got),
            () = at(timeout) => Next::TimedOut,
            () = at(self.overdue), if keeper_matters => Next::Overdue,
            // Without room nothing is read, so silence means nothing.
            () = at(drain), if has_room && self.intake.is_open() => Next::DrainOver,
        }
    }

    /// Whether the keeper has nothing more to say that this job waits for.
    fn keeper_is_done(&self) -> bool {
        self.ended.is_some() && (self.tree_gone || !self.ending)
    }

    fn is_over(&self) -> bool {
        self.keeper_is_done() && !self.intake.is_open()
    }

    fn read(&mut self, got: Got) {
        if let Some(ended) = &mut self.ended
            && got == Got::Output
        {
            ended.quiet = Instant::now() + self.limits.drain_quiet;
        }
    }

    /// The wait for the pipes is over. What the command itself wrote is in them by now, and is taken;
    /// unless there is time left, that is the end.
    async fn sweep(&mut self) {
        self.intake.sweep().await;
        if self.intake.has_to_wait() {
            // What is left in the pipes may be the command's own.
            return;
        }
        let now = Instant::now();
        if self.ended.as_ref().is_some_and(|ended| now >= ended.quiet.min(ended.max)) {
            self.held |= self.intake.is_open();
            self.close(Channel::Out).await;
            self.close(Channel::Err).await;
        }
    }

    /// Reads no more of an output.
    async fn close(&mut self, channel: Channel) {
        // What is under way must not come after the end.
        self.intake.settle().await;
        self.intake.close(channel);
        if self.terminal.is_none() {
            self.closed(channel).await;
        }
    }

    /// This agent has closed its end of a pipe: the keeper is not to hold it open for another.
    async fn closed(&mut self, channel: Channel) {
        if self.heir.is_some()
            && let Err(error) = self.keeper.close(channel).await
        {
            tracing::debug!(%error, "the keeper is gone, or hangs");
        }
    }

    /// What the next agent would have to know has changed.
    async fn amend(&mut self) {
        // Without an heir it is known already that nobody will come.
        let Some(heir) = &self.heir else { return };
        let will = heir.will(&self.job, &self.terms, self.cause);
        let amended = self.keeper.amend(&will).await;
        self.job.keeper_knows(amended.is_ok());
        if let Err(error) = amended {
            tracing::warn!(job = %self.job.id, %error, "the keeper of a job does not hear what has changed");
        }
    }

    /// Leaves everything as it is to the next agent: what was read is in the log, and that on disk.
    async fn leave(&mut self) {
        self.amend().await;
        if let Some(feeding) = self.feeding.take() {
            feeding.abort();
            // It ends between two writes.
            let _ = feeding.await;
        }
        self.intake.settle().await;
        let job = Arc::clone(&self.job);
        let rested = spawn_blocking(move || job.rest()).await;
        if let Ok(Err(full)) = rested {
            tracing::error!(job = %self.job.id, %full, "what was read and not delivered yet is lost");
        }
    }

    fn keeper_said(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Exited { status, usage, out_of_memory }) => {
                self.reaped(Some(status), usage, out_of_memory);
            }
            Some(Event::TreeGone { survivors }) => {
                if survivors > 0 {
                    tracing::error!(survivors, "processes of an ended command cannot be killed");
                }
                self.tree_gone = true;
            }
            None => {
                tracing::error!("the keeper of a job died; how its command ended is not known");
                self.tree_gone = true;
                if self.ended.is_none() {
                    self.reaped(None, Usage::default(), false);
                }
            }
        }
    }

    fn reaped(&mut self, status: Option<Status>, usage: Usage, out_of_memory: bool) {
        let now = Instant::now();
        let Limits { drain_quiet, drain_max, .. } = self.limits;
        let (quiet, max) = (now + drain_quiet, now + drain_max);
        self.ended = Some(Ended { status, usage, out_of_memory, quiet, max });
        self.hurry();
    }

    async fn finish(self) -> Exit {
        let Some(Ended { status, mut usage, out_of_memory, .. }) = self.ended else {
            unreachable!("a job is over only after its command was reaped");
        };
        usage.wall_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match (self.cause, status) {
            (_, None) => Outcome::Lost { message: KEEPER_DIED.to_owned() },
            (Some(Cause::Torn), _) => Outcome::Lost { message: TORN.to_owned() },
            (Some(Cause::TimedOut), _) => Outcome::TimedOut,
            (Some(Cause::Cancelled | Cause::Disconnected), _) => Outcome::Cancelled,
            (_, Some(Status::Code(code))) => Outcome::Exited { code },
            (_, Some(Status::Signal(signal))) => Outcome::Signaled { signal, out_of_memory },
        };
        let log = &self.job.log;
        let (stdout, stderr) = (log.tally(Channel::Out), log.tally(Channel::Err));
        let nothing = || Tally::nothing(self.job.algorithm);
        let stdin = self.job.feed.as_ref().map_or_else(nothing, |feed| feed.tally());
        let exit = Exit { outcome, stdout, stderr, stdin, held: self.held, usage, unknown: false };
        self.keeper.release().await;
        exit
    }
}

/// Returns when stdin needs no more writing.
async fn fed(feeding: &mut Option<AbortOnDropHandle<()>>) {
    match feeding {
        // However it ended.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}
