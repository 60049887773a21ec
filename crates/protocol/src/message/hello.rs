use crate::digest::Algorithm;
use crate::text;
use serde::{Deserialize, Serialize};

/// The first frame of each side. See [`crate::hello`] for what follows from the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version this side speaks.
    pub min: u16,
    /// The newest protocol version this side speaks.
    pub max: u16,
    /// Name and version of the software, for logs; nothing may depend on it.
    #[serde(deserialize_with = "text::string")]
    pub software: String,
    /// Digest algorithms beyond the mandatory `sha256`. Names that are not known are ignored.
    #[serde(default, deserialize_with = "known_algorithms")]
    pub digests: Vec<Algorithm>,
    /// This side takes `notice` frames.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notices: bool,
}

fn known_algorithms<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Algorithm>, D::Error> {
    let names = Vec::<String>::deserialize(d)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
