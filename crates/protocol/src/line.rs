//! What may be said in a room or to all: one line of harmless text. The agent refuses anything else;
//! a client that asks here first can say which line of many it is.

use crate::message::MAX_LINE;
use crate::printable::unprintable;
use rexec_guard::holds;

/// Why something is no line that may be said. What would do something to a terminal is refused and not
/// escaped: who says it sees at once that it is not what they meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLine {
    /// Longer than [`MAX_LINE`], in bytes.
    #[error("a line of {0} bytes; at most {MAX_LINE} are allowed")]
    TooLong(u64),
    /// No text.
    #[error("the line is not UTF-8")]
    NotText,
    /// Nothing but blanks.
    #[error("the line is empty")]
    Empty,
    /// A character that may not be shown as it is.
    #[error("the line holds {}, which {}", .0.escape_unicode(), fault(*.0))]
    Unprintable(char),
}

/// The line, or why it is none.
///
/// # Errors
/// [`NoLine`].
pub fn line(bytes: &[u8]) -> Result<&str, NoLine> {
    if !holds("rooms.line_length", bytes.len() <= MAX_LINE) {
        return Err(NoLine::TooLong(bytes.len() as u64));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NoLine::NotText)?;
    if text.trim().is_empty() {
        return Err(NoLine::Empty);
    }
    match unprintable(text) {
        Some(c) if !holds("rooms.harmless", false) => Err(NoLine::Unprintable(c)),
        _ => Ok(text),
    }
}

fn fault(c: char) -> &'static str {
    if c.is_control() {
        "is a control character and could do something to a terminal"
    } else {
        "would not be seen, would reorder the text, or is a mark on too many others"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_text_is_a_line() {
        for good in ["hi", "naïve 日本 🙂", " a ", &"x".repeat(4096)] {
            assert_eq!(line(good.as_bytes()), Ok(good));
        }
        for (bad, says) in [
            ("".as_bytes(), "empty"),
            (b"  \xe3\x80\x80", "empty"),
            (b"a\nb", "\\u{a}, which is a control character"),
            (b"\x1b[2J", "\\u{1b}"),
            ("\u{202e}evil".as_bytes(), "\\u{202e}, which would not be seen"),
            ("\u{200b}\u{200b}".as_bytes(), "\\u{200b}"),
            ("\u{3164}".as_bytes(), "\\u{3164}"),
            ("\u{fe0f}".as_bytes(), "\\u{fe0f}"),
            (b"\x9b31m", "not UTF-8"),
            (b"a\0", "\\u{0}"),
            (&[b'x'; 4097], "4097 bytes; at most 4096"),
        ] {
            let error = line(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
