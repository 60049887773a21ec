//! A connection that came to a port of this machine, as a command: its stdin goes there, its stdout comes
//! from there.
//!
//! It takes the connection over from the process that has accepted it, the one of a job that listens, and
//! carries it as [`connect`](crate::connect) does one that it has made. That it has it is the first that it says on
//! stderr: nobody need connect anywhere for one that is gone.

use crate::connect::{carry, end};
use crate::listen::handover;
use rexec_protocol::listen::TAKEN;
use std::io::{self, Write};
use std::process::ExitCode;

/// The first argument of such a process; the job that listens, and the number of the connection follow.
pub const WORD: &str = "accept";

/// The whole life of the process.
pub fn accept_main(mut words: impl Iterator<Item = String>) -> ExitCode {
    let (job, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let taken = number.parse().map_err(io::Error::other);
    let taken = taken.and_then(|number| handover::take(&job, number));
    end(taken
        .map_err(|error| format!("cannot take connection {number} of job {job}: {error}"))
        .and_then(|socket| {
            io::stderr()
                .write_all(TAKEN.as_bytes())
                .and_then(|()| carry(&socket))
                .map_err(|error| format!("connection {number} of job {job} broke: {error}"))
        }))
}
