//! Lists of a request that have a most: what is beyond it is counted by one element and thrown away, so that a
//! request of many tiny elements takes no more memory than one that is obeyed.
//!
//! Such a request is refused as `invalid` by whoever asks [`crate::message::ExecSpec::fault`], and in words; the
//! connection goes on.

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Words of a command, or paths of a transfer. As many as `xargs` passes on at once, which has 128 KiB for them,
/// even if they are numbers.
pub const MAX_WORDS: usize = 32_768;
/// Variables.
pub const MAX_VARIABLES: usize = 1024;

/// Reads a list. Of one that is longer than `MOST` there are `MOST + 1` elements.
pub(crate) fn up_to<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(UpTo::<T, MOST>(PhantomData))
}

struct UpTo<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for UpTo<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let expected = elements.size_hint().unwrap_or_default().min(MOST + 1);
        let mut list = Vec::with_capacity(expected);
        while list.len() <= MOST
            && let Some(element) = elements.next_element()?
        {
            list.push(element);
        }
        while list.len() > MOST && elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(list)
    }
}
