//! One member of a room, as its client sees it: what has come so far, on whichever connection.

use crate::error::Error;
use crate::remote::refusal;
use crate::room::RoomEvent;
use rexec_guard::holds;
use rexec_net::Outbox;
use rexec_net::credit::RecvCredit;
use rexec_protocol::flow::RecvWindow;
use rexec_protocol::message::{
    Detach, Event, Happening, HappeningKind, Join, Joined, Message, Missed, Resume, Say, Unsaid,
};
use rexec_protocol::{Frame, ProtocolError, RoomName, StreamId, msgpack};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// How many bytes of events may be under way or unread.
const WINDOW: u64 = 512 * 1024;

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
    /// Held while a line waits for its answer.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    place: Option<Place>,
    /// The agent has answered on the connection of now.
    greeted: bool,
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
    leaving: bool,
    over: Option<Result<(), Error>>,
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
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Membership {
    pub(crate) fn new(room: RoomName, history: u64) -> Arc<Self> {
        let (state, changed, turn) = <(Mutex<State>, Notify, tokio::sync::Mutex<()>)>::default();
        Arc::new(Self { room, history, state, changed, turn })
    }

    /// Takes `stream` of a connection as the one for this member, and gives the frame that opens it.
    pub(crate) fn open(&self, stream: StreamId, outbox: &Outbox) -> Frame {
        let mut state = self.lock();
        let window = WINDOW.saturating_sub(state.unread);
        let credit = RecvWindow::after(state.unread, WINDOW, window);
        let credit = RecvCredit::new(stream, credit, outbox.clone());
        state.place = Some(Place { stream, outbox: outbox.clone(), credit });
        state.greeted = false;
        let next = state.next;
        let resume = state.joined.as_ref().map(|joined| {
            let Joined { epoch, member, .. } = *joined;
            Resume { epoch, member, next }
        });
        let (room, history) = (self.room.clone(), self.history);
        Frame::new(stream, Join { window, room, history, resume }.into())
    }

    /// True until the last word was heard.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().over.is_none()
    }

    /// Takes a frame of this member's stream. True if it was the last one.
    pub(crate) fn receive(&self, frame: Frame) -> Result<bool, ProtocolError> {
        let mut state = self.lock();
        let again = match &frame.message {
            Message::Joined(joined) => state.greet(joined)?,
            Message::Event(event) => {
                state.event(*event, &frame)?;
                None
            }
            Message::Missed(missed) => {
                state.missed(*missed)?;
                None
            }
            Message::Said(said) => {
                state.was_said(said.id);
                None
            }
            Message::Unsaid(unsaid) => {
                state.unsaid(unsaid.clone());
                None
            }
            Message::Detach(_) => {
                state.end(Ok(()));
                None
            }
            Message::Refused(refused) => {
                state.end(Err(refusal(refused.clone())));
                None
            }
            Message::Error(error) => {
                let words = match error.code {
                    rexec_protocol::ErrorCode::UnknownVerb => "this agent has no rooms".to_owned(),
                    code => format!("{} ({code})", error.message),
                };
                state.end(Err(Error::local(words)));
                None
            }
            _ => None,
        };
        if let (Some(frame), Some(place)) = (again, &state.place) {
            // Who reads must not wait for room; this happens once on a connection.
            let outbox = place.outbox.clone();
            tokio::spawn(async move { outbox.control(frame).await });
        }
        let is_over = state.over.is_some();
        drop(state);
        self.changed.notify_waiters();
        Ok(is_over)
    }

    /// There is no connection, and none will come.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().end(Err(error));
        self.changed.notify_waiters();
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

    /// Says a line, and waits until that is done.
    pub(crate) async fn say(&self, line: Line) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (answer, answered) = oneshot::channel();
        let frame = {
            let mut state = self.lock();
            if let Some(end) = &state.over {
                return end
                    .clone()
                    .and_then(|()| Err(Error::local("this place in the room is gone")));
            }
            state.last_id += 1;
            let pending = Pending { id: state.last_id, line, answer };
            let frame = state.line(&pending);
            state.pending = Some(pending);
            frame
        };
        if let Some((outbox, frame)) = frame {
            // If the connection goes just now, the next one gets it.
            let _ = outbox.control(frame).await;
        }
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
    pub(crate) async fn leave(&self) {
        let line = self.lock().leave();
        if let Some((outbox, frame)) = line {
            let _ = outbox.control(frame).await;
        }
    }

    /// Nobody listens any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        if let Some((outbox, frame)) = state.leave() {
            // If there is no room, the end of the connection will tell.
            let _ = outbox.try_control(frame);
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
    /// The agent's answer on a connection; what is to be sent again on it.
    fn greet(&mut self, joined: &Joined) -> Result<Option<Frame>, ProtocolError> {
        if std::mem::replace(&mut self.greeted, true) {
            return Err(wrong("joined", "twice"));
        }
        let before = self.joined.replace(joined.clone());
        let is_same_opening = before.as_ref().is_some_and(|before| before.epoch == joined.epoch);
        if !is_same_opening {
            (self.next, self.lines) = (joined.next, joined.lines);
        }
        if before.is_some() && !is_same_opening {
            self.hear(RoomEvent::OpenedAnew, 0);
        }
        if self.leaving {
            return Ok(self.leave().map(|(_, frame)| frame));
        }
        let Some(pending) = self.pending.take() else { return Ok(None) };
        match joined.said {
            Some(said) if said >= pending.id => answer(pending, Ok(())),
            None => {
                let words = "the connection was lost while it was said, and the agent does not know any more whether it was";
                answer(pending, Err(Error::lost(words)));
            }
            Some(_) => {
                let again = self.line(&pending);
                self.pending = Some(pending);
                return Ok(again.map(|(_, frame)| frame));
            }
        }
        Ok(None)
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
        self.lines += u64::from(is_line);
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

    fn take(&mut self) -> Option<RoomEvent> {
        let (event, length) = self.heard.pop_front()?;
        self.unread = self.unread.saturating_sub(length);
        if let Some(place) = &mut self.place {
            place.credit.consumed(length);
        }
        Some(event)
    }

    /// A line for the connection of now, if the agent has answered on it.
    fn line(&self, pending: &Pending) -> Option<(Outbox, Frame)> {
        let place = self.place.as_ref().filter(|_| self.greeted)?;
        let Line { text, action } = &pending.line;
        let say = Say { id: pending.id, action: *action };
        let frame = Frame::with_body(place.stream, say.into(), text.clone().into_bytes());
        Some((place.outbox.clone(), frame))
    }

    fn leave(&mut self) -> Option<(Outbox, Frame)> {
        self.leaving = true;
        let place = self.place.as_ref().filter(|_| self.greeted && self.over.is_none())?;
        Some((place.outbox.clone(), Frame::new(place.stream, Detach {}.into())))
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
