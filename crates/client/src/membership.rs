//! One member of a room, as its client sees it: what has come so far, on whichever connection.
//!
//! Its task ([`Membership::send`]), which ends with the last handle, sends what there is to send. So who
//! waits for a line to be said may stop waiting at any time: the line is on its way as a whole, and the
//! next one waits until that one is answered.

use crate::error::Error;
use crate::link::Shared;
use crate::remote::refusal;
use crate::room::RoomEvent;
use rexec_guard::holds;
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_protocol::flow::RecvWindow;
use rexec_protocol::message::{
    Detach, Event, Happening, HappeningKind, Join, Joined, Message, Missed, Refusal, Resume, Say,
    Unsaid,
};
use rexec_protocol::{Frame, ProtocolError, RoomName, StreamId, msgpack};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio::time::{Instant, sleep_until};

/// How many bytes of events may be under way or unread.
const WINDOW: u64 = 512 * 1024;
/// How long a member that comes back waits before it asks again, where the agent is busy: at first and at
/// most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// How long it does so. Coming back counts as joining does, and one may have a thousand places.
const PATIENCE: Duration = Duration::from_secs(120);

/// Something to say.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) action: bool,
}

/// A member of a room of some agent, shared by its connections and its handles.
#[derive(Debug)]
pub(crate) struct Membership {
    room: RoomName,
    history: u64,
    state: Mutex<State>,
    changed: Notify,
    /// There is something to send, or there will never be.
    sending: Notify,
    /// Held while a line waits for its answer.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    place: Option<Place>,
    /// The agent has answered on the connection of now.
    greeted: bool,
    put_off: Option<PutOff>,
    joined: Option<Joined>,
    /// The number of the next event.
    next: u64,
    /// How many lines were said before it.
    lines: u64,
    /// What the application has not taken yet, with its bytes on the wire.
    heard: VecDeque<(RoomEvent, u64)>,
    unread: u64,
    last_id: u64,
    pending: Option<Pending>,
    /// For the connection of now: at most a line, and that this one leaves.
    outgoing: VecDeque<Frame>,
    leaving: bool,
    over: Option<Result<(), Error>>,
}

/// The agent was too busy to take this member back.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    /// When it asks again; `None` while it waits for an answer.
    again: Option<Instant>,
    pause: Duration,
    /// When it gives up.
    end: Instant,
}

#[derive(Debug)]
struct Place {
    stream: StreamId,
    outbox: Outbox,
    credit: RecvCredit,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    line: Line,
    /// It has gone out on some connection, so that an agent may have it.
    sent: bool,
    answer: oneshot::Sender<Result<(), Error>>,
    _turn: OwnedMutexGuard<()>,
}

impl Membership {
    pub(crate) fn new(room: RoomName, history: u64) -> Arc<Self> {
        let (state, changed, sending) = <(Mutex<State>, Notify, Notify)>::default();
        Arc::new(Self { room, history, state, changed, sending, turn: Arc::default() })
    }

    /// Takes `stream` of a connection as the one for this member, and gives the frame that opens it.
    pub(crate) fn open(&self, stream: StreamId, outbox: &Outbox) -> Frame {
        let mut state = self.lock();
        let window = WINDOW.saturating_sub(state.unread);
        let credit = RecvWindow::after(state.unread, WINDOW, window);
        let credit = RecvCredit::new(stream, credit, outbox.clone());
        state.place = Some(Place { stream, outbox: outbox.clone(), credit });
        state.greeted = false;
        state.outgoing.clear();
        state.put_off.iter_mut().for_each(|put_off| put_off.again = None);
        let next = state.next;
        let resume = state.joined.as_ref().map(|joined| {
            let Joined { epoch, member, .. } = *joined;
            Resume { epoch, member, next }
        });
        let (room, history) = (self.room.clone(), self.history);
        Frame::new(stream, Join { window, room, history, resume }.into())
    }

    /// The stream of the connection of now on which the agent was too busy, if this member still waits
    /// to ask on another.
    pub(crate) fn put_off(&self) -> Option<StreamId> {
        let state = self.lock();
        state.put_off.and_then(|put_off| put_off.again)?;
        state.place.as_ref().map(|place| place.stream)
    }

    /// True until the last word was heard.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().over.is_none()
    }

    /// Takes a frame of this member's stream. True if it was the last one.
    pub(crate) fn receive(&self, frame: Frame) -> Result<bool, ProtocolError> {
        let mut state = self.lock();
        match &frame.message {
            Message::Joined(joined) => state.greet(joined)?,
            Message::Event(event) => state.event(*event, &frame)?,
            Message::Missed(missed) => state.missed(*missed)?,
            Message::Said(said) => state.was_said(said.id),
            Message::Unsaid(unsaid) => state.unsaid(unsaid.clone()),
            Message::Detach(_) => state.end(Ok(())),
            Message::Refused(refused) if state.waits_for_a_place(refused.reason) => {
                self.sending.notify_one();
            }
            Message::Refused(refused) => state.end(Err(refusal(refused.clone()))),
            Message::Error(error) => {
                let words = match error.code {
                    rexec_protocol::ErrorCode::UnknownVerb => "this agent has no rooms".to_owned(),
                    code => format!("{} ({code})", error.message),
                };
                state.end(Err(Error::local(words)));
            }
            _ => {}
        }
        let is_over = state.over.is_some();
        if is_over || !state.outgoing.is_empty() {
            self.sending.notify_one();
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(is_over)
    }

    /// The connection is gone, and another may come: until the agent has answered on that, nothing goes out.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.greeted = false;
        state.outgoing.clear();
    }

    /// There is no connection, and none will come.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().end(Err(error));
        self.sending.notify_one();
        self.changed.notify_waiters();
    }

    /// Sends what there is to send, until this member's place is gone; and asks for that again where the agent
    /// was busy.
    pub(crate) async fn send(self: &Arc<Self>, shared: &Shared) {
        loop {
            let (next, again) = {
                let mut state = self.lock();
                if state.over.is_some() {
                    return;
                }
                let outbox = state.place.as_ref().map(|place| place.outbox.clone());
                let next = outbox.and_then(|outbox| Some((outbox, state.take_outgoing()?)));
                (next, state.put_off.and_then(|put_off| put_off.again))
            };
            match (next, again) {
                // If the connection goes just now, the next one gets it.
                (Some((outbox, frame)), _) => drop(outbox.control(frame).await),
                (None, None) => self.sending.notified().await,
                (None, Some(again)) => tokio::select! {
                    () = sleep_until(again) => shared.enter_again(self).await,
                    () = self.sending.notified() => {}
                },
            }
        }
    }

    /// Waits until the agent has answered.
    pub(crate) async fn joined(&self) -> Result<(), Error> {
        self.wait(|state| match (&state.joined, &state.over) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, Some(Ok(()))) => Some(Err(Error::local("the agent did not let it in"))),
            (None, None) => None,
        })
        .await
    }

    /// What is heard next.
    pub(crate) async fn next(&self) -> Result<Option<RoomEvent>, Error> {
        self.wait(|state| match (state.take(), &state.over) {
            (Some(event), _) => Some(Ok(Some(event))),
            (None, Some(end)) => Some(end.clone().map(|()| None)),
            (None, None) => None,
        })
        .await
    }

    /// Says a line, and waits until that is done. Who stops waiting before it is the line's turn has
    /// said nothing; after that, the line is said all the same.
    pub(crate) async fn say(&self, line: Line) -> Result<(), Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some(end) = &state.over {
                return end
                    .clone()
                    .and_then(|()| Err(Error::local("this place in the room is gone")));
            }
            state.last_id += 1;
            let pending = Pending { id: state.last_id, line, sent: false, answer, _turn: turn };
            let frame = state.line(&pending);
            state.outgoing.extend(frame);
            state.pending = Some(pending);
        }
        self.sending.notify_one();
        answered.await.unwrap_or_else(|_| Err(Error::local("the session ended")))
    }

    pub(crate) fn may_say(&self) -> bool {
        self.lock().joined.as_ref().is_some_and(|joined| joined.post)
    }

    /// Whether this is the member of that number.
    pub(crate) fn is_member(&self, member: u64) -> bool {
        self.lock().joined.as_ref().is_some_and(|joined| joined.member == member)
    }

    /// Asks to leave.
    pub(crate) fn leave(&self) {
        self.lock().leave();
        self.sending.notify_one();
        self.changed.notify_waiters();
    }

    /// Nobody listens any more, and nobody sends: what was to be sent goes now.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.leave();
        let frames = std::mem::take(&mut state.outgoing);
        if let Some(place) = &state.place {
            // If there is no room, the end of the connection will tell.
            for frame in frames {
                let _ = place.outbox.try_control(frame);
            }
        }
        while state.take().is_some() {}
    }

    async fn wait<T>(&self, look: impl Fn(&mut State) -> Option<T>) -> T {
        loop {
            // Before the look, so that what happens after it is not missed.
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The agent's answer on a connection; what is to be sent again goes on it.
    fn greet(&mut self, joined: &Joined) -> Result<(), ProtocolError> {
        if std::mem::replace(&mut self.greeted, true) {
            return Err(wrong("joined", "twice"));
        }
        self.put_off = None;
        let before = self.joined.replace(joined.clone());
        let is_same_opening = before.as_ref().is_some_and(|before| before.epoch == joined.epoch);
        if !is_same_opening {
            (self.next, self.lines) = (joined.next, joined.lines);
        }
        if before.is_some() && !is_same_opening {
            self.hear(RoomEvent::OpenedAnew, 0);
        }
        if self.leaving {
            self.outgoing.extend(self.detach());
            return Ok(());
        }
        let Some(pending) = self.pending.take() else { return Ok(()) };
        match joined.said {
            Some(said) if said >= pending.id => answer(pending, Ok(())),
            // What never went out is for the room of now.
            None if pending.sent => {
                let words = "the connection was lost while it was said, and the agent does not know any more whether it was";
                answer(pending, Err(Error::lost(words)));
            }
            _ => {
                self.outgoing.extend(self.line(&pending));
                self.pending = Some(pending);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, frame: &Frame) -> Result<(), ProtocolError> {
        self.demand_greeting("event")?;
        if !holds("room.order", event.seq == self.next) {
            return Err(wrong("event", "out of its order"));
        }
        let length = frame.body.len() as u64;
        if let Some(place) = &self.place {
            place.credit.received(length)?;
        }
        let body = frame.verified_body()?;
        let happening: Happening = msgpack::decode(body.as_bytes(), msgpack::BODY)?;
        self.next = self.next.saturating_add(1);
        let is_line = matches!(
            happening.kind,
            HappeningKind::Said | HappeningKind::Action | HappeningKind::Wall
        );
        self.lines = self.lines.saturating_add(u64::from(is_line));
        self.hear(RoomEvent::Happened(happening), length);
        Ok(())
    }

    fn missed(&mut self, missed: Missed) -> Result<(), ProtocolError> {
        self.demand_greeting("missed")?;
        if !holds("room.missed", missed.to > self.next) {
            return Err(wrong("missed", "for what was there"));
        }
        let lines = missed.lines.saturating_sub(self.lines);
        (self.next, self.lines) = (missed.to, missed.lines);
        if let Some((RoomEvent::Missed { lines: more }, _)) = self.heard.back_mut() {
            *more = more.saturating_add(lines);
        } else {
            self.hear(RoomEvent::Missed { lines }, 0);
        }
        Ok(())
    }

    fn unsaid(&mut self, Unsaid { id, reason, message }: Unsaid) {
        if let Some(pending) = self.pending.take_if(|pending| pending.id == id) {
            let refused = rexec_protocol::message::Refused { reason, message };
            answer(pending, Err(refusal(refused)));
        }
    }

    /// Lines up to this id have their place in the room.
    fn was_said(&mut self, id: u64) {
        if let Some(pending) = self.pending.take_if(|pending| pending.id <= id) {
            answer(pending, Ok(()));
        }
    }

    fn end(&mut self, end: Result<(), Error>) {
        if let Some(pending) = self.pending.take() {
            let words = "the place in the room is gone; whether it was said is not known";
            answer(pending, Err(end.clone().err().unwrap_or_else(|| Error::lost(words))));
        }
        self.over.get_or_insert(end);
    }

    fn hear(&mut self, event: RoomEvent, length: u64) {
        self.unread += length;
        self.heard.push_back((event, length));
    }

    fn take_outgoing(&mut self) -> Option<Frame> {
        let frame = self.outgoing.pop_front()?;
        if let (Message::Say(say), Some(pending)) = (&frame.message, &mut self.pending) {
            pending.sent |= say.id == pending.id;
        }
        Some(frame)
    }

    fn take(&mut self) -> Option<RoomEvent> {
        let (event, length) = self.heard.pop_front()?;
        self.unread = self.unread.saturating_sub(length);
        if let Some(place) = &mut self.place {
            place.credit.consumed(length);
        }
        Some(event)
    }

    /// A line for the connection of now, if the agent has answered on it.
    fn line(&self, pending: &Pending) -> Option<Frame> {
        let place = self.place.as_ref().filter(|_| self.greeted)?;
        let Line { text, action } = &pending.line;
        let say = Say { id: pending.id, action: *action };
        Some(Frame::with_body(place.stream, say.into(), text.clone().into_bytes()))
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.outgoing.extend(self.detach());
        }
        if self.put_off.is_some_and(|put_off| put_off.again.is_some()) {
            // It has no place to leave.
            self.end(Ok(()));
        }
    }

    /// Whether a member that was in the room already asks again later.
    fn waits_for_a_place(&mut self, reason: Refusal) -> bool {
        let (now, (pause, most)) = (Instant::now(), PAUSE);
        let before = self.put_off.unwrap_or(PutOff { again: None, pause, end: now + PATIENCE });
        let waits = reason == Refusal::Busy && self.joined.is_some() && !self.leaving;
        if !waits || now >= before.end {
            return false;
        }
        let again = Some(now + before.pause);
        self.put_off = Some(PutOff { again, pause: (2 * before.pause).min(most), ..before });
        true
    }

    fn detach(&self) -> Option<Frame> {
        let place = self.place.as_ref().filter(|_| self.greeted && self.over.is_none())?;
        Some(Frame::new(place.stream, Detach {}.into()))
    }

    fn demand_greeting(&self, verb: &'static str) -> Result<(), ProtocolError> {
        if self.greeted { Ok(()) } else { Err(wrong(verb, "before joined")) }
    }
}

/// Who said it may have gone.
fn answer(pending: Pending, result: Result<(), Error>) {
    let _ = pending.answer.send(result);
}

fn wrong(verb: &'static str, when: &'static str) -> ProtocolError {
    ProtocolError::WrongState { verb, when }
}
