//! What came in for a stream and was not consumed yet.
//!
//! The reading half fills it without ever waiting; credit bounds the bytes. Small pieces are copied
//! together, so that a peer that sends single bytes costs little more memory than its credit, and
//! no small piece keeps the large buffer alive that it was read into.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Pieces below this size are copied together.
const SMALL: usize = 64 * 1024;

/// A queue of bytes with an end. One task fills, one task takes.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    whole: VecDeque<Bytes>,
    /// Small pieces that came after everything in `whole`.
    small: BytesMut,
    end: Option<End>,
    taker: Option<Waker>,
    /// Nobody will take anything any more.
    is_over: bool,
}

/// How a stream of bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At its end.
    Eof,
    /// Before its end: the connection is gone.
    Cut,
}

impl Inbox {
    /// Adds bytes at the end.
    pub fn push(&self, bytes: Bytes) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        if bytes.len() < SMALL {
            state.small.extend_from_slice(&bytes);
        } else {
            state.settle();
            state.whole.push_back(bytes);
        }
        state.wake();
    }

    /// Ends the queue; what is in it can still be taken. Only the first end counts.
    pub fn finish(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        state.wake();
    }

    /// Drops what is in it, and whatever comes after that.
    pub fn discard(&self) {
        let mut state = self.lock();
        state.is_over = true;
        (state.whole, state.small) = Default::default();
    }

    /// Bytes that are in it.
    pub fn size(&self) -> usize {
        let state = self.lock();
        state.whole.iter().map(Bytes::len).sum::<usize>() + state.small.len()
    }

    /// Takes the next bytes, or the end once all bytes were taken. Waits for either.
    pub async fn next(&self) -> Result<Bytes, End> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Inbox::next`], polled.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        let mut state = self.lock();
        if state.whole.is_empty() {
            state.settle();
        }
        match (state.whole.pop_front(), state.end) {
            (Some(bytes), _) => Poll::Ready(Ok(bytes)),
            (None, Some(end)) => Poll::Ready(Err(end)),
            (None, None) => {
                state.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    fn settle(&mut self) {
        if !self.small.is_empty() {
            let small = std::mem::take(&mut self.small);
            self.whole.push_back(small.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn order_is_kept_and_small_pieces_are_joined() {
        let inbox = Inbox::default();
        for piece in [&b"a"[..], b"b", &[b'c'; SMALL], b"d"] {
            inbox.push(Bytes::copy_from_slice(piece));
        }
        inbox.finish(End::Eof);
        inbox.finish(End::Cut);
        assert_eq!(inbox.next().await.unwrap(), "ab");
        assert_eq!(inbox.next().await.unwrap().len(), SMALL);
        assert_eq!(inbox.next().await.unwrap(), "d");
        assert_eq!(inbox.next().await, Err(End::Eof));
    }

    #[test]
    fn what_nobody_will_take_is_not_kept() {
        let inbox = Inbox::default();
        for piece in [&b"a"[..], &[b'c'; SMALL], b"d"] {
            inbox.push(Bytes::copy_from_slice(piece));
        }
        assert_eq!(inbox.size(), SMALL + 2);
        inbox.discard();
        inbox.push(Bytes::from_static(b"late"));
        assert_eq!(inbox.size(), 0);
    }
}
