use super::exec::is_false;
use crate::digest::Algorithm;
use crate::outcome::Outcome;
use crate::stream::Tally;
use serde::{Deserialize, Serialize};

/// The last frame of a stream: how its command ended, and what its streams amounted to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended; never one of the outcomes that only a client can know.
    pub outcome: Outcome,
    /// What the command wrote to stdout.
    pub stdout: Tally,
    /// What the command wrote to stderr.
    pub stderr: Tally,
    /// What was received for the command's stdin and verified. The command may have read less.
    pub stdin: Tally,
    /// True if a process that the command left behind still holds stdout or stderr open, so that
    /// later output of that process is not part of the streams.
    #[serde(default)]
    pub held: bool,
    /// What it cost.
    #[serde(default)]
    pub usage: Usage,
    /// With [`Outcome::Lost`]: the agent knows nothing of this job, so that there is nothing to attach to.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unknown: bool,
}

impl Exit {
    /// The exit record of a command that never ran.
    pub fn of_nothing(outcome: Outcome, algorithm: Algorithm) -> Self {
        let nothing = Tally::nothing(algorithm);
        let (stdout, stderr, stdin) = (nothing, nothing, nothing);
        let usage = Usage::default();
        Self { outcome, stdout, stderr, stdin, held: false, usage, unknown: false }
    }
}

/// Resource use of the command and of the children it waited for; see getrusage(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// From start to end, in milliseconds.
    pub wall_ms: u64,
    /// Time on the processor in user mode, in milliseconds.
    pub user_ms: u64,
    /// Time on the processor in the kernel, in milliseconds.
    pub system_ms: u64,
    /// The largest resident set, in KiB.
    pub max_rss_kib: u64,
}
