//! The supervisor of a job: owns its pipes, its keeper and its timers, and writes its log.
//!
//! A job is over when three facts are there: the command was reaped, stdout ended, stderr ended. A
//! process that the command left behind may hold a pipe open for ever, so the last two are waited
//! for only a bounded time once the first is there, and the exit record says so; a client that asked
//! for it waits for them as long as it stays.

use crate::clock::at;
use crate::config::Limits;
use crate::intake::{Got, Intake};
use crate::jobs::{Attendance, Controls, Job};
use crate::keeper::{Event, Keeper, Running, Status, Terminal};
use crate::log::disk::Urgency;
use crate::output::Output;
use crate::policy::Permit;
use rexec_protocol::message::{Cancel, Channel, Drain, Exit, TerminalSize, Usage};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Outcome, Signal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const KEEPER_DIED: &str = "the process that watched the command died or hangs, and with it the \
                           knowledge of how the command ended";
/// How long a keeper may take to report, after the time that the command has to end, that it is done.
const OVERDUE: Duration = Duration::from_secs(5);
/// The longest grace a client may ask for.
const MAX_GRACE: Duration = Duration::from_secs(60);

/// What a client asks of a running job.
#[derive(Debug, Clone, Copy)]
pub enum Control {
    /// Send a signal to the process group.
    Signal(Signal),
    /// End the whole tree.
    Cancel(Cancel),
    /// The terminal has another size.
    Resize(TerminalSize),
    /// The client reads no more of this channel.
    Stop(Channel),
    /// The job goes on without a client from now on: what it prints is kept on disk.
    Keep,
    /// The agent stops.
    Shutdown,
}

/// Why a job is being ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    TimedOut,
    Cancelled,
    Shutdown,
    /// The client is gone, so nobody will see the outcome but the agent's log.
    Disconnected,
}

enum Next {
    Read(Got),
    Keeper(Option<Event>),
    Control(Control),
    /// The client is gone, and the time is over that it had to come back.
    Unattended,
    TimedOut,
    Overdue,
    DrainOver,
    /// Look at everything again.
    Again,
}

/// What becomes of what a command leaves behind when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Their output is waited for a while; then they are left alone.
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
    control: mpsc::Receiver<Control>,
    attended: watch::Receiver<Attendance>,
    /// The job was abandoned: nobody's absence matters any more.
    abandoned: bool,
    started: Instant,
    timeout: Option<Instant>,
    /// Why the command was ended, if it did not end by itself.
    cause: Option<Cause>,
    leftovers: Leftovers,
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
    /// Takes over a command that was just started.
    pub fn new(
        running: Running,
        job: Arc<Job>,
        controls: Controls,
        limits: Limits,
        timeout: Option<Duration>,
        leftovers: Leftovers,
    ) -> Self {
        let started = Instant::now();
        let (out, err) = (Output::new(Some(running.stdout)), Output::new(running.stderr));
        let has_one_output = !err.is_open();
        let intake = Intake::new(Arc::clone(&job), out, err);
        if has_one_output {
            // A terminal is one stream.
            job.log.eof(Channel::Err);
        }
        Self {
            job,
            limits,
            intake,
            terminal: running.terminal,
            keeper: running.keeper,
            control: controls.orders,
            attended: controls.attended,
            abandoned: false,
            started,
            timeout: timeout.and_then(|timeout| started.checked_add(timeout)),
            cause: None,
            leftovers,
            ending: false,
            tree_gone: false,
            overdue: None,
            ended: None,
            held: false,
        }
    }

    /// Runs the job to its end, writes the exit record and returns it.
    pub async fn run(mut self) -> Exit {
        while !self.is_over() {
            match self.next().await {
                Next::Read(got) => self.read(got),
                Next::Keeper(event) => {
                    self.keeper_said(event);
                    let is_contained = self.leftovers == Leftovers::Ended;
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
                Next::DrainOver => self.sweep().await,
                Next::Again => {}
            }
        }
        self.intake.settle().await;
        self.finish().await
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
        let drain = drain.filter(|_| self.leftovers != Leftovers::Awaited || self.ending);
        tokio::select! {
            event = self.keeper.next(), if keeper_matters => Next::Keeper(event),
            Some(control) = self.control.recv() => Next::Control(control),
            // The job holds the other end.
            Ok(()) = self.attended.changed() => Next::Again,
            () = at(until) => Next::Unattended,
            got = self.intake.next(), if self.intake.is_open() => Next::Read(got),
            () = at(timeout) => Next::TimedOut,
            () = at(self.overdue), if keeper_matters => Next::Overdue,
            // Without room nothing is read, so silence means nothing.
            () = at(drain), if has_room => Next::DrainOver,
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
        let now = Instant::now();
        if self.ended.as_ref().is_some_and(|ended| now >= ended.quiet.min(ended.max)) {
            self.held = self.intake.is_open();
            self.intake.close(Channel::Out);
            self.intake.close(Channel::Err);
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

    async fn control(&mut self, control: Control) {
        match control {
            Control::Signal(signal) => self.signal(signal).await,
            Control::Cancel(Cancel { signal, grace_ms }) => {
                let grace = Duration::from_millis(grace_ms).min(MAX_GRACE);
                self.end(Cause::Cancelled, signal, Some(grace)).await;
            }
            Control::Resize(size) => self.resize(size),
            Control::Stop(channel) => {
                self.intake.close(channel);
                if self.terminal.is_some() && channel == Channel::Out {
                    // There is no SIGPIPE for it: nobody looks at a terminal any more.
                    self.end(Cause::Cancelled, Signal::HUP, None).await;
                }
            }
            Control::Keep => self.intake.keep(),
            Control::Shutdown => self.end(Cause::Shutdown, self.polite(), None).await,
        }
    }

    /// What a limit of the kept output must not hold up any more.
    fn hurry(&mut self) {
        self.intake.hurry(match (&self.ended, self.ending) {
            (None, _) => Urgency::None,
            (Some(_), false) => Urgency::Ended,
            (Some(_), true) => Urgency::Ending,
        });
    }

    /// The first signal of an end that was not asked for by name. Interactive shells ignore TERM; a
    /// terminal that hangs up is what they expect.
    fn polite(&self) -> Signal {
        if self.terminal.is_some() { Signal::HUP } else { Signal::TERM }
    }

    fn resize(&self, size: TerminalSize) {
        let Some(terminal) = &self.terminal else { return };
        if let Err(error) = terminal.resize(size) {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    async fn signal(&mut self, signal: Signal) {
        if let Err(error) = self.keeper.signal(signal).await {
            tracing::debug!(%error, "a signal came too late");
        }
    }

    /// Ends the tree. The first cause names the outcome, unless the command had ended by itself; a
    /// later one can only shorten the grace.
    async fn end(&mut self, cause: Cause, signal: Signal, grace: Option<Duration>) {
        if self.ended.is_none() {
            self.cause.get_or_insert(cause);
        }
        self.ending = true;
        self.hurry();
        let grace = grace.unwrap_or(self.limits.kill_grace);
        let overdue = Instant::now() + grace + OVERDUE;
        self.overdue = Some(self.overdue.map_or(overdue, |earlier| earlier.min(overdue)));
        if let Err(error) = self.keeper.end(signal, grace).await {
            tracing::debug!(%error, "the keeper is gone, or hangs");
        }
    }

    /// A keeper that hangs (a command of the same user can stop it) must not hold up the end.
    fn give_up_on_keeper(&mut self) {
        tracing::error!("the keeper of a job hangs; killing it, and what it watches");
        self.keeper.kill();
        self.keeper_said(None);
    }

    /// The client is gone for good: nobody reads the output any more.
    async fn abandon(&mut self) {
        self.abandoned = true;
        self.job.log.abandon();
        self.end(Cause::Disconnected, Signal::HUP, None).await;
    }

    async fn finish(self) -> Exit {
        let Some(Ended { status, mut usage, out_of_memory, .. }) = self.ended else {
            unreachable!("a job is over only after its command was reaped");
        };
        usage.wall_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match (self.cause, status) {
            (_, None) => Outcome::Lost { message: KEEPER_DIED.to_owned() },
            (Some(Cause::TimedOut), _) => Outcome::TimedOut,
            (Some(Cause::Cancelled | Cause::Disconnected), _) => Outcome::Cancelled,
            (_, Some(Status::Code(code))) => Outcome::Exited { code },
            (_, Some(Status::Signal(signal))) => Outcome::Signaled { signal, out_of_memory },
        };
        let log = &self.job.log;
        let (stdout, stderr) = (log.tally(Channel::Out), log.tally(Channel::Err));
        let nothing = || Tally::nothing(self.job.algorithm);
        let stdin = self.job.feed.as_ref().map_or_else(nothing, |feed| feed.tally());
        let exit = Exit { outcome, stdout, stderr, stdin, held: self.held, usage };
        self.keeper.release().await;
        exit
    }
}
