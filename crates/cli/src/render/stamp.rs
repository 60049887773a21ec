//! The time before each line.

use crate::status::writable;
use std::time::SystemTime;

/// Puts times before lines, however they are cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// The piece before this one ended within a line, which has its time already.
    within: bool,
}

impl Stamp {
    /// `bytes`, which came at `time`, with that time (RFC 3339, UTC, milliseconds) before each line that
    /// begins in them.
    pub(super) fn push(&mut self, bytes: &[u8], time: SystemTime) -> Vec<u8> {
        let prefix = format!("{} ", humantime::format_rfc3339_millis(writable(time)));
        let mut stamped = Vec::with_capacity(bytes.len() + 2 * prefix.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within {
                stamped.extend_from_slice(prefix.as_bytes());
            }
            stamped.extend_from_slice(line);
            self.within = !line.ends_with(b"\n");
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_has_one_time_however_it_is_cut() {
        let mut stamp = Stamp::default();
        let mut shown = Vec::new();
        let pieces: [(&[u8], u64); 5] =
            [(b"one\ntw", 1), (b"", 2), (b"o\n\n", 3), (b"\xff", 4), (b"\nend", 5)];
        for (piece, second) in pieces {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            shown.extend(stamp.push(piece, time));
        }
        let expected = b"1970-01-01T00:00:01.000Z one\n\
            1970-01-01T00:00:01.000Z two\n\
            1970-01-01T00:00:03.000Z \n\
            1970-01-01T00:00:04.000Z \xff\n\
            1970-01-01T00:00:05.000Z end";
        assert_eq!(shown.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
