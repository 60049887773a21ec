//! Keepers whose command is over, and which are ready for another: so a short command costs neither the
//! fork of a keeper nor the end of one.
//!
//! A spare is a keeper as the zygote has them ready, but that it has a line of its own, and that it has said
//! already who it is. A keeper below which anything is left does not become one.

use super::attempt::{Attempt, DEADLINE, Taken, answer};
use super::handle::Line;
use super::room::Room;
use super::wire::{Order, Report};
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How many there are at most: as many as one who runs commands side by side is likely to have.
pub(super) const MOST: usize = 8;
/// An agent that may have fewer descriptors has no spares: their six each would be missing elsewhere.
const ENOUGH_DESCRIPTORS: u64 = 1024;
/// How long one waits for a command, in an agent.
pub(super) const IDLE: Duration = Duration::from_secs(2);
/// How long a keeper may take to become one.
const PATIENCE: Duration = Duration::from_secs(2);

/// All of them. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Spares {
    most: usize,
    idle: Duration,
    state: Mutex<State>,
    has_come: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The one that has waited longest is the first.
    ready: Vec<Spare>,
    /// Keepers that were asked to become one.
    coming: usize,
}

/// One keeper.
#[derive(Debug)]
pub(super) struct Spare {
    line: Line,
    taken: Taken,
    since: Instant,
}

impl Spares {
    /// `idle` is how long one waits for a command.
    pub(super) fn new(idle: Duration) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let most = if limit < ENOUGH_DESCRIPTORS { 0 } else { MOST };
        Self { most, idle, state: Mutex::default(), has_come: Notify::new() }
    }

    /// The one that has waited for the shortest time: what it needs is likely to be in the caches.
    pub(super) fn take(&self) -> Option<Spare> {
        self.lock().ready.pop()
    }

    /// Ends all of them: their descriptors are wanted. False if there were none.
    pub(super) fn dismiss(&self) -> bool {
        !std::mem::take(&mut self.lock().ready).is_empty()
    }

    /// Keeps a place for a keeper. False if there are enough.
    pub(super) fn reserve(&self) -> bool {
        let mut state = self.lock();
        let has_place = state.ready.len() + state.coming < self.most;
        state.coming += usize::from(has_place);
        has_place
    }

    /// Takes back the keeper of a job that is over, for which a place was kept.
    pub(super) fn take_back(self: Arc<Self>, mut line: Line) {
        tokio::spawn(async move {
            // Without room for what it brings, what comes of that would belong to nobody.
            let taken = match Room::for_spare() {
                Ok(room) => timeout(PATIENCE, again(&mut line, room)).await,
                Err(error) => Ok(line.say(&Order::Release {}).await.and(Err(error))),
            };
            let mut state = self.lock();
            state.coming -= 1;
            // If not, something is left below it, or it cannot prepare another command: it ends.
            if let Ok(Ok(taken)) = taken {
                state.ready.push(Spare { line, taken, since: Instant::now() });
                self.has_come.notify_one();
            }
        });
    }

    /// Ends each that has been idle for too long, for ever.
    pub(super) async fn tend(self: Arc<Self>) {
        loop {
            match self.dismiss_idle() {
                Some(next) => sleep_until(next).await,
                None => self.has_come.notified().await,
            }
        }
    }

    /// Says when to look again.
    fn dismiss_idle(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        state.ready.retain(|spare| now.duration_since(spare.since) < self.idle);
        state.ready.first().map(|oldest| oldest.since + self.idle)
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed by steps that do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a keeper to become a spare, and waits until it is.
async fn again(line: &mut Line, room: Room) -> io::Result<Taken> {
    line.say(&Order::Again {}).await?;
    line.speaks().await?;
    drop(room);
    match line.hear().await? {
        Some(Report::Taken { pid, keeper, cgroup }) => {
            Taken::new([pid, keeper], cgroup, line.inbox.take_fds())
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Spare {
    /// Hands an order to it. `room` is for a terminal.
    pub(super) async fn order(self, frame: &[u8], room: Room) -> Attempt {
        let Self { mut line, taken, .. } = self;
        let deadline = Instant::now() + DEADLINE;
        match timeout_at(deadline, line.send(frame)).await {
            Ok(Ok(())) => answer(line, Some(taken), room, deadline).await,
            Ok(Err(error)) => Attempt::NotTaken { error, is_taken: true },
            // It is stopped, and nobody has read all of the order.
            Err(elapsed) => Attempt::NotTaken { error: elapsed.into(), is_taken: true },
        }
    }
}
