//! Measures rexec beside OpenSSH and beside what lies below it, in one run on one machine.
//!
//! `scripts/bench` builds everything, makes keys, starts an agent and an sshd, and calls
//! `rexec-bench compare`. All ways of doing one thing take turns, round by round, so that whatever
//! else the machine does meets them alike; medians are compared.
//!
//! | module | what it measures, or holds |
//! |---|---|
//! | [`cold`] | one small command from a new process |
//! | [`bulk`] | output and input by the gigabyte; [`bare`] is the copy to compare with |
//! | [`files`] | one large file and many small ones, both ways |
//! | [`tools`] | rsync and git, over `rexec-ssh` |
//! | [`rate`] | commands one after another on one connection |
//! | [`idle`] | what an idle connection costs the agent |
//! | [`jobs`] | what a running command costs the agent and its keeper |
//! | [`size`] | the programs themselves |
//! | [`policy`] | a decision |
//! | [`rooms`] | a line, for each member of a room |
//! | [`lab`] | what the script has prepared |
//! | [`table`] | medians, ratios, and what was asked for |

mod bare;
mod bulk;
mod cold;
mod files;
mod idle;
mod jobs;
mod lab;
mod policy;
mod rate;
mod rooms;
mod size;
mod table;
mod tools;

use clap::{Parser, Subcommand, ValueEnum};
use lab::Lab;
use rexec_client::Files;
use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use table::Table;

/// Measures rexec beside OpenSSH; scripts/bench calls it.
#[derive(Debug, Parser)]
#[command(name = "rexec-bench", version)]
enum Args {
    /// Take the measurements, and print a table
    Compare {
        #[command(flatten)]
        lab: Lab,
        /// What to measure [default: everything]
        what: Vec<What>,
        /// Few rounds: to see that it works
        #[arg(long)]
        quick: bool,
    },
    /// Print a port that is free
    Port,
    #[command(flatten)]
    Part(Part),
}

/// Other processes that the measurements need.
#[derive(Debug, Subcommand)]
enum Part {
    /// Serve the bare copy; the port is printed
    #[command(hide = true)]
    BareServe(Identity),
    /// Copy from the server to stdout, or from stdin to the server
    #[command(hide = true)]
    BareCopy {
        #[command(flatten)]
        own: Identity,
        /// The server's port
        #[arg(long)]
        port: u16,
        /// Run this there, and copy its output; without it, stdin is sent
        command: Option<String>,
    },
    /// Hold idle connections until stdin ends; a line is printed when they are there
    #[command(hide = true)]
    Hold {
        #[command(flatten)]
        own: Identity,
        /// The agent's port
        #[arg(long)]
        port: u16,
        /// How many
        count: usize,
    },
}

/// PEM files, as rexec takes them.
#[derive(Debug, clap::Args)]
struct Identity {
    /// Certificate and key
    #[arg(long)]
    identity: std::path::PathBuf,
    /// The authority's certificate
    #[arg(long)]
    authority: std::path::PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Cold,
    Bulk,
    Files,
    Tools,
    Rate,
    Idle,
    Jobs,
    Size,
    Policy,
    Rooms,
}

/// Whatever goes wrong ends the run, with its words.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is gone too, the exit code tells.
            let _ = writeln!(io::stderr(), "rexec-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    match args {
        Args::Compare { lab, what, quick } => compare(&lab, &what, quick),
        Args::Port => {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            Ok(writeln!(io::stdout(), "{port}")?)
        }
        Args::Part(Part::BareServe(own)) => bare::serve(&own.files()),
        Args::Part(Part::BareCopy { own, port, command }) => {
            bare::copy(&own.files(), port, command.as_deref())
        }
        Args::Part(Part::Hold { own, port, count }) => idle::hold(&own.files(), port, count),
    }
}

fn compare(lab: &Lab, what: &[What], quick: bool) -> Result<()> {
    let mut table = Table::default();
    let measured = measure(lab, what, quick, &mut table);
    // Also what was found before one of them failed: it took its time.
    table.print(&mut io::stdout())?;
    measured
}

fn measure(lab: &Lab, what: &[What], quick: bool, table: &mut Table) -> Result<()> {
    let wanted = |part| what.is_empty() || what.contains(&part);
    if wanted(What::Cold) {
        cold::measure(lab, quick, table)?;
    }
    if wanted(What::Bulk) {
        bulk::measure(lab, quick, table)?;
    }
    if wanted(What::Files) {
        files::measure(lab, quick, table)?;
    }
    if wanted(What::Tools) {
        tools::measure(lab, quick, table)?;
    }
    if wanted(What::Rate) {
        rate::measure(lab, quick, table)?;
    }
    if wanted(What::Idle) {
        idle::measure(lab, quick, table)?;
    }
    if wanted(What::Jobs) {
        jobs::measure(lab, quick, table)?;
    }
    if wanted(What::Size) {
        size::measure(lab, table)?;
    }
    if wanted(What::Policy) {
        policy::measure(quick, table)?;
    }
    if wanted(What::Rooms) {
        rooms::measure(lab, quick, table)?;
    }
    Ok(())
}

impl Identity {
    fn files(&self) -> Files {
        Files {
            identity: self.identity.clone(),
            key: None,
            authority: self.authority.clone(),
            revocations: None,
        }
    }
}
