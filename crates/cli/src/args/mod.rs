//! What was typed. Syntax only: nothing is read or decided here.
//!
//! [`Cli`] is the whole of the command line; help texts, man pages and completions come from it, and
//! it parses the named subcommands. A run of a command has a parser of its own, in `parse`.

mod jobs;
mod options;
mod parse;
#[cfg(test)]
mod tests;

pub use jobs::{Attach, JobName, Kill, Logs, Report, Rm, Wait};
pub use options::{CommandOptions, ConnectOptions, JobOptions, OutputOptions, RunOptions};
pub use parse::{parse, reporting, subcommand_like};

use crate::ca::CaArgs;
use crate::files::args::FileArgs;
use crate::help;
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    /// Run a command.
    Run(Box<Run>),
    /// Anything with a name of its own.
    Named(Box<Named>),
    /// Print this text.
    Print(String),
}

/// A command to run on a host, as typed.
#[derive(Debug)]
pub struct Run {
    /// What stood before the host.
    pub options: RunOptions,
    /// The target.
    pub target: OsString,
    /// The words after it.
    pub words: Vec<OsString>,
}

/// A command line that makes no sense, in words for the person who typed it.
#[derive(Debug)]
pub struct Usage(pub String);

impl Usage {
    /// The same in one line, without the reminders that end it.
    pub fn sentence(&self) -> String {
        let lines = self.0.lines().map(str::trim).filter(|line| !line.is_empty());
        let said = lines.take_while(|line| {
            !line.starts_with("Usage:") && !line.starts_with("For more information")
        });
        said.fold(String::new(), |sentence, line| match sentence.as_str() {
            "" => line.to_owned(),
            introduction if introduction.ends_with(':') => format!("{introduction} {line}"),
            before => format!("{before}; {line}"),
        })
    }
}

/// Run commands on other machines, and know how they ended.
#[derive(Debug, Parser)]
#[command(
    name = "rexec",
    version,
    disable_help_subcommand = true,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "SUBCOMMAND",
    subcommand_help_heading = "Subcommands",
    override_usage = help::USAGE,
    after_help = help::SHORT,
    after_long_help = help::LONG
)]
pub struct Cli {
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    words: DocumentedWords,
    #[command(subcommand)]
    named: Option<Documented>,
}

/// The words that `parse` takes as they are, for those who read about them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Arguments")]
struct DocumentedWords {
    /// Where to run it; an IPv6 address with a port is written [ADDRESS]:PORT
    #[arg(value_name = "[USER@]HOST[:PORT]", value_hint = ValueHint::Hostname)]
    target: Option<OsString>,
    /// What to run: one word is a line for the remote login shell, several reach the program
    /// exactly as typed
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_hint = ValueHint::CommandWithArguments)]
    words: Vec<OsString>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Documented {
    /// Run a command; the word `run` is needed only for a host named like a subcommand
    #[command(override_usage = help::RUN_USAGE, after_long_help = help::LONG)]
    Run {
        #[command(flatten)]
        options: Box<RunOptions>,
        #[command(flatten)]
        words: DocumentedWords,
    },
    #[command(flatten)]
    Named(Named),
}

/// The subcommands that are parsed as clap does it.
#[derive(Debug, Subcommand)]
pub enum Named {
    /// Measure round trips to an agent
    Ping(Ping),
    /// Talk with those who are on the same machine
    #[command(after_long_help = help::CHAT)]
    Chat(Box<Chat>),
    /// Tell every room and everybody with a job on an agent something
    Wall(Box<Wall>),
    /// Show who is connected to an agent, in which rooms and on which jobs
    Who(Listing),
    /// List the rooms of an agent that you may be in
    Rooms(Listing),
    /// Check this machine's files, and the way to an agent, and say what to mend
    Doctor(Doctor),
    /// List the jobs on an agent that you may know of
    Jobs(Listing),
    /// Print a job's output
    #[command(after_long_help = help::LOGS)]
    Logs(Box<Logs>),
    /// Come to a job: its output from the start, its stdin, and Ctrl-C ends it
    #[command(after_long_help = help::ATTACH)]
    Attach(Box<Attach>),
    /// Wait for a job, and end as it does
    Wait(Box<Wait>),
    /// End a job with everything that it started, or send it a signal
    Kill(Kill),
    /// Have an agent forget jobs that have ended, with their output
    Rm(Rm),
    /// Copy files and folders to, from and between other machines
    #[command(override_usage = help::COPY_USAGE, after_long_help = help::COPY)]
    Cp(Box<FileArgs>),
    /// Copy files of this machine to another: put FILE… HOST:PATH
    #[command(override_usage = help::PUT_USAGE, after_long_help = help::COPY)]
    Put(Box<FileArgs>),
    /// Copy files of another machine to this one: get HOST:FILE… PATH
    #[command(override_usage = help::GET_USAGE, after_long_help = help::COPY)]
    Get(Box<FileArgs>),
    /// Make and inspect the certificates of agents and users
    Ca(CaArgs),
    /// Print completions for a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write all man pages
    Man {
        /// Write rexec.1 and the pages of all subcommands to this folder
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// Talk in a room of an agent.
#[derive(Debug, Args)]
pub struct Chat {
    /// Only show what others say
    #[arg(long)]
    pub read_only: bool,
    /// How much of what happened before to show [default: all that is kept; in a pipe nothing, unless
    /// --read-only]
    #[arg(long, value_name = "EVENTS")]
    pub history: Option<u64>,
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// Which room; job:ID is the room of a job, and of an id that rexec made, 4 or more characters from
    /// its start or its end are enough
    #[arg(value_name = "ROOM", default_value = "lobby")]
    pub room: String,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Tell everybody on an agent something.
#[derive(Debug, Args)]
pub struct Wall {
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// What to tell, in one line; '-' tells the lines of stdin
    #[arg(value_name = "TEXT", required = true)]
    pub words: Vec<String>,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// What an agent has a list of.
#[derive(Debug, Args)]
pub struct Listing {
    /// Print one JSON object for each
    #[arg(long)]
    pub json: bool,
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Check this machine's files, and the way to an agent.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print one JSON object for each check
    #[arg(long)]
    pub json: bool,
    /// Which agent to reach; without it only this machine is looked at
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: Option<OsString>,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// Measure round trips on one connection.
#[derive(Debug, Args)]
pub struct Ping {
    /// How many round trips
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Which agent; a USER@ before it makes no difference
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub target: OsString,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}
