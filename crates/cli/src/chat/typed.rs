//! What is typed, as something to do.

use rexec_client::printable;

/// What `/help` shows.
pub(super) const HELP: &str = "\
-- a line goes to everybody in the room
--   /me TEXT   say what you do
--   /who       who is in the room
--   /quit      leave; Ctrl-D and Ctrl-C do the same
--   /help      this
-- to say a line that begins with a slash, write two";

/// A line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing but blanks.
    Nothing,
    Say(String),
    Act(String),
    Who,
    Quit,
    Help,
    /// A word with a slash that means nothing.
    Unknown(String),
    /// There is no reading on, for this reason.
    Broken(String),
}

/// Reads what was typed at the prompt.
pub(super) fn typed(line: &str) -> Typed {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else { return said(line) };
    if command.starts_with('/') {
        return said(command);
    }
    match command.split_once(char::is_whitespace).unwrap_or((command, "")) {
        ("me", text) if !text.trim().is_empty() => Typed::Act(harmless(text.trim())),
        ("who", "") => Typed::Who,
        ("quit", "") => Typed::Quit,
        ("help", "") => Typed::Help,
        (word, _) => Typed::Unknown(word.to_owned()),
    }
}

/// A line of a pipe: it is said as it is.
pub(super) fn said(line: &str) -> Typed {
    let line = line.trim_end();
    if line.trim_start().is_empty() { Typed::Nothing } else { Typed::Say(harmless(line)) }
}

/// What to say about a command that there is not.
pub(super) fn unknown(word: &str) -> String {
    format!("/{} is no command here, or says too little; /help shows all", printable(word))
}

/// As it may be said: tabs as blanks, and what would do something to a terminal as text.
fn harmless(text: &str) -> String {
    printable(&text.replace('\t', "    "))
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
            ("/help", Typed::Help),
            ("/me  waves", Typed::Act("waves".to_owned())),
            ("/me", Typed::Unknown("me".to_owned())),
            ("/etc/passwd", Typed::Unknown("etc/passwd".to_owned())),
            ("//etc/passwd", say("/etc/passwd")),
            ("a\tb\x07", say("a    b\\u{7}")),
        ] {
            assert_eq!(typed(line), expected, "{line:?}");
        }
        assert_eq!(said("/quit\r"), say("/quit"));
        assert_eq!(said("  \n"), Typed::Nothing);
    }
}
