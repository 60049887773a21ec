//! What goes over the console's socket: one line of JSON for a request, one for its answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The words, as they are typed.
    pub words: Vec<String>,
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
}

impl Answer {
    /// It was done.
    pub fn yes(text: impl Into<String>, data: impl Serialize) -> Self {
        // Plain data can always be written.
        let data = serde_json::to_value(data).unwrap_or_default();
        Self { ok: true, text: text.into(), data }
    }

    /// It was not.
    pub fn no(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into(), data: Value::Null }
    }

    /// As it travels.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
