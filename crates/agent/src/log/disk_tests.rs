use super::disk::*;
use super::quota::Quota;
use super::*;
use crate::jobs::meta::{End, Ending, Meta, Owner};
use crate::spool::{Folder, boot_id};
use proptest::prelude::*;
use rexec_protocol::message::{Message, OnFull};
use rexec_protocol::stream::Receiver;
use rexec_protocol::{Digest, Hasher, JobId, Outcome};
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;
use tempfile::TempDir;

const LIMIT: u64 = 2 << 20;

/// A log on disk with what feeds it, and the truth about it.
struct Kept {
    _dir: TempDir,
    folder: Arc<Folder>,
    quota: Arc<Quota>,
    meta: Meta,
    log: Arc<Log>,
    pipes: [(PipeReader, PipeWriter); 2],
    truth: [Vec<u8>; 2],
}

impl Kept {
    fn new(on_full: OnFull) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
        Self::within(dir, folder, &Quota::new(u64::MAX, u64::MAX), "job", on_full)
    }

    fn within(
        dir: TempDir,
        folder: Arc<Folder>,
        quota: &Arc<Quota>,
        name: &str,
        on_full: OnFull,
    ) -> Self {
        let meta = Meta {
            job: JobId::new(name).unwrap(),
            owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
            user: "alice".to_owned(),
            body: Digest::of(Algorithm::Sha256, b""),
            algorithm: Algorithm::Sha256,
            command: String::new(),
            begun_ms: 0,
            durable: false,
            resumable: true,
            kept: true,
            on_disconnect: None,
            on_full,
            stdin: false,
            terminal: false,
            terminal_size: None,
            connection: false,
            listens: None,
            listening: None,
            boot: boot_id(),
        };
        let log = Arc::new(Log::new(Algorithm::Sha256));
        let pipes = [(); 2].map(|()| std::io::pipe().unwrap());
        for (reader, _) in &pipes {
            let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(reader, flags).unwrap();
        }
        let (quota, truth) = (Arc::clone(quota), Default::default());
        Self { _dir: dir, folder, quota, meta, log, pipes, truth }
    }

    fn spool(&self) {
        let make = |checkpoint: crate::spool::Checkpoint| {
            let spool = self.folder.create(&self.meta, checkpoint.clone())?;
            Ok(Disk::new(spool, self.quota.share("alice"), LIMIT, self.meta.on_full, checkpoint))
        };
        self.log.spool(make).unwrap();
    }

    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<Taken, Full> {
        let index = usize::from(channel == Channel::Err);
        self.pipes[index].1.write_all(bytes).unwrap();
        self.truth[index].extend_from_slice(bytes);
        self.take(channel, Urgency::None)
    }

    fn take(&self, channel: Channel, urgency: Urgency) -> Result<Taken, Full> {
        let source = &self.pipes[usize::from(channel == Channel::Err)].0;
        self.log.take(channel, source.as_fd(), urgency)
    }

    fn end(&self) {
        self.log.eof(Channel::Out);
        self.log.eof(Channel::Err);
        let outcome = Outcome::Exited { code: 0 };
        let (stdout, stderr) = (self.log.tally(Channel::Out), self.log.tally(Channel::Err));
        let exit = Exit { stdout, stderr, ..Exit::of_nothing(outcome, Algorithm::Sha256) };
        let end = End { pid: 1, ended_ms: 1, exit: Ending::from(&exit) };
        self.log.finish(&end).unwrap();
        self.log.exit(exit);
    }

    /// As another agent process finds it.
    fn again(&self) -> Log {
        let found = self.folder.find(&self.meta.job).unwrap();
        let last = crate::spool::Checkpoint::start(Algorithm::Sha256);
        let disk =
            Disk::new(found.spool, self.quota.share("alice"), LIMIT, self.meta.on_full, last);
        let log = Log::resumed(Algorithm::Sha256, &found.content, disk);
        log.claim_all().unwrap();
        if let Some(end) = found.end {
            log.exit(end.exit.into());
        }
        log
    }

    /// What a reader sees from `have` on is the truth, or a gap. Says how much was missing.
    fn check(&self, log: &Log, place: Place, have: Offsets) -> [u64; 2] {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut cursor = runtime.block_on(log.cursor(place)).unwrap();
        let mut receivers = [Channel::Out, Channel::Err].map(|channel| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let at = have.of(channel);
            let index = usize::from(channel == Channel::Err);
            hasher.update(&self.truth[index][..at as usize]);
            Receiver::after(at, hasher)
        });
        let mut last_ms = 0;
        while let Some(item) = runtime.block_on(log.ready(&mut cursor)) {
            match item.frame.message {
                Message::Data(data) => {
                    let index = usize::from(data.channel == Channel::Err);
                    let at = data.offset as usize;
                    let body = item.frame.body;
                    assert_eq!(body[..], self.truth[index][at..at + body.len()]);
                    receivers[index].data(data.offset, body, item.frame.hash).unwrap();
                    assert!(item.time_ms >= last_ms, "in the order of arrival");
                    last_ms = item.time_ms;
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
                }
                other => panic!("{other:?}"),
            }
        }
        let (all, _) = log.extent();
        assert_eq!(receivers.each_ref().map(Receiver::offset), [all.out, all.err]);
        receivers.map(|receiver| receiver.missing())
    }
}

const START: Place = Place::Have(Offsets { out: 0, err: 0 });

#[test]
fn what_is_on_disk_is_read_as_what_is_in_memory() {
    let mut kept = Kept::new(OnFull::Block);
    kept.log.output(Channel::Out, "in memory ".into());
    kept.truth[0].extend_from_slice(b"in memory ");
    kept.spool();
    kept.write(Channel::Err, b"from the pipe").unwrap();
    kept.write(Channel::Out, &[7; 60_000]).unwrap();
    assert_eq!(kept.take(Channel::Out, Urgency::None).unwrap(), Taken::Nothing);
    assert_eq!(kept.check(&kept.log, START, Offsets::default()), [0, 0]);
    kept.end();
    assert_eq!(kept.log.memory(), 0);
    assert_eq!(kept.check(&kept.log, START, Offsets::default()), [0, 0]);
    assert_eq!(kept.check(&kept.again(), START, Offsets::default()), [0, 0]);
    let all = kept.check(&kept.again(), Place::Live, Offsets::default());
    assert_eq!(all, [60_010, 13]);
}

/// Part of what a foreground job has printed is its client's already when it becomes one that is kept.
#[test]
fn what_was_forgotten_before_stays_a_gap() {
    let mut kept = Kept::new(OnFull::Block);
    for text in ["one", "two", "three"] {
        kept.log.output(Channel::Out, text.into());
        kept.truth[0].extend_from_slice(text.as_bytes());
    }
    kept.log.release(0);
    kept.spool();
    kept.write(Channel::Out, b"four").unwrap();
    for log in [&kept.again(), &*kept.log] {
        assert_eq!(kept.check(log, START, Offsets::default()), [3, 0]);
        let have = Offsets { out: 5, err: 0 };
        assert_eq!(kept.check(log, Place::Have(have), have), [0, 0]);
    }
}

#[test]
fn at_its_limit_a_job_waits_until_its_owner_has_more() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    let full = loop {
        if let Err(full) = kept.write(Channel::Out, &[1; 60_000]) {
            break full;
        }
    };
    assert!(matches!(full, Full::Job), "{full}");
    assert!(kept.take(Channel::Out, Urgency::None).is_err(), "nothing changes by itself");
    let (all, kept_from) = kept.log.extent();
    assert!(kept_from == Offsets::default() && all.out > LIMIT * 3 / 4);
    kept.log.acknowledge(5);
    assert_eq!(kept.take(Channel::Out, Urgency::None).unwrap(), Taken::Bytes(60_000));
    let (_, kept_from) = kept.log.extent();
    assert!(kept_from.out > 0 && kept_from.out <= 6 * 60_000);
    assert_eq!(kept.check(&kept.log, START, Offsets::default()), [kept_from.out, 0]);
}

/// What is left in the pipes of a command that has ended is little, and has no other place.
#[test]
fn a_command_that_has_ended_is_not_held_up_by_its_limit() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    while kept.write(Channel::Out, &[1; 60_000]).is_ok() {}
    assert_eq!(kept.take(Channel::Out, Urgency::Ended).unwrap(), Taken::Bytes(60_000));
    kept.end();
    assert_eq!(kept.check(&kept.again(), START, Offsets::default()), [0, 0]);
}

/// It could fill the disk with what it left behind.
#[test]
fn what_a_command_left_behind_has_the_limits_that_it_had() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    while kept.write(Channel::Out, &[1; 60_000]).is_ok() {}
    let at_end = kept.log.extent().0.out;
    // What did not fit any more is in the pipe.
    let full = loop {
        match kept.take(Channel::Out, Urgency::Ended) {
            Ok(_) => kept.pipes[0].1.write_all(&[2; 60_000]).unwrap(),
            Err(full) => break full,
        }
    };
    assert!(full.is_limit(), "{full}");
    let more = kept.log.extent().0.out - at_end;
    assert!((1 << 20..2 << 20).contains(&more), "{more}");
    // That takes nothing from what the command itself has left in the other pipe.
    kept.pipes[1].1.write_all(&[3; 60_000]).unwrap();
    assert_eq!(kept.take(Channel::Err, Urgency::Ended).unwrap(), Taken::Bytes(60_000));
}

/// Otherwise one could keep far more than it may, and drop what others keep for a few bytes.
#[test]
fn a_job_counts_for_what_it_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
    let quota = Quota::new(200_000, 200_000);
    let mut job = Kept::within(dir, folder, &quota, "job", OnFull::Block);
    let has_room = |bytes| quota.share("alice").set(bytes).is_ok();
    job.log.output(Channel::Out, vec![1; 100_000].into());
    job.truth[0].extend_from_slice(&[1; 100_000]);
    assert!(has_room(150_000));
    job.spool();
    assert!(has_room(99_000) && !has_room(101_000), "what went there from memory");
    job.write(Channel::Out, b"a few bytes").unwrap();
    assert!(has_room(99_000), "and not what a read might have brought");
}

#[test]
fn the_oldest_is_discarded_if_the_caller_said_so() {
    let mut kept = Kept::new(OnFull::DiscardOldest);
    kept.spool();
    for number in 0..100u8 {
        kept.write(Channel::Out, &[number; 50_000]).unwrap();
        kept.write(Channel::Err, &[number; 10]).unwrap();
    }
    let (all, from) = kept.log.extent();
    assert_eq!(all, Offsets { out: 5_000_000, err: 1000 });
    let left = all.out - from.out;
    assert!(left <= LIMIT && left > LIMIT / 2, "{left}");
    kept.end();
    for log in [&*kept.log, &kept.again()] {
        assert_eq!(kept.check(log, START, Offsets::default()), [from.out, from.err]);
    }
}

/// F22, as far as it can be seen without a full disk.
#[test]
fn what_cannot_be_kept_at_all_is_a_gap_for_one_that_was_asked_to_end() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    kept.write(Channel::Out, b"seen").unwrap();
    kept.log.abandon();
    kept.write(Channel::Out, b"unseen").unwrap();
    let (all, from) = kept.log.extent();
    assert_eq!((all.out, from.out), (10, 10));
    assert_eq!(kept.log.tally(Channel::Out).hash, Digest::of(Algorithm::Sha256, b"seenunseen"));
    let again = kept.again();
    assert_eq!(again.tally(Channel::Out), kept.log.tally(Channel::Out));
}

#[test]
fn the_oldest_job_that_has_ended_makes_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
    let quota = Quota::new(900_000, 900_000);
    let mut jobs: Vec<Kept> = ["first", "second", "third"]
        .into_iter()
        .map(|name| {
            let unused = tempfile::tempdir().unwrap();
            Kept::within(unused, Arc::clone(&folder), &quota, name, OnFull::Block)
        })
        .collect();
    for job in &mut jobs {
        job.spool();
        for _ in 0..4 {
            job.write(Channel::Out, &[1; 50_000]).unwrap();
        }
        if job.meta.job.as_str() != "third" {
            job.end();
            quota.ended("alice", &job.meta.job, &job.log);
        }
    }
    let mut written = 0;
    let full = loop {
        match jobs[2].write(Channel::Out, &[1; 50_000]) {
            Ok(_) => written += 1,
            Err(full) => break full,
        }
        let gone = jobs.each_ref_removed();
        assert!(gone != [false, true, false], "the older one goes first");
    };
    assert!(matches!(full, Full::Owner), "{full}");
    assert_eq!(jobs.each_ref_removed(), [true, true, false]);
    assert!(written >= 9, "{written}");
    assert_eq!(quota.dropped(), 2);
    assert_eq!(folder.list().unwrap(), [jobs[2].meta.job.clone()]);
}

/// Otherwise other jobs of the same person would hold up one that is read all the time.
#[test]
fn a_job_that_runs_has_a_little_whatever_the_others_keep() {
    for on_full in [OnFull::Block, OnFull::DiscardOldest] {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
        let quota = Quota::new(u64::MAX, 0);
        let mut job = Kept::within(dir, folder, &quota, "job", on_full);
        job.spool();
        for number in 0..20u8 {
            job.write(Channel::Out, &[number; 40_000]).unwrap();
        }
        assert_eq!(job.check(&job.log, START, Offsets::default()), [0, 0], "{on_full:?}");
        let mut more = (20..60u8).map(|number| job.write(Channel::Out, &[number; 40_000]));
        assert_eq!(more.any(|written| written.is_err()), on_full == OnFull::Block);
        job.log.acknowledge(u64::MAX - 1);
        job.take(Channel::Out, Urgency::None).unwrap();
    }
}

/// Otherwise one who fills the limit with what runs could keep as much again as often as it likes.
#[test]
fn what_was_kept_beyond_the_limit_does_not_add_up_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
    let quota = Quota::new(u64::MAX, 0);
    let jobs = ["first", "second", "third"].map(|name| {
        let unused = tempfile::tempdir().unwrap();
        let mut job = Kept::within(unused, Arc::clone(&folder), &quota, name, OnFull::Block);
        job.spool();
        job.write(Channel::Out, &[1; 50_000]).unwrap();
        job.end();
        quota.ended("alice", &job.meta.job, &job.log);
        job
    });
    assert_eq!(jobs.map(|job| job.log.is_removed()), [true, true, false]);
}

#[test]
fn what_the_owner_has_goes_before_what_nobody_has_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
    let quota = Quota::new(900_000, 900_000);
    let mut jobs = ["unread", "read"].map(|name| {
        let unused = tempfile::tempdir().unwrap();
        Kept::within(unused, Arc::clone(&folder), &quota, name, OnFull::Block)
    });
    jobs.iter().for_each(Kept::spool);
    for _ in 0..8 {
        jobs[0].write(Channel::Out, &[1; 50_000]).unwrap();
    }
    jobs[0].end();
    quota.ended("alice", &jobs[0].meta.job, &jobs[0].log);
    for _ in 0..40 {
        jobs[1].write(Channel::Out, &[1; 50_000]).unwrap();
        jobs[1].log.acknowledge(u64::MAX - 1);
    }
    assert_eq!((jobs[0].log.is_removed(), quota.dropped()), (false, 0));
}

/// What is synced or read while it is dropped does not cost the next job its output.
#[test]
fn a_dropped_output_makes_room_while_somebody_still_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path().join("jobs")).unwrap());
    let quota = Quota::new(700_000, 700_000);
    let mut jobs = ["first", "second", "third"].map(|name| {
        let unused = tempfile::tempdir().unwrap();
        Kept::within(unused, Arc::clone(&folder), &quota, name, OnFull::Block)
    });
    for job in &mut jobs[..2] {
        job.spool();
        for _ in 0..5 {
            job.write(Channel::Out, &[1; 50_000]).unwrap();
        }
        job.end();
        quota.ended("alice", &job.meta.job, &job.log);
    }
    let held = [jobs[0].log.disk(), jobs[1].log.disk()];
    jobs[2].spool();
    for _ in 0..5 {
        jobs[2].write(Channel::Out, &[1; 50_000]).unwrap();
    }
    assert!(held[0].is_some() && held[1].is_some());
    assert_eq!(jobs.map(|job| job.log.is_removed()), [true, false, false]);
}

trait Removed {
    fn each_ref_removed(&self) -> [bool; 3];
}

impl Removed for Vec<Kept> {
    fn each_ref_removed(&self) -> [bool; 3] {
        [0, 1, 2].map(|number| self[number].log.is_removed())
    }
}

/// An agent that is killed has read from the pipe what it has not entered yet.
/// A foreground job whose agent is restarted twice, without a client in between.
#[test]
fn what_came_back_from_the_disk_goes_there_again() {
    let mut job = Kept::new(OnFull::Block);
    for round in 0..20_u8 {
        job.log.output(Channel::Out, vec![round; 30_000].into());
        job.truth[0].extend(vec![round; 30_000]);
    }
    job.log.release(4);
    for _ in 0..3 {
        job.spool();
        job.log.rest().unwrap();
        let next = job.again();
        next.to_memory().unwrap();
        assert!(next.disk().is_none() && job.folder.list().unwrap().is_empty());
        job.log = Arc::new(next);
        let missing = job.check(&job.log, START, Offsets::default());
        assert_eq!(missing, [150_000, 0]);
    }
}

#[test]
fn what_is_beyond_the_index_is_claimed() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    kept.write(Channel::Out, b"entered ").unwrap();
    let folder = kept._dir.path().join("jobs/job");
    let mut out = std::fs::File::options().append(true).open(folder.join("out")).unwrap();
    out.write_all(b"not entered").unwrap();
    kept.truth[0].extend_from_slice(b"not entered");
    let again = kept.again();
    assert_eq!(again.extent().0.out, 19);
    assert_eq!(kept.check(&again, START, Offsets::default()), [0, 0]);
}

#[test]
fn a_place_in_time_is_found_on_disk() {
    let mut kept = Kept::new(OnFull::Block);
    kept.spool();
    let mut times = Vec::new();
    for number in 0..10u8 {
        kept.write(Channel::Out, &[number; 60_000]).unwrap();
        times.push(now_ms());
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    for (number, time) in times.iter().enumerate() {
        let missing = kept.check(&kept.log, Place::Time(time + 1), Offsets::default());
        assert_eq!(missing[0], 60_000 * (number as u64 + 1));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(bool, usize),
    Acknowledge(u64),
    Read(u64, u64),
    Spool,
    Again,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<bool>(), 1usize..60_000).prop_map(|(is_err, n)| Step::Write(is_err, n)),
        1 => (0u64..60).prop_map(Step::Acknowledge),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(out, err)| Step::Read(out, err)),
        1 => Just(Step::Spool),
        1 => Just(Step::Again),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever is written, read, acknowledged and found again, in memory and on disk: each reader sees
    /// the truth, or a gap that the log says is there.
    #[test]
    fn every_reader_sees_the_truth(steps in steps(), discard in any::<bool>()) {
        let mut kept = Kept::new(if discard { OnFull::DiscardOldest } else { OnFull::Block });
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(is_err, length) => {
                    let channel = if is_err { Channel::Err } else { Channel::Out };
                    let bytes = vec![number as u8; length];
                    if kept.log.disk().is_none() {
                        kept.truth[usize::from(is_err)].extend_from_slice(&bytes);
                        kept.log.output(channel, bytes.into());
                    } else if kept.write(channel, &bytes).is_err() {
                        prop_assert!(!discard);
                        kept.take(channel, Urgency::Ended).unwrap();
                    }
                }
                Step::Acknowledge(record) => kept.log.acknowledge(record),
                Step::Spool if kept.log.disk().is_none() => kept.spool(),
                Step::Again if kept.log.disk().is_some() => {
                    let again = kept.again();
                    prop_assert_eq!(again.extent(), kept.log.extent());
                    prop_assert_eq!(again.tally(Channel::Err), kept.log.tally(Channel::Err));
                }
                Step::Spool | Step::Again => {}
                Step::Read(out, err) => {
                    let (all, from) = kept.log.extent();
                    let have = Offsets { out: out % (all.out + 1), err: err % (all.err + 1) };
                    let missing = kept.check(&kept.log, Place::Have(have), have);
                    let expected =
                        [from.out.saturating_sub(have.out), from.err.saturating_sub(have.err)];
                    prop_assert_eq!(missing, expected);
                }
            }
        }
        if kept.log.disk().is_some() {
            kept.end();
            let (_, from) = kept.log.extent();
            let missing = kept.check(&kept.again(), START, Offsets::default());
            prop_assert_eq!(missing, [from.out, from.err]);
        }
    }
}
