//! Whether anybody is left to read stdout, as far as that can be told before something is written: at a pipe
//! of which the other end is closed, as `head` leaves it. GNU tail looks in the same way.
//!
//! Only who looks on leaves then. A command goes on as one that runs here would: it may have no more to say, and a
//! FIFO may get another reader.

use nix::sys::stat::{SFlag, fstat};
use std::future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whoever reads stdout.
#[derive(Debug)]
pub(crate) struct Reader(Option<AsyncFd<OwnedFd>>);

impl Reader {
    /// The one of this process. Needs a runtime.
    pub(crate) fn of_stdout() -> Self {
        let is_pipe = fstat(io::stdout()).is_ok_and(|file| {
            SFlag::from_bits_truncate(file.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFIFO
        });
        // Without one more descriptor the reader is missed with the next write.
        Self(if is_pipe {
            io::stdout().as_fd().try_clone_to_owned().ok().and_then(watch)
        } else {
            None
        })
    }

    /// One of which nothing is known before something is written.
    pub(crate) fn unknown() -> Self {
        Self(None)
    }

    /// Waits until it has closed the pipe; for ever where that cannot be told.
    pub(crate) async fn left(&self) {
        match &self.0 {
            Some(pipe) if pipe.ready(Interest::ERROR).await.is_ok() => {}
            _ => future::pending().await,
        }
    }
}

#[allow(unsafe_code, reason = "who registers a descriptor answers for it")]
fn watch(pipe: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: it is owned by what this makes, so that it is open, and the same, as long as that is there.
    unsafe { AsyncFd::register_with_interest(pipe, Interest::ERROR) }.ok()
}
