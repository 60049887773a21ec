//! BLAKE3 whose running state can be written down, which the state of its library cannot.
//!
//! BLAKE3 is a binary tree over chunks of 1 KiB (section 2.1 of the BLAKE3 paper). Complete subtrees
//! are hashed by the library, as large as they come; what is kept of them is their chaining values,
//! one for each bit of the number of chunks, as in a binary counter.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{CHUNK_LEN, Hasher};

/// What [`Tree::save`] gives at most, in bytes: there are less than 2^54 chunks.
pub(super) const MAX_SAVED: usize = 8 + 54 * 32 + CHUNK_LEN;

/// A digest of nothing yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    /// Whole chunks that `done` covers.
    chunks: u64,
    /// The chaining values of complete subtrees, from left to right and from large to small.
    done: Vec<ChainingValue>,
    /// What is behind them. Not empty, if anything came: the last chunk is hashed as the last.
    last: Vec<u8>,
}

impl Tree {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.len() == CHUNK_LEN {
                // Another one follows, so it is not the last.
                let value = subtree(self.chunks, &self.last);
                self.push(value, 1);
                self.last.clear();
            }
            let n = match (self.last.len(), self.whole(bytes.len())) {
                (0, chunks @ 1..) => {
                    let n = chunks as usize * CHUNK_LEN;
                    let value = subtree(self.chunks, bytes.get(..n).unwrap_or_default());
                    self.push(value, chunks);
                    n
                }
                (length, _) => {
                    let n = bytes.len().min(CHUNK_LEN - length);
                    self.last.extend_from_slice(bytes.get(..n).unwrap_or_default());
                    n
                }
            };
            bytes = bytes.get(n..).unwrap_or_default();
        }
    }

    /// The chunks of the largest complete subtree that begins here, with something left behind it.
    fn whole(&self, length: usize) -> u64 {
        let here = match self.chunks {
            0 => u64::MAX,
            chunks => 1 << chunks.trailing_zeros(),
        };
        let come = (length.saturating_sub(1) / CHUNK_LEN) as u64;
        match come.checked_ilog2() {
            Some(log) => here.min(1 << log),
            None => 0,
        }
    }

    fn push(&mut self, mut value: ChainingValue, chunks: u64) {
        let mut size = chunks;
        while self.chunks & size != 0 {
            let Some(left) = self.done.pop() else { break };
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
            size <<= 1;
        }
        self.done.push(value);
        self.chunks += chunks;
    }

    pub(super) fn finish(&self) -> [u8; 32] {
        let Some((first, others)) = self.done.split_first() else {
            return blake3::hash(&self.last).into();
        };
        let last = subtree(self.chunks, &self.last);
        let right = others
            .iter()
            .rfold(last, |right, left| merge_subtrees_non_root(left, &right, Mode::Hash));
        merge_subtrees_root(first, &right, Mode::Hash).into()
    }

    /// The number of chunks as a big-endian `u64`, the chaining values, what is behind them.
    pub(super) fn save(&self) -> Vec<u8> {
        let number = self.chunks.to_be_bytes();
        [&number[..], self.done.as_flattened(), &self.last[..]].concat()
    }

    pub(super) fn restore(saved: &[u8]) -> Option<Self> {
        let (chunks, rest) = saved.split_first_chunk()?;
        let chunks = u64::from_be_bytes(*chunks);
        let (done, last) = rest.split_at_checked(chunks.count_ones() as usize * 32)?;
        let (done, []) = done.as_chunks::<32>() else { return None };
        let fits = last.len() <= CHUNK_LEN && (chunks == 0 || !last.is_empty());
        fits.then(|| Self { chunks, done: done.to_vec(), last: last.to_vec() })
    }
}

/// The chaining value of a subtree that is not the whole tree and begins at this chunk.
fn subtree(at: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(at.wrapping_mul(CHUNK_LEN as u64));
    hasher.update(bytes).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + n / 1024) as u8).collect()
    }

    /// Every length about the edges of chunks, and every one that a subtree may have.
    #[test]
    fn it_is_blake3() {
        for length in (0..9000).step_by(128).flat_map(|n| [n, n + 1, n + 127]) {
            let text = text(length);
            let mut tree = Tree::default();
            tree.update(&text);
            assert_eq!(tree.finish(), *blake3::hash(&text).as_bytes(), "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_state_is_not_restored() {
        let mut tree = Tree::default();
        tree.update(&text(3000));
        let saved = tree.save();
        assert!(Tree::restore(&saved).is_some());
        assert!(Tree::restore(&saved[..7]).is_none(), "no number");
        assert!(Tree::restore(&saved[..40]).is_none(), "nothing behind the chunks");
        assert!(Tree::restore(&[&saved[..], &[0; 1024]].concat()).is_none(), "too much");
    }

    proptest! {
        /// In pieces of any size, saved and restored between them.
        #[test]
        fn it_goes_on_where_it_was(pieces in prop::collection::vec(0..70_000_usize, 0..12)) {
            let whole = text(pieces.iter().sum());
            let (mut tree, mut at) = (Tree::default(), 0);
            for piece in pieces {
                tree.update(&whole[at..at + piece]);
                at += piece;
                prop_assert_eq!(tree.finish(), *blake3::hash(&whole[..at]).as_bytes());
                tree = Tree::restore(&tree.save()).unwrap();
            }
        }
    }
}
