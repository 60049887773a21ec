//! Framed, mutually authenticated connections.
//!
//! A connection is a socket, TLS 1.3 over it, and frames in both directions. It is driven by two
//! tasks that never wait for each other: whoever owns the [`Inbound`] half reads, and never sends;
//! the writer task behind the [`Outbox`] sends, and never reads. So both sockets always drain, and
//! no cycle of waits can form.
//!
//! | module | what it holds |
//! |---|---|
//! | [`handshake`] | from a socket to a connection: TLS, identity and hello under one deadline |
//! | [`inbound`] | the reading half: frames, legality, keepalive |
//! | [`outbox`] | the writing half: two lanes, coalesced credit, one writer |
//! | [`credit`], [`inbox`] | flow control: waiting for credit, keeping what came in |
//! | [`memory`] | how the allocator treats large buffers |
//! | [`rates`] | how many frames and errors a peer may send |
//! | [`recycler`] | large buffers, used again |
//! | [`tls`] | the rustls configurations, and their reload |
//! | [`credentials`] | keys, certificates and authorities from PEM files |
//! | [`identity`] | [`Identity`], the proof of who the peer is |
//! | [`trusted`] | files that nobody else may change |
//! | [`explain`] | why TLS refused a peer, in words |
//! | [`checkup`] | for `doctor`: what can be found wrong before anything is tried |
//! | [`error`] | what can go wrong with a connection, by fault |

pub mod checkup;
pub mod credentials;
pub mod credit;
pub mod error;
pub mod explain;
pub mod handshake;
pub mod identity;
pub mod inbound;
pub mod inbox;
pub mod memory;
pub mod outbox;
mod pem;
pub mod rates;
mod readahead;
pub mod recycler;
pub mod tls;
pub mod trusted;

pub use error::NetError;
pub use identity::Identity;
pub use inbound::Inbound;
pub use outbox::Outbox;
