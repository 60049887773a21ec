//! What ends a whole transfer. What is wrong with one file does not.

use std::io;

/// Why a transfer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way to the other end is gone.
    #[error("the transfer was cut: {0}")]
    Cut(#[from] io::Error),
    /// The other end breaks the rules.
    #[error("the other end broke the rules of a transfer: {0}")]
    Peer(String),
    /// What the destination is makes it impossible.
    #[error("{0}")]
    Target(String),
    /// The other end has given up.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The other end breaks the rules.
    pub(crate) fn peer(what: impl Into<String>) -> Self {
        Self::Peer(what.into())
    }
}

/// An errno in words, without its number.
pub(crate) fn why(error: impl Into<io::Error>) -> String {
    let error = error.into();
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}
