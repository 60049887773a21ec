//! The verbs, and who may send which when.
//!
//! A header is a map with the keys `verb`, `stream`, `size`, `hash` and `args`; the arguments are a
//! map of their own, one struct per verb. A new verb is one file and one line in the table below.

use rexec_guard::holds;
mod control;
mod data;
mod error;
mod exec;
mod exit;
mod hello;
mod jobs;
mod rooms;

pub use control::{Cancel, Goodbye, Ping, Pong, Signal};
pub use data::{Channel, Data, Eof, Gap, Stop, Window};
pub use error::Error;
pub use exec::{
    Command, Drain, Exec, ExecSpec, Offsets, OnDisconnect, OnFull, Started, Terminal, TerminalSize,
    is_everywhere, is_locale,
};
pub use exit::{Exit, Usage};
pub use hello::Hello;
pub use jobs::{
    Attach, Detach, From, JobInfo, JobList, Jobs, Listing, Refusal, Refused, Remove, Removed,
    Resize,
};
pub use rooms::{
    ConnectionInfo, Directory, Event, Happening, HappeningKind, Join, Joined, MAX_LINE, Missed,
    Notice, Present, PresentList, Resume, RoomInfo, RoomList, Rooms, Said, Say, Unsaid, Wall,
    Walled, Who,
};

use crate::digest::Digest;
use crate::error::ProtocolError;
use crate::frame::{Frame, MAX_BODY};
use crate::ids::StreamId;
use crate::outcome::shorten;
use crate::{msgpack, text};
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The two sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Client,
    /// The side that accepted.
    Agent,
}

/// What a verb is about, and so when it is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The very first frame of each side, on stream 0.
    Opening,
    /// The connection, on stream 0; `error` may even come before the hello.
    Connection,
    /// A new stream, with an id above all before it.
    Opens,
    /// A stream that was opened; ignored if it has ended meanwhile.
    Stream,
    /// Either the connection or a stream that was opened.
    Any,
}

/// Declares [`Message`] and the table of legality from one list.
macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident $name:literal $by:pat => $scope:ident, body: $body:literal;)+) => {
        /// A message: one variant per verb.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Message {
            $($(#[$doc])* $verb($verb),)+
            /// A verb that this build does not have; answered with an `error`, then forgotten.
            Unknown,
        }

        $(impl std::convert::From<$verb> for Message {
            fn from(args: $verb) -> Self {
                Self::$verb(args)
            }
        })+

        impl Message {
            /// Every verb that this build has.
            pub const VERBS: &[&str] = &[$($name),+];

            /// The verb.
            pub fn verb(&self) -> &'static str {
                match self { $(Self::$verb(_) => $name,)+ Self::Unknown => "(unknown)" }
            }

            /// What the verb is about.
            pub fn scope(&self) -> Scope {
                match self { $(Self::$verb(_) => Scope::$scope,)+ Self::Unknown => Scope::Any }
            }

            /// Whether `role` may send the verb at all.
            pub fn allowed_from(&self, role: Role) -> bool {
                match self { $(Self::$verb(_) => matches!(role, $by),)+ Self::Unknown => true }
            }

            fn has_body(&self) -> bool {
                match self { $(Self::$verb(_) => $body,)+ Self::Unknown => true }
            }

            fn encode(&self, envelope: Envelope<'_>) -> Vec<u8> {
                match self {
                    $(Self::$verb(args) => envelope.with(args),)+
                    Self::Unknown => envelope.with(&NoArgs {}),
                }
            }

            fn decode(verb: &str, header: &[u8]) -> Result<Self, ProtocolError> {
                match verb { $($name => args(header).map(Self::$verb),)+ _ => Ok(Self::Unknown) }
            }
        }
    };
}

verbs! {
    /// Versions and features.
    Hello "hello" Role::Client | Role::Agent => Opening, body: false;
    /// Run a command; the body is an [`ExecSpec`].
    Exec "exec" Role::Client => Opens, body: true;
    /// Join a job that is there.
    Attach "attach" Role::Client => Opens, body: false;
    /// Ask for the jobs that are there.
    Jobs "jobs" Role::Client => Opens, body: false;
    /// Forget a job that has ended.
    Remove "remove" Role::Client => Opens, body: false;
    /// The command runs.
    Started "started" Role::Agent => Stream, body: false;
    /// Bytes of stdin, stdout or stderr.
    Data "data" Role::Client | Role::Agent => Stream, body: true;
    /// The end of stdin, stdout or stderr.
    Eof "eof" Role::Client | Role::Agent => Stream, body: false;
    /// Bytes that this reader will never get.
    Gap "gap" Role::Agent => Stream, body: false;
    /// Credit.
    Window "window" Role::Client | Role::Agent => Stream, body: false;
    /// No more bytes of this channel are wanted.
    Stop "stop" Role::Client | Role::Agent => Stream, body: false;
    /// Send a signal to the command.
    Signal "signal" Role::Client => Stream, body: false;
    /// End the command and all that it started.
    Cancel "cancel" Role::Client => Stream, body: false;
    /// How the command ended; the last frame of its stream.
    Exit "exit" Role::Agent => Stream, body: false;
    /// The size of the terminal has changed.
    Resize "resize" Role::Client => Stream, body: false;
    /// This stream ends, and the job goes on.
    Detach "detach" Role::Client | Role::Agent => Stream, body: false;
    /// A request was not carried out; the last frame of its stream.
    Refused "refused" Role::Agent => Stream, body: false;
    /// Some jobs; the body is a [`JobList`].
    Listing "listing" Role::Agent => Stream, body: true;
    /// The job is forgotten; the last frame of its stream.
    Removed "removed" Role::Agent => Stream, body: false;
    /// Join a room.
    Join "join" Role::Client => Opens, body: false;
    /// Tell everybody something; the body is the text.
    Wall "wall" Role::Client => Opens, body: true;
    /// Ask who is there.
    Who "who" Role::Client => Opens, body: false;
    /// Ask which rooms are open.
    Rooms "rooms" Role::Client => Opens, body: false;
    /// This client is in the room.
    Joined "joined" Role::Agent => Stream, body: false;
    /// Something happened in the room; the body is a [`Happening`].
    Event "event" Role::Agent => Stream, body: true;
    /// This member did not keep up.
    Missed "missed" Role::Agent => Stream, body: false;
    /// A line for the room; the body is the text.
    Say "say" Role::Client => Stream, body: true;
    /// A line was said.
    Said "said" Role::Agent => Stream, body: false;
    /// A line was not said.
    Unsaid "unsaid" Role::Agent => Stream, body: false;
    /// Everybody was told; the last frame of its stream.
    Walled "walled" Role::Agent => Stream, body: false;
    /// Some of those who are there; the body is a [`PresentList`].
    Present "present" Role::Agent => Stream, body: true;
    /// Some of the rooms; the body is a [`RoomList`].
    Directory "directory" Role::Agent => Stream, body: true;
    /// Something that people on this connection may want to know.
    Notice "notice" Role::Agent => Connection, body: false;
    /// Are you there?
    Ping "ping" Role::Client | Role::Agent => Connection, body: false;
    /// Yes.
    Pong "pong" Role::Client | Role::Agent => Connection, body: false;
    /// What the other side did wrong.
    Error "error" Role::Client | Role::Agent => Any, body: false;
    /// This side leaves on purpose.
    Goodbye "goodbye" Role::Client | Role::Agent => Connection, body: false;
}

#[derive(Serialize)]
struct NoArgs {}

/// What every header has.
#[derive(Serialize)]
struct Envelope<'a> {
    verb: &'a str,
    stream: StreamId,
    size: u64,
    hash: Option<Digest>,
}

#[derive(Serialize)]
struct Outgoing<'a, A> {
    verb: &'a str,
    stream: StreamId,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Digest>,
    args: &'a A,
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

impl Envelope<'_> {
    fn with<A: Serialize>(self, args: &A) -> Vec<u8> {
        let Self { verb, stream, size, hash } = self;
        msgpack::encode(&Outgoing { verb, stream, size, hash, args })
    }
}

#[derive(Deserialize)]
struct Incoming<A> {
    #[serde(deserialize_with = "text::string")]
    verb: String,
    stream: StreamId,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    hash: Option<Digest>,
    args: A,
}

/// A decoded header whose body is still to come.
#[derive(Debug)]
pub(crate) struct Header {
    stream: StreamId,
    message: Message,
    /// The body's length, already within the limits.
    pub(crate) size: usize,
    hash: Option<Digest>,
}

impl Header {
    pub(crate) fn into_frame(self, body: Bytes) -> Frame {
        Frame { stream: self.stream, message: self.message, body, hash: self.hash }
    }
}

pub(crate) fn encode_header(frame: &Frame) -> Vec<u8> {
    let Frame { stream, message, body, hash } = frame;
    let verb = message.verb();
    message.encode(Envelope { verb, stream: *stream, size: body.len() as u64, hash: *hash })
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<Header, ProtocolError> {
    let envelope: Incoming<IgnoredAny> = msgpack::decode(bytes, msgpack::HEADER)?;
    let Incoming { verb, stream, size, hash, .. } = envelope;
    let message = Message::decode(&verb, bytes)?;
    if !holds("frame.body_length", size <= MAX_BODY) {
        return Err(ProtocolError::BodyLength(size));
    }
    if !holds("frame.body_place", size == 0 || message.has_body()) {
        let verb = message.verb();
        return Err(ProtocolError::WrongState { verb, when: "with a body" });
    }
    Ok(Header { stream, message, size: size as usize, hash })
}

/// The arguments of a header that was checked as a whole before. They must be a map here too:
/// rmp-serde would take a struct from an array.
fn args<A: DeserializeOwned>(header: &[u8]) -> Result<A, ProtocolError> {
    let malformed =
        |error: rmp_serde::decode::Error| ProtocolError::Malformed(shorten(error.to_string()));
    let decoded: Incoming<MapOnly<A>> = rmp_serde::from_slice(header).map_err(malformed)?;
    Ok(decoded.args.0)
}

struct MapOnly<A>(A);

impl<'de, A: Deserialize<'de>> Deserialize<'de> for MapOnly<A> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<A>(std::marker::PhantomData<A>);
        impl<'de, A: Deserialize<'de>> serde::de::Visitor<'de> for Visit<A> {
            type Value = MapOnly<A>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of arguments")
            }
            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                map: M,
            ) -> Result<Self::Value, M::Error> {
                A::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(MapOnly)
            }
        }
        deserializer.deserialize_any(Visit(std::marker::PhantomData))
    }
}

/// Checks every frame that comes in against the table: who sent it, and whether it is its time.
#[derive(Debug)]
pub struct Gate {
    from: Role,
    greeted: bool,
    /// The highest stream id opened so far.
    last: StreamId,
}

impl Gate {
    /// A gate for frames sent by `from`.
    pub fn new(from: Role) -> Self {
        Self { from, greeted: false, last: StreamId::CONNECTION }
    }

    /// Tells the gate that this side opened `stream`.
    pub fn opened(&mut self, stream: StreamId) {
        self.last = self.last.max(stream);
    }

    /// Takes the next frame, or says what is wrong with it.
    pub fn check(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let Frame { stream, message, .. } = frame;
        let verb = message.verb();
        let wrong = |when| Err(ProtocolError::WrongState { verb, when });
        if !holds("gate.role", message.allowed_from(self.from)) {
            return wrong(match self.from {
                Role::Client => "from a client",
                Role::Agent => "from an agent",
            });
        }
        let on_connection = *stream == StreamId::CONNECTION;
        match message.scope() {
            Scope::Opening if self.greeted => wrong("twice"),
            Scope::Opening if !on_connection => wrong("on a stream"),
            Scope::Opening => {
                self.greeted = true;
                Ok(())
            }
            Scope::Any if matches!(message, Message::Error(_)) && on_connection => Ok(()),
            _ if !holds("gate.hello_first", self.greeted) => wrong("before hello"),
            Scope::Connection if !on_connection => wrong("on a stream"),
            Scope::Connection => Ok(()),
            Scope::Opens if on_connection => wrong("on stream 0"),
            Scope::Opens if !holds("gate.stream_reuse", *stream > self.last) => {
                Err(ProtocolError::StreamReused(*stream))
            }
            Scope::Opens => {
                self.last = *stream;
                Ok(())
            }
            Scope::Stream if on_connection => wrong("on stream 0"),
            Scope::Stream | Scope::Any if *stream > self.last && *message != Message::Unknown => {
                Err(ProtocolError::UnknownStream { verb, stream: *stream })
            }
            Scope::Stream | Scope::Any => Ok(()),
        }
    }
}
