//! Flow control in use: the arithmetic is the protocol's, the waiting is here.

use crate::outbox::Outbox;
use rexec_protocol::flow::{RecvWindow, SendWindow};
use rexec_protocol::message::Window;
use rexec_protocol::{ProtocolError, StreamId};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How much one side may still send on a stream. One task takes, the reading half raises.
#[derive(Debug)]
pub struct SendCredit(Mutex<Sending>);

#[derive(Debug)]
struct Sending {
    window: SendWindow,
    closed: bool,
    taker: Option<Waker>,
}

impl SendCredit {
    /// Credit for the first `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Mutex::new(Sending { window: SendWindow::new(limit), closed: false, taker: None }))
    }

    /// Waits until `n` bytes may be sent, and counts them as sent; false if that will never be.
    #[must_use]
    pub async fn take(&self, n: u64) -> bool {
        poll_fn(|cx| {
            self.poll(cx, |sending| match sending.window.take(n) {
                true => Some(true),
                false => sending.closed.then_some(false),
            })
        })
        .await
    }

    /// There will be no more credit: the peer is gone.
    pub fn close(&self) {
        let mut sending = lock(&self.0);
        sending.closed = true;
        sending.wake();
    }

    /// How many bytes may be sent, once that is at least one. Counts nothing, so that the caller
    /// can first find a place for them.
    pub fn poll_available(&self, cx: &mut Context<'_>) -> Poll<u64> {
        self.poll(cx, |sending| Some(sending.window.available()).filter(|available| *available > 0))
    }

    /// Counts `n` bytes as sent if that many may be.
    #[must_use]
    pub fn take_now(&self, n: u64) -> bool {
        lock(&self.0).window.take(n)
    }

    /// The peer's `window` frame.
    pub fn raise(&self, limit: u64) {
        let mut sending = lock(&self.0);
        sending.window.raise(limit);
        sending.wake();
    }

    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Sending) -> Option<T>,
    ) -> Poll<T> {
        let mut sending = lock(&self.0);
        match take(&mut sending) {
            Some(taken) => Poll::Ready(taken),
            None => {
                sending.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Sending {
    fn wake(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }
}

/// How much the peer may still send on a stream: refuses more, and gives credit back as it is
/// consumed.
#[derive(Debug)]
pub struct RecvCredit {
    window: Mutex<RecvWindow>,
    stream: StreamId,
    outbox: Outbox,
}

impl RecvCredit {
    /// Credit for `stream` as `window` says, of which the peer knows the first limit already.
    pub fn new(stream: StreamId, window: RecvWindow, outbox: Outbox) -> Self {
        Self { window: Mutex::new(window), stream, outbox }
    }

    /// Counts bytes that came in.
    pub fn received(&self, n: u64) -> Result<(), ProtocolError> {
        lock(&self.window).received(n)
    }

    /// Counts bytes whose consumer is done with them, and tells the peer when it is time. Never
    /// waits, so it may be called from anywhere.
    pub fn consumed(&self, n: u64) {
        let window = lock(&self.window).consumed(n);
        self.tell(window);
    }

    /// The same for bytes that came and are not for the consumer.
    pub fn dropped(&self, n: u64) {
        let window = lock(&self.window).dropped(n);
        self.tell(window);
    }

    fn tell(&self, window: Option<Window>) {
        if let Some(window) = window {
            self.outbox.window(self.stream, window);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
