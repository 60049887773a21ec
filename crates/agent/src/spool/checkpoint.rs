//! Checkpoints: from where on the output is kept, and from where on it is to be checked again.
//!
//! Two slots in one file, written in turn and in place: one of them is whole at any time, and no disk
//! is too full for it. A slot is the length of a MessagePack map as a big-endian `u32`, the map, and
//! the SHA-256 of both.

use super::mark::Mark;
use rexec_protocol::{Algorithm, Digest, Hasher, msgpack};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A slot's size. In it are two states of a digest, and less than 400 bytes.
pub(super) const SLOT: usize = 8192;
const LENGTH: usize = size_of::<u32>();

/// What is known at a place of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Counts them; the higher one holds.
    pub serial: u64,
    /// Where the oldest output that is kept begins.
    pub kept: Mark,
    /// The place: records before it need not be checked.
    pub mark: Mark,
    /// Of stdout, up to there.
    pub out: Prefix,
    /// Of stderr, up to there.
    pub err: Prefix,
}

/// A channel's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// What it is.
    pub hash: Digest,
    /// Its running state, unless only what it is was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ByteBuf>,
}

impl Prefix {
    /// That of all that `hasher` has seen.
    pub fn of(hasher: &Hasher) -> Self {
        Self { hash: hasher.prefix(), state: Some(hasher.save().into()) }
    }

    /// To go on with; `None` if that cannot be.
    pub fn hasher(&self, algorithm: Algorithm) -> Option<Hasher> {
        Hasher::restore(algorithm, self.state.as_ref()?)
    }
}

impl Checkpoint {
    /// Puts it in the slot whose turn it is.
    pub fn write(&self, file: &File) -> io::Result<()> {
        let map = msgpack::encode(self);
        let length = u32::try_from(map.len()).unwrap_or(u32::MAX);
        let mut slot = length.to_be_bytes().to_vec();
        slot.extend_from_slice(&map);
        slot.extend_from_slice(Digest::of(Algorithm::Sha256, &slot).as_bytes());
        // All of it: so the blocks are there, and the next one in this slot needs no new ones.
        slot.resize(SLOT, 0);
        file.write_all_at(&slot, SLOT as u64 * (self.serial % 2))
    }

    /// Those that are whole, the newest first.
    pub fn read(file: &File) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for number in 0..2 {
            let mut slot = [0; SLOT];
            match file.read_exact_at(&mut slot, SLOT as u64 * number) {
                Ok(()) => found.extend(parse(&slot)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.serial));
        Ok(found)
    }
}

fn parse(slot: &[u8]) -> Option<Checkpoint> {
    let (length, _) = slot.split_first_chunk::<LENGTH>()?;
    let end = LENGTH.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let (whole, rest) = slot.split_at_checked(end)?;
    let hash = Digest::of(Algorithm::Sha256, whole);
    let is_whole = rest.starts_with(hash.as_bytes());
    let map = whole.get(LENGTH..).filter(|_| is_whole)?;
    msgpack::decode(map, msgpack::HEADER).ok()
}
