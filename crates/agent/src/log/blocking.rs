//! Work that waits for a disk, in threads for that.
//!
//! There are only so many at once, for all jobs: a disk that hangs must not take the threads that others
//! need, as for questions to the user database.

use std::io;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

/// How many tasks may be at the disk at once.
const AT_ONCE: usize = 64;
static ROOM: Semaphore = Semaphore::const_new(AT_ONCE);

/// Starts `work` as soon as there is room for it. Safe to cancel: then it was not started.
pub async fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    // Nobody closes it.
    let permit = ROOM.acquire().await.ok();
    spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    })
}

/// Waits for the result of `work`.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    start(work).await.await.map_err(io::Error::other)?
}
