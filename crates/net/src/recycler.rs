//! Large buffers, used again once everyone has let go of what was in them.
//!
//! Bulk transfer takes a fresh buffer for every body. Left to the allocator, those may be given back
//! to the kernel and faulted in again, page by page. A program that calls [`crate::memory::keep_freed`]
//! is spared most of that anyway; users of the client library need not call it.

use bytes::BytesMut;
use std::collections::VecDeque;

/// Buffers below this size are left to the allocator, which keeps them itself.
const LARGE: usize = 32 * 1024;
/// Buffers kept: what the windows of one bulk stream hold, at 256 KiB each.
const KEPT: usize = 12;

/// The large buffers of one byte stream.
#[derive(Debug, Default)]
pub struct Recycler {
    kept: VecDeque<BytesMut>,
}

impl Recycler {
    /// Makes room for at least `room` more bytes behind what is in `buffer`.
    pub fn make_room(&mut self, buffer: &mut BytesMut, room: usize) {
        if buffer.capacity() - buffer.len() >= room {
            return;
        }
        let size = buffer.len() + room;
        // A small buffer is always a new one: `reserve` might take a large one back for it.
        let mut next = if room < LARGE { BytesMut::with_capacity(size) } else { self.free(size) };
        next.extend_from_slice(buffer);
        if room < LARGE {
            *buffer = next;
            return;
        }
        let mut used = std::mem::replace(buffer, next);
        used.clear();
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(used);
    }

    /// An empty buffer of at least `size`: one that nobody holds a part of any more, or a new one.
    fn free(&mut self, size: usize) -> BytesMut {
        let is_free = |buffer: &mut BytesMut| buffer.try_reclaim(size);
        match self.kept.iter_mut().position(is_free).and_then(|n| self.kept.remove(n)) {
            Some(buffer) => buffer,
            None => BytesMut::with_capacity(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_holds_it() {
        let mut recycler = Recycler::default();
        let mut buffer = BytesMut::new();
        let mut fill = |recycler: &mut Recycler| {
            recycler.make_room(&mut buffer, LARGE);
            buffer.resize(buffer.capacity(), 7);
            buffer.split().freeze()
        };
        let first = fill(&mut recycler);
        let place = first.as_ptr();
        let second = fill(&mut recycler);
        assert_ne!(second.as_ptr(), place, "the first is still held");
        assert!(first.iter().all(|byte| *byte == 7));
        drop(first);
        assert_eq!(fill(&mut recycler).as_ptr(), place);
        drop(second);
    }

    #[test]
    fn what_is_in_the_buffer_stays() {
        let mut recycler = Recycler::default();
        let mut buffer = BytesMut::from(&b"header"[..]);
        recycler.make_room(&mut buffer, LARGE);
        assert_eq!(&buffer[..], b"header");
        assert!(buffer.capacity() >= LARGE + 6);
    }
}
