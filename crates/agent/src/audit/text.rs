//! What others wrote, as one line of harmless text that can be turned back into the same bytes.
//!
//! A backslash becomes `\\`; a byte that is no UTF-8 becomes `\xNN`; a control character, a line
//! separator, a mark that reorders text or what is not seen becomes `\u{NN}`; all else stays. No other sequence
//! begins with a single backslash, except for the mark `\cut{…}` at the place where something was
//! too long.

use rexec_guard::holds;
use rexec_protocol::outcome::is_harmless;
use rexec_protocol::{Algorithm, digest::Hasher};
use serde::Serialize;
use std::fmt::Write;

/// The longest single text, in bytes of JSON.
const MAX_TEXT: usize = 4096;

/// Escaped text. There is no other way into a record for what a peer sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// `bytes`, escaped, and cut after 4 KiB: then it ends in `\cut{words=1 bytes=N sha256=HASH}`,
    /// of the whole as [`words`] has it.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::up_to(MAX_TEXT, bytes)
    }

    /// The same, cut after this many bytes.
    pub fn up_to(most: usize, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self(words([bytes].into_iter(), most).into_iter().map(|text| text.0).collect())
    }
}

/// Each word escaped. If that takes more than `room` bytes of JSON, the words end where there is no
/// more room, and one more word `\cut{words=N bytes=N sha256=HASH}` counts all of them: the digest
/// is that of the words with a NUL after each, as in `/proc/PID/cmdline`.
pub fn words<'a>(words: impl Iterator<Item = &'a [u8]> + Clone, mut room: usize) -> Vec<Text> {
    let mut texts = Vec::new();
    for word in words.clone() {
        let (text, is_whole) = escape(word, &mut room);
        texts.push(Text(text));
        if !is_whole {
            texts.push(Text(cut_mark(words)));
            break;
        }
    }
    texts
}

fn cut_mark<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let (mut count, mut bytes, mut hasher) = (0, 0, Hasher::new(Algorithm::Sha256));
    for word in words {
        count += 1;
        bytes += word.len();
        hasher.update(word);
        hasher.update(b"\0");
    }
    format!("\\cut{{words={count} bytes={bytes} sha256={}}}", hasher.prefix())
}

/// As much of `bytes` as there is room for, and whether that is all.
fn escape(bytes: &[u8], room: &mut usize) -> (String, bool) {
    // Two quotes and a comma.
    let Some(left) = room.checked_sub(3) else { return (String::new(), false) };
    *room = left;
    let (mut text, mut unit) = (String::new(), String::new());
    for chunk in bytes.utf8_chunks() {
        let characters = chunk.valid().chars().map(Ok);
        for item in characters.chain(chunk.invalid().iter().map(|byte| Err(*byte))) {
            unit.clear();
            match item {
                Ok('\\') => unit.push_str("\\\\"),
                Ok(c) if holds("audit.harmless", is_harmless(c)) => unit.push(c),
                Ok(c) => unit.extend(c.escape_unicode()),
                // Writing to a string does not fail.
                Err(byte) => drop(write!(unit, "\\x{byte:02x}")),
            }
            let Some(left) = room.checked_sub(cost(&unit)) else { return (text, false) };
            *room = left;
            text.push_str(&unit);
        }
    }
    (text, true)
}

/// JSON puts a backslash before each quote and each backslash.
fn cost(unit: &str) -> usize {
    unit.len() + unit.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rexec_protocol::Digest;

    /// The inverse, as the documentation gives it.
    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((plain, escape)) = rest.split_once('\\') {
            bytes.extend(plain.bytes());
            let after = match escape.as_bytes()[0] {
                b'\\' => {
                    bytes.push(b'\\');
                    1
                }
                b'x' => {
                    bytes.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
                    3
                }
                _ => {
                    let end = escape.find('}').unwrap();
                    let code = u32::from_str_radix(&escape[2..end], 16).unwrap();
                    bytes.extend(char::from_u32(code).unwrap().to_string().bytes());
                    end + 1
                }
            };
            rest = &escape[after..];
        }
        bytes.extend(rest.bytes());
        bytes
    }

    proptest! {
        #[test]
        fn what_is_escaped_can_be_turned_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let Text(text) = Text::of(&bytes);
            prop_assert!(text.chars().all(is_harmless), "{:?}", text);
            prop_assert_eq!(unescape(&text), bytes);
        }

        #[test]
        fn so_can_any_text(string in any::<String>(), tail in "[\\\\xu{}0-9a-f]{0,20}") {
            let whole = string + &tail;
            let Text(text) = Text::of(&whole);
            prop_assert!(text.chars().all(is_harmless), "{:?}", text);
            prop_assert_eq!(unescape(&text), whole.into_bytes());
        }

        #[test]
        fn words_never_take_more_than_their_room(
            list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            room in 0_usize..2000,
        ) {
            let texts = words(list.iter().map(Vec::as_slice), room);
            let json = serde_json::to_string(&texts).unwrap();
            prop_assert!(json.len() <= room + 150, "{} > {}", json.len(), room);
            let is_cut = texts.last().is_some_and(|last| last.0.starts_with("\\cut{"));
            prop_assert!(is_cut || texts.len() == list.len());
        }
    }

    #[test]
    fn a_cut_says_what_the_whole_was() {
        let long = vec![b'x'; 5000];
        let texts = words([b"echo".as_slice(), &long, b"never shown"].into_iter(), 1000);
        let whole = [b"echo\0".as_slice(), &long, b"\0never shown\0"].concat();
        let hash = Digest::of(Algorithm::Sha256, &whole);
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert_eq!(texts[2].0, format!("\\cut{{words=3 bytes=5015 sha256={hash}}}"));
        // Nobody can write such a mark.
        assert_eq!(Text::of(&texts[2].0).0, format!("\\{}", texts[2].0));
    }

    #[test]
    fn one_line_for_people() {
        for (bytes, shown) in [
            (b"plain 'text'".as_slice(), "plain 'text'"),
            ("größe".as_bytes(), "größe"),
            (b"a\nb\x1b[0m", r"a\u{a}b\u{1b}[0m"),
            (b"\xff\\x41", r"\xff\\x41"),
            ("\u{202e}\u{2028}\u{85}".as_bytes(), r"\u{202e}\u{2028}\u{85}"),
        ] {
            assert_eq!(Text::of(bytes).0, shown);
        }
    }
}
