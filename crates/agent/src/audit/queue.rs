//! Events on their way to the writer's thread, in order, in bounded memory.

use super::Unavailable;
use super::event::Event;
use super::record::Stamp;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// Bytes of records that wait while the disk is full, or slow.
const CAPACITY: usize = 16 << 20;
/// What an entry costs beside its text.
const OVERHEAD: usize = 128;
/// Bytes that are written at once.
const BATCH: usize = 256 << 10;

pub(super) type Reply = oneshot::Sender<Result<(), Unavailable>>;

/// One event that waits.
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    /// The event as JSON.
    pub(super) body: String,
    pub(super) reply: Option<Reply>,
}

#[derive(Debug)]
pub(super) struct Queue {
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Events that there was no room for.
    dropped: u64,
    /// There is something that the writer has not seen.
    is_new: bool,
    /// Somebody waits for it, or it is much.
    is_urgent: bool,
    /// The writer sleeps, and nothing will wake it but a notification.
    is_asleep: bool,
    is_closing: bool,
    /// Dropped by the writer, at its end.
    closed: Option<oneshot::Sender<()>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events of {} bytes", self.entries.len(), self.bytes)
    }
}

/// What the writer has to do.
pub(super) struct Turn {
    pub(super) entries: Vec<Entry>,
    pub(super) dropped: u64,
    /// There is more, for the next turn.
    pub(super) is_more: bool,
    pub(super) is_closing: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds an event, if there is room.
    pub(super) fn push(&self, event: &Event<'_>, reply: Option<Reply>) -> Result<(), Unavailable> {
        let body = body(event);
        let mut state = self.lock();
        if state.is_closing {
            return Err(Unavailable("the agent is stopping".to_owned()));
        }
        if state.bytes + body.len() > CAPACITY {
            // A commit that fails is told, so it is not lost.
            state.dropped += u64::from(reply.is_none());
            return Err(Unavailable("too many records wait to be written".to_owned()));
        }
        state.bytes += body.len() + OVERHEAD;
        // Under the lock, so that times are in the order of the lines.
        let stamp = self.now();
        let reply_is_awaited = reply.is_some();
        state.entries.push_back(Entry { stamp, body, reply });
        state.is_new = true;
        state.is_urgent |= reply_is_awaited || state.bytes > BATCH;
        // To wake a thread costs a command more than the rest of its record does.
        let must_wake = state.is_urgent || state.is_asleep;
        drop(state);
        if must_wake {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Takes no more events; returns once the writer has ended.
    pub(super) async fn close(&self) {
        let (closed, ended) = oneshot::channel();
        self.ask_to_close(closed);
        // An error says that it was dropped, which is the message.
        let _ = ended.await;
    }

    fn ask_to_close(&self, closed: oneshot::Sender<()>) {
        let mut state = self.lock();
        if !state.is_closing {
            (state.is_closing, state.closed) = (true, Some(closed));
            (state.is_new, state.is_urgent) = (true, true);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until `wake`, for something that cannot wait, or, where nothing else will wake it, for
    /// anything new; and takes what is there.
    pub(super) fn wait(&self, wake: Option<Instant>) -> Turn {
        let mut state = self.lock();
        state.is_asleep = wake.is_none();
        while !state.is_urgent {
            state = match wake.map(|wake| wake.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None if state.is_new => break,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.is_asleep = false;
        let (mut entries, mut size) = (Vec::new(), 0);
        while size < BATCH
            && let Some(entry) = state.entries.pop_front()
        {
            size += entry.body.len() + OVERHEAD;
            entries.push(entry);
        }
        state.bytes -= size;
        state.is_new = !state.entries.is_empty();
        state.is_urgent = state.is_new;
        Turn {
            entries,
            dropped: std::mem::take(&mut state.dropped),
            is_more: state.is_new,
            is_closing: state.is_closing,
        }
    }

    /// Puts back what could not be written, to be tried again with the next event, or later. Nobody
    /// is kept waiting for that: returns who is to be told, also of those behind it.
    pub(super) fn give_back(&self, entries: Vec<Entry>, dropped: u64) -> Vec<Reply> {
        let mut state = self.lock();
        state.dropped += dropped;
        for entry in entries.into_iter().rev() {
            state.bytes += entry.body.len() + OVERHEAD;
            state.entries.push_front(entry);
        }
        (state.is_new, state.is_urgent) = (false, false);
        let (mut told, mut kept) = (Vec::new(), VecDeque::new());
        for mut entry in std::mem::take(&mut state.entries) {
            match entry.reply.take() {
                Some(reply) => {
                    state.bytes -= entry.body.len() + OVERHEAD;
                    told.push(reply);
                }
                None => kept.push_back(entry),
            }
        }
        state.entries = kept;
        told
    }

    /// The writer ends: how many events are left, never to be written.
    pub(super) fn end(&self) -> usize {
        let mut state = self.lock();
        state.is_closing = true;
        state.closed = None;
        state.entries.drain(..).count()
    }

    pub(super) fn now(&self) -> Stamp {
        Stamp { time: SystemTime::now(), monotonic: self.start.elapsed() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event as JSON. Its types can all be written as such.
pub(super) fn body(event: &Event<'_>) -> String {
    serde_json::to_string(event).unwrap_or_else(|error| unreachable!("an event is JSON: {error}"))
}
