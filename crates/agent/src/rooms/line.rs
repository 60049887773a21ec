//! What may be said: one line of harmless text.

use rexec_guard::holds;
use rexec_protocol::message::MAX_LINE;
use rexec_protocol::outcome::is_harmless;

/// The line, or why it is none. What would do something to a terminal is refused and not escaped: who
/// says it sees at once that it is not what they meant.
pub(crate) fn line(bytes: &[u8]) -> Result<&str, String> {
    if !holds("rooms.line_length", bytes.len() <= MAX_LINE) {
        return Err(format!("a line of {} bytes; at most {MAX_LINE} are allowed", bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err("the line is not UTF-8".to_owned());
    };
    if text.trim().is_empty() {
        return Err("the line is empty".to_owned());
    }
    match text.chars().find(|c| !is_harmless(*c)) {
        Some(c) if !holds("rooms.harmless", false) => Err(format!(
            "the line holds the control character {}, which could do something to a terminal",
            c.escape_unicode()
        )),
        _ => Ok(text),
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
            (b"a\nb", "\\u{a}"),
            (b"\x1b[2J", "\\u{1b}"),
            ("\u{202e}evil".as_bytes(), "\\u{202e}"),
            (b"\x9b31m", "not UTF-8"),
            (b"a\0", "\\u{0}"),
            (&[b'x'; 4097], "4097 bytes; at most 4096"),
        ] {
            let error = line(bad).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
