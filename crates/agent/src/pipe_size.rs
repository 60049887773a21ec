//! Larger pipes for those commands that move much.

use crate::unstick::{Side, Watch};
use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::AsFd;

/// The most that a pipe can hold; see pipe(7), `pipe-max-size`.
pub const PIPE_CAPACITY: usize = 1024 * 1024;
/// Moving this much at once shows bulk: it is what a pipe holds unless it was enlarged; see pipe(7).
const BULK: usize = 64 * 1024;
/// A larger pipe saves wake-ups on both sides. Few commands get there, so the user's limit on pipe
/// memory is spared.
const ENLARGED: i32 = 512 * 1024;

/// Whether a pipe was enlarged.
#[derive(Debug, Default)]
pub struct PipeSize {
    enlarged: bool,
}

impl PipeSize {
    /// Takes note that `n` bytes were at hand at once; enlarges the pipe, once, if that is much.
    /// The watch is the pipe's.
    pub fn moved(&mut self, pipe: impl AsFd, n: usize, (watch, side): (&Watch, Side)) {
        if n < BULK || self.enlarged {
            return;
        }
        self.enlarged = true;
        let enlarge = || fcntl(pipe, FcntlArg::F_SETPIPE_SZ(ENLARGED));
        if let Err(error) = watch.during(side, enlarge) {
            tracing::debug!(%error, "a pipe stays at its default size");
        }
    }
}
