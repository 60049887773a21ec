//! What is logged, to be changed while the agent runs.

use rexec_protocol::printable::printable;
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

/// The levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether this is a level, or directives of the form `TARGET=LEVEL`, with commas between them. The
/// filter itself would take any word for the name of a part of the program, and log nothing else.
pub fn check(words: &str) -> Result<(), String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_good = |word: &str| match word.rsplit_once('=') {
        None => is_level(word),
        Some((target, level)) => !target.trim().is_empty() && is_level(level),
    };
    match words.split(',').map(str::trim).find(|word| !is_good(word)) {
        None => Ok(()),
        Some(word) => Err(format!(
            "'{}' is no level of the log: {}, or TARGET=LEVEL,…",
            printable(word),
            LEVELS.join(", ")
        )),
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["info", "WARN", "off", "info,rexec_agent=debug", "a::b=trace, c[d]=error"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "inof", "info,", "rexec_agent", "a=loud", "=info", "\u{1b}[2J"] {
            let error = check(bad).unwrap_err();
            assert!(error.contains("is no level") && !error.contains('\u{1b}'), "{error}");
        }
    }
}
