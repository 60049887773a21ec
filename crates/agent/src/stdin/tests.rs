//! Clients that take each other's place at a command's stdin.

use super::*;
use rexec_protocol::Digest;
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::Goodbye;
use tokio::io::DuplexStream;

const STREAM: StreamId = StreamId(1);

/// A connection of which only the sending half is there; what it sends goes to the stream.
fn connection() -> (Outbox, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let goodbye = Goodbye { reason: String::new() };
    let (outbox, _writer) = Outbox::start(ours, Frame::new(StreamId::CONNECTION, goodbye.into()));
    (outbox, theirs)
}

/// Where the bytes of a client begin, and its digest so far.
struct Client {
    attachment: Attachment,
    offset: u64,
    hasher: Hasher,
}

impl Client {
    fn new(offset: u64) -> Self {
        Self { attachment: Attachment::next(), offset, hasher: Hasher::new(Algorithm::Sha256) }
    }

    fn connect(&self, feed: &Feed, outbox: &Outbox, from: From) {
        feed.connect(self.attachment, STREAM, outbox, from);
    }

    fn send(&mut self, feed: &Feed, bytes: &[u8]) -> Result<(), ProtocolError> {
        let data = Data { channel: Channel::In, offset: self.offset, time_ms: None };
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        let hash = Some(self.hasher.prefix());
        let frame = Frame { hash, ..Frame::with_body(STREAM, data.into(), bytes.to_vec()) };
        feed.data(self.attachment, data, frame)
    }
}

/// A frame of the one before is dropped whole, and breaks nothing: that client does not know yet.
#[tokio::test]
async fn what_comes_from_one_whose_place_another_has_is_dropped() {
    let ((first_outbox, _first), (second_outbox, _second)) = (connection(), connection());
    let feed = Feed::new(Algorithm::Sha256, false);
    let mut first = Client::new(0);
    first.connect(&feed, &first_outbox, From::Start);
    first.send(&feed, b"one").unwrap();
    let mut second = Client::new(3);
    second.connect(&feed, &second_outbox, From::Anew);
    first.send(&feed, b"lost").unwrap();
    feed.eof(first.attachment, Eof { channel: Channel::In, size: 7, hash: first.hasher.prefix() })
        .unwrap();
    second.send(&feed, b"two").unwrap();
    let whole = Digest::of(Algorithm::Sha256, b"onetwo");
    assert_eq!((feed.tally(), feed.has_ended()), (Tally { size: 6, hash: whole }, false));
}

/// What waits for a command that does not read takes room from whoever comes, again and again.
#[tokio::test]
async fn many_clients_together_have_one_window() {
    let (outbox, _connection) = connection();
    let feed = Feed::new(Algorithm::Sha256, false);
    let body = vec![7; MAX_DATA];
    for _ in 0..20 {
        let mut client = Client::new(feed.received());
        client.connect(&feed, &outbox, From::Anew);
        while client.send(&feed, &body).is_ok() {}
    }
    assert_eq!(feed.received(), WINDOW);
}

/// Nor what comes then; what came is counted all the same.
#[tokio::test]
async fn what_an_ended_command_has_not_read_is_not_kept() {
    let (outbox, _connection) = connection();
    let feed = Feed::new(Algorithm::Sha256, false);
    let mut client = Client::new(0);
    client.connect(&feed, &outbox, From::Start);
    client.send(&feed, &[7; 50_000]).unwrap();
    assert!(feed.memory() > 50_000);
    feed.discard();
    client.send(&feed, &[7; 10_000]).unwrap();
    assert!(feed.memory() < 10_000, "{}", feed.memory());
    assert_eq!(feed.received(), 60_000);
}

/// Its digests are still those of everything it has sent, whoever was at its place meanwhile.
#[tokio::test]
async fn who_comes_back_after_another_goes_on_with_its_digest() {
    let (outbox, _connection) = connection();
    let feed = Feed::new(Algorithm::Sha256, false);
    let mut first = Client::new(0);
    first.connect(&feed, &outbox, From::Start);
    first.send(&feed, b"one").unwrap();
    Client::new(3).connect(&feed, &outbox, From::Anew);
    first.connect(&feed, &outbox, From::WhereItWas);
    first.send(&feed, b"two").unwrap();
    assert_eq!(feed.tally().hash, Digest::of(Algorithm::Sha256, b"onetwo"));
}

/// What was refused waits for nobody, and takes no room.
#[tokio::test]
async fn altered_bytes_take_no_room() {
    let (outbox, _connection) = connection();
    let feed = Feed::new(Algorithm::Sha256, false);
    let mut liar = Client::new(0);
    liar.connect(&feed, &outbox, From::Start);
    liar.hasher.update(b"something else");
    assert_eq!(liar.send(&feed, b"bytes"), Err(ProtocolError::HashMismatch));
    assert_eq!(lock(&feed.sending).backlog, 0);
}

/// Of a digest that cannot go on as well: there is nothing more to come.
#[tokio::test]
async fn stdin_that_was_complete_before_another_agent_is_complete() {
    for algorithm in [Algorithm::Sha256, Algorithm::Blake3] {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"all of it");
        let place = Place::of(9, &hasher).with_end(true);
        let feed = Feed::after(place, algorithm, false, false).unwrap();
        assert_eq!((feed.received(), feed.has_ended()), (9, true));
        assert_eq!(feed.tally(), Tally { size: 9, hash: hasher.prefix() });
        let (outbox, _connection) = connection();
        let again = Client::new(9);
        again.connect(&feed, &outbox, From::WhereItWas);
        let eof = Eof { channel: Channel::In, size: 9, hash: hasher.prefix() };
        feed.eof(again.attachment, eof).unwrap();
    }
}
