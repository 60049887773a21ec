//! A client in a room: one cursor, moving on as credit and the connection allow.

use super::room::{Cursor, Room, Seat};
use rexec_net::Outbox;
use rexec_net::credit::SendCredit;
use rexec_net::outbox::Gone;
use rexec_protocol::message::{Detach, Joined, Message, Refusal, Refused};
use rexec_protocol::{Frame, StreamId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A member's stream.
#[derive(Debug)]
pub struct Member {
    /// The room.
    pub room: Arc<Room>,
    /// The place in it.
    pub seat: Seat,
    stream: StreamId,
    outbox: Outbox,
    credit: SendCredit,
    /// The answer to a line; the client has one under way at a time.
    answer: Mutex<Option<Message>>,
    answered: Notify,
    leaving: CancellationToken,
    is_cut: AtomicBool,
}

/// What a member is asked to be judged by again; the error ends its stay.
pub type StillMay = Box<dyn FnMut() -> Result<(), String> + Send>;

impl Member {
    /// A member whose client may be sent `window` bytes.
    pub fn new(
        room: Arc<Room>,
        seat: Seat,
        stream: StreamId,
        outbox: Outbox,
        window: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            room,
            seat,
            stream,
            outbox,
            credit: SendCredit::new(window),
            answer: Mutex::default(),
            answered: Notify::new(),
            leaving: CancellationToken::new(),
            is_cut: AtomicBool::new(false),
        })
    }

    /// A `window` frame.
    pub fn raise(&self, limit: u64) {
        self.credit.raise(limit);
    }

    /// Has the client told what became of a line; false if it has not taken the last such word yet, so
    /// that it says more than it may.
    #[must_use]
    pub fn answer(&self, answer: Message) -> bool {
        let before = self.lock().replace(answer);
        self.answered.notify_one();
        before.is_none()
    }

    /// The client leaves: `detach` will be the last frame.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// The connection is gone, or about to go: the client may come back, so it is told nothing.
    pub fn cut(&self) {
        self.credit.close();
        self.is_cut.store(true, Ordering::Release);
        self.leaving.cancel();
    }

    /// Sends what happens, until the client leaves or may not be here any more. `Err` if the
    /// connection went first.
    pub async fn run(
        &self,
        joined: Joined,
        mut cursor: Cursor,
        mut still_may: StillMay,
    ) -> Result<(), Gone> {
        self.send(joined.into()).await?;
        loop {
            let frame = tokio::select! {
                frame = self.room.next(&mut cursor) => frame,
                () = self.answered.notified() => {
                    self.send_answer().await?;
                    continue;
                }
                () = self.over() => return self.send_last().await,
            };
            if let Err(message) = still_may() {
                let refused = Refused { reason: Refusal::Denied, message };
                return self.send(refused.into()).await;
            }
            if !self.await_credit(frame.body.len() as u64).await? {
                return self.send_last().await;
            }
            self.outbox.data(Frame { stream: self.stream, ..frame }).await?;
        }
    }

    /// False if the client leaves meanwhile.
    async fn await_credit(&self, n: u64) -> Result<bool, Gone> {
        if n == 0 {
            return Ok(true);
        }
        loop {
            tokio::select! {
                has_credit = self.credit.take(n) => return if has_credit { Ok(true) } else { Err(Gone) },
                () = self.answered.notified() => self.send_answer().await?,
                () = self.over() => return Ok(false),
            }
        }
    }

    async fn over(&self) {
        tokio::select! {
            () = self.leaving.cancelled() => {}
            () = self.seat.out.cancelled() => {}
        }
    }

    async fn send_last(&self) -> Result<(), Gone> {
        if self.is_cut.load(Ordering::Acquire) {
            Err(Gone)
        } else {
            self.send(Detach {}.into()).await
        }
    }

    async fn send_answer(&self) -> Result<(), Gone> {
        let answer = self.lock().take();
        match answer {
            Some(answer) => self.send(answer).await,
            None => Ok(()),
        }
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.outbox.data(Frame::new(self.stream, message)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Message>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
