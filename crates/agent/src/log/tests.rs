use super::*;
use proptest::prelude::*;
use rexec_protocol::Outcome;
use rexec_protocol::message::{Data, Gap, Message};
use rexec_protocol::stream::Receiver;

fn log() -> Log {
    Log::new(Algorithm::Sha256)
}

/// What does not wait for the disk is there at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn try_next(log: &Log, cursor: &mut Cursor) -> Option<Item> {
    now(log.ready(cursor))
}

fn cursor(log: &Log, place: Place) -> Option<Cursor> {
    now(log.cursor(place))
}

fn start() -> Place {
    Place::Have(Offsets::default())
}

fn exit_of(log: &Log) -> Exit {
    let outcome = Outcome::Exited { code: 0 };
    let (stdout, stderr) = (log.tally(Channel::Out), log.tally(Channel::Err));
    Exit { stdout, stderr, ..Exit::of_nothing(outcome, Algorithm::Sha256) }
}

fn end(log: &Log) {
    log.eof(Channel::Out);
    log.eof(Channel::Err);
    log.exit(exit_of(log));
}

#[tokio::test]
async fn records_come_in_order_with_offsets_per_channel() {
    let log = log();
    log.output(Channel::Out, "ab".into());
    log.output(Channel::Err, "x".into());
    log.output(Channel::Out, "c".into());
    let mut cursor = log.cursor(start()).await.unwrap();
    for (channel, offset) in [(Channel::Out, 0), (Channel::Err, 0), (Channel::Out, 2)] {
        let item = log.next(&mut cursor).await;
        assert_eq!(item.frame.message, Message::Data(Data { channel, offset, time_ms: None }));
    }
    assert!(log.ready(&mut cursor).await.is_none());
    assert_eq!(log.tally(Channel::Out).size, 3);
}

#[tokio::test]
async fn a_full_log_has_room_again_once_it_was_released() {
    let log = log();
    while log.has_room() {
        log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
    }
    let mut cursor = log.cursor(start()).await.unwrap();
    let item = log.next(&mut cursor).await;
    assert!(!log.has_room(), "reading alone does not release");
    log.release(item.record);
    log.room().await;
}

/// What was sent on a connection that broke is never acknowledged there.
#[test]
fn a_full_log_has_room_again_once_its_reader_came_back_and_said_what_it_has() {
    let log = log();
    log.output(Channel::Err, "x".into());
    while log.has_room() {
        log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
    }
    let come_back = |have| {
        let cursor = cursor(&log, Place::Have(have)).unwrap();
        if let Some(last) = cursor.next().checked_sub(1) {
            log.release(last);
        }
    };
    come_back(Offsets { out: 65536, err: 0 });
    assert!(!log.has_room(), "the first record is not its reader's yet");
    come_back(Offsets { out: 65536 + 1, err: 1 });
    assert!(log.has_room());
    assert_eq!(log.extent().1, Offsets { out: 65536, err: 1 });
}

#[test]
fn an_abandoned_log_still_counts_and_still_ends() {
    let log = log();
    log.abandon();
    for _ in 0..100 {
        log.output(Channel::Out, Bytes::from_static(&[0; 65536]));
    }
    assert!(log.has_room());
    assert_eq!(log.tally(Channel::Out).size, 100 * 65536);
    end(&log);
    let mut cursor = cursor(&log, start()).unwrap();
    let messages: Vec<_> =
        std::iter::from_fn(|| try_next(&log, &mut cursor)).map(|item| item.frame.message).collect();
    let gap = Gap { channel: Channel::Out, to: 100 * 65536 };
    assert_eq!(messages[0], gap.into());
    assert!(matches!(messages[1..], [Message::Eof(_), Message::Eof(_), Message::Exit(_)]));
}

#[test]
fn who_has_more_than_there_is_gets_no_cursor() {
    let log = log();
    log.output(Channel::Out, "ab".into());
    assert!(cursor(&log, Place::Have(Offsets { out: 2, err: 0 })).is_some());
    assert!(cursor(&log, Place::Have(Offsets { out: 3, err: 0 })).is_none());
    assert!(cursor(&log, Place::Have(Offsets { out: 0, err: 1 })).is_none());
}

/// What one reader sees, checked as a client checks it; its bytes, with how many were missing.
fn replay(log: &Log, cursor: &mut Cursor, have: Offsets, truth: [&[u8]; 2]) -> [u64; 2] {
    let hasher = |bytes: &[u8]| {
        let mut hasher = rexec_protocol::Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher
    };
    let cut = |channel: Channel, truth: &[u8]| {
        let at = have.of(channel);
        Receiver::after(at, hasher(&truth[..at as usize]))
    };
    let mut receivers = [cut(Channel::Out, truth[0]), cut(Channel::Err, truth[1])];
    while let Some(item) = try_next(log, cursor) {
        match item.frame.message {
            Message::Data(data) => {
                let index = usize::from(data.channel == Channel::Err);
                let at = data.offset as usize;
                let body = &item.frame.body;
                assert_eq!(body[..], truth[index][at..at + body.len()]);
                receivers[index].data(data.offset, body.clone(), item.frame.hash).unwrap();
            }
            Message::Gap(gap) => {
                receivers[usize::from(gap.channel == Channel::Err)].gap(gap.to).unwrap();
            }
            Message::Eof(eof) => {
                receivers[usize::from(eof.channel == Channel::Err)].eof(eof.tally()).unwrap();
            }
            Message::Exit(exit) => {
                let sizes = receivers.each_ref().map(Receiver::offset);
                assert_eq!(sizes, [exit.stdout.size, exit.stderr.size]);
                return receivers.map(|receiver| receiver.missing());
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no exit");
}

proptest! {
    /// Whatever is written and forgotten, wherever a reader begins: it sees every byte from there
    /// on once and in order, or a gap in its place, and then both ends and the exit.
    #[test]
    fn every_reader_sees_all_or_a_gap(
        chunks in prop::collection::vec((any::<bool>(), 1usize..50), 0..40),
        forget in 0u64..50, out in 0u64..400, err in 0u64..400,
    ) {
        let log = log();
        let mut truth = [Vec::new(), Vec::new()];
        for (index, (is_err, length)) in chunks.into_iter().enumerate() {
            let bytes = vec![index as u8; length];
            truth[usize::from(is_err)].extend_from_slice(&bytes);
            log.output(if is_err { Channel::Err } else { Channel::Out }, bytes.into());
        }
        let truth = [&truth[0][..], &truth[1][..]];
        let have = Offsets { out: out.min(truth[0].len() as u64), err: err.min(truth[1].len() as u64) };
        let early = cursor(&log, Place::Have(have)).unwrap();
        let mut live = cursor(&log, Place::Live).unwrap();
        end(&log);
        if forget > 0 {
            log.release(forget - 1);
        }
        let (_, kept) = log.extent();
        let late = cursor(&log, Place::Have(have)).unwrap();
        for mut cursor in [early.clone(), late] {
            let missing = replay(&log, &mut cursor, have, truth);
            let expected = [kept.out.saturating_sub(have.out), kept.err.saturating_sub(have.err)];
            prop_assert_eq!(missing, expected);
        }
        let mut at_the_end = cursor(&log, Place::Live).unwrap();
        replay(&log, &mut at_the_end, Offsets::default(), truth);
        let all = truth.map(|bytes| bytes.len() as u64);
        prop_assert_eq!(replay(&log, &mut live, Offsets::default(), truth), all);
    }
}
