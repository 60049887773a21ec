//! End-to-end tests: real agents, real clients, real commands, over loopback.
//!
//! One module per behaviour. Each test starts what it needs and ends it again; nothing waits for
//! time to pass where it can wait for an event.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod support;

mod admission;
mod audit;
mod clock;
mod console;
mod doctor;
mod documents;
mod exec;
mod exit_status;
mod files;
mod forgotten;
mod forward;
mod grid;
mod held_pipes;
mod hostile;
mod identity;
mod job_commands;
mod job_logs;
mod kill_tree;
mod lifecycle;
mod networks;
mod policy;
mod remote_forward;
mod restart;
mod resume;
mod revocation;
mod rooms;
mod run_as;
mod spool;
mod ssh_file;
mod ssh_front;
mod ssh_signals;
mod streams;
mod terminal;
mod terminal_options;
mod tmux;
