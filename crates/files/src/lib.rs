//! The two ends of a file transfer, for the agent's helper and for the client alike.
//!
//! # Theory of operation
//!
//! A [`send::Sender`] walks what it is told to send and writes messages; a [`receive::Receiver`] takes
//! messages and makes files of them. Which of the two is on the agent's machine depends on the
//! request; the code is the same. Both are plain blocking code over `Read` and `Write`: on the
//! agent's machine over the stdin and stdout of a process of its own, in a client over a channel to
//! the connection.
//!
//! Neither end trusts the other. A name is one part of a path, checked when it comes in; where it
//! leads is decided by a descriptor of the folder it is in, never by a path that is resolved again. So
//! there is no moment at which a link could be slipped in between.
//!
//! What a file was is there until its successor is complete: a file is written under a temporary
//! name in its folder, its size and digest are checked, it is made durable and then renamed. Small
//! files are made durable many at once (see [`receive`]). Memory does not depend on the size or
//! the number of files, except that `--delete` holds the names of one folder per level, and patterns
//! those of what matched, where two can be the same.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | messages on a byte stream |
//! | [`open`] | the paths that somebody has named: with or without links |
//! | [`send`] | the walk, the content, the questions before it |
//! | [`receive`] | where things land, drafts, batches, removal |
//! | [`names`] | the names that were asked for |
//! | [`pattern`] | remote patterns |
//! | [`helper`] | what the agent's own program does when it is told to transfer files |

pub mod error;
pub mod helper;
pub mod names;
pub mod open;
pub mod pattern;
pub mod receive;
pub mod send;
pub mod wire;

pub use error::Error;

#[cfg(test)]
mod tests;
