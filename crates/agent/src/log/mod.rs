//! A job's output: one log of records in the order of arrival, read through cursors.
//!
//! The supervisor appends, and stops reading the command's pipes while the log is full. Any number of
//! readers follow, each with a [`Cursor`]. What the job's owner has acknowledged is forgotten; a reader
//! that comes to a place that is forgotten is told of the gap. The exit is the last record, so it
//! cannot overtake data, and it is never forgotten.
//!
//! The records of a job that is kept are on [`disk`], and the newest of them in memory too. Where a
//! record is makes no difference to a reader but the time it takes.

pub mod blocking;
mod cursor;
pub mod disk;
#[cfg(test)]
mod disk_tests;
pub mod quota;
mod state;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Item, Place};

use crate::ledger;
use crate::spool::{Content, Mark};
use bytes::Bytes;
use disk::Disk;
use rexec_protocol::Algorithm;
use rexec_protocol::message::{Channel, Exit, Offsets};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Frame, StreamId};
use state::{Record, State, Step, is_had};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::Notify;

/// Bytes kept before the command has to wait.
const CAPACITY: usize = 1536 * 1024;

/// The log of one job.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    appended: Notify,
    released: Notify,
}

impl Log {
    /// An empty log.
    pub fn new(algorithm: Algorithm) -> Self {
        Self::with(State::new(algorithm))
    }

    /// The log that `disk` holds, as another agent process has left it.
    pub fn resumed(algorithm: Algorithm, content: &Content, disk: Disk) -> Self {
        let mut state = State::resumed(algorithm, content);
        state.disk = Some(Arc::new(disk));
        Self::with(state)
    }

    /// A log of which only the places are known where it goes on.
    pub fn after(out: &ledger::Place, err: &ledger::Place, algorithm: Algorithm) -> Self {
        Self::with(State::after(out, err, algorithm))
    }

    fn with(state: State) -> Self {
        Self { state: Mutex::new(state), appended: Notify::new(), released: Notify::new() }
    }

    /// Appends output.
    pub fn output(&self, channel: Channel, bytes: Bytes) {
        self.append(|state| state.data(channel, bytes, false));
    }

    /// Appends the end of a channel.
    pub fn eof(&self, channel: Channel) {
        self.append(|state| state.eof(channel));
    }

    /// Appends the last record.
    pub fn exit(&self, exit: Exit) {
        let frame = Frame::new(StreamId::CONNECTION, exit.into());
        let record = Record { frame, time_ms: now_ms(), is_written: true };
        self.append(|state| state.exit = Some(record));
    }

    /// How far a channel is, for the ledger.
    pub fn place(&self, channel: Channel) -> ledger::Place {
        self.lock().place_of(channel)
    }

    /// Size and digest of a channel so far.
    pub fn tally(&self, channel: Channel) -> Tally {
        self.lock().tally(channel)
    }

    /// How much output there was so far, and from where on it is kept.
    pub fn extent(&self) -> (Offsets, Offsets) {
        let state = self.lock();
        (state.end.at, state.kept.at)
    }

    /// Bytes of memory that the records take.
    pub fn memory(&self) -> usize {
        self.lock().size
    }

    /// True while there is room for more output in memory.
    pub fn has_room(&self) -> bool {
        self.lock().size < CAPACITY
    }

    /// Waits until there is room for more output in memory.
    pub async fn room(&self) {
        loop {
            // Before the look, so that what happens after it is not missed.
            let released = self.released.notified();
            if self.has_room() {
                return;
            }
            released.await;
        }
    }

    /// Waits until something was released or acknowledged.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    /// A cursor at `place`; `None` if the reader says that it has more than there is.
    pub async fn cursor(&self, place: Place) -> Option<Cursor> {
        let (in_memory, to_search) = self.find(place)?;
        let found = match to_search {
            Some((disk, records)) => blocking::run(move || disk.search(place, records)).await,
            None => Ok(None),
        };
        let on_disk = found.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot search the output of a job on disk");
            None
        });
        let cursor = Cursor::at(&on_disk.unwrap_or(in_memory));
        Some(match place {
            Place::Have(have) => Cursor { at: have, begin: have, ..cursor },
            _ => cursor,
        })
    }

    /// Where in memory a place is, unless it is among the records on disk, which begin and end with these
    /// numbers.
    #[allow(clippy::type_complexity, reason = "for one caller")]
    fn find(&self, place: Place) -> Option<(Mark, Option<(Arc<Disk>, (u64, u64))>)> {
        let state = self.lock();
        let in_memory = match place {
            Place::Have(have) if state.is_more_than_there_was(have) => return None,
            Place::Have(have) => state.place(|record| !is_had(&record.frame, have)),
            Place::Time(time_ms) => state.place(|record| record.time_ms >= time_ms),
            Place::Live => return Some((state.end, None)),
        };
        let records = (state.kept.number, state.first.number);
        let disk = state.disk.clone().filter(|_| records.0 < records.1);
        Some((in_memory, disk.map(|disk| (disk, records))))
    }

    /// What comes next for `cursor`, which then moves on; waits for it. Safe to cancel.
    pub async fn next(&self, cursor: &mut Cursor) -> Item {
        loop {
            let appended = self.appended.notified();
            if let Some(item) = self.ready(cursor).await {
                return item;
            }
            appended.await;
        }
    }

    /// [`Log::next`] if it is there already; waits at most for the disk.
    pub async fn ready(&self, cursor: &mut Cursor) -> Option<Item> {
        loop {
            // The lock is not held while the disk is waited for.
            let step = self.lock().read(cursor);
            match step {
                Step::Item(item) => return Some(item),
                Step::Wait => return None,
                Step::Fetch(disk, first, end) => self.fetch(cursor, disk, first, end).await,
            }
        }
    }

    async fn fetch(&self, cursor: &mut Cursor, disk: Arc<Disk>, first: u64, end: u64) {
        let records = blocking::run(move || disk.records(first, end)).await;
        let mut state = self.lock();
        // What was given up meanwhile may have been read as zeros.
        if state.kept.number > first {
            return;
        }
        match records {
            Ok(records) => cursor.fetched = (first, records),
            Err(error) => {
                tracing::error!(%error, "a job's output on disk cannot be read; it counts as lost");
                state.kept = state.first;
            }
        }
    }

    /// The owner has all records up to and with this number. In memory they are forgotten; on disk,
    /// once there is no room for others.
    pub fn release(&self, record: u64) {
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(record.saturating_add(1));
        if state.disk.is_none() {
            state.forget(|first, _| first <= record);
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// Forgets the oldest of what is in memory only, to make room.
    pub fn shed(&self) {
        let mut state = self.lock();
        while state.size > CAPACITY / 2 && !state.records.is_empty() {
            let oldest = state.first.number;
            state.forget(|number, _| number == oldest);
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// As [`Log::release`] of a log that is kept: nothing is forgotten before there is no room.
    pub fn acknowledge(&self, record: u64) {
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(record.saturating_add(1));
        drop(state);
        self.released.notify_waiters();
    }

    /// Forgets all output that is kept, and deletes what is on disk. Blocks.
    pub fn remove(&self) {
        let mut state = self.lock();
        state.forget_all();
        state.removed = true;
        let disk = state.disk.take();
        drop(state);
        self.released.notify_waiters();
        if let Some(disk) = disk {
            disk.delete();
        }
    }

    /// Whether its output was deleted.
    pub fn is_removed(&self) -> bool {
        self.lock().removed
    }

    /// Nobody will read any more: later output is read, counted and dropped, so that the command is
    /// not held up by a full pipe. Its end is still recorded.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        if state.disk.is_none() {
            state.forget_all();
        }
        drop(state);
        self.released.notify_waiters();
    }

    fn append(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.appended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock: it tells people when, and orders nothing.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
