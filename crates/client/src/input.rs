//! A job's stdin on its way to the agent, which may take more than one connection.
//!
//! What was sent is kept until the agent has said that the command took it. On another connection it
//! is sent again from where the agent says, before anything new.

use crate::error::Error;
use bytes::{Buf, Bytes};
use rexec_net::Outbox;
use rexec_net::credit::SendCredit;
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::{Channel, Data, Message, Window};
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{Algorithm, Frame, Hasher, StreamId, flow};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio_util::sync::PollSender;

/// The sending end of a stdin.
#[derive(Debug)]
pub(crate) struct Input(Mutex<State>);

#[derive(Debug)]
struct State {
    sender: Sender,
    /// `data` frames that the command may not have taken yet, and at the end perhaps `eof`.
    kept: VecDeque<Frame>,
    ended: bool,
    /// The command takes no more, or is over.
    stopped: bool,
    line: Option<Line>,
    /// Everything that was sent before is on the line of now, so that new bytes may follow.
    ready: bool,
    /// The agent has this much, from another process: it is digested here, and not sent.
    skip_to: u64,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Line {
    stream: StreamId,
    credit: Arc<SendCredit>,
    lane: PollSender<Box<Frame>>,
    outbox: Outbox,
    /// The offset of the first byte on this line.
    from: u64,
}

impl Input {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self(Mutex::new(State {
            sender: Sender::new(Channel::In, algorithm),
            kept: VecDeque::new(),
            ended: false,
            stopped: false,
            line: None,
            ready: false,
            skip_to: 0,
            writer: None,
        }))
    }

    /// Another digest than the one that was assumed; nothing must have been sent yet.
    pub(crate) fn digest_by(&self, algorithm: Algorithm) {
        self.lock().sender = Sender::new(Channel::In, algorithm);
    }

    /// There is a connection. On the first one bytes may follow at once; otherwise only after
    /// [`Input::rewind`] and [`Input::send_again`].
    pub(crate) fn open(&self, stream: StreamId, outbox: &Outbox, is_first: bool) {
        let credit = SendCredit::new(if is_first { flow::INITIAL_WINDOW } else { 0 });
        let mut state = self.lock();
        state.line = Some(Line {
            stream,
            credit: Arc::new(credit),
            lane: PollSender::new(outbox.data_lane()),
            outbox: outbox.clone(),
            from: 0,
        });
        state.ready = is_first;
        state.wake();
    }

    /// The connection is gone, and another may come.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.ready = false;
        if let Some(line) = state.line.take() {
            line.credit.close();
        }
        state.wake();
    }

    /// A `window` frame.
    pub(crate) fn raise(&self, window: Window) {
        let mut state = self.lock();
        let Some(line) = &state.line else { return };
        line.credit.raise(window.limit);
        let from = line.from;
        state.taken(from, window.consumed);
    }

    /// The command takes no more.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.kept.clear();
        if let Some(line) = &state.line {
            // Whoever waits for credit must wake up to see it.
            line.credit.raise(u64::MAX);
        }
        state.wake();
    }

    /// True once the command, or the session, takes no more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Size and digest of what was sent.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().sender.tally()
    }

    /// The agent has everything up to `at`, and wants what follows.
    pub(crate) fn rewind(&self, at: u64) -> Result<(), Error> {
        let mut state = self.lock();
        if state.stopped {
            // What was under way when the command closed its stdin is nobody's any more.
            return Ok(());
        }
        // What the agent has may be lost with it until the command has taken it, so it is kept.
        let oldest = state.kept.iter().find_map(offset).unwrap_or(state.sender.offset());
        if at < oldest {
            return Err(Error::lost(format!(
                "the agent has lost stdin from byte {at} on, of which it said before that the command took it"
            )));
        }
        if at > state.sender.offset() {
            return Err(Error::lost("the agent has more of stdin than was sent".to_owned()));
        }
        if let Some(line) = &mut state.line {
            line.from = at;
        }
        Ok(())
    }

    /// The agent has everything up to `at`, although this process has just begun: another one has
    /// sent it, under the same id. What was sent on this line meanwhile is dropped there.
    ///
    /// # Errors
    /// If this process has sent the end already: then its stdin is another.
    pub(crate) fn join(&self, at: u64) -> Result<(), Error> {
        let mut state = self.lock();
        let sent = state.sender.offset();
        if at <= sent {
            return Ok(());
        }
        if state.ended {
            return Err(another_stdin(sent, at));
        }
        state.skip_to = at;
        state.kept.clear();
        if let Some(line) = &mut state.line {
            line.from = at - sent;
        }
        state.wake();
        Ok(())
    }

    /// [`Input::rewind`] for a stream on which the digests of stdin begin at `at`.
    pub(crate) fn restart(&self, at: u64, algorithm: Algorithm) -> Result<(), Error> {
        if self.lock().sender.offset() > 0 {
            self.rewind(at)?;
        }
        let mut state = self.lock();
        let kept = std::mem::take(&mut state.kept);
        state.sender = Sender::after(Channel::In, at, Hasher::new(algorithm));
        for frame in kept {
            if let Some(front) = cut_back(&frame, at) {
                state.kept.push_back(front);
            }
            if end(&frame) > at {
                let body = cut_front(frame, at, StreamId::CONNECTION).body;
                let frame = state.sender.data(StreamId::CONNECTION, body);
                state.kept.push_back(frame);
            }
        }
        if let Some(line) = &mut state.line {
            line.from = at;
        }
        Ok(())
    }

    /// Sends what is kept on this line, as credit allows; then the writer goes on.
    pub(crate) async fn send_again(&self, (credit, outbox): (Arc<SendCredit>, Outbox)) {
        let mut next = 0;
        while let Some(frame) = self.next_again(next, &credit) {
            next = end(&frame);
            let length = frame.body.len() as u64;
            // If this connection goes too, the next one begins anew.
            if length > 0 && !credit.take(length).await || outbox.data(frame).await.is_err() {
                return;
            }
            if length == 0 {
                return;
            }
        }
    }

    /// The line of now, for [`Input::send_again`].
    pub(crate) fn line(&self) -> Option<(Arc<SendCredit>, Outbox)> {
        let state = self.lock();
        let line = state.line.as_ref()?;
        Some((Arc::clone(&line.credit), line.outbox.clone()))
    }

    /// The first frame that is to be sent again and ends after `next`; without any the writer may go
    /// on. Only for the line of this credit: on the next one all begins anew, elsewhere.
    fn next_again(&self, next: u64, credit: &Arc<SendCredit>) -> Option<Frame> {
        let mut state = self.lock();
        let line = state.line.as_ref().filter(|line| Arc::ptr_eq(&line.credit, credit))?;
        let (stream, from) = (line.stream, line.from);
        let kept = state.kept.iter().find(|frame| end(frame) > next.max(from)).cloned();
        match kept {
            Some(frame) => Some(cut_front(frame, from.max(next), stream)),
            None if state.ended && !state.stopped => Some(state.sender.eof(stream)),
            None => {
                state.ready = true;
                state.wake();
                None
            }
        }
    }

    /// Sends up to `wanted` bytes, which `take` gives.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
        take: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let Some(line) = ready!(state.poll_line(cx)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let stream = line.stream;
        let known = state.skip_to.saturating_sub(state.sender.offset());
        if known > 0 {
            let n = wanted.min(MAX_DATA).min(usize::try_from(known).unwrap_or(usize::MAX));
            // Only for the digest, which proves that it is the same.
            drop(state.sender.data(stream, take(n)));
            return Poll::Ready(Ok(n));
        }
        let Some(line) = &mut state.line else { return Poll::Pending };
        // Credit first: a place in the lane, which all commands share, must not wait for it.
        let available = ready!(line.credit.poll_available(cx));
        if ready!(line.lane.poll_reserve(cx)).is_err() {
            // The connection is gone; the next one wakes this up.
            state.ready = false;
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = wanted.min(MAX_DATA).min(usize::try_from(available).unwrap_or(usize::MAX));
        if !line.credit.take_now(n as u64) {
            unreachable!("credit only grows until its one user takes it");
        }
        let frame = state.sender.data(stream, take(n));
        state.kept.push_back(frame.clone());
        if let Some(line) = &mut state.line {
            // What is not sent now is sent again on the next connection.
            let _ = line.lane.send_item(Box::new(frame));
        }
        Poll::Ready(Ok(n))
    }

    /// Sends the end.
    ///
    /// # Errors
    /// If another process has sent more under this id: then this is another stdin, and its end is not
    /// sent.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        if state.ended {
            return Poll::Ready(Ok(()));
        }
        if ready!(state.poll_line(cx)).is_none() {
            return Poll::Ready(Ok(()));
        }
        let (sent, known) = (state.sender.offset(), state.skip_to);
        if sent < known {
            state.ended = true;
            return Poll::Ready(Err(another_stdin(sent, known)));
        }
        let Some(line) = &mut state.line else { return Poll::Pending };
        if ready!(line.lane.poll_reserve(cx)).is_ok() {
            let stream = line.stream;
            let eof = state.sender.eof(stream);
            if let Some(line) = &mut state.line {
                let _ = line.lane.send_item(Box::new(eof));
            }
        }
        state.ended = true;
        Poll::Ready(Ok(()))
    }

    /// [`Input::poll_end`] for one who does not wait: the end is sent when there is a line.
    pub(crate) async fn end(&self) {
        // Without a connection there is nobody to tell.
        let _ = std::future::poll_fn(|cx| self.poll_end(cx)).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The line, once it may be used; `None` if nothing may be sent any more.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<&mut Line>> {
        if self.ended || self.stopped {
            if let Some(line) = &mut self.line {
                // A place in the lane that was asked for would otherwise be kept.
                line.lane.abort_send();
            }
            return Poll::Ready(None);
        }
        // Also where there is a line: who then waits for a place in its lane hears nothing from that when it is
        // dropped with the line.
        self.writer = Some(cx.waker().clone());
        match &mut self.line {
            Some(line) if self.ready => Poll::Ready(Some(line)),
            _ => Poll::Pending,
        }
    }

    /// The command has taken this many bytes that were sent from `from` on. Of what came before that on
    /// other lines it has taken all, if any: nothing is told by none.
    fn taken(&mut self, from: u64, consumed: u64) {
        let taken = if consumed > 0 { from.saturating_add(consumed) } else { 0 };
        while self.kept.front().is_some_and(|frame| end(frame) <= taken) {
            self.kept.pop_front();
        }
    }

    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

fn another_stdin(sent: u64, known: u64) -> Error {
    Error::lost(format!(
        "stdin ends after {sent} bytes, but {known} were sent before under the same id; the job goes on without this client"
    ))
}

fn offset(frame: &Frame) -> Option<u64> {
    match frame.message {
        Message::Data(data) => Some(data.offset),
        _ => None,
    }
}

fn end(frame: &Frame) -> u64 {
    offset(frame).unwrap_or_default().saturating_add(frame.body.len() as u64)
}

/// The part of a `data` frame before `to`, if there is any. Its digest is no longer right.
fn cut_back(frame: &Frame, to: u64) -> Option<Frame> {
    let length = to.checked_sub(offset(frame)?).filter(|length| *length > 0)?;
    let mut front = frame.clone();
    front.body.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Some(front)
}

/// The part of a `data` frame from `from` on, for `stream`. The digest of a body is that of all bytes
/// up to its end, wherever it begins.
fn cut_front(mut frame: Frame, from: u64, stream: StreamId) -> Frame {
    let at = offset(&frame).unwrap_or_default();
    if from > at {
        let cut = usize::try_from(from - at).unwrap_or(usize::MAX).min(frame.body.len());
        frame.body.advance(cut);
        frame.message = Data { channel: Channel::In, offset: from, time_ms: None }.into();
    }
    frame.stream = stream;
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::message::Ping;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// It slept for ever, whatever came of the next connection.
    #[tokio::test]
    async fn a_writer_that_waits_for_a_place_hears_of_a_cut() {
        let (io, _peer) = tokio::io::duplex(1);
        let first = Frame::new(StreamId::CONNECTION, Ping { nonce: 0 }.into());
        let (outbox, _writer) = Outbox::start(io, first);
        let input = Input::new(Algorithm::Sha256);
        input.open(StreamId(1), &outbox, true);
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut sent = 0;
        // Nobody takes a frame out of the lane, since this test never waits.
        while input.poll_send(&mut cx, 1, |n| vec![0; n].into()).is_ready() {
            sent += 1;
            assert!(sent < flow::INITIAL_WINDOW, "it is no place that is missing");
        }
        assert!(!woken.0.load(Ordering::Relaxed));
        input.cut();
        assert!(woken.0.load(Ordering::Relaxed), "it sleeps on");
    }

    /// `head -1` closed its stdin, the rest was dropped on its way, and then the connection broke.
    #[test]
    fn a_stopped_input_has_lost_nothing() {
        let input = Input::new(Algorithm::Sha256);
        input.lock().sender.data(StreamId(1), Bytes::from_static(b"line and more"));
        assert!(input.rewind(4).is_err(), "what was sent is not kept");
        input.stop();
        assert_eq!(input.rewind(4), Ok(()));
    }

    /// An agent had received more than the command had taken, said so after a cut, and was restarted.
    #[test]
    fn what_the_agent_has_is_kept_until_the_command_has_it() {
        let bodies = [&b"one"[..], b"two", b"three"];
        let digest = |bytes: &[u8]| Some(rexec_protocol::Digest::of(Algorithm::Sha256, bytes));
        for anew in [false, true] {
            let input = Input::new(Algorithm::Sha256);
            for body in bodies {
                let mut state = input.lock();
                let frame = state.sender.data(StreamId(1), Bytes::from_static(body));
                state.kept.push_back(frame);
            }
            let go_on = |at| match anew {
                true => input.restart(at, Algorithm::Sha256),
                false => input.rewind(at),
            };
            assert_eq!(go_on(7), Ok(()));
            // How much it may send, and nothing about what was taken.
            input.lock().taken(7, 0);
            assert_eq!(go_on(3), Ok(()), "the next agent has less");
            let last = input.lock().kept.back().unwrap().hash;
            assert_eq!(last, digest(if anew { b"twothree" } else { b"onetwothree" }));
            input.lock().taken(3, 4);
            assert!(go_on(3).is_err(), "it is forgotten once the command has it");
            assert_eq!(go_on(7), Ok(()));
        }
    }
}
