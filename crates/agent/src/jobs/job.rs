//! One job: a command that was submitted, from then until it is forgotten. Connections come and go.

mod heard;
mod holding;
mod inherited;
mod visitors;
mod waiting;

pub use heard::Heard;
pub(super) use holding::then;
pub use holding::{Attachment, Attendance, Leases, Leave};

use super::meta::{End, Owner, Port};
use super::never_ran;
use super::orders::{Desk, Orders, orders};
use super::store::Store;
use crate::log::disk::Full;
use crate::log::{self, Log};
use crate::stdin::Feed;
use crate::supervisor::Control;
use bytes::Bytes;
use holding::Claim;
use rexec_protocol::message::{
    Channel, Command, ExecSpec, Exit, JobInfo, OnDisconnect, OnFull, Started, TerminalSize,
};
use rexec_protocol::outcome::printable;
use rexec_protocol::{Algorithm, Digest, JobId, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use visitors::Visitors;
use waiting::Waiting;

/// A job. Whoever holds it can see and do everything: who may is decided before.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The digest of the request: the same id with another one is another command.
    pub body: Digest,
    /// Who submitted it.
    pub owner: Owner,
    /// The digest function of its streams.
    pub algorithm: Algorithm,
    /// What it prints.
    pub log: Arc<Log>,
    /// What comes in for its stdin, if that was to be sent.
    pub feed: Option<Arc<Feed>>,
    /// What came for its stdin, if that is over and there is no feed any more.
    fed: u64,
    /// The id is the caller's own, and on disk before anything is started.
    pub durable: bool,
    committed: AtomicBool,
    /// Its keeper could not be told what is to become of it without this agent.
    unheard: AtomicBool,
    /// Readers acknowledge what they have. Otherwise it counts as theirs once it was sent.
    resumable: bool,
    on_disconnect: Option<OnDisconnect>,
    on_full: OnFull,
    command: String,
    has_terminal: bool,
    terminal_size: Option<TerminalSize>,
    /// It is a connection, or a port, and of use to its client alone.
    pub is_connection: bool,
    store: Arc<Store>,
    begun_ms: u64,
    control: Desk,
    stage: watch::Sender<Stage>,
    attendance: watch::Sender<Attendance>,
    waiting: Waiting,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The attachment that holds stdin, and for which the command waits.
    holder: Option<Attachment>,
    /// Who would hold it next: others that have submitted the same, or have held it before. The oldest first.
    claims: Vec<Claim>,
    attached: u32,
    visitors: Visitors,
    kept: bool,
    /// The local user, once it is known.
    user: String,
    /// The port that it opens, once it is known that it may, and what it has said of it.
    listens: Option<(Port, Arc<Heard>)>,
    ended_ms: Option<u64>,
    /// What a submission of the same id that came to nothing has left.
    replaced: Option<Arc<Log>>,
}

/// How far a job is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// It is not known yet whether it will run.
    Launching,
    /// It runs, or did.
    Started {
        /// Its process.
        pid: u32,
    },
    /// It never ran, or nobody knows.
    Not(Box<Exit>),
}

/// What a job is made of.
pub struct Submission {
    /// Its id.
    pub id: JobId,
    /// The digest of the request.
    pub body: Digest,
    /// Who submits it.
    pub owner: Owner,
    /// The digest function of its streams.
    pub algorithm: Algorithm,
    /// The id is the caller's own.
    pub durable: bool,
    /// The client chose the id, so that it can come back to it.
    pub resumable: bool,
    /// The client does not stay.
    pub detach: bool,
}

impl Job {
    /// A job that is about to be launched, and where the supervisor hears of what is wanted of it.
    pub(super) fn new(
        submission: Submission,
        spec: &ExecSpec,
        then: Option<OnDisconnect>,
        store: Arc<Store>,
    ) -> (Arc<Self>, Controls) {
        let Submission { id, body, owner, algorithm, durable, resumable, detach } = submission;
        let (control, orders) = orders();
        let (attendance, attended) = watch::channel(Attendance::Attended);
        let keep = matches!(then, Some(OnDisconnect::Keep {}));
        let job = Self {
            id,
            body,
            owner,
            algorithm,
            log: Arc::new(Log::new(algorithm)),
            fed: 0,
            feed: spec.stdin.then(|| Arc::new(Feed::new(algorithm, spec.terminal.is_some()))),
            durable,
            committed: AtomicBool::new(false),
            unheard: AtomicBool::new(false),
            resumable,
            on_disconnect: then,
            on_full: spec.on_full,
            store,
            command: spec.command.to_string(),
            has_terminal: spec.terminal.is_some(),
            terminal_size: spec.terminal.as_ref().map(|terminal| terminal.size),
            is_connection: spec.command.is_connection(),
            begun_ms: log::now_ms(),
            control,
            stage: watch::Sender::new(Stage::Launching),
            attendance,
            waiting: Waiting::default(),
            state: Mutex::new(State { kept: keep || detach, ..State::default() }),
        };
        (Arc::new(job), Controls { orders, attended })
    }

    /// Asks the supervisor.
    pub fn control(&self, control: Control) {
        // A command that has just ended needs no more control.
        let _ = self.control.ask(control);
    }

    /// This is to be removed before the job's own place is made on disk.
    pub(super) fn replaces(&self, log: Option<Arc<Log>>) {
        self.lock().replaced = log;
    }

    /// What is to be removed, once.
    pub(super) fn take_replaced(&self) -> Option<Arc<Log>> {
        self.lock().replaced.take()
    }

    /// The id is on disk; or is not remembered there any more.
    pub(super) fn committed(&self, is_on_disk: bool) {
        self.committed.store(is_on_disk, Ordering::Release);
    }

    /// Whether the id is on disk.
    pub(super) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether its keeper knows what is to become of it without this agent.
    pub fn keeper_knows(&self, it_does: bool) {
        self.unheard.store(!it_does, Ordering::Release);
    }

    /// Whether it would not go on if this agent were killed, although it is to.
    pub fn is_unheard(&self) -> bool {
        self.unheard.load(Ordering::Acquire)
    }

    /// From now on the job goes on without a client, and is kept when it has ended; what it prints is
    /// on disk. Cancels `told` once its keeper was told, too; [`Job::is_unheard`] says whether it could be.
    pub fn keep(&self, told: CancellationToken) {
        self.lock().kept = true;
        // It has just ended, and so has its keeper.
        if let Err(Control::Keep(told)) = self.control.ask(Control::Keep(told)) {
            told.cancel();
        }
    }

    /// Puts the output on disk. Blocks; only the one who appends to it may do this.
    pub fn spool(&self) -> Result<(), Full> {
        self.store.keep(&self.meta(), &self.log)
    }

    /// Records the end, and all output, of a job whose output is kept on disk. Blocks; only the one who
    /// appends to it may do this.
    pub fn put_end(&self, end: &End) -> Result<(), Full> {
        if self.is_kept() && self.log.disk().is_none() {
            self.spool()?;
        }
        self.log.finish(end)
    }

    /// Puts all output that is kept on disk, for the agent after this one. Blocks; only the one who appends
    /// to it may do this.
    pub fn rest(&self) -> Result<(), Full> {
        if self.log.disk().is_none() {
            self.spool()?;
        }
        self.log.rest()
    }

    /// It may run, as this local user. Before that nothing is kept of what was asked for but a short text.
    pub fn permitted(&self, user: &str, command: &Command) {
        let mut state = self.lock();
        state.user = user.to_owned();
        state.listens = Port::of(command).map(|port| (port, Arc::new(Heard::new(None))));
    }

    /// Whether it runs as this local user.
    pub(super) fn runs_as(&self, user: &str) -> bool {
        matches!(*self.stage.borrow(), Stage::Started { .. }) && self.lock().user == user
    }

    /// The port that it opens.
    pub(super) fn listens(&self) -> Option<Port> {
        self.lock().listens.as_ref().map(|(port, _)| port.clone())
    }

    /// What it has said of its port, if it opens one.
    pub fn heard(&self) -> Option<Arc<Heard>> {
        self.lock().listens.as_ref().map(|(_, heard)| Arc::clone(heard))
    }

    /// It prints something.
    pub fn prints(&self, channel: Channel, bytes: Bytes) {
        if channel == Channel::Out
            && self.is_connection
            && let Some(heard) = self.heard()
        {
            heard.hear(&bytes);
        }
        self.log.output(channel, bytes);
    }

    /// It is over: what was of use only while it ran is not kept.
    pub(super) fn drop_rest(&self) {
        if let Some(feed) = &self.feed {
            feed.discard();
        }
        self.lock().listens = None;
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn memory(&self) -> usize {
        let owner = self.owner.groups.iter().map(String::len).sum::<usize>();
        let state = self.lock();
        let texts = self.command.capacity() + owner + state.user.capacity();
        let texts = texts + state.visitors.memory();
        let feed = self.feed.as_ref().map_or(0, |feed| feed.memory());
        size_of::<Self>() + size_of::<Log>() + self.log.memory() + texts + feed
    }

    /// Whether the job goes on without a client.
    pub fn is_kept(&self) -> bool {
        self.lock().kept
    }

    /// Whether output that nobody has may be dropped to make room: for a client that is there the
    /// command waits.
    pub fn may_shed(&self) -> bool {
        self.on_full == OnFull::DiscardOldest && !self.is_held()
    }

    /// Whether a client has to say what it has before that is forgotten.
    pub fn is_acknowledged(&self) -> bool {
        self.resumable
    }

    /// The command runs.
    pub fn started(&self, pid: u32) {
        self.stage.send_replace(Stage::Started { pid });
    }

    /// The command does not run.
    pub fn not_started(&self, exit: Exit) {
        self.lock().ended_ms = Some(log::now_ms());
        self.stage.send_replace(Stage::Not(Box::new(exit)));
    }

    /// The command has ended, and its log too.
    pub fn ended(&self, ended_ms: u64) {
        self.lock().ended_ms = Some(ended_ms);
    }

    /// Its process, and when it ended; `None` if it runs, or never ran.
    pub fn end(&self) -> Option<(u32, u64)> {
        let ended_ms = self.lock().ended_ms?;
        match &*self.stage.borrow() {
            Stage::Started { pid } => Some((*pid, ended_ms)),
            Stage::Launching | Stage::Not(_) => None,
        }
    }

    /// Whether it has ended, or never ran.
    pub fn has_ended(&self) -> bool {
        self.lock().ended_ms.is_some()
    }

    /// Whether it is known that nothing of it ever ran.
    pub fn never_ran(&self) -> bool {
        matches!(&*self.stage.borrow(), Stage::Not(exit) if never_ran(exit))
    }

    /// A client of the identity `who` comes: whether that has to be on record, because it may do more here
    /// than is on record. Where nothing runs, or ran, there is nothing that it could do.
    pub fn gains(&self, who: &str, control: bool) -> bool {
        // Who has submitted it is on record with that.
        let is_known = who == self.owner.name || self.never_ran();
        !is_known && self.lock().visitors.gains(who, control)
    }

    /// The same: whether the others here have to hear that it comes; `may_tell` counts how often they did.
    pub fn shows(&self, who: &str, control: bool, may_tell: impl FnOnce() -> bool) -> bool {
        self.lock().visitors.comes(who, control, may_tell)
    }

    /// It goes: whether the others here hear of it, so that they can hear of it when it comes again.
    pub fn hides(&self, who: &str, control: bool, may_return: impl FnOnce() -> bool) -> bool {
        !self.has_ended() && self.lock().visitors.goes(who, control, may_return)
    }

    /// Waits until it is known whether the command runs.
    pub async fn launched(&self) -> Stage {
        let mut stage = self.stage.subscribe();
        let known = stage.wait_for(|stage| !matches!(stage, Stage::Launching)).await;
        known.map_or(Stage::Launching, |stage| stage.clone())
    }

    /// The answer to a client that comes: to an `attach`, or to an `exec` that joins.
    pub fn answer(&self, pid: u32, joins: bool) -> Started {
        let stdin = self.feed.as_ref().map_or(self.fed, |feed| feed.received());
        let started = Started::new(self.id.clone(), pid, self.algorithm);
        Started { attached: joins, stdin, terminal: self.has_terminal, ..started }
    }

    /// What is known of it. `outcome` is how it ended.
    pub fn info(&self, outcome: Option<Outcome>) -> JobInfo {
        let (size, kept_from) = self.log.extent();
        let pid = match &*self.stage.borrow() {
            Stage::Started { pid } => *pid,
            Stage::Launching | Stage::Not(_) => 0,
        };
        // Before the lock: who waits for a change of this looks there, too.
        let waiting = self.waiting.borrow().clone();
        let state = self.lock();
        JobInfo {
            job: self.id.clone(),
            owner: self.owner.name.clone(),
            user: state.user.clone(),
            command: printable(&self.command),
            outcome,
            pid,
            started_ms: self.begun_ms,
            ended_ms: state.ended_ms,
            size,
            kept_from,
            attached: state.attached,
            detached: state.kept && state.holder.is_none(),
            waiting,
            terminal: self.has_terminal,
            terminal_size: self.terminal_size,
        }
    }

    /// The agent stops, and the job ends with it.
    pub fn shut_down(&self) {
        self.control(Control::Shutdown);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a supervisor listens to.
#[derive(Debug)]
pub struct Controls {
    /// What clients ask for.
    pub orders: Orders,
    /// Whether there is anybody.
    pub attended: watch::Receiver<Attendance>,
}
