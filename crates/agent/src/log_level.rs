//! What is logged, to be changed while the agent runs.

use rexec_protocol::printable::printable;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

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

/// The filter that these words mean: a level, or directives as [`EnvFilter`] has them, with commas between them.
/// To the parser any word is the name of a part of some program, of which all would be logged, and of the rest
/// nothing; so a word alone is a level, or a part of this one.
pub fn filter(words: &str) -> Result<EnvFilter, String> {
    let words: Vec<&str> = words.split(',').map(str::trim).collect();
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_part = |word: &str| word.starts_with("rexec_") || word.contains(['=', '[', ':']);
    let is_good = |word: &&&str| {
        !word.is_empty() && (is_level(word) || is_part(word)) && word.parse::<Directive>().is_ok()
    };
    if let Some(word) = words.iter().find(|word| !is_good(word)) {
        return Err(format!(
            "'{}' is no level of the log: off, error, warn, info, debug, trace, or TARGET=LEVEL,…",
            printable(word)
        ));
    }
    EnvFilter::try_new(words.join(",")).map_err(|error| error.to_string())
}

/// Whether they mean one.
pub fn check(words: &str) -> Result<(), String> {
    filter(words).map(drop)
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
        for bad in ["", "inof", "info,", "tokio", "a=loud", "=info", "\u{1b}[2J", "a[{b"] {
            let error = check(bad).unwrap_err();
            assert!(error.contains("is no level") && !error.contains('\u{1b}'), "{error}");
        }
        // The parser itself cuts at each comma.
        assert!(check("info,rexec_agent[{a,b}]=debug").is_err());
        assert!(EnvFilter::try_new("info,rexec_agent[{a,b}]=debug").is_err());
    }

    #[test]
    fn what_the_parser_takes_is_a_level() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,rexec_agent=debug",
            "rexec_agent",
            "info,rexec_agent::session",
            "[connection]",
            "info,rexec_agent[connection{from}]=debug",
            "[{user=alice}]=trace",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        // A blank would be a part of the name to the parser.
        let spaced = filter("a::b=trace, c[d]=error").unwrap().to_string();
        assert_eq!(spaced, filter("a::b=trace,c[d]=error").unwrap().to_string());
    }
}
