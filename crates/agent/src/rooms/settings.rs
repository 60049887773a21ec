//! How much rooms may take.

use crate::config::{duration, written};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The table `[rooms]` of the configuration. Together with the overhead of each event, `rooms` times
/// `history_kib` bounds the memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Rooms at once; the lobby is not counted.
    pub rooms: usize,
    /// Rooms at once that one identity has opened.
    pub rooms_per_identity: usize,
    /// Members of one room.
    pub members: usize,
    /// Rooms that one connection is in at once.
    pub rooms_per_connection: usize,
    /// Events that a room keeps, for those who join, come back or are slow …
    pub history: usize,
    /// … in this much memory at most, in KiB.
    pub history_kib: usize,
    /// Lines that one identity may say per second, in all rooms together; joining and coming back after
    /// a cut count as one each …
    pub lines_per_second: u32,
    /// … and this many at once, after a time without.
    pub lines_burst: u32,
    /// How long a room in which something was said is kept once it is empty; others wait for at most
    /// five minutes for those who were cut off.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub keep_empty: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rooms: 256,
            rooms_per_identity: 32,
            members: 1000,
            rooms_per_connection: 16,
            history: 4096,
            history_kib: 256,
            lines_per_second: 10,
            lines_burst: 50,
            keep_empty: Duration::from_secs(24 * 3600),
        }
    }
}
