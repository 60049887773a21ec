//! `[audit]` in the configuration file.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the audit log is, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Without it, nothing is on record; for tests.
    pub enabled: bool,
    /// The file. Its folder is made if it is missing, and holds the rotated files too.
    pub file: PathBuf,
    /// What a command waits for before it starts.
    pub fsync: Fsync,
    /// A file that would grow beyond this is rotated; `0` for never.
    pub max_size: Size,
    /// How many rotated files are kept; `0` for all.
    pub keep: usize,
}

/// What a command waits for before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// For its record to be on the disk: it survives a power failure.
    Always,
    /// For its record to be in the file, which the agent's death does not undo; it is on the disk a
    /// second later at most.
    Batch,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            file: "/var/log/rexec/audit.jsonl".into(),
            fsync: Fsync::Batch,
            max_size: Size(64 << 20),
            keep: 0,
        }
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Batch => "batch",
        })
    }
}

/// A number of bytes; written as `64MiB`, `512KiB`, `1GiB` or plain digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let number = digits.trim_end().parse::<u64>().ok();
        number
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| format!("not a size: {text:?}: write it as 64MiB, 512KiB or 1GiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, shift): &&(&str, u32)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(fits) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_write_them() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("1000", 1000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for bad in ["", "MiB", "64MB", "-1", "99999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
