//! The part of a log that is on disk: how it gets there, and what happens when there is no room.
//!
//! One task writes, and all that it calls here blocks. Bytes go from the pipe to the file, from there
//! to the digest and to the newest records in memory, and their entry to the index. A full disk, and
//! the limits of the job and of all jobs, are the same to it: the oldest output goes if it may, or
//! the command waits. It may go if the caller said so ([`OnFull::DiscardOldest`]), or if the job's
//! owner has it. A little of each job that runs is kept whatever the others have, so that nobody
//! who reads is held up by them.

use super::Log;
use super::cursor::Place;
use super::quota::{Share, Short};
use super::state::Record;
use crate::jobs::meta::End;
use crate::pipe_size::PIPE_CAPACITY;
use crate::spool::{Checkpoint, ENTRY, Entry, Mark, Spool, size_between};
use bytes::Bytes;
use nix::unistd;
use rexec_protocol::message::{Channel, Message, Offsets, OnFull};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes that are moved at once.
const CHUNK: usize = 128 * 1024;
/// Of what is on disk, this much stays in memory for those who follow.
const NEWEST: usize = 128 * 1024;
/// So much of a job that runs is kept even where all jobs together have what they may: its readers
/// tell what they have by pieces of a part of it.
const LEAST: u64 = 1024 * 1024;
/// Records that are entered in the index at once.
const ENTERED: usize = 256;
/// After this much more output there is another checkpoint: what an agent may have to digest again.
const UNCHECKED: u64 = 4 * 1024 * 1024;

/// Where a log's records are, and how many may be there.
#[derive(Debug)]
pub struct Disk {
    spool: Spool,
    share: Share,
    limit: u64,
    on_full: OnFull,
    /// [`Urgency::Ending`].
    is_ending: AtomicBool,
    /// How far the output was when the command had ended.
    at_end: OnceLock<Offsets>,
    last: Mutex<Checkpoint>,
}

/// What came of reading an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// This many bytes; there may be more.
    Bytes(usize),
    /// Nothing is there right now.
    Nothing,
    /// Its end.
    End,
}

/// What has no room left for more output.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// The job has as much as one job may.
    #[error("the kept output of this job is at its limit, 'jobs.max_output'")]
    Job,
    /// The jobs of its owner have as much as those of one identity may, and those that have ended are not enough to
    /// make room.
    #[error(
        "the kept output of its owner's jobs is at its limit, one identity's part of 'jobs.max_output_total'"
    )]
    Owner,
    /// All jobs have as much as all may, and those that could go are not enough to make room.
    #[error("the kept output of all jobs is at its limit, 'jobs.max_output_total'")]
    Total,
    /// The disk is full, or does not work.
    #[error("cannot write the output of this job to disk: {0}")]
    Disk(io::Error),
}

impl Full {
    /// It is a limit of the agent, and not the disk.
    pub fn is_limit(&self) -> bool {
        !matches!(self, Self::Disk(_))
    }
}

/// What is more important than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Nothing: the command can wait.
    None,
    /// The command has ended. What it has left in its pipes is little, and has no other place. What others write
    /// to them after that has the limits that it had.
    Ended,
    /// It was asked to end, or has: rather than wait, output is lost.
    Ending,
}

/// What may go of a job's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// What its owner has.
    Acknowledged,
    /// That, and what the caller has given up.
    Any,
}

impl Disk {
    /// Records in `spool`, up to `limit` bytes; `last` is its last checkpoint.
    pub fn new(spool: Spool, share: Share, limit: u64, on_full: OnFull, last: Checkpoint) -> Self {
        let is_ending = AtomicBool::new(false);
        let (at_end, last) = (OnceLock::new(), Mutex::new(last));
        Self { spool, share, limit, on_full, is_ending, at_end, last }
    }

    pub(super) fn records(&self, first: u64, end: u64) -> io::Result<VecDeque<Record>> {
        let records = self.spool.records(first, end)?;
        let record = |(entry, bytes): (Entry, Bytes)| Record {
            time_ms: entry.time_ms,
            frame: entry.frame(bytes),
            is_written: true,
        };
        Ok(records.into_iter().map(record).collect())
    }

    /// Finds a place among the records from `first` to `end`; `None`: not before their end.
    pub(super) fn search(
        &self,
        place: Place,
        (first, end): (u64, u64),
    ) -> io::Result<Option<Mark>> {
        let number = self.spool.bisect(first, end, |number, entry| match place {
            Place::Have(have) => {
                let at = entry.after(number).at;
                at.out > have.out || at.err > have.err
            }
            Place::Time(time_ms) => entry.time_ms >= time_ms,
            Place::Live => false,
        })?;
        if number == end {
            return Ok(None);
        }
        Ok(Some(self.spool.entry(number)?.before(number)))
    }

    pub(super) fn delete(&self) {
        if let Err(error) = self.spool.delete() {
            tracing::error!(%error, "cannot delete the output of a job");
        }
        // Now, and not when the last of those who read or sync it lets go: who needs the room would drop
        // the next job too.
        self.share.force(0);
    }

    fn checkpoint(&self, checkpoint: Checkpoint) -> io::Result<()> {
        self.spool.checkpoint(checkpoint.clone())?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = checkpoint;
        Ok(())
    }

    /// Whether output may go that the owner does not have.
    fn may_lose(&self) -> bool {
        self.on_full == OnFull::DiscardOldest || self.is_ending.load(Ordering::Relaxed)
    }

    fn last(&self) -> Checkpoint {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Log {
    /// Where its records are on disk; `None` if they are in memory only.
    pub fn disk(&self) -> Option<Arc<Disk>> {
        self.lock().disk.clone()
    }

    /// From now on its records are on disk, those too that are in memory. `make` makes the place for
    /// it. The caller is the one who writes.
    pub fn spool(&self, make: impl FnOnce(Checkpoint) -> io::Result<Disk>) -> Result<(), Full> {
        let now = self.now();
        // Nothing of it is there yet.
        let empty = Checkpoint { kept: now.mark, ..now.clone() };
        let disk = Arc::new(make(empty).map_err(Full::Disk)?);
        let mut state = self.lock();
        // What was acknowledged meanwhile is gone, and does not get there.
        let kept = state.first;
        state.stored = kept;
        state.disk = Some(Arc::clone(&disk));
        drop(state);
        self.flush(&disk)?;
        // It counts from now on, and not only when the command prints again.
        disk.share.force(self.kept());
        disk.checkpoint(Checkpoint { kept, ..now }).map_err(Full::Disk)
    }

    /// Reads what is in `source` right now, at most one data body.
    pub fn take(
        &self,
        channel: Channel,
        source: BorrowedFd<'_>,
        urgency: Urgency,
    ) -> Result<Taken, Full> {
        let Some(disk) = self.disk() else { return Ok(Taken::Nothing) };
        if self.lock().abandoned {
            return self.lose(&disk, channel, source);
        }
        disk.is_ending.store(urgency == Urgency::Ending, Ordering::Relaxed);
        match self.store(&disk, channel, source, urgency) {
            Err(full) if disk.may_lose() => {
                tracing::debug!(%full, "output is lost");
                self.lose(&disk, channel, source)
            }
            // The room for a whole record was more than it took.
            taken => taken.inspect(|_| disk.share.force(self.kept())),
        }
    }

    /// Writes what is not on disk yet, how the job ended, and where its output is.
    pub fn finish(&self, end: &End) -> Result<(), Full> {
        let Some(disk) = self.disk() else { return Ok(()) };
        self.flush(&disk)?;
        self.mark(&disk)?;
        disk.share.end(self.kept());
        // Others may need the memory more.
        self.lock().trim(0);
        self.with_room(&disk, || disk.spool.end(end))
    }

    /// Writes what is not on disk yet: the agent leaves, and another goes on from here.
    pub fn rest(&self) -> Result<(), Full> {
        let Some(disk) = self.disk() else { return Ok(()) };
        self.flush(&disk)?;
        self.mark(&disk)
    }

    /// Reads all that is kept back into memory, where a log is that nobody wants kept, and deletes what
    /// is on disk. Blocks; the caller is the one who writes.
    pub fn to_memory(&self) -> io::Result<()> {
        let Some(disk) = self.disk() else { return Ok(()) };
        let (kept, end) = {
            let state = self.lock();
            (state.kept, state.first.number)
        };
        let (mut number, mut older) = (kept.number, VecDeque::new());
        while number < end {
            let records = disk.records(number, end)?;
            number += records.len() as u64;
            older.extend(records);
        }
        let mut state = self.lock();
        state.take_back(kept, older);
        state.disk = None;
        drop(state);
        disk.delete();
        Ok(())
    }

    /// Nobody will write any more. Returns once all of it would survive a loss of power; from then on its
    /// files are open only while somebody reads them.
    pub fn shelve(&self) -> io::Result<()> {
        let Some(disk) = self.disk() else { return Ok(()) };
        let synced = disk.spool.sync();
        disk.spool.close();
        synced
    }

    /// Enters what is in the files beyond the index: another agent has read it from the pipes.
    pub fn claim_all(&self) -> Result<(), Full> {
        let Some(disk) = self.disk() else { return Ok(()) };
        for channel in super::state::OUTPUTS {
            while self.claim(&disk, channel)? > 0 {}
        }
        self.flush(&disk)
    }

    fn store(
        &self,
        disk: &Disk,
        channel: Channel,
        source: BorrowedFd<'_>,
        urgency: Urgency,
    ) -> Result<Taken, Full> {
        let mut claimed = self.claim(disk, channel)?;
        if claimed == 0 {
            self.flush(disk)?;
            self.make_room(disk, channel, urgency)?;
            let offset = self.lock().end.at.of(channel);
            match self.with_room(disk, || disk.spool.fill(channel, offset, source, CHUNK)) {
                Ok(0) => return Ok(Taken::End),
                Ok(_) => claimed = self.claim(disk, channel)?,
                Err(Full::Disk(error)) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(Taken::Nothing),
                    // A terminal, or a file system without splice.
                    Some(libc::EINVAL) => return self.copy(disk, channel, source),
                    _ => return Err(Full::Disk(error)),
                },
                Err(full) => return Err(full),
            }
        }
        self.flush(disk)?;
        Ok(Taken::Bytes(claimed))
    }

    /// Enters what is in the file and not in the log; says how many bytes that were.
    fn claim(&self, disk: &Disk, channel: Channel) -> Result<usize, Full> {
        let offset = self.lock().end.at.of(channel);
        let beyond = disk.spool.beyond(channel, offset).map_err(Full::Disk)?;
        if beyond == 0 {
            return Ok(0);
        }
        let length = usize::try_from(beyond).unwrap_or(CHUNK).min(CHUNK);
        let bytes = disk.spool.read(channel, offset, length).map_err(Full::Disk)?;
        self.append(|state| state.data(channel, bytes, true));
        Ok(length)
    }

    /// Through memory: bytes that cannot be written yet stay there.
    fn copy(&self, disk: &Disk, channel: Channel, source: BorrowedFd<'_>) -> Result<Taken, Full> {
        let bytes = match read(source) {
            Ok(bytes) if bytes.is_empty() => return Ok(Taken::End),
            Ok(bytes) => bytes,
            Err(taken) => return Ok(taken),
        };
        let length = bytes.len();
        self.append(|state| state.data(channel, bytes, false));
        self.flush(disk)?;
        Ok(Taken::Bytes(length))
    }

    /// Reads output that nobody will see: it is counted and digested, and with all before it given up.
    fn lose(&self, disk: &Disk, channel: Channel, source: BorrowedFd<'_>) -> Result<Taken, Full> {
        let claimed = self.claim(disk, channel)?;
        if claimed > 0 {
            return Ok(Taken::Bytes(claimed));
        }
        let bytes = match read(source) {
            Ok(bytes) if bytes.is_empty() => return Ok(Taken::End),
            Ok(bytes) => bytes,
            Err(taken) => return Ok(taken),
        };
        let length = bytes.len();
        let from = self.lock().kept;
        self.append(|state| {
            state.data(channel, bytes, true);
            state.forget_all();
        });
        let now = self.now();
        disk.spool.skip_to(&now.mark).map_err(Full::Disk)?;
        self.give_up(disk, &from, now);
        Ok(Taken::Bytes(length))
    }

    /// Writes all that is in memory only.
    fn flush(&self, disk: &Disk) -> Result<(), Full> {
        loop {
            let (mut mark, records) = self.lock().not_stored(ENTERED);
            if records.is_empty() {
                break;
            }
            let (number, mut entries) = (mark.number, Vec::new());
            for Record { frame, time_ms, is_written } in &records {
                if let Message::Data(data) = &frame.message
                    && !is_written
                {
                    let (channel, offset) = (data.channel, data.offset);
                    self.with_room(disk, || disk.spool.write(channel, offset, &frame.body))?;
                }
                if let Some(entry) = Entry::of(frame, *time_ms, &mark) {
                    entry.encode(&mut entries);
                }
                mark.pass(frame);
            }
            self.with_room(disk, || disk.spool.enter(number, &entries))?;
            let mut state = self.lock();
            state.stored = mark;
            state.trim(NEWEST);
        }
        let (is_complete, end) = {
            let state = self.lock();
            (state.stored == state.end, state.end)
        };
        if is_complete && size_between(&disk.last().mark, &end) > UNCHECKED {
            self.mark(disk)?;
        }
        Ok(())
    }

    /// Writes a checkpoint of where the log is now, which has to be on disk.
    fn mark(&self, disk: &Disk) -> Result<(), Full> {
        disk.checkpoint(self.now()).map_err(Full::Disk)
    }

    fn now(&self) -> Checkpoint {
        let state = self.lock();
        let (out, err) = state.prefixes();
        Checkpoint { serial: 0, kept: state.kept, mark: state.end, out, err }
    }

    /// How much output is kept, in bytes.
    pub(super) fn kept(&self) -> u64 {
        let state = self.lock();
        size_between(&state.kept, &state.end)
    }

    /// Makes room for one more record, at the cost of what is worth the least: what its owner has,
    /// then the jobs that have ended, then its own oldest.
    fn make_room(&self, disk: &Disk, channel: Channel, urgency: Urgency) -> Result<(), Full> {
        loop {
            let usage = self.kept() + CHUNK as u64 + ENTRY;
            let short = if usage > disk.limit {
                None
            } else {
                match disk.share.set(usage) {
                    Ok(()) => return Ok(()),
                    short => short.err(),
                }
            };
            if self.discard(disk, Which::Acknowledged)
                || short.is_some_and(|short| disk.share.make_room(short))
            {
                continue;
            }
            if short.is_some() && usage <= LEAST {
                disk.share.force(usage);
                return Ok(());
            }
            if self.discard(disk, Which::Any) {
                continue;
            }
            if self.has_to_be_kept(disk, channel, urgency) {
                disk.share.force(usage);
                return Ok(());
            }
            return Err(match short {
                None => Full::Job,
                Some(Short::Own(_)) => Full::Owner,
                Some(Short::All(_)) => Full::Total,
            });
        }
    }

    /// Whether what comes is more important than the limits. Of each channel, one pipe may be the command's own:
    /// what others print on the one takes nothing from what it has left in the other.
    fn has_to_be_kept(&self, disk: &Disk, channel: Channel, urgency: Urgency) -> bool {
        match urgency {
            Urgency::None => false,
            Urgency::Ended => {
                let now = self.lock().end.at;
                let at_end = disk.at_end.get_or_init(|| now);
                now.of(channel) - at_end.of(channel) < PIPE_CAPACITY as u64
            }
            Urgency::Ending => true,
        }
    }

    /// Does `write`, with less of the oldest output if the disk is full.
    fn with_room<T>(&self, disk: &Disk, write: impl Fn() -> io::Result<T>) -> Result<T, Full> {
        loop {
            match write() {
                Err(error) if is_full(&error) && self.discard(disk, Which::Any) => {}
                written => return written.map_err(Full::Disk),
            }
        }
    }

    /// Gives up the oldest output, if any of it may go; false if none.
    fn discard(&self, disk: &Disk, which: Which) -> bool {
        let now = self.now();
        let (stored, acknowledged) = {
            let state = self.lock();
            (state.stored, state.acknowledged)
        };
        // A checkpoint has to be where all is on disk, and what is kept has to begin before it.
        let next = if stored == now.mark { now } else { disk.last() };
        let is_any = which == Which::Any && disk.may_lose();
        let last = if is_any { u64::MAX } else { acknowledged };
        let last = last.min(stored.number);
        let from = self.lock().kept;
        let last = last.min(next.mark.number);
        if last <= from.number {
            return false;
        }
        let enough = (disk.limit / 8).max(CHUNK as u64);
        let is_enough = |number, entry: &Entry| size_between(&from, &entry.after(number)) >= enough;
        let found = disk.spool.bisect(from.number, last, is_enough).and_then(|number| {
            let number = number.min(last - 1);
            Ok(disk.spool.entry(number)?.after(number))
        });
        match found {
            Ok(kept) => self.give_up(disk, &from, Checkpoint { kept, ..next }),
            Err(error) => {
                tracing::error!(%error, "a job's output on disk cannot be read");
                false
            }
        }
    }

    /// Gives up what is before the place that `next` says is kept.
    fn give_up(&self, disk: &Disk, from: &Mark, next: Checkpoint) -> bool {
        let kept = next.kept;
        let mut state = self.lock();
        // Before anything is gone: who reads it now looks here afterwards.
        state.kept = kept;
        state.forget(|number, _| number < kept.number);
        drop(state);
        let done = disk.checkpoint(next).and_then(|()| disk.spool.punch(from, &kept));
        disk.share.force(self.kept());
        if let Err(error) = &done {
            tracing::error!(%error, "cannot give up the oldest output of a job");
        }
        done.is_ok()
    }
}

/// What is in `source`, empty at its end. One that cannot be read has nothing more to give.
fn read(source: BorrowedFd<'_>) -> Result<Bytes, Taken> {
    let mut buffer = vec![0; CHUNK];
    match unistd::read(source, &mut buffer) {
        Ok(n) => {
            buffer.truncate(n);
            Ok(buffer.into())
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Err(Taken::Nothing),
        Err(_) => Ok(Bytes::new()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
