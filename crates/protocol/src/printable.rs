//! The one place that decides which text of another machine may reach a terminal as it is: what would
//! drive the terminal, reorder text, not be seen, or spill over its neighbours, is escaped.
//! (CVE-2019-6109 and its kin: a peer's words must not drive the terminal, nor pass for another's.)

use rexec_guard::holds;
use unicode_width::UnicodeWidthChar;

/// How many marks may be on one character. Vietnamese, Thai, Hebrew with points and accents, and emoji
/// with all that belongs to them need four; a heap that covers the lines above and below is higher.
const MARKS: usize = 4;

/// Text from another machine, safe to show: each character that may not be shown as it is becomes
/// `\u{NN}`.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (c, is_shown) in judged(text) {
        if holds("text.harmless", is_shown) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown
}

/// The first character of `text` that [`printable`] escapes.
pub fn unprintable(text: &str) -> Option<char> {
    judged(text).find(|(_, is_shown)| !is_shown).map(|(c, _)| c)
}

/// Whether a character may be shown as it is, wherever it stands: it is no control character, ends no
/// line, does not reorder text, and is seen.
pub fn is_harmless(c: char) -> bool {
    let reorders = matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    let ends_line = matches!(c, '\u{2028}' | '\u{2029}');
    !(c.is_control() || reorders || ends_line || is_unseen(c))
}

/// Each character, and whether it may be shown as it is after those before it.
fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    // Where there is nothing to be on, a mark would be on the text before this one.
    let mut marks = MARKS;
    text.chars().map(move |c| {
        let is_mark = c.width() == Some(0);
        marks = match (is_harmless(c), is_mark) {
            (true, true) => marks.saturating_add(1),
            (true, false) if !c.is_whitespace() => 0,
            _ => MARKS,
        };
        (c, is_harmless(c) && (!is_mark || marks <= MARKS))
    })
}

/// Whether nothing is seen of it, and it is no blank either: Unicode's `Default_Ignorable_Code_Point`,
/// annotations, and the blank of Braille. But for the joiners and the two selectors that emoji and
/// several scripts are written with: they count as marks.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_cannot_drive_the_terminal() {
        let hostile = "a\x1b]0;x\x07\u{9b}31m\u{202e}\r\n";
        let shown = printable(hostile);
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown:?}");
        assert_eq!(printable("größe ok"), "größe ok");
    }

    #[test]
    fn what_is_not_seen_is_shown() {
        for c in [
            '\u{200b}',
            '\u{2060}',
            '\u{ad}',
            '\u{34f}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{2800}',
            '\u{fe00}',
            '\u{feff}',
            '\u{e0041}',
            '\u{e0101}',
            '\u{115f}',
            '\u{1160}',
            '\u{2066}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(printable(&text), format!("a{}b", c.escape_unicode()));
            assert_eq!(unprintable(&text), Some(c));
        }
        // With nothing before them they would not be seen, or be on what is not theirs.
        for mark in ['\u{200d}', '\u{200c}', '\u{fe0f}', '\u{301}'] {
            let escaped = mark.escape_unicode();
            assert_eq!(printable(&mark.to_string()), escaped.to_string());
            assert_eq!(printable(&format!("a {mark}")), format!("a {escaped}"));
        }
    }

    #[test]
    fn marks_do_not_make_a_heap() {
        let heap = format!("z{}y", "\u{301}\u{489}".repeat(10));
        let shown = printable(&heap);
        assert!(shown.starts_with("z\u{301}\u{489}\u{301}\u{489}\\u{301}"), "{shown}");
        assert_eq!(shown.chars().filter(|c| c.width() == Some(0)).count(), MARKS);
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "naïve 日本 🙂",
            "Vie\u{302}\u{323}t",
            "שָׁ֑לוֹם",
            "ที่นี่",
            "नमस्ते क्षत्रिय",
            "می\u{200c}خواهم",
            "❤\u{fe0f} 1\u{fe0f}\u{20e3} 👩🏽\u{200d}💻 🏳\u{fe0f}\u{200d}🌈",
            "한국 \u{1112}\u{1161}\u{11ab}",
            "no\u{a0}break\u{3000}",
        ] {
            assert_eq!(printable(text), text);
            assert_eq!(unprintable(text), None, "{text}");
        }
    }
}
