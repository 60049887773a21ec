//! The rexec agent: runs commands for authenticated clients.
//!
//! # Theory of operation
//!
//! Tasks and what each owns:
//!
//! | task | owns | ends |
//! |---|---|---|
//! | [`server`]: accept loop | the listening sockets | when the agent is told to stop |
//! | [`session`]: one per connection | the reading half, the table of streams | with the connection |
//! | writer (in `rexec-net`) | the writing half | with the connection |
//! | [`exec`]: one per command | the request, then its [`supervisor`]: keeper, pipes, timers | after the exit record |
//! | [`attach`]: one per client at a job | the cursor into the job's [`log`] | after the exit record, or with its connection |
//! | [`rooms::member`]: one per room that a connection is in | a cursor into the room's log | with the stay |
//! | [`console`]: one, and one per console | the console's socket | with the agent |
//! | [`unstick`]: one thread | nothing; it looks at what is done to pipes | with the agent |
//! | [`audit`]: one thread | the audit log | after all else |
//! | [`stdin`]: one per command with stdin | the pipe to the command | at the end of stdin |
//!
//! A byte of output goes: pipe → [`intake`] → [`log`] → [`attach`] → outbox → socket. Credit comes back
//! the other way and stops, in turn, the cursor, the log, the reads of the pipe, and so the command. A job
//! that is kept has its log on disk: pipe → [`spool`] in one system call, then digest and index, in
//! threads that may block; readers take it from memory if they follow closely, and else from there.
//!
//! Nothing in this process forks: commands are started by a [`keeper`], a small process per
//! command that also reaps it and can end all that it started. See there.
//!
//! How much of all this any one client may have is decided in [`admission`].
//!
//! Restarts: an agent that is told to leave (SIGTERM) takes nothing new, has each supervisor put what was
//! read and not delivered on disk, and says to its clients that they shall come back. The keepers of the
//! commands wait for the next agent, which [`adopt`]s them. What one agent leaves to the other is in
//! [`heir`], [`ledger`] and [`jobs::handover`].
//!
//! Shutting down for good (SIGINT): the accept loop stops, sessions say goodbye and take no new commands,
//! running commands may finish until [`config::Limits::drain`] is over, then they are ended.

pub mod accept;
pub mod account;
pub mod admission;
pub mod adopt;
pub mod attach;
pub mod audit;
pub mod authorize;
pub mod check;
pub mod clock;
pub mod config;
pub mod connect;
pub mod console;
pub mod descriptors;
pub mod doctor;
pub mod environment;
pub mod exec;
pub mod files;
pub mod heir;
pub mod intake;
pub mod jobs;
pub mod keeper;
pub mod ledger;
pub mod listen;
pub mod log;
pub mod log_level;
pub mod notify;
pub mod output;
pub mod pipe_size;
pub mod policy;
pub mod presence;
pub mod reload;
pub mod rooms;
pub mod server;
pub mod session;
pub mod spool;
pub mod standing;
pub mod state_file;
pub mod stdin;
pub mod supervisor;
pub mod unstick;

/// Name and version, as they appear in hellos and logs.
pub const SOFTWARE: &str = concat!("rexec-agent/", env!("CARGO_PKG_VERSION"));
