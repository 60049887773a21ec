//! The local terminal in raw mode, and the promise that it does not stay so.
//!
//! While a session lasts, keys go to the command one by one and as they are: the terminal here neither
//! echoes, nor edits lines, nor makes signals of them; the one there does. What it was like before is
//! restored when the guard is dropped, whichever way that comes about, and by a panic, which in a
//! release drops nothing.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io;
use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What the terminal was like before it became raw; `None` while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on stdin is raw. There is one at a time.
#[derive(Debug)]
pub struct Raw {
    modes: Termios,
}

impl Raw {
    /// Makes it raw.
    pub fn enter() -> io::Result<Self> {
        let modes = tcgetattr(io::stdin())?;
        restore_on_panic();
        let guard = Self { modes };
        guard.again()?;
        Ok(guard)
    }

    /// Makes it as it was, for a while.
    pub fn pause(&self) {
        restore(&mut before());
    }

    /// Makes it raw again.
    pub fn again(&self) -> io::Result<()> {
        let mut raw = self.modes.clone();
        raw.make_raw();
        let mut before = before();
        // What was typed ahead stays.
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        *before = Some(self.modes.clone());
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&mut before());
    }
}

/// Whether the terminal is raw now: a line that is written then needs its own carriage return.
pub fn is_raw() -> bool {
    before().is_some()
}

fn restore(before: &mut Option<Termios>) {
    if let Some(modes) = before.take() {
        // If it is gone, nobody sees what it is like.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &modes);
    }
}

/// A panic prints first, and a release ends with it.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Held by whoever panicked, it would be waited for in vain.
            if let Ok(mut before) = BEFORE.try_lock() {
                restore(&mut before);
            }
            next(info);
        }));
    });
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}
