use crate::error::ErrorCode;
use crate::text;
use serde::{Deserialize, Serialize};

/// Tells the other side what it did wrong. On stream 0 the connection is closed after it, unless
/// the code is [`ErrorCode::UnknownVerb`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// For programs.
    pub code: ErrorCode,
    /// For people. It came from the other machine: escape it before a terminal shows it.
    #[serde(deserialize_with = "text::string")]
    pub message: String,
}
