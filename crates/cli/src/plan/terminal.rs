//! Whether a command gets a terminal, and what comes with it: as ssh decides it.

use crate::args::CommandOptions;
use crate::config::Env;
use crate::tty::{ESCAPE, Keys};
use std::ffi::OsString;

/// `TERM` where this program has none.
const NO_TERM: &str = "dumb";

/// The terminal of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its type.
    pub term: OsString,
    /// The language and characters of who sits at it.
    pub locale: Vec<(OsString, OsString)>,
    /// How keys are read.
    pub keys: Keys,
}

/// What the options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Yes,
    No,
    /// `-t`, and stdin is not one.
    InVain,
}

/// `-T` and `-t` have unset each other already. Without either, who asks for a shell and sits at a
/// terminal gets one.
pub(super) fn wish(options: &CommandOptions, is_login: bool, stdin_is_terminal: bool) -> Wish {
    match options.terminal {
        _ if options.no_terminal => Wish::No,
        0 if is_login && stdin_is_terminal => Wish::Yes,
        0 => Wish::No,
        1 if !stdin_is_terminal => Wish::InVain,
        _ => Wish::Yes,
    }
}

impl Terminal {
    pub(super) fn new(options: &CommandOptions, env: Env<'_>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_else(|| NO_TERM.into());
        let escape = options.escape.map_or(Some(ESCAPE), |escape| escape.0);
        let locale = LOCALE.into_iter().filter_map(|name| Some((name.into(), set(name)?)));
        Self { term, locale: locale.collect(), keys: Keys { escape } }
    }
}

/// What setlocale(3) reads.
const LOCALE: [&str; 14] = [
    "LANG",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];
