//! Strings from the wire, strictly: only MessagePack `str`, never `bin`, which rmp-serde would
//! take for a `String` as well.

use serde::de::{Deserializer, Error, Visitor};
use std::fmt;

struct Parse<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Parse<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let Self(what, parse) = self;
        parse(text).ok_or_else(|| E::custom(format_args!("not {what}: {text:?}")))
    }
}

/// Reads a `str` and turns it into a value; `what` names the value in the error.
pub(crate) fn parse<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Parse(what, parse))
}

/// Reads a `str` as it is, for `#[serde(deserialize_with)]`.
pub(crate) fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse(deserializer, "text", |text| Some(text.to_owned()))
}
