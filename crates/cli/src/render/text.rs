//! Bytes that come in pieces, as text where they are text.

/// Cuts a stream of bytes into text and what is none. A character that is cut between two pieces is
/// held back, so that it is not taken for what is none.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// At most three bytes: the beginning of a character.
    held: Vec<u8>,
}

/// What a piece is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Text {
    /// Takes the next piece; `None` if there is nothing to show of it yet.
    pub(super) fn push<T>(&mut self, piece: &[u8], emit: impl FnOnce(Part<'_>) -> T) -> Option<T> {
        let joined;
        let bytes = if self.held.is_empty() {
            piece
        } else {
            joined = [&self.held, piece].concat();
            self.held.clear();
            &joined
        };
        let (text, held) = match str::from_utf8(bytes) {
            Ok(text) => (text, &[][..]),
            Err(error) if error.error_len().is_none() => {
                let (whole, cut) = bytes.split_at(error.valid_up_to());
                (str::from_utf8(whole).unwrap_or_default(), cut)
            }
            Err(_) => return Some(emit(self.without_cut(bytes))),
        };
        self.held.extend_from_slice(held);
        (!text.is_empty()).then(|| emit(Part::Text(text)))
    }

    /// The end: what was held back is no text.
    pub(super) fn finish<T>(&mut self, emit: impl FnOnce(Part<'_>) -> T) -> Option<T> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| emit(Part::Bytes(&held)))
    }

    /// Bytes that are no text, but for a character at their end that may go on.
    fn without_cut<'a>(&mut self, bytes: &'a [u8]) -> Part<'a> {
        let longest = bytes.len().min(3);
        let cut = (1..=longest).find(|n| {
            let tail = bytes.get(bytes.len() - n..).unwrap_or_default();
            let starts = tail.first().is_some_and(|first| *first >= 0xc2);
            starts && str::from_utf8(tail).is_err_and(|error| error.error_len().is_none())
        });
        let (bytes, held) = bytes.split_at(bytes.len() - cut.unwrap_or(0));
        self.held.extend_from_slice(held);
        Part::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let show = |part: Part<'_>| match part {
            Part::Text(text) => text.to_owned(),
            Part::Bytes(bytes) => format!("{bytes:x?}"),
        };
        let mut text = Text::default();
        let mut parts: Vec<_> = pieces.iter().filter_map(|piece| text.push(piece, show)).collect();
        parts.extend(text.finish(show));
        parts
    }

    #[test]
    fn characters_that_are_cut_are_put_together_again() {
        let crab = "a🦀z".as_bytes();
        for cut in 1..crab.len() {
            let (one, two) = crab.split_at(cut);
            assert_eq!(all(&[one, two]).concat(), "a🦀z", "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_text_is_bytes() {
        assert_eq!(all(&[b"\xff\x00"]), ["[ff, 0]"]);
        assert_eq!(all(&[b"a\xf0\x9f"]), ["a", "[f0, 9f]"]);
        assert_eq!(all(&[b"\xf0", b"x"]), ["[f0, 78]"]);
    }

    #[test]
    fn text_that_begins_after_what_is_none_is_whole() {
        let (one, two) = "é".as_bytes().split_at(1);
        assert_eq!(all(&[&[b"\xff", one].concat(), two]), ["[ff]", "é"]);
    }
}
