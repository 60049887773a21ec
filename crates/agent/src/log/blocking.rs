//! Work that waits for a disk, in threads for that.
//!
//! There are only so many at once, for all jobs: a disk that hangs must not take the threads that others
//! need, as for questions to the user database.

use std::io;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{JoinHandle, spawn_blocking};

/// How many tasks may be at the disk at once.
const AT_ONCE: usize = 64;
/// How many more may be at pipes that the agent was kept out of before: they wait for each other alone.
const STUCK: usize = 256;
static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);
static ROOM_OF_STUCK: Semaphore = Semaphore::const_new(STUCK);

/// Room for one task, until it is dropped.
pub type Place = SemaphorePermit<'static>;

/// A place, as soon as there is one. Safe to cancel.
pub async fn place(was_stuck: bool) -> Option<Place> {
    let room = if was_stuck { &ROOM_OF_STUCK } else { &ROOM };
    // Nobody closes it.
    room.acquire().await.ok()
}

/// A place among those that are stuck, if there is one now.
pub fn place_of_stuck() -> Option<Place> {
    ROOM_OF_STUCK.try_acquire().ok()
}

/// Starts `work` as soon as there is room for it. Safe to cancel: then it was not started.
pub async fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let place = place(false).await;
    spawn_blocking(move || {
        let result = work();
        drop(place);
        result
    })
}

/// Waits for the result of `work`.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    start(work).await.await.map_err(io::Error::other)?
}
