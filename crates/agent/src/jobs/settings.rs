//! How long jobs wait, and how long and how much of them is kept.

use crate::audit::settings::Size;
use crate::config::{duration, written};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The table `[jobs]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a command runs on whose client fell silent, unless the client says otherwise.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub lease_silent: Duration,
    /// The same for one whose connection was closed without a goodbye.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub lease_closed: Duration,
    /// How long the end of a job with an id of its caller's own is remembered.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub keep_ids: Duration,
    /// How many of those are remembered of one identity; beyond that it can choose no others.
    pub ids_per_identity: usize,
    /// How long the output of a detached job can be fetched after its end.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub keep_output: Duration,
    /// How much output of one job is kept on disk, with 64 bytes for each time it was read.
    pub max_output: Size,
    /// The same of all jobs together.
    pub max_output_total: Size,
}

/// What a job has to have at least, in bytes: a reader tells only now and then what it has.
const LEAST_OUTPUT: u64 = 1 << 20;

impl Settings {
    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), String> {
        for (name, size) in
            [("max_output", self.max_output), ("max_output_total", self.max_output_total)]
        {
            if size.0 < LEAST_OUTPUT {
                return Err(format!("'jobs.{name}' must be 1MiB or more, and not {size}"));
            }
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            lease_silent: Duration::from_secs(60),
            lease_closed: Duration::from_secs(10),
            keep_ids: Duration::from_secs(7 * 24 * HOUR),
            ids_per_identity: 100_000,
            keep_output: Duration::from_secs(24 * HOUR),
            max_output: Size(64 << 20),
            max_output_total: Size(1 << 30),
        }
    }
}
