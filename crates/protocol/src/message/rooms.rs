use super::exec::is_false;
use super::jobs::Refusal;
use crate::ids::{JobId, RoomName};
use crate::text;
use serde::{Deserialize, Serialize};

/// The longest line that can be said in a room or to all, in bytes of UTF-8.
pub const MAX_LINE: usize = 4096;

/// Opens a stream to a room. Answered with `joined` and then `event` frames, or with `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// How many bytes of `event` bodies may be sent before the first `window`.
    pub window: u64,
    /// Which room.
    pub room: RoomName,
    /// How many of the events before it the new member wants at most.
    pub history: u64,
    /// A member that comes back after its connection was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// The place at which a member was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// As `joined` has told.
    pub epoch: u64,
    /// As `joined` has told.
    pub member: u64,
    /// The number of the first event that it does not have.
    pub next: u64,
}

/// The answer to a `join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Names this opening of the room: another one numbers its events anew.
    pub epoch: u64,
    /// The number of this member in the room.
    pub member: u64,
    /// The number of the first event that will come.
    pub next: u64,
    /// How many lines were said in the room before that event.
    pub lines: u64,
    /// The highest id of a line that this member has said; absent if the agent does not know any
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<u64>,
    /// How many are in the room, this member included.
    pub members: u64,
    /// Whether this member may say something, as far as is known now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub post: bool,
}

/// Something happened in a room; the body is a [`Happening`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in the room: each one above the one before.
    pub seq: u64,
}

/// What happened; the body of an [`Event`]. Texts come from other machines: escape them before a
/// terminal shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When, by the agent's clock, in milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// What.
    pub kind: HappeningKind,
    /// By whom: the name of the identity, as the agent has verified it.
    #[serde(deserialize_with = "text::string")]
    pub user: String,
    /// By which member; 0 if by none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub member: u64,
    /// The id that the member gave its line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub id: u64,
    /// What was said.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "text::string")]
    pub text: String,
}

/// The kinds of what can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HappeningKind {
    /// A member said something.
    Said,
    /// A member does something: the text follows its name.
    Action,
    /// A member came.
    Joined,
    /// A member that was cut off is back.
    Returned,
    /// A member left.
    Left,
    /// A member's connection was lost; it may come back.
    Lost,
    /// Somebody said it to the whole agent.
    Wall,
    /// Somebody came to watch, or to control, the room's job.
    Watching,
    /// Somebody does not watch the room's job any more.
    Unwatching,
    /// Somebody sends the stdin of the room's job from now on, and who did so before does not any more.
    Feeding,
    /// The operator of the agent's machine ends the room's job.
    Ending,
    /// What the room's job prints finds no room, so that its command waits.
    Waiting,
    /// A kind that this build does not know.
    #[serde(other)]
    Other,
}

/// This member did not keep up: the room goes on at `to`, and what was before is gone for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The number of the next event.
    pub to: u64,
    /// How many lines were said in the room before that one, since it was opened.
    pub lines: u64,
}

/// A line for everybody in the room; the body is its text. Answered with `said` or `unsaid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Say {
    /// The member's number for it, above all before: a line that is sent again is said once.
    pub id: u64,
    /// It tells what the member does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub action: bool,
}

/// A line has its place in the room. That does not wait for the events before it: who says something
/// need not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Which.
    pub id: u64,
}

/// A line was not said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsaid {
    /// Which.
    pub id: u64,
    /// For programs.
    pub reason: Refusal,
    /// For people.
    #[serde(deserialize_with = "text::string")]
    pub message: String,
}

/// Opens a stream and has the agent tell a text, the body, to every room and every connection.
/// Answered with `walled` or `refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {}

/// It was told; the last frame of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walled {
    /// To so many rooms.
    pub rooms: u64,
    /// To so many connections.
    pub connections: u64,
}

/// Opens a stream and asks who is there; answered with `present` frames or `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Only of this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
}

/// Some connections; the body is a [`PresentList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Another `present` follows; the one without is the last frame of the stream.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// The body of a [`Present`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentList {
    /// The longest there first.
    pub connections: Vec<ConnectionInfo>,
}

/// A connection of a client, or in the answer about one room a member of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its number, for as long as the agent runs; of a member, its number in the room.
    pub id: u64,
    /// Who.
    #[serde(deserialize_with = "text::string")]
    pub user: String,
    /// From where, as `ADDRESS:PORT`; empty in the answer about a room for who may not ask where from.
    #[serde(deserialize_with = "text::string")]
    pub from: String,
    /// Since when, in milliseconds since 1970, UTC.
    pub since_ms: u64,
    /// In which rooms.
    pub rooms: Vec<RoomName>,
    /// On which jobs.
    pub jobs: Vec<JobId>,
    /// Bytes that came from it, inside of TLS.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
}

/// Opens a stream and asks which rooms are open; answered with `directory` frames or `refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms {}

/// Some rooms; the body is a [`RoomList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Another `directory` follows; the one without is the last frame of the stream.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// The body of a [`Directory`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomList {
    /// Those that the client may be in, by their names.
    pub rooms: Vec<RoomInfo>,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// Its name.
    pub room: RoomName,
    /// How many are in it.
    pub members: u64,
    /// How many lines were said in it.
    pub lines: u64,
}

/// Something that whoever is on this connection may want to know. Nothing depends on it, and under
/// load some are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When, in milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// What.
    pub kind: HappeningKind,
    /// By whom.
    #[serde(deserialize_with = "text::string")]
    pub user: String,
    /// About which job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The words of a `wall`; with `waiting`, why there is no room.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "text::string")]
    pub text: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
