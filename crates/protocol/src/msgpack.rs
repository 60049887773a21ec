//! The MessagePack that a peer may send, checked before any of it is decoded.
//!
//! rmp-serde is generous: it allocates by declared lengths, takes a struct from an array or from
//! integer keys, and ignores what follows the value. [`check`] is not: it walks the bytes once,
//! without recursion, and refuses whatever `PROTOCOL.md` does not allow. What passes is as small as
//! it looks, so decoding it allocates in proportion to the bytes that were received.

use crate::error::ProtocolError;
use crate::outcome::shorten;
use rexec_guard::holds;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How much structure a message may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Values in all, containers and keys included.
    pub values: u32,
}

/// For headers.
pub const HEADER: Limits = Limits { values: 512 };
/// For bodies that are messages: an argv of many short words is legitimate.
pub const BODY: Limits = Limits { values: 256 * 1024 };

/// Containers within containers.
pub const MAX_DEPTH: usize = 8;
/// Entries of one map.
pub const MAX_ENTRIES: u32 = 64;

/// Encodes a message with its fields as a map of string keys.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // Every message type is plain data, which rmp-serde cannot fail to write to memory.
    rmp_serde::to_vec_named(message).unwrap_or_default()
}

/// Checks `bytes`, then decodes them. Unknown keys are skipped.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: Limits) -> Result<T, ProtocolError> {
    check(bytes, limits)?;
    rmp_serde::from_slice(bytes)
        .map_err(|error| ProtocolError::Malformed(shorten(error.to_string())))
}

/// Checks that `bytes` are exactly one map, built of nil, booleans, integers, floats, UTF-8
/// strings, byte strings, arrays and maps with distinct string keys, within the limits.
pub fn check(bytes: &[u8], limits: Limits) -> Result<(), ProtocolError> {
    let mut walk = Walk { rest: bytes, open: Vec::new(), keys: Vec::new(), values: limits.values };
    walk.value()
        .and_then(|()| walk.finish())
        .map_err(|why| ProtocolError::Malformed(why.to_owned()))
}

struct Walk<'a> {
    rest: &'a [u8],
    open: Vec<Container>,
    /// The keys of all open maps, innermost last, without their markers: a length can be written
    /// in several ways.
    keys: Vec<&'a [u8]>,
    values: u32,
}

struct Container {
    /// Values still to come; a map counts keys and values.
    left: u32,
    is_map: bool,
    /// Where this map's keys start in [`Walk::keys`].
    first_key: usize,
}

enum Kind<'a> {
    Scalar,
    Text(&'a [u8]),
    Array(u32),
    Map(u32),
}

type Check<T> = Result<T, &'static str>;

impl<'a> Walk<'a> {
    fn finish(&mut self) -> Check<()> {
        while let Some(container) = self.open.last_mut() {
            match container.left.checked_sub(1) {
                Some(left) => {
                    container.left = left;
                    self.value()?;
                }
                None => {
                    self.keys.truncate(container.first_key);
                    self.open.pop();
                }
            }
        }
        if holds("msgpack.trailing", self.rest.is_empty()) {
            Ok(())
        } else {
            Err("bytes after the message")
        }
    }

    fn value(&mut self) -> Check<()> {
        self.values = self.values.checked_sub(1).ok_or("too many values")?;
        let is_top = self.open.is_empty();
        // `left` was already lowered: what is left of a map is odd while its key is read.
        let is_key = self.open.last().is_some_and(|c| c.is_map && c.left % 2 == 1);
        let kind = self.marker()?;
        match kind {
            Kind::Map(entries) => self.descend(entries, true)?,
            _ if is_top => return Err("not a map"),
            Kind::Array(length) => self.descend(length, false)?,
            Kind::Scalar | Kind::Text(_) => {}
        }
        if is_key {
            let Kind::Text(key) = kind else { return Err("a map key that is not a string") };
            self.key(key)?;
        }
        Ok(())
    }

    fn key(&mut self, key: &'a [u8]) -> Check<()> {
        let first = self.open.last().map_or(0, |map| map.first_key);
        let is_new = self.keys.iter().skip(first).all(|known| *known != key);
        if !holds("msgpack.duplicate_key", is_new) {
            return Err("a map key given twice");
        }
        self.keys.push(key);
        Ok(())
    }

    fn descend(&mut self, length: u32, is_map: bool) -> Check<()> {
        if is_map && length > MAX_ENTRIES {
            return Err("a map with too many entries");
        }
        let left = if is_map { length * 2 } else { length };
        if left as usize > self.rest.len() {
            return Err("a length beyond the end");
        }
        if !holds("msgpack.depth", self.open.len() < MAX_DEPTH) {
            return Err("nested too deeply");
        }
        self.open.push(Container { left, is_map, first_key: self.keys.len() });
        Ok(())
    }

    /// Reads one marker and, for scalars and strings, their bytes.
    fn marker(&mut self) -> Check<Kind<'a>> {
        let marker = self.int(1)? as u8;
        let skip = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0, // small integers, nil, booleans
            0x80..=0x8f => return Ok(Kind::Map(u32::from(marker & 0x0f))),
            0x90..=0x9f => return Ok(Kind::Array(u32::from(marker & 0x0f))),
            0xa0..=0xbf => return self.text(u32::from(marker & 0x1f)),
            0xc4..=0xc6 => self.int(1 << (marker - 0xc4))?, // byte strings
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xd9..=0xdb => {
                let length = self.int(1 << (marker - 0xd9))?;
                return self.text(length);
            }
            0xdc | 0xdd => return Ok(Kind::Array(self.int(2 << (marker - 0xdc))?)),
            0xde | 0xdf => return Ok(Kind::Map(self.int(2 << (marker - 0xde))?)),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err("an extension or reserved type"),
        };
        self.take(skip)?;
        Ok(Kind::Scalar)
    }

    fn text(&mut self, length: u32) -> Check<Kind<'a>> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes)
            .map(|_| Kind::Text(bytes))
            .map_err(|_| "a string that is not UTF-8")
    }

    /// A big-endian length of 1, 2 or 4 bytes.
    fn int(&mut self, width: u32) -> Check<u32> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn take(&mut self, n: u32) -> Check<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(n as usize).ok_or("a length beyond the end")?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(bytes: &[u8]) -> Result<(), String> {
        check(bytes, HEADER).map_err(|error| error.to_string())
    }

    fn refused(bytes: &[u8], why: &str) {
        let error = verdict(bytes).expect_err(why);
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    }

    /// A map of one entry with the key "a".
    fn with(value: &[u8]) -> Vec<u8> {
        [b"\x81\xa1a", value].concat()
    }

    #[test]
    fn every_allowed_type_passes() {
        for value in [
            &b"\x00"[..],
            b"\x7f",
            b"\xff",
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\xcc\x01",
            b"\xcd\0\x01",
            b"\xce\0\0\0\x01",
            b"\xcf\0\0\0\0\0\0\0\x01",
            b"\xd0\xff",
            b"\xd1\xff\xff",
            b"\xd2\0\0\0\0",
            b"\xd3\0\0\0\0\0\0\0\0",
            b"\xca\0\0\0\0",
            b"\xcb\0\0\0\0\0\0\0\0",
            b"\xa1x",
            b"\xd9\x01x",
            b"\xda\0\x01x",
            b"\xdb\0\0\0\x01x",
            b"\xc4\x01\xff",
            b"\xc5\0\x01\xff",
            b"\xc6\0\0\0\x01\xff",
            b"\x92\x01\x02",
            b"\xdc\0\x01\x01",
            b"\xdd\0\0\0\x01\x01",
            b"\x80",
            b"\xde\0\x01\xa1k\x01",
            b"\xdf\0\0\0\x01\xa1k\x01",
        ] {
            assert_eq!(verdict(&with(value)), Ok(()), "{value:x?}");
        }
    }

    #[test]
    fn what_rmp_would_let_pass_is_refused() {
        refused(b"\x90", "not a map");
        refused(b"\x01", "not a map");
        refused(b"", "beyond the end");
        refused(b"\x80\x00", "bytes after");
        refused(b"\x81\x01\x01", "key that is not a string");
        refused(b"\x81\xc4\x01a\x01", "key that is not a string");
        refused(b"\x82\xa1a\x01\xa1a\x02", "given twice");
        refused(&with(b"\xa1\xff"), "not UTF-8");
        refused(&with(b"\xc1"), "reserved");
        refused(&with(b"\xd4\0\0"), "extension");
        refused(&with(b"\xc9\xff\xff\xff\xff\0"), "extension");
        for lie in [&b"\xdd\xff\xff\xff\xff"[..], b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
        {
            refused(&with(lie), "beyond the end");
        }
        refused(&with(b"\xdf\xff\xff\xff\xff"), "too many entries");
    }

    #[test]
    fn depth_and_number_of_values_are_capped() {
        let nested = |depth: usize| [&b"\x81\xa1a"[..], &b"\x91".repeat(depth), b"\x01"].concat();
        assert_eq!(verdict(&nested(MAX_DEPTH - 1)), Ok(()));
        for depth in [MAX_DEPTH, 17, 1025, 60_000] {
            refused(&nested(depth), "nested too deeply");
        }
        let wide = |n: u16| [b"\x81\xa1a\xdc", &n.to_be_bytes()[..], &vec![0; n.into()]].concat();
        assert_eq!(verdict(&wide(500)), Ok(()));
        refused(&wide(600), "too many values");
    }

    #[test]
    fn a_key_given_twice_with_different_markers_is_refused() {
        let ways = [&b"\xa1a"[..], b"\xd9\x01a", b"\xda\0\x01a", b"\xdb\0\0\0\x01a"];
        for first in ways {
            for second in ways {
                refused(&[b"\x82", first, b"\x01", second, b"\x02"].concat(), "given twice");
            }
        }
    }

    #[test]
    fn the_same_key_in_different_maps_is_fine() {
        assert_eq!(verdict(b"\x82\xa1a\x81\xa1a\x01\xa1b\x81\xa1a\x01"), Ok(()));
    }

    proptest! {
        /// What passes the check, rmp-serde can walk; and the check itself never panics.
        #[test]
        fn whatever_passes_is_well_formed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if check(&bytes, HEADER).is_ok() {
                prop_assert!(rmp_serde::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
            }
        }
    }
}
