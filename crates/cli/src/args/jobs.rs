//! The subcommands for jobs that are there already.

use super::ConnectOptions;
use crate::values::{self, EscapeKey, Since};
use clap::{Args, ValueHint};
use rexec_client::Signal;
use std::ffi::OsString;

/// A job on a host.
#[derive(Debug, Args)]
pub struct JobName {
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// Which job; of an id that rexec made, 4 or more characters from its start or its end are enough
    #[arg(value_name = "JOB")]
    pub job: String,
}

/// Where the end is reported.
#[derive(Debug, Args)]
pub struct Report {
    /// Print events as JSON Lines; the job's output is in them only
    #[arg(long)]
    pub json: bool,
    /// At the end, write the outcome as one line of JSON to this descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub status_fd: Option<i32>,
}

impl Report {
    /// What there is without any option.
    pub fn plain() -> Self {
        Self { json: false, status_fd: None }
    }
}

/// Print a job's output.
#[derive(Debug, Args)]
pub struct Logs {
    /// Which job.
    #[command(flatten)]
    pub name: JobName,
    /// Stay until the job has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Begin at this byte of stdout, or with --stderr of stderr, and print only that; or at a time, as
    /// in 2026-11-22T20:30:00Z; or so long ago, as in 10m
    #[arg(long, value_name = "WHEN", value_parser = values::since, conflicts_with = "verify")]
    pub since: Option<Since>,
    /// Begin with the last N lines that there are, of stdout and stderr together; with -f go on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    #[arg(conflicts_with_all = ["since", "verify", "asciicast"])]
    pub tail: Option<u32>,
    /// Print stdout only
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Print stderr only
    #[arg(long)]
    pub stderr: bool,
    /// Check all the output against the job's end; 254 if it is not what was sent, or if a byte is gone
    #[arg(long)]
    pub verify: bool,
    /// Print the time before each line, when the agent read it (UTC)
    #[arg(long, conflicts_with_all = ["asciicast", "json"])]
    pub timestamps: bool,
    /// Print a recording (asciicast v2) for terminal players such as asciinema
    #[arg(long, conflicts_with = "json")]
    pub asciicast: bool,
    /// Where the end is reported.
    #[command(flatten)]
    pub report: Report,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Come to a job: its output from the start, and its stdin.
#[derive(Debug, Args)]
pub struct Attach {
    /// Which job.
    #[command(flatten)]
    pub name: JobName,
    /// Only look on: Ctrl-C leaves the job alone, and others keep its stdin
    #[arg(long)]
    pub read_only: bool,
    /// Begin with what is written from now on
    #[arg(long)]
    pub live: bool,
    /// Leave this process's stdin alone
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// At a job with a terminal, what begins an escape: a character, ^X for Ctrl-X, or none
    /// [default: ~]
    #[arg(short = 'e', long, value_name = "KEY", value_parser = values::escape)]
    pub escape: Option<EscapeKey>,
    /// Where the end is reported.
    #[command(flatten)]
    pub report: Report,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Wait for a job, and end as it does.
#[derive(Debug, Args)]
pub struct Wait {
    /// Which job.
    #[command(flatten)]
    pub name: JobName,
    /// Where the end is reported.
    #[command(flatten)]
    pub report: Report,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// End a job, with everything that it started, and wait until it is gone.
#[derive(Debug, Args)]
pub struct Kill {
    /// Which job.
    #[command(flatten)]
    pub name: JobName,
    /// Only send this signal, to the command's process group
    #[arg(short, long, value_name = "SIGNAL", value_parser = values::signal)]
    pub signal: Option<Signal>,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Have an agent forget jobs that have ended, with their output.
#[derive(Debug, Args)]
pub struct Rm {
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// Which jobs
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<String>,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}
