//! What goes over the console's socket: one line of JSON for a request, one for its answer; and before
//! that one for what it waits for, if the request says that whoever made it would like to know.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The words, as they are typed.
    pub words: Vec<String>,
    /// Whether an answer may come in two parts, the first of which says what is waited for.
    #[serde(default)]
    pub tell: bool,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// For people; with lines, and no newline at its end.
    pub text: String,
    /// For programs.
    #[serde(default)]
    pub data: Value,
    /// Whether this only says what is waited for, and the answer comes later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Answer {
    /// It was done.
    pub fn yes(text: impl Into<String>, data: impl Serialize) -> Self {
        // Plain data can always be written.
        let data = serde_json::to_value(data).unwrap_or_default();
        Self { ok: true, text: text.into(), data, more: false }
    }

    /// It was not.
    pub fn no(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into(), data: Value::Null, more: false }
    }

    /// As it travels.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
