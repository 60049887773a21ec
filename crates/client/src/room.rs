//! A room of an agent: what happens in it, and a voice to say something there.

use crate::error::Error;
use crate::membership::{Line, Membership};
use crate::session::Session;
use futures_util::{Sink, Stream, sink, stream};
use rexec_protocol::RoomName;
use rexec_protocol::message::{ConnectionInfo, Happening, Who};
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// A way into a room, built up as a [`crate::Command`] is.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before it is joined"]
pub struct Join {
    session: Session,
    room: String,
    history: u64,
}

/// A place in a room. It lasts over connections: one that is lost is made again, and no event is missed
/// or comes twice, but for what the agent has forgotten meanwhile. It ends when it is dropped, with
/// the [`Voice`]s that were made of it.
#[derive(Debug)]
pub struct Room {
    voice: Voice,
}

/// Says something in a room; cheap to clone.
#[derive(Debug, Clone)]
pub struct Voice(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    session: Session,
    name: RoomName,
    membership: Arc<Membership>,
    /// Sends what this member says.
    _sender: AbortOnDropHandle<()>,
}

/// What one hears in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomEvent {
    /// Something happened. Its texts come from other machines: pass them through
    /// [`crate::printable`] before a terminal shows them.
    Happened(Happening),
    /// This client was too slow, or away for too long: so many lines were said that it will not get.
    Missed {
        /// How many.
        lines: u64,
    },
    /// The room was opened anew while this client was away: the agent was restarted. What was said
    /// before is gone.
    OpenedAnew,
}

impl Join {
    pub(crate) fn new(session: Session, room: &str) -> Self {
        Self { session, room: room.to_owned(), history: u64::MAX }
    }

    /// How many of the events before now are wanted at most; all that the agent still has by default.
    pub fn history(mut self, events: u64) -> Self {
        self.history = events;
        self
    }

    /// Joins the room, which opens if nobody is in it.
    ///
    /// # Errors
    /// A name that no room can have; policy; a limit of the agent.
    pub async fn join(self) -> Result<Room, Error> {
        let Self { session, room, history } = self;
        let name = RoomName::new(&room).ok_or_else(|| {
            Error::local(format!(
                "'{}' is no name of a room: 1 to {} of A-Z a-z 0-9 . _ -, the first a letter or digit; or job:ID",
                crate::printable(&room),
                RoomName::MAX
            ))
        })?;
        let membership = Membership::new(name.clone(), history);
        session.enter(Arc::clone(&membership)).await?;
        // Not the session, which would not end before this task does.
        let (sends, shared) = (Arc::clone(&membership), session.shared());
        let sender = AbortOnDropHandle::new(tokio::spawn(async move { sends.send(&shared).await }));
        let seat = Seat { session, name, membership, _sender: sender };
        // From here on the place is left if this future is dropped.
        let room = Room { voice: Voice(Arc::new(seat)) };
        room.voice.0.membership.joined().await?;
        Ok(room)
    }
}

impl Room {
    /// What happens next; `None` once the place is gone: it was left with [`Room::leave`], or another
    /// connection has taken it. Safe to cancel.
    ///
    /// # Errors
    /// The connection is gone for good, or this client may not be here any more.
    pub async fn next(&mut self) -> Result<Option<RoomEvent>, Error> {
        self.voice.0.membership.next().await
    }

    /// The same as a [`Stream`]: it ends where [`Room::next`] gives `None`, and after an error. The place
    /// lasts as long as the stream or a [`Room::voice`] that was taken before.
    pub fn events(self) -> impl Stream<Item = Result<RoomEvent, Error>> + Send + Unpin {
        Box::pin(stream::try_unfold(self, async |mut room| {
            Ok(room.next().await?.map(|event| (event, room)))
        }))
    }

    /// Says a line to everybody in the room; see [`Voice::say`].
    pub async fn say(&self, text: &str) -> Result<(), Error> {
        self.voice.say(text).await
    }

    /// Tells what this one does; see [`Voice::act`].
    pub async fn act(&self, text: &str) -> Result<(), Error> {
        self.voice.act(text).await
    }

    /// Another voice of this member, to be used while this one listens.
    pub fn voice(&self) -> Voice {
        self.voice.clone()
    }

    /// Whether this member may say something, as far as the agent knew when it joined.
    pub fn may_say(&self) -> bool {
        self.voice.0.membership.may_say()
    }

    /// The room's name.
    pub fn name(&self) -> &str {
        self.voice.0.name.as_str()
    }

    /// Whether an event is a line that this member has said.
    pub fn is_own_line(&self, event: &RoomEvent) -> bool {
        let RoomEvent::Happened(happening) = event else { return false };
        happening.id > 0 && self.voice.0.membership.is_member(happening.member)
    }

    /// Leaves; what is still on its way comes before the end.
    pub async fn leave(&self) {
        self.voice.leave().await;
    }
}

impl Voice {
    /// Says a line to everybody in the room, at most 4096 bytes of text without control characters.
    /// Returns when it has its place in the room's order. It is said once, however often the
    /// connection breaks meanwhile. Voices of one member say one line after the other.
    ///
    /// Safe to cancel: a line is said whole or not at all, and never twice. If this is dropped before
    /// it is the line's turn, it is not said; after that it is said all the same, unless policy or a
    /// limit is against it, of which nobody hears then.
    ///
    /// # Errors
    /// Why it was not said ([`Error::is_busy`]: it came too fast, say it again later); or, if the connection is gone for good, that it is not known.
    pub async fn say(&self, text: &str) -> Result<(), Error> {
        self.0.membership.say(Line { text: text.to_owned(), action: false }).await
    }

    /// The same for what this one does: the text follows its name.
    pub async fn act(&self, text: &str) -> Result<(), Error> {
        self.0.membership.say(Line { text: text.to_owned(), action: true }).await
    }

    /// A [`Sink`] of lines: each is said as by [`Voice::say`], the next is taken once it has its place, and
    /// a flush waits for the last. After an error it takes no more.
    pub fn lines(self) -> impl Sink<String, Error = Error> + Send + Unpin {
        Box::pin(sink::unfold(self, async |voice: Self, line: String| {
            voice.say(&line).await?;
            Ok(voice)
        }))
    }

    /// Leaves the room; see [`Room::leave`].
    pub async fn leave(&self) {
        self.0.membership.leave();
    }

    /// Who is in the room.
    pub async fn members(&self) -> Result<Vec<ConnectionInfo>, Error> {
        self.0.session.present(Who { room: Some(self.0.name.clone()) }).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.membership.abandon();
    }
}
