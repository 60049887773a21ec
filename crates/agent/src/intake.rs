//! From a command's outputs into its log: through memory, or straight to the disk.
//!
//! On disk, each read is one task that may block, and there is one at a time: while it is under way
//! the supervisor goes on listening. A wait for room ends when somebody has read, or after a moment:
//! a disk does not say when it has room again.

use crate::jobs::Job;
use crate::ledger::Ledger;
use crate::log::blocking;
use crate::log::disk::{Full, Taken, Urgency};
use crate::output::{Output, Shared};
use crate::pipe_size::PIPE_CAPACITY;
use crate::unstick::Watch;
use rexec_protocol::message::Channel;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::{Instant, sleep_until};

/// After a read of so many bytes those get a turn who send them, however much more there is to read: the
/// client has something to do sooner, and the bytes are still in the processor's cache.
const TURN: usize = 64 * 1024;
/// How long to wait for room before trying again.
const RETRY: Duration = Duration::from_secs(1);

/// The way of a job's output.
pub struct Intake {
    job: Arc<Job>,
    out: Output,
    err: Output,
    /// The log is to be on disk.
    to_disk: bool,
    /// It is.
    on_disk: bool,
    busy: Option<Busy>,
    /// How far it is, while the log is in memory.
    ledger: Option<Arc<Ledger>>,
    /// A large piece was read, and nobody else had a turn since.
    turn_is_over: bool,
    /// There is no room; until then, unless something is released.
    full: Option<Instant>,
    /// That was said in the agent's log.
    complained: bool,
    urgency: Urgency,
    /// What others still write when the command has ended does not wait for room.
    gives_up: bool,
    watch: Arc<Watch>,
}

/// What is done to the disk right now.
enum Busy {
    /// What is in memory goes there.
    Move(JoinHandle<Result<(), Full>>),
    /// An output is read.
    Read(Channel, JoinHandle<Result<Taken, Full>>),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The log is longer, or an output has ended.
    Output,
    /// The command has ended, and for what others still write to this output there is no room.
    Leftover(Channel),
    /// Something else.
    Nothing,
}

impl Intake {
    /// Reads the outputs of `job`.
    pub fn new(
        job: Arc<Job>,
        (mut out, mut err): (Output, Output),
        ledger: Option<Arc<Ledger>>,
        watch: Arc<Watch>,
    ) -> Self {
        if let Some(ledger) = &ledger {
            out.keep_books(Channel::Out, Arc::clone(ledger));
            err.keep_books(Channel::Err, Arc::clone(ledger));
        }
        let on_disk = job.log.disk().is_some();
        for (channel, output) in [(Channel::Out, &out), (Channel::Err, &err)] {
            if !output.is_open() {
                // A terminal is one stream; what another agent has closed is over.
                job.log.eof(channel);
            }
        }
        let intake = Self {
            job,
            out,
            err,
            to_disk: on_disk,
            on_disk: false,
            busy: None,
            ledger,
            turn_is_over: false,
            full: None,
            complained: false,
            urgency: Urgency::None,
            gives_up: false,
            watch,
        };
        intake.book(Channel::Out);
        intake.book(Channel::Err);
        intake
    }

    /// True until both have ended.
    pub fn is_open(&self) -> bool {
        self.out.is_open() || self.err.is_open()
    }

    /// While there is no room nothing is read, so silence means nothing.
    pub fn has_room(&self) -> bool {
        self.full.is_none() && (self.on_disk || self.job.log.has_room())
    }

    /// The disk has no room for what is in the pipes.
    pub fn has_to_wait(&self) -> bool {
        self.full.is_some()
    }

    /// The job is kept from now on.
    pub fn keep(&mut self) {
        self.to_disk = true;
    }

    /// What matters more than limits, from now on; and whether what others write, for which there is no room, is
    /// given up ([`Got::Leftover`]) and not waited for.
    pub fn hurry(&mut self, urgency: Urgency, gives_up: bool) {
        (self.urgency, self.gives_up) = (urgency, gives_up);
        self.full = None;
        self.job.has_room();
    }

    /// Waits for output, and puts it in the log. Safe to cancel.
    pub async fn next(&mut self) -> Got {
        if let Some(until) = self.full {
            tokio::select! {
                () = self.job.log.released() => {}
                () = sleep_until(until) => {}
            }
            self.full = None;
        }
        if self.busy.is_none() && self.to_disk && !self.on_disk {
            self.begin_move().await;
        }
        if self.busy.is_none() && self.on_disk {
            self.begin_read().await;
        }
        if self.busy.is_some() { self.finish().await } else { self.read_to_memory().await }
    }

    /// Takes what is in the pipes, at most one pipe's capacity of each: what the command itself wrote
    /// is in them when it has ended. Returns at once, or after the disk.
    pub async fn sweep(&mut self) {
        if self.busy.is_some() {
            self.finish().await;
        }
        for channel in [Channel::Out, Channel::Err] {
            let mut left = PIPE_CAPACITY;
            while left > 0 && self.full.is_none() {
                let n = if self.on_disk {
                    self.read_now(channel).await
                } else {
                    let read = self.output(channel).try_read();
                    read.map(|bytes| self.append(channel, bytes))
                };
                let Some(n) = n else { break };
                left = left.saturating_sub(n);
            }
        }
    }

    /// Waits for what is under way, after which nothing appends to the log any more.
    pub async fn settle(&mut self) {
        while self.busy.is_some() {
            self.finish().await;
        }
    }

    /// Stops reading an output; that is its end.
    pub fn close(&mut self, channel: Channel) {
        if self.output(channel).close() {
            self.job.log.eof(channel);
            self.book(channel);
        }
    }

    async fn read_to_memory(&mut self) -> Got {
        if !self.job.log.has_room() {
            if self.job.may_shed() {
                self.job.log.shed();
            } else {
                self.job.log.room().await;
            }
            return Got::Nothing;
        }
        if std::mem::take(&mut self.turn_is_over) {
            yield_now().await;
        }
        let (channel, bytes) = tokio::select! {
            bytes = self.out.read(), if self.out.is_open() => (Channel::Out, bytes),
            bytes = self.err.read(), if self.err.is_open() => (Channel::Err, bytes),
            else => return std::future::pending().await,
        };
        self.turn_is_over = bytes.len() >= TURN;
        self.append(channel, bytes);
        Got::Output
    }

    fn book(&self, channel: Channel) {
        if let Some(ledger) = &self.ledger {
            ledger.is_at(channel, &self.job.log.place(channel));
        }
    }

    /// Empty at the end.
    fn append(&mut self, channel: Channel, bytes: bytes::Bytes) -> usize {
        let n = bytes.len();
        if n == 0 {
            self.close(channel);
        } else {
            self.job.prints(channel, bytes);
            self.book(channel);
        }
        n
    }

    async fn begin_move(&mut self) {
        if self.job.log.disk().is_some() {
            return self.share();
        }
        let job = Arc::clone(&self.job);
        self.busy = Some(Busy::Move(blocking::start(move || job.spool()).await));
    }

    fn share(&mut self) {
        match self.out.share().and_then(|()| self.err.share()) {
            Ok(()) => self.on_disk = true,
            // As without descriptors: they come back.
            Err(error) => self.wait(&Full::Disk(error)),
        }
    }

    async fn begin_read(&mut self) {
        let (out, err) = (self.out.shared(), self.err.shared());
        let (channel, source) = tokio::select! {
            () = readable(&out), if out.is_some() => (Channel::Out, out.clone()),
            () = readable(&err), if err.is_some() => (Channel::Err, err.clone()),
            else => return std::future::pending().await,
        };
        self.start_read(channel, source).await;
    }

    async fn start_read(&mut self, channel: Channel, source: Option<Arc<Shared>>) {
        let Some(source) = source else { return };
        let (log, urgency) = (Arc::clone(&self.job.log), self.urgency);
        let watch = Arc::clone(&self.watch);
        let place = blocking::place(watch.was_stuck()).await;
        let read =
            move || watch.store(place, || log.take(channel, source.get_ref().as_fd(), urgency));
        self.busy = Some(Busy::Read(channel, spawn_blocking(read)));
    }

    /// Reads what is there; `None` if nothing is.
    async fn read_now(&mut self, channel: Channel) -> Option<usize> {
        let source = self.output(channel).shared()?;
        self.start_read(channel, Some(source)).await;
        (self.finish().await == Got::Output).then_some(PIPE_CAPACITY / 8)
    }

    /// Waits for what is under way. Safe to cancel: it stays under way.
    async fn finish(&mut self) -> Got {
        let result = match &mut self.busy {
            None => return Got::Nothing,
            Some(Busy::Move(task)) => {
                task.await.map(|moved| (None, moved.map(|()| Taken::Nothing)))
            }
            Some(Busy::Read(channel, task)) => {
                let channel = *channel;
                task.await.map(|taken| (Some(channel), taken))
            }
        };
        self.busy = None;
        let (channel, taken) = match result {
            Ok(done) => done,
            // It did not panic; the runtime is ending.
            Err(error) => (None, Err(Full::Disk(std::io::Error::other(error)))),
        };
        match (channel, taken) {
            // The command's own output is kept by now.
            (Some(channel), Err(full)) if self.gives_up && full.is_limit() => {
                tracing::debug!(job = %self.job.id, %full, "what the command left behind is not kept");
                Got::Leftover(channel)
            }
            (_, Err(full)) => {
                self.wait(&full);
                Got::Nothing
            }
            (None, Ok(_)) => {
                self.share();
                Got::Nothing
            }
            (Some(channel), Ok(taken)) => {
                self.complained = false;
                self.job.has_room();
                match taken {
                    Taken::Nothing => return Got::Nothing,
                    Taken::End => self.close(channel),
                    Taken::Bytes(n) => self.output(channel).moved(n),
                }
                Got::Output
            }
        }
    }

    fn wait(&mut self, full: &Full) {
        if !self.complained {
            self.complained = true;
            tracing::warn!(job = %self.job.id, %full, "a command has to wait");
        }
        self.job.waits_for_room(full);
        self.full = Some(Instant::now() + RETRY);
    }

    fn output(&mut self, channel: Channel) -> &mut Output {
        if channel == Channel::Err { &mut self.err } else { &mut self.out }
    }
}

/// Returns when there is something to read, or an end.
async fn readable(source: &Option<Arc<Shared>>) {
    if let Some(source) = source {
        crate::output::readable(source).await;
    }
}
