//! Who may send which verb when: the whole table, as data.

use crate::samples;
use rexec_protocol::message::{Gate, Message};
use rexec_protocol::{ErrorCode, Frame, Role, StreamId};

/// Where a frame may turn up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Stream 0, before the sender's hello.
    ConnectionBefore,
    /// A stream, before the sender's hello.
    StreamBefore,
    /// Stream 0.
    Connection,
    /// A stream that was opened, and may have ended.
    Opened,
    /// An id below one that was opened, itself never used.
    Skipped,
    /// An id above all that were opened.
    Fresh,
}

use Place::{Connection, ConnectionBefore, Fresh, Opened, Skipped, StreamBefore};

const PLACES: [Place; 6] = [ConnectionBefore, StreamBefore, Connection, Opened, Skipped, Fresh];

const OPENED: StreamId = StreamId(5);

/// The verdict on `message` by `from` at `place`: `None` is yes.
fn verdict(message: &Message, from: Role, place: Place) -> Option<ErrorCode> {
    let mut gate = Gate::new(from);
    if !matches!(place, ConnectionBefore | StreamBefore) {
        gate.check(&samples::of_verb("hello")).expect("hello comes first");
        gate.opened(OPENED);
    }
    let stream = match place {
        ConnectionBefore | Connection => StreamId::CONNECTION,
        StreamBefore | Opened => OPENED,
        Skipped => StreamId(4),
        Fresh => StreamId(6),
    };
    gate.check(&Frame::new(stream, message.clone())).err().map(|error| error.code())
}

const STATE: Option<ErrorCode> = Some(ErrorCode::WrongState);
const STREAM: Option<ErrorCode> = Some(ErrorCode::BadStream);
const YES: Option<ErrorCode> = None;

/// Verdicts in the order of [`PLACES`]: connection and stream before the hello, connection, opened,
/// skipped, fresh.
type Row = [Option<ErrorCode>; 6];

const NEVER: Row = [STATE; 6];
const OPENING: Row = [YES, STATE, STATE, STATE, STATE, STATE];
const OPENS: Row = [STATE, STATE, STATE, STREAM, STREAM, YES];
const ON_STREAM: Row = [STATE, STATE, STATE, YES, YES, STREAM];
const ON_CONNECTION: Row = [STATE, STATE, YES, STATE, STATE, STATE];
const ANYWHERE: Row = [YES, STATE, YES, YES, YES, STREAM];

/// Verb, verdicts from a client, verdicts from an agent.
const TABLE: &[(&str, Row, Row)] = &[
    ("hello", OPENING, OPENING),
    ("exec", OPENS, NEVER),
    ("attach", OPENS, NEVER),
    ("jobs", OPENS, NEVER),
    ("remove", OPENS, NEVER),
    ("started", NEVER, ON_STREAM),
    ("data", ON_STREAM, ON_STREAM),
    ("eof", ON_STREAM, ON_STREAM),
    ("gap", NEVER, ON_STREAM),
    ("window", ON_STREAM, ON_STREAM),
    ("stop", ON_STREAM, ON_STREAM),
    ("signal", ON_STREAM, NEVER),
    ("cancel", ON_STREAM, NEVER),
    ("exit", NEVER, ON_STREAM),
    ("resize", ON_STREAM, NEVER),
    ("detach", ON_STREAM, ON_STREAM),
    ("refused", NEVER, ON_STREAM),
    ("listing", NEVER, ON_STREAM),
    ("removed", NEVER, ON_STREAM),
    ("join", OPENS, NEVER),
    ("wall", OPENS, NEVER),
    ("who", OPENS, NEVER),
    ("rooms", OPENS, NEVER),
    ("joined", NEVER, ON_STREAM),
    ("event", NEVER, ON_STREAM),
    ("missed", NEVER, ON_STREAM),
    ("say", ON_STREAM, NEVER),
    ("said", NEVER, ON_STREAM),
    ("unsaid", NEVER, ON_STREAM),
    ("walled", NEVER, ON_STREAM),
    ("present", NEVER, ON_STREAM),
    ("directory", NEVER, ON_STREAM),
    ("notice", NEVER, ON_CONNECTION),
    ("ping", ON_CONNECTION, ON_CONNECTION),
    ("pong", ON_CONNECTION, ON_CONNECTION),
    ("error", ANYWHERE, ANYWHERE),
    ("goodbye", ON_CONNECTION, ON_CONNECTION),
];

/// An unknown verb may be one that opens streams, so it is taken on any.
const UNKNOWN: Row = [STATE, STATE, YES, YES, YES, YES];

fn expect(message: &Message, from: Role, row: Row) {
    for (place, expected) in PLACES.into_iter().zip(row) {
        let verb = message.verb();
        assert_eq!(verdict(message, from, place), expected, "{verb} from {from:?} at {place:?}");
    }
}

#[test]
fn the_whole_table() {
    assert!(TABLE.iter().map(|(verb, ..)| verb).eq(Message::VERBS), "verbs without a row");
    for &(verb, from_client, from_agent) in TABLE {
        let message = samples::of_verb(verb).message;
        expect(&message, Role::Client, from_client);
        expect(&message, Role::Agent, from_agent);
    }
    expect(&Message::Unknown, Role::Client, UNKNOWN);
    expect(&Message::Unknown, Role::Agent, UNKNOWN);
}

#[test]
fn hello_comes_once_and_streams_only_grow() {
    let mut gate = Gate::new(Role::Client);
    let hello = samples::of_verb("hello");
    let exec = |id| Frame { stream: StreamId(id), ..samples::of_verb("exec") };
    gate.check(&hello).expect("the first");
    assert!(gate.check(&hello).is_err());
    for (id, expected) in
        [(1, YES), (1, STREAM), (7, YES), (3, STREAM), (u64::MAX, YES), (u64::MAX, STREAM)]
    {
        assert_eq!(gate.check(&exec(id)).err().map(|e| e.code()), expected, "id {id}");
    }
}

/// What a gate refused has changed nothing.
#[test]
fn a_refused_exec_opens_nothing() {
    let mut gate = Gate::new(Role::Agent);
    gate.check(&samples::of_verb("hello")).expect("the first");
    assert!(gate.check(&samples::of_verb("exec")).is_err(), "agents do not");
    let late = gate.check(&samples::of_verb("started")).err().map(|e| e.code());
    assert_eq!(late, STREAM);
}
