//! How far the agent has come with a job's pipes, for the agent after it.
//!
//! A file in memory that the job's keeper holds too. A change is one write within a page, so it is
//! there whole or not at all, whenever the agent is killed. What cannot be known is whether a read or
//! a write that was under way took place; so it is said before each that there will be one, and how
//! much it can move, and after it how much it was. For each channel there is a slot:
//!
//! ```text
//!  0  under way  u32   bytes that a read or write under way moves at most; 0: none is
//!  4  ended      u8    1: output is over
//!  5  zero       u8
//!  6  length     u16   of `state`
//!  8  offset     u64   bytes that `hash` and `state` are about
//! 16  written    u64   stdin: bytes that the command was given, `offset` or more
//! 24  hash       32 bytes, the digest of the channel up to `offset`
//! 56  state      its running state; none behind the end
//! ```

use bytes::{Buf, BufMut};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rexec_protocol::message::Channel;
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Digest, Hasher};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A page: what is written over the edge of two is not written at once.
const SLOT: usize = 4096;
const HEAD: usize = 56;
const _: () = assert!(HEAD + Hasher::MAX_SAVED <= SLOT, "the longest state fits");

/// The ledger of one job.
#[derive(Debug)]
pub struct Ledger(File);

/// What it says of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A read or write of at most so many bytes was under way; whether it took place is not known.
    pub under_way: u32,
    /// The output is over.
    pub ended: bool,
    /// Bytes that the digest is about.
    pub offset: u64,
    /// Bytes of stdin that the command was given.
    pub written: u64,
    /// The digest up to `offset`.
    pub hash: Digest,
    state: Vec<u8>,
}

impl Ledger {
    /// Which layout the slots have. With another one, here or there, a job cannot be taken over, and runs on.
    pub const LAYOUT: u32 = 1;

    /// An empty one.
    pub fn new(algorithm: Algorithm) -> io::Result<Self> {
        let ledger = Self(memfd_create(c"rexec-ledger", MFdFlags::MFD_CLOEXEC)?.into());
        let nothing = Place::of(0, &Hasher::new(algorithm));
        ledger.0.set_len(3 * SLOT as u64)?;
        for channel in [Channel::In, Channel::Out, Channel::Err] {
            ledger.0.write_all_at(&nothing.encode(), start(channel))?;
        }
        Ok(ledger)
    }

    /// One that another agent has left.
    pub fn of(file: OwnedFd) -> Self {
        Self(file.into())
    }

    /// A read or write of at most `length` bytes begins.
    pub fn begin(&self, channel: Channel, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.put(channel, &length.to_be_bytes());
    }

    /// It moved nothing.
    pub fn nothing(&self, channel: Channel) {
        self.put(channel, &[0; 4]);
    }

    /// This is how far it is now, and nothing is under way.
    pub fn is_at(&self, channel: Channel, place: &Place) {
        self.put(channel, &place.encode());
    }

    /// What it says of a channel.
    pub fn place(&self, channel: Channel) -> io::Result<Place> {
        let mut slot = [0; SLOT];
        self.0.read_exact_at(&mut slot, start(channel))?;
        Ok(Place::decode(&slot))
    }

    fn put(&self, channel: Channel, bytes: &[u8]) {
        // A page of memory that is there: there is nothing that could fail.
        if let Err(error) = self.0.write_all_at(bytes, start(channel)) {
            tracing::error!(%error, "cannot write the ledger of a job");
        }
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn start(channel: Channel) -> u64 {
    let number = match channel {
        Channel::In => 0,
        Channel::Out => 1,
        Channel::Err => 2,
    };
    number * SLOT as u64
}

impl Place {
    /// After `offset` bytes, which `hasher` has seen.
    pub fn of(offset: u64, hasher: &Hasher) -> Self {
        let (state, hash) = (hasher.save(), hasher.prefix());
        Self { under_way: 0, ended: false, offset, written: offset, hash, state }
    }

    /// After all of a channel that is over.
    pub fn over(tally: Tally) -> Self {
        let (offset, hash) = (tally.size, tally.hash);
        Self { under_way: 0, ended: true, offset, written: offset, hash, state: Vec::new() }
    }

    /// The same, with or without its end.
    #[must_use]
    pub fn with_end(self, ended: bool) -> Self {
        Self { ended, ..self }
    }

    /// Its digest, to go on with; `None` if that cannot be.
    pub fn hasher(&self, algorithm: Algorithm) -> Option<Hasher> {
        if self.offset == 0 {
            return Some(Hasher::new(algorithm));
        }
        Hasher::restore(algorithm, &self.state)
    }

    fn encode(&self) -> Vec<u8> {
        let mut slot = Vec::with_capacity(HEAD + self.state.len());
        slot.put_u32(self.under_way);
        slot.put_u8(u8::from(self.ended));
        slot.put_u8(0);
        slot.put_u16(self.state.len() as u16);
        slot.put_u64(self.offset);
        slot.put_u64(self.written);
        slot.put_slice(self.hash.as_bytes());
        slot.put_slice(&self.state);
        slot
    }

    /// A state that makes no sense is none: then the digest cannot go on, which is told as a gap is.
    fn decode(slot: &[u8; SLOT]) -> Self {
        let (head, state) = slot.split_at(HEAD);
        let mut slot = head;
        let under_way = slot.get_u32();
        let ended = slot.get_u8() == 1;
        // Beyond an end there is nothing, whatever was tried.
        let under_way = if ended { 0 } else { under_way };
        slot.advance(1);
        let length = usize::from(slot.get_u16());
        let (offset, written) = (slot.get_u64(), slot.get_u64());
        let mut hash = [0; 32];
        slot.copy_to_slice(&mut hash);
        let state = state.get(..length).unwrap_or_default().to_vec();
        Self { under_way, ended, offset, written, hash: hash.into(), state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_by_another() {
        for algorithm in Algorithm::ALL {
            let ledger = Ledger::new(algorithm).unwrap();
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&[7; 5000]);
            let place = Place { ended: true, ..Place::of(5000, &hasher) };
            ledger.is_at(Channel::Err, &place);
            let other = Ledger::of(ledger.as_fd().try_clone_to_owned().unwrap());
            assert_eq!(other.place(Channel::Err).unwrap(), place);
            assert_eq!(other.place(Channel::Out).unwrap().offset, 0);
            let mut restored = place.hasher(algorithm).unwrap();
            restored.update(&[7; 3]);
            assert_eq!(restored.prefix(), Digest::of(algorithm, &[7; 5003]));
        }
    }

    /// The running command would have nobody if its place could not be read.
    #[test]
    fn a_state_that_makes_no_sense_is_none() {
        let ledger = Ledger::new(Algorithm::Sha256).unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"some output");
        ledger.is_at(Channel::Out, &Place::of(11, &hasher));
        ledger.0.write_all_at(&[u8::MAX; 2], start(Channel::Out) + 6).unwrap();
        let place = ledger.place(Channel::Out).unwrap();
        assert_eq!((place.offset, place.hash), (11, hasher.prefix()));
        assert!(place.hasher(Algorithm::Sha256).is_none());
    }

    #[test]
    fn nothing_is_under_way_beyond_an_end() {
        let ledger = Ledger::new(Algorithm::Sha256).unwrap();
        let place = Place::over(Tally::nothing(Algorithm::Sha256));
        ledger.is_at(Channel::Out, &place);
        ledger.begin(Channel::Out, 4096);
        assert_eq!(ledger.place(Channel::Out).unwrap(), place);
    }

    #[test]
    fn what_is_under_way_is_known_until_it_is_done() {
        let ledger = Ledger::new(Algorithm::Blake3).unwrap();
        ledger.begin(Channel::Out, 4096);
        assert_eq!(ledger.place(Channel::Out).unwrap().under_way, 4096);
        ledger.nothing(Channel::Out);
        assert_eq!(ledger.place(Channel::Out).unwrap().under_way, 0);
        ledger.begin(Channel::In, 7);
        let mut hasher = Hasher::new(Algorithm::Blake3);
        hasher.update(b"abc");
        ledger.is_at(Channel::In, &Place { written: 5, ..Place::of(3, &hasher) });
        let place = ledger.place(Channel::In).unwrap();
        assert_eq!((place.under_way, place.written), (0, 5));
    }
}
