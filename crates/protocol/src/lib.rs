//! The rexec wire protocol: bytes to messages and back, and nothing else.
//!
//! This crate is pure. It names no socket, no file, no clock and no runtime: bytes come in, values
//! go out. Every peer behaviour can therefore be replayed as a unit test, and every decoder fuzzed.
//! `PROTOCOL.md` beside this crate is the normative text; the modules follow its sections:
//!
//! | module | section |
//! |---|---|
//! | [`frame`] | frames: lengths, header, body, and the limits checked before anything is allocated |
//! | [`msgpack`] | the subset of MessagePack a header may use |
//! | [`bounded`] | how many words and variables a request has at most |
//! | [`message`] | the verbs, one file each, and the table of who may send which when |
//! | [`hello`] | versions, features, negotiation |
//! | [`digest`] | prefix digests, and [`digest::Verified`], the proof that one matched |
//! | [`flow`] | credit: how much may be sent before the reader has consumed |
//! | [`stream`] | the two halves of a byte stream: offsets, digests, end |
//! | [`files`] | file transfer: what is asked for, and the messages within such a job |
//! | [`outcome`] | how a command ended, in one vocabulary, with its exit code |
//! | [`listen`] | a port of the agent's machine: what such a job says |
//! | [`line`](mod@line) | what may be said in a room |
//! | [`printable`] | which text of a peer may reach a terminal as it is |
//! | [`short_id`] | a job by a part of its id |
//! | [`error`] | what a peer did wrong, and the code it is told |

pub mod bounded;
pub mod digest;
pub mod error;
pub mod files;
pub mod flow;
pub mod frame;
pub mod hello;
pub mod ids;
pub mod line;
pub mod listen;
pub mod message;
pub mod msgpack;
pub mod outcome;
pub mod printable;
pub mod short_id;
pub mod signal;
pub mod stream;
mod text;

#[doc = include_str!("../PROTOCOL.md")]
pub mod specification {}

pub use digest::{Algorithm, Digest, Hasher, Verified};
pub use error::{ErrorCode, ProtocolError};
pub use frame::{Decoder, Frame};
pub use ids::{JobId, RoomName, StreamId};
pub use message::{Message, Role};
pub use outcome::{NeverStarted, Outcome};
pub use signal::Signal;
