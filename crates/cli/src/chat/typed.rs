//! What is typed, as something to do.

use super::pipe::sayable;
use rexec_client::{NoLine, printable};

/// What `/help` shows.
pub(super) const HELP: &str = "\
-- a line goes to everybody in the room
--   /me TEXT   say what you do
--   /who       who is in the room
--   /rooms     which rooms there are
--   /quit      leave; Ctrl-D and Ctrl-C do the same
--   /help      this
-- to say a line that begins with a slash, write two";

/// Why nothing is said of what a terminal marks as pasted and holds more than one line.
const SEVERAL: &str =
    "several lines were pasted, and nothing of them was said; a pipe says them one by one";

/// A line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing but blanks.
    Nothing,
    Say(String),
    Act(String),
    Who,
    Rooms,
    Quit,
    Help,
    /// A word with a slash that means nothing.
    Unknown(String),
    /// A command with a word after it, and it takes none.
    NoWord(&'static str),
    /// It cannot be said, for this reason.
    Refused(String),
    /// There is no reading on, for this reason.
    Broken(String),
}

/// Reads what was typed at the prompt.
pub(super) fn typed(line: &str) -> Typed {
    let line = line.trim();
    if line.contains('\n') {
        return Typed::Refused(SEVERAL.to_owned());
    }
    let Some(command) = line.strip_prefix('/') else { return said(line) };
    if command.starts_with('/') {
        return said(command);
    }
    match command.split_once(char::is_whitespace).unwrap_or((command, "")) {
        ("me", text) if !text.trim().is_empty() => spoken(text.trim(), Typed::Act),
        ("who", "") => Typed::Who,
        ("rooms", "") => Typed::Rooms,
        ("quit", "") => Typed::Quit,
        ("help", "") => Typed::Help,
        ("who", _) => Typed::NoWord("who"),
        ("rooms", _) => Typed::NoWord("rooms"),
        ("quit", _) => Typed::NoWord("quit"),
        ("help", _) => Typed::NoWord("help"),
        (word, _) => Typed::Unknown(word.to_owned()),
    }
}

/// A line of a pipe: it is said as it is.
pub(super) fn said(line: &str) -> Typed {
    spoken(line.trim_end(), Typed::Say)
}

/// What to say about a command that there is not.
pub(super) fn unknown(word: &str) -> String {
    format!("/{} is no command here, or says too little; /help shows all", printable(word))
}

/// What to say about a word after a command that takes none.
pub(super) fn no_word(command: &str) -> String {
    format!("/{command} takes no word after it; /help shows all")
}

fn spoken(text: &str, say: fn(String) -> Typed) -> Typed {
    match sayable(text) {
        Ok(text) => say(text),
        Err(NoLine::Empty) => Typed::Nothing,
        Err(why) => Typed::Refused(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_commands() {
        let say = |text: &str| Typed::Say(text.to_owned());
        for (line, expected) in [
            ("", Typed::Nothing),
            (" \t ", Typed::Nothing),
            (" hi ", say("hi")),
            ("/quit", Typed::Quit),
            ("/who ", Typed::Who),
            ("/rooms", Typed::Rooms),
            ("/rooms all", Typed::NoWord("rooms")),
            ("/who bob", Typed::NoWord("who")),
            ("/quit now", Typed::NoWord("quit")),
            ("/help me", Typed::NoWord("help")),
            (" one\n", say("one")),
            ("one\ntwo", Typed::Refused(SEVERAL.to_owned())),
            ("/me one\ntwo", Typed::Refused(SEVERAL.to_owned())),
            ("/help", Typed::Help),
            ("/me  waves", Typed::Act("waves".to_owned())),
            ("/me", Typed::Unknown("me".to_owned())),
            ("/etc/passwd", Typed::Unknown("etc/passwd".to_owned())),
            ("//etc/passwd", say("/etc/passwd")),
            ("a\tb", say("a    b")),
        ] {
            assert_eq!(typed(line), expected, "{line:?}");
        }
        assert_eq!(said("/quit\r"), say("/quit"));
        assert_eq!(said("  \n"), Typed::Nothing);
        for bad in ["a\x07", "/me a\x07", "\u{200b}", &"x".repeat(4097)] {
            assert!(matches!(typed(bad), Typed::Refused(_)), "{bad:?}");
        }
    }
}
