//! What is logged, to be changed while the agent runs.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Puts another level in force, or says what is wrong with it.
type Set = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The level of the log. What can change it is whoever has set up the log.
#[derive(Default)]
pub struct LogLevel {
    now: Mutex<String>,
    set: OnceLock<Set>,
}

impl LogLevel {
    /// In force now: a level, or directives.
    pub fn new(now: &str) -> Self {
        Self { now: Mutex::new(now.to_owned()), set: OnceLock::new() }
    }

    /// From now on `set` puts another one in force; only the first counts.
    pub fn connect(&self, set: Set) {
        // There is one log.
        let _ = self.set.set(set);
    }

    /// In force now.
    pub fn now(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let set =
            self.set.get().ok_or_else(|| "the log of this agent cannot be changed".to_owned())?;
        set(level)?;
        level.clone_into(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("now", &self.now()).finish_non_exhaustive()
    }
}
