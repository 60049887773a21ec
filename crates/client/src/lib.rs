//! Run commands on machines that have a rexec agent, with the shape of `tokio::process`.
//!
//! ```no_run
//! use rexec_client::{Files, Session};
//!
//! # async fn example() -> Result<(), rexec_client::Error> {
//! let files = Files {
//!     identity: "alice.pem".into(),
//!     key: None,
//!     authority: "authority.crt".into(),
//!     revocations: None,
//! };
//! let session = Session::connect("web1.example.net", &files).await?;
//! let output = session.command("uname").arg("-a").output().await?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/tour.rs` shows more: conversations, signals, timeouts, errors.
//!
//! A [`Session`] is one connection; any number of commands run on it at once. [`Command`] is what to
//! run; [`Command::spawn`] starts it and gives a [`Child`] whose stdin, stdout and stderr are
//! `AsyncWrite` and `AsyncRead`. All of this must be used within a Tokio runtime.
//!
//! What differs from a local command, because a network lies between:
//!
//! * A status is only given if the command's end was reported *and* every byte of its output was
//!   received and its digest matched. Everything else is an [`Error`], whose [`Error::outcome`] says
//!   whether the command may have run.
//! * A connection that is lost while commands run is made again, and they go on where they were.
//!   [`Connector::reconnect_for`] says how long that is tried, [`Command::on_disconnect`] how long the
//!   agent waits, [`Session::link`] tells of it.
//! * When the session is dropped, the commands that still run on it are ended by the agent, unless
//!   they are detached ([`Child::detach`], [`Command::detach`]). Anyone who may can come back to a
//!   job ([`Session::attach`]).

mod attach;
mod child;
mod command;
mod connector;
mod error;
mod half;
mod in_order;
mod input;
mod link;
mod listener;
mod membership;
mod reconnect;
mod remote;
mod room;
mod routes;
mod session;
mod streams;
mod transfer;

pub use attach::Attach;
pub use child::{Child, ExitStatus, JobEnd, Output};
pub use command::{Command, Stdio, new_job_id};
pub use connector::{Connector, DEFAULT_PORT};
pub use error::Error;
pub use in_order::InOrder;
pub use link::Link;
pub use listener::{Incoming, Listen, Listener};
pub use rexec_net::credentials::Files;
pub use rexec_net::memory::keep_freed;
pub use rexec_net::trusted::{demand_configuration, demand_unchangeable};
pub use rexec_protocol::files::{Target, Update};
pub use rexec_protocol::line::{NoLine, line};
pub use rexec_protocol::message::{
    ConnectionInfo, Drain, From as Place, Happening, HappeningKind, JobInfo, MAX_LINE, Notice,
    Offsets, OnDisconnect, OnFull, RoomInfo, TerminalSize, Usage, Walled,
};
pub use rexec_protocol::printable::{is_harmless, printable};
pub use rexec_protocol::short_id;
pub use rexec_protocol::stream::Tally;
pub use rexec_protocol::{Algorithm, Digest, JobId, NeverStarted, Outcome, Signal};
pub use room::{Join, Room, RoomEvent, Voice};
pub use session::Session;
pub use streams::{ChildStderr, ChildStdin, ChildStdout, Chunk};
pub use transfer::{Summary, Transfer, TransferError, TransferEvent};

/// The names that certificates carry, and what makes one legal.
pub mod names {
    pub use rexec_net::identity::{
        IdentityError, MAX_GROUPS, MAX_NAME, check_group_name, check_user_name, group_uri, user_uri,
    };
}

/// What is in a certificate, in words.
pub mod certificate {
    pub use rexec_net::explain::{RevocationList, Summary, moment};
}

/// What can be found wrong before anything is tried.
pub mod checkup {
    pub use rexec_net::checkup::{Check, Report, Side, Verdict, credentials};
}

/// Name and version, as agents see them in their logs.
const SOFTWARE: &str = concat!("rexec-client/", env!("CARGO_PKG_VERSION"));
