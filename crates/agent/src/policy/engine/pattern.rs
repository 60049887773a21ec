//! What words, paths and the names of hosts match, byte for byte.
//!
//! A pattern is a list of elements, and is matched element by element: a blank, a quote or a slash
//! in a word never makes one word into two. The same search runs on both levels, over the bytes of
//! an element and over the elements of a list.

use rexec_guard::holds;

/// The element that stands for any number of elements.
const MANY: &str = "**";
/// The element that stands for the login shell of the account that the command runs as.
const SHELL: &str = "$SHELL";

/// A pattern for one element: `*` is any bytes, `?` is one byte, `\` takes the next byte literally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    One,
    Any,
}

/// A pattern for a list of elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words(Vec<Element>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Many,
    Shell,
    One(Glob),
}

impl Glob {
    /// Reads a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            pieces.push(match byte {
                b'*' => Piece::Any,
                b'?' => Piece::One,
                b'\\' => Piece::Byte(bytes.next().ok_or_else(|| {
                    format!("'{text}' ends in a backslash; a literal one is written \\\\")
                })?),
                0 => return Err("a pattern holds a NUL byte, which no word can".to_owned()),
                byte => Piece::Byte(byte),
            });
        }
        Ok(Self(pieces))
    }

    /// The one thing that matches, if there is but one.
    fn literal(&self) -> Option<Vec<u8>> {
        let byte = |piece: &Piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            Piece::One | Piece::Any => None,
        };
        self.0.iter().map(byte).collect()
    }

    /// Whether all of `bytes` matches.
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        search(
            &self.0,
            bytes,
            |piece| *piece == Piece::Any,
            |piece, byte| match piece {
                Piece::Byte(wanted) => wanted == byte,
                Piece::One | Piece::Any => true,
            },
        )
    }

    /// Whether it matches one text only.
    pub(super) fn is_literal(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Byte(_)))
    }

    /// The bytes with which all that it matches begins.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let literal = |piece: &Piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            Piece::One | Piece::Any => None,
        };
        self.0.iter().map_while(literal).collect()
    }
}

impl Words {
    /// Reads the pattern of a command.
    pub(super) fn command(words: &[String]) -> Result<Self, String> {
        match words {
            [] => Err("a command of no words matches nothing".to_owned()),
            _ => words.iter().map(|word| Element::parse(word)).collect::<Result<_, _>>().map(Self),
        }
    }

    /// The first of them, if there is but one that matches.
    pub(super) fn first(&self) -> Option<Vec<u8>> {
        match self.0.first()? {
            Element::One(glob) => glob.literal(),
            Element::Many | Element::Shell => None,
        }
    }

    /// Reads the pattern of a path.
    pub(super) fn path(text: &str) -> Result<Self, String> {
        let elements = path_elements(text.as_bytes()).ok_or_else(|| {
            format!(
                "'{text}' is not an absolute path without empty, '.' and '..' parts: '/srv/app/**'"
            )
        })?;
        let read = |element: &&[u8]| match String::from_utf8_lossy(element).as_ref() {
            MANY => Ok(Element::Many),
            element => Glob::parse(element).map(Element::One),
        };
        elements.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Reads the pattern of a host's name.
    pub(super) fn name(text: &str) -> Result<Self, String> {
        let read = |label| match label {
            "" => Err(format!("'{text}' has an empty part; a host is written db.internal")),
            MANY => Ok(Element::Many),
            label => Glob::parse(label).map(Element::One),
        };
        text.split('.').map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all of `elements` matches, where the login shell is `shell`.
    pub(super) fn matches(&self, elements: &[&[u8]], shell: &[u8]) -> bool {
        search(
            &self.0,
            elements,
            |part| *part == Element::Many,
            |part, element| match part {
                Element::One(glob) => glob.matches(element),
                Element::Shell => *element == shell,
                Element::Many => true,
            },
        )
    }

    /// Whether it ends with any number of elements, so that it includes all below what it includes.
    pub(super) fn is_open_ended(&self) -> bool {
        self.0.last() == Some(&Element::Many)
    }

    /// Whether it may include something at or below the place of `elements`: then its first parts, or
    /// all, are a pattern that includes that place.
    pub(super) fn reaches_below(&self, elements: &[&[u8]]) -> bool {
        (0..=self.0.len()).any(|end| {
            let start = self.0.get(..end).unwrap_or_default();
            Self(start.to_vec()).matches(elements, b"")
        })
    }
}

impl Element {
    fn parse(word: &str) -> Result<Self, String> {
        match word {
            MANY => Ok(Self::Many),
            SHELL => Ok(Self::Shell),
            word => Glob::parse(word).map(Self::One),
        }
    }
}

/// The parts of an absolute path; `None` if another path could name the same file without a link:
/// a relative one, or one with empty, `.` or `..` parts. The root itself has no parts.
pub(super) fn path_elements(path: &[u8]) -> Option<Vec<&[u8]>> {
    let rest = path.strip_prefix(b"/")?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let is_plain = |part: &&[u8]| {
        let is_name = !matches!(*part, b"" | b"." | b"..") && !part.contains(&0);
        holds("policy.plain_path", is_name)
    };
    rest.split(|byte| *byte == b'/').map(|part| Some(part).filter(is_plain)).collect()
}

/// Whether `pattern` matches all of `items`, where some of its parts stand for any number of items.
///
/// Such a part first takes nothing, and one item more each time the rest does not fit. Only the
/// last one seen is ever returned to: an earlier one that took more could not help. So the time is
/// at most the product of the two lengths, whatever a caller sends.
fn search<P, T>(
    pattern: &[P],
    items: &[T],
    is_many: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut parts, mut rest) = (pattern, items);
    let mut back: Option<(&[P], &[T])> = None;
    loop {
        match (parts.split_first(), rest.split_first()) {
            (None, None) => return true,
            (Some((part, after)), _) if is_many(part) => {
                back = Some((after, rest));
                parts = after;
            }
            (Some((part, after)), Some((item, fewer))) if fits(part, item) => {
                (parts, rest) = (after, fewer);
            }
            _ => {
                let Some((after, taken)) = back else { return false };
                let Some((_, fewer)) = taken.split_first() else { return false };
                back = Some((after, fewer));
                (parts, rest) = (after, fewer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(text.as_bytes())
    }

    fn words(pattern: &[&str], text: &[&str]) -> bool {
        let pattern: Vec<String> = pattern.iter().map(|&word| word.to_owned()).collect();
        let text: Vec<&[u8]> = text.iter().map(|word| word.as_bytes()).collect();
        Words::command(&pattern).unwrap().matches(&text, b"/bin/bash")
    }

    fn path(pattern: &str, path: &str) -> bool {
        let Some(elements) = path_elements(path.as_bytes()) else { return false };
        Words::path(pattern).unwrap().matches(&elements, b"")
    }

    #[test]
    fn bytes_of_an_element() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a b/c\n", true),
            ("?", "", false),
            ("?", "ab", false),
            ("a*b", "ab", true),
            ("a*b", "a-b-b", true),
            ("a*b", "a-b-c", false),
            ("*.log", "x.log.log", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("\\?\\\\", "?\\", true),
            ("a**b", "axxb", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxcxxbxxaxx", false),
            ("web", "Web", false),
            ("web", "web ", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern:?} {text:?}");
        }
        assert!(Glob::parse("*").unwrap().matches(&[0xff, 0xfe]), "bytes that are no text");
        assert!(Glob::parse("a\\").unwrap_err().contains("backslash"));
    }

    #[test]
    fn words_of_a_command() {
        for (pattern, text, fits) in [
            (&["ls"][..], &["ls"][..], true),
            (&["ls"], &["ls", "-l"], false),
            (&["ls", "*"], &["ls"], false),
            (&["ls", "*"], &["ls", ""], true),
            (&["ls", "*"], &["ls", "a", "b"], false),
            (&["ls", "**"], &["ls"], true),
            (&["ls", "**"], &["ls", "a", "b"], true),
            (&["ls", "**", "z"], &["ls", "z", "a", "z"], true),
            (&["ls", "**", "z"], &["ls", "z", "a"], false),
            (&["ls", "a b"], &["ls", "a", "b"], false),
            (&["ls a"], &["ls", "a"], false),
            (&["$SHELL", "-c", "*"], &["/bin/bash", "-c", "id; id"], true),
            (&["$SHELL", "-c", "*"], &["/bin/sh", "-c", "id"], false),
            (&["\\$SHELL"], &["$SHELL"], true),
            (&["\\*\\*"], &["**"], true),
            (&["\\*\\*"], &["x", "y"], false),
            (&["**"], &[], true),
        ] {
            assert_eq!(words(pattern, text), fits, "{pattern:?} {text:?}");
        }
        assert!(Words::command(&[]).is_err());
    }

    #[test]
    fn parts_of_a_path() {
        for (pattern, text, fits) in [
            ("/srv/**", "/srv/a/b", true),
            ("/srv/**", "/srv", true),
            ("/srv/**", "/srvx", false),
            ("/srv/*", "/srv/a/b", false),
            ("/srv/*/c", "/srv/a/c", true),
            ("/**/key", "/a/b/key", true),
            ("/**", "/", true),
            ("/", "/a", false),
            ("/**", "/a/../b", false),
            ("/**", "/a//b", false),
            ("/**", "/a/./b", false),
            ("/**", "/a/", false),
            ("/**", "a", false),
            ("/**", "", false),
            ("/**", "/a\0b", false),
            ("/**", "/...", true),
        ] {
            assert_eq!(path(pattern, text), fits, "{pattern:?} {text:?}");
        }
        for bad in ["", "srv", "/srv/", "/srv//x", "/srv/../x", "./x"] {
            assert!(Words::path(bad).is_err(), "{bad:?}");
        }
    }
}
