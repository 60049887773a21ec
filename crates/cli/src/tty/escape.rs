//! The escape keys of a terminal session, as ssh has them. What is typed at the start of a line, a `~`
//! and one character more, is for this program; everything else is for the command.
//!
//! A `~` typed twice arrives once. So of two sessions, one in the other, `~.` ends the outer one and
//! `~~.` the inner one. Nothing of this depends on the connection: it is the same while that is away
//! and after it has come back.

/// What is asked of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `~.`: leave at once.
    Leave,
    /// `~d`: leave, and let the command go on.
    Detach,
    /// `~^Z`: stop this program, as a shell's `fg` continues it.
    Suspend,
    /// `~?`: say what there is.
    Help,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the command.
    Bytes(Vec<u8>),
    /// For this program.
    Escape(Escape),
}

/// Finds escapes in what is typed.
#[derive(Debug)]
pub struct Escapes {
    /// `None`: there are none.
    key: Option<u8>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    Inside,
    /// The key was typed at the start of a line, and is held back.
    AfterKey,
}

impl Escapes {
    /// With this key, or without any.
    pub fn new(key: Option<u8>) -> Self {
        Self { key, place: Place::LineStart }
    }

    /// Takes what was typed, and gives what it means.
    pub fn push(&mut self, typed: &[u8]) -> Vec<Typed> {
        let Some(key) = self.key else { return vec![Typed::Bytes(typed.to_vec())] };
        let (mut found, mut bytes) = (Vec::new(), Vec::with_capacity(typed.len() + 1));
        for &byte in typed {
            match (self.place, escape(byte)) {
                (Place::LineStart, _) if byte == key => {
                    self.place = Place::AfterKey;
                    continue;
                }
                (Place::AfterKey, _) if byte == key => {}
                (Place::AfterKey, Some(escape)) => {
                    if !bytes.is_empty() {
                        found.push(Typed::Bytes(std::mem::take(&mut bytes)));
                    }
                    found.push(Typed::Escape(escape));
                    // Still at the start: nothing of this went to the command.
                    self.place = Place::LineStart;
                    continue;
                }
                (Place::AfterKey, None) => bytes.push(key),
                _ => {}
            }
            bytes.push(byte);
            let is_end = matches!(byte, b'\r' | b'\n');
            self.place = if is_end { Place::LineStart } else { Place::Inside };
        }
        if !bytes.is_empty() {
            found.push(Typed::Bytes(bytes));
        }
        found
    }
}

fn escape(byte: u8) -> Option<Escape> {
    const CONTROL_Z: u8 = 0x1a;
    match byte {
        b'.' => Some(Escape::Leave),
        b'd' => Some(Escape::Detach),
        CONTROL_Z => Some(Escape::Suspend),
        b'?' => Some(Escape::Help),
        _ => None,
    }
}

/// What `~?` says.
pub fn help(key: u8) -> String {
    let key = shown(key);
    [
        "escape keys, at the start of a line:".to_owned(),
        format!("  {key}.   leave at once; the command is hung up"),
        format!("  {key}d   leave, and let the command go on"),
        format!("  {key}^Z  suspend rexec"),
        format!("  {key}?   this text"),
        format!("  {key}{key}   the character {key} itself"),
    ]
    .join("\r\n")
}

/// A key as people write it.
pub fn shown(key: u8) -> String {
    if key.is_ascii_control() {
        format!("^{}", char::from(key ^ 0x40))
    } else {
        char::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<Typed> {
        let mut escapes = Escapes::new(Some(b'~'));
        joined(pieces.iter().flat_map(|piece| escapes.push(piece)))
    }

    /// Without the cuts between pieces.
    fn joined(typed: impl IntoIterator<Item = Typed>) -> Vec<Typed> {
        let mut all: Vec<Typed> = Vec::new();
        for typed in typed {
            match (all.last_mut(), typed) {
                (Some(Typed::Bytes(before)), Typed::Bytes(bytes)) => before.extend(bytes),
                (_, typed) => all.push(typed),
            }
        }
        all
    }

    fn bytes(text: &str) -> Typed {
        Typed::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn each_escape_at_the_start_of_a_line_and_nowhere_else() {
        for (keys, escape) in [
            ("~.", Escape::Leave),
            ("~d", Escape::Detach),
            ("~\x1a", Escape::Suspend),
            ("~?", Escape::Help),
        ] {
            assert_eq!(all(&[keys.as_bytes()]), [Typed::Escape(escape)]);
            let line = format!("ls\r{keys}");
            assert_eq!(all(&[line.as_bytes()]), [bytes("ls\r"), Typed::Escape(escape)]);
            let inside = format!("x{keys}");
            assert_eq!(all(&[inside.as_bytes()]), [bytes(&inside)]);
        }
        // Help leaves one where one was.
        assert_eq!(all(&[b"~?~."]), [Typed::Escape(Escape::Help), Typed::Escape(Escape::Leave)]);
    }

    #[test]
    fn what_is_no_escape_arrives() {
        assert_eq!(all(&[b"~~."]), [bytes("~.")]);
        assert_eq!(all(&[b"~x\r~/bin"]), [bytes("~x\r~/bin")]);
        assert_eq!(all(&[b"~", b"\r", b"~."]), [bytes("~\r"), Typed::Escape(Escape::Leave)]);
        assert_eq!(all(&[b"~"]), []);
        assert_eq!(Escapes::new(None).push(b"\r~."), [bytes("\r~.")]);
        assert_eq!(
            Escapes::new(Some(0x1d)).push(b"~.\r\x1d."),
            [bytes("~.\r"), Typed::Escape(Escape::Leave)]
        );
    }

    #[test]
    fn keys_are_shown_as_people_write_them() {
        assert_eq!((shown(b'~'), shown(0x1d)), ("~".to_owned(), "^]".to_owned()));
        assert!(help(b'%').contains("%d   leave, and let"));
    }

    /// What most escapes are made of, so that random texts have many.
    fn typing() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'~'), Just(b'\r'), Just(b'.'), Just(b'd'), any::<u8>()];
        proptest::collection::vec(byte, 0..64)
    }

    proptest! {
        #[test]
        fn where_it_is_cut_makes_no_difference(text in typing(), cuts in proptest::collection::vec(1..8_usize, 64)) {
            let mut rest = text.as_slice();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(all(&pieces), all(&[&text]));
        }

        #[test]
        fn a_text_with_its_keys_doubled_arrives_as_it_is(text in typing()) {
            let mut doubled = Vec::new();
            let mut is_start = true;
            for &byte in &text {
                if is_start && byte == b'~' {
                    doubled.push(byte);
                }
                doubled.push(byte);
                is_start = matches!(byte, b'\r' | b'\n');
            }
            let expected = if text.is_empty() { vec![] } else { vec![Typed::Bytes(text)] };
            prop_assert_eq!(all(&[&doubled]), expected);
        }
    }
}
