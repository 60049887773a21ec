//! What goes wrong with an authority, in words.

use std::fmt;
use std::io;
use std::path::Path;

/// Why nothing, or not all, was done. Always a local failure, and always for a person to mend.
#[derive(Debug)]
pub struct CaError(String);

impl CaError {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// `verb` completes "cannot".
    pub(super) fn io(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self(format!("cannot {verb} {}: {error}", path.display()))
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaError {}

/// Only output fails without a path.
impl From<io::Error> for CaError {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot write the output: {error}"))
    }
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self(format!("cannot make the certificate: {error}"))
    }
}
