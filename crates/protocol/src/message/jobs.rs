use super::exec::{Offsets, TerminalSize, is_false};
use crate::ids::JobId;
use crate::outcome::Outcome;
use crate::text;
use serde::{Deserialize, Serialize};

/// Opens a stream to a job that is there. Answered with `started` and what follows it, or with
/// `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// As in `exec`.
    pub window: u64,
    /// Which job.
    pub job: JobId,
    /// Where in its output to begin.
    pub from: From,
    /// Whether output is wanted at all; without it there are no `data`, `gap` and `eof` frames.
    pub output: bool,
    /// Whether to stay: until the job has ended and all was sent. Otherwise the stream ends with
    /// `detach` where the output ends now.
    pub follow: bool,
    /// Whether this client is to hold the job's stdin, which whoever held it before then loses. It
    /// may also send `signal`, `cancel` and `resize`. Otherwise it only watches.
    pub control: bool,
    /// Whether `data` is to say when it was read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub times: bool,
}

/// A place in a job's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Its beginning, or the oldest that is kept.
    Start {},
    /// Where it is now.
    Live {},
    /// These offsets.
    Offsets(Offsets),
    /// The first that was read at this time or later.
    Time {
        /// In milliseconds since 1970, UTC.
        ms: u64,
    },
}

/// This stream ends, and the job or the room goes on. From a client: it leaves on purpose, and the job
/// is to be kept. From an agent: the last frame of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {}

/// The last frame of a stream whose request was not carried out; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub reason: Refusal,
    /// For people.
    #[serde(deserialize_with = "text::string")]
    pub message: String,
}

/// Why a request about a job was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The agent knows of no such job, or not any more; or this identity may not know of it.
    UnknownJob,
    /// Policy does not allow it.
    Denied,
    /// The job still runs.
    Running,
    /// The agent is at a limit, or stops.
    Busy,
    /// What was asked makes no sense anywhere: a line that nobody may say, for one.
    Invalid,
    /// The client may leave, and the job goes on; but it may end with this agent.
    Unheard,
    /// A reason that this build does not know.
    #[serde(other)]
    Other,
}

/// The size of the terminal has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// To this.
    pub size: TerminalSize,
}

/// Opens a stream and asks for the jobs that this identity may know of; answered with `listing`
/// frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {}

/// Some jobs: the body is an array of [`JobInfo`] as the value of the key `jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Another `listing` follows; the one without is the last frame of the stream.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// The body of a [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// The oldest first.
    pub jobs: Vec<JobInfo>,
}

/// Opens a stream and asks the agent to forget a job that has ended, with its output. Answered with
/// `removed` or `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// Which.
    pub job: JobId,
}

/// The job's output is gone; its id stays taken for as long as ids are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {}

/// What is known of a job. Texts come from another machine, and from whoever submitted the job:
/// escape them before a terminal shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its id.
    pub job: JobId,
    /// The identity that submitted it.
    pub owner: String,
    /// The local user it runs as.
    pub user: String,
    /// The command, for people: cut, and not to be run.
    pub command: String,
    /// How it ended; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The command's process.
    pub pid: u32,
    /// When it was started, in milliseconds since 1970, UTC.
    pub started_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Bytes of output so far.
    pub size: Offsets,
    /// From where on the output can still be read.
    #[serde(default, skip_serializing_if = "Offsets::is_start")]
    pub kept_from: Offsets,
    /// How many clients are attached.
    pub attached: u32,
    /// It goes on without a client.
    pub detached: bool,
    /// The command waits until there is room for what it prints: why there is none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// It has a terminal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// The size of that at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TerminalSize>,
}
