//! Whether stdout was closed when this program was started, as with `>&-`.
//!
//! Rust's runtime opens /dev/null in the place of a standard descriptor that is closed, and from then on all
//! that is written there seems to have been written. The system calls what `.init_array` lists before that.

use nix::libc;
use std::io::{self, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT: AtomicBool = AtomicBool::new(false);

#[used]
#[allow(unsafe_code, reason = "the section is that of a pointer to a function, which this is")]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Nothing of Rust's runtime is there yet: this asks the system, and remembers the answer.
#[allow(unsafe_code, reason = "a descriptor that may be none has no safe type")]
extern "C" fn look() {
    // SAFETY: F_GETFD passes no pointer, and a descriptor that is none is what it is asked about.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT.store(flags == -1, Ordering::Relaxed);
}

/// This process's stdout; an error if what is written there would only seem to be.
pub(crate) fn stdout() -> io::Result<Stdout> {
    if STDOUT.load(Ordering::Relaxed) {
        return Err(io::Error::other("stdout is closed"));
    }
    Ok(io::stdout())
}
