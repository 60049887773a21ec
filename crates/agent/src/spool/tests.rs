use super::checkpoint::SLOT;
use super::*;
use crate::jobs::meta::{Ending, Owner};
use proptest::prelude::*;
use rexec_protocol::message::{Exit, OnFull};
use rexec_protocol::stream::Sender;
use rexec_protocol::{Algorithm, Digest, Frame, Hasher, JobId, Outcome, StreamId};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

fn meta(name: &str, algorithm: Algorithm) -> Meta {
    Meta {
        job: JobId::new(name).unwrap(),
        owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
        user: "alice".to_owned(),
        body: Digest::of(Algorithm::Sha256, b""),
        algorithm,
        command: "true".to_owned(),
        begun_ms: 1,
        durable: false,
        resumable: true,
        kept: true,
        on_disconnect: None,
        on_full: OnFull::Block,
        stdin: false,
        terminal: false,
        terminal_size: None,
        connection: false,
        listens: None,
        listening: None,
        boot: boot_id(),
    }
}

/// Writes records as an agent does, and knows what it wrote.
struct Writer {
    dir: TempDir,
    spool: Spool,
    meta: Meta,
    senders: [Sender; 2],
    mark: Mark,
    truth: [Vec<u8>; 2],
}

impl Writer {
    fn new(algorithm: Algorithm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = meta("job", algorithm);
        let folder = Folder::open(dir.path().join("jobs")).unwrap();
        let spool = folder.create(&meta, Checkpoint::start(algorithm)).unwrap();
        let senders = [Channel::Out, Channel::Err].map(|channel| Sender::new(channel, algorithm));
        Self { dir, spool, meta, senders, mark: Mark::default(), truth: Default::default() }
    }

    fn append(&mut self, channel: Channel, bytes: &[u8]) {
        let index = usize::from(channel == Channel::Err);
        let body = Bytes::copy_from_slice(bytes);
        let frame = self.senders[index].data(StreamId::CONNECTION, body);
        self.spool.write(channel, self.mark.at.of(channel), bytes).unwrap();
        self.truth[index].extend_from_slice(bytes);
        self.enter(&frame);
    }

    fn enter(&mut self, frame: &Frame) {
        let mut entry = Vec::new();
        Entry::of(frame, 1000 + self.mark.number, &self.mark).unwrap().encode(&mut entry);
        self.spool.enter(self.mark.number, &entry).unwrap();
        self.mark.pass(frame);
    }

    fn checkpoint(&self, kept: Mark) {
        let [out, err] = self.senders.each_ref().map(|sender| Prefix::of(sender.hasher()));
        self.spool.checkpoint(Checkpoint { serial: 0, kept, mark: self.mark, out, err }).unwrap();
    }

    fn file(&self, name: &str) -> File {
        let path = self.dir.path().join("jobs/job").join(name);
        File::options().write(true).open(path).unwrap()
    }

    fn find(&self) -> Found {
        let folder = Folder::open(self.dir.path().join("jobs")).unwrap();
        folder.find(&self.meta.job).unwrap()
    }

    /// What is found is a prefix of what was written, and its digests are right.
    fn check(&self, found: &Found) {
        let Content { kept, end, out, err, .. } = &found.content;
        for (channel, known, truth) in
            [(Channel::Out, out, &self.truth[0]), (Channel::Err, err, &self.truth[1])]
        {
            let size = usize::try_from(end.at.of(channel)).unwrap();
            let hash = Digest::of(self.meta.algorithm, &truth[..size]);
            assert_eq!(found.content.tally(channel).hash, hash);
            assert!(matches!(known, Known::Running(hasher) if hasher.prefix() == hash));
        }
        let mut number = kept.number;
        while number < end.number {
            for (entry, bytes) in found.spool.records(number, end.number).unwrap() {
                let truth = &self.truth[usize::from(entry.channel == Channel::Err)];
                let at = entry.at.of(entry.channel) as usize;
                assert_eq!(bytes[..], truth[at..at + bytes.len()]);
                number += 1;
            }
        }
    }
}

#[test]
fn entries_are_64_bytes_and_zeros_are_none() {
    let mut sender = Sender::new(Channel::Err, Algorithm::Sha256);
    let mut mark = Mark { number: 5, at: Offsets { out: 7, err: 0 }, ended: Ended::default() };
    let frame = sender.data(StreamId::CONNECTION, "abc".into());
    let entry = Entry::of(&frame, 99, &mark).unwrap();
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    assert_eq!(Entry::decode(&bytes), Some(entry));
    assert_eq!(entry.frame("abc".into()), frame);
    mark.pass(&frame);
    assert_eq!(entry.after(5), mark);
    let end = sender.eof(StreamId::CONNECTION);
    let entry = Entry::of(&end, 100, &mark).unwrap();
    entry.encode(&mut bytes);
    assert_eq!(Entry::decode(&bytes[64..]), Some(entry));
    assert_eq!(entry.frame(Bytes::new()), end);
    assert!(entry.after(6).ended.err);
    assert_eq!(Entry::decode(&[0; 64]), None);
    assert_eq!(Entry::decode(&[0xff; 64]), None);
}

/// The file is what says how much was read: a byte is there, or still in the pipe.
#[test]
fn a_byte_is_in_the_pipe_or_in_the_file() {
    let writer = Writer::new(Algorithm::Sha256);
    let (read, write) = std::io::pipe().unwrap();
    let fill = |at, length| writer.spool.fill(Channel::Out, at, read.as_fd(), length);
    assert_eq!(fill(0, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    (&write).write_all(b"hello world").unwrap();
    assert_eq!(fill(0, 5).unwrap(), 5);
    assert_eq!(fill(5, 100).unwrap(), 6);
    assert_eq!(writer.spool.beyond(Channel::Out, 3).unwrap(), 8);
    assert_eq!(&writer.spool.read(Channel::Out, 3, 8).unwrap()[..], b"lo world");
    drop(write);
    assert_eq!(fill(11, 100).unwrap(), 0);
}

/// A crash, or a loss of power, can leave any of the files with any of its last bytes missing.
#[test]
fn whatever_is_missing_at_the_end_the_rest_is_found() {
    for (name, bytes) in [("index", 3 * ENTRY), ("out", 40), ("err", 40)] {
        for missing in 0..=bytes {
            let mut writer = Writer::new(Algorithm::Sha256);
            for number in 0..5u8 {
                writer.append(Channel::Out, &[number; 20]);
                writer.append(Channel::Err, &[number; 20]);
                if number == 2 {
                    writer.checkpoint(Mark::default());
                }
            }
            let file = writer.file(name);
            let length = file.metadata().unwrap().len();
            file.set_len(length - missing).unwrap();
            let found = writer.find();
            writer.check(&found);
            let records = match name {
                "index" => 10 - missing.div_ceil(ENTRY),
                // Records alternate: each lost one takes what follows with it.
                "out" => 10 - missing.div_ceil(20) * 2,
                _ => (10 - missing.div_ceil(20) * 2 + 1).min(10),
            };
            assert_eq!(found.content.end.number, records, "{name} less {missing}");
            // What the index does not have is still there to be entered.
            if name == "index" && missing > 0 {
                let beyond = found.spool.beyond(Channel::Err, found.content.end.at.err).unwrap();
                assert!(beyond > 0);
            }
        }
    }
}

/// After a loss of power nothing vouches for what is not in the index.
#[test]
fn what_another_boot_did_not_enter_is_cut_off() {
    let mut writer = Writer::new(Algorithm::Sha256);
    writer.append(Channel::Out, b"entered");
    writer.spool.write(Channel::Out, 7, b"not entered").unwrap();
    assert_eq!(writer.find().spool.beyond(Channel::Out, 7).unwrap(), 11);
    writer.meta.boot = "another".to_owned();
    writer.spool.describe(&writer.meta).unwrap();
    assert_eq!(writer.find().spool.beyond(Channel::Out, 7).unwrap(), 0);
}

#[test]
fn altered_bytes_are_not_accepted() {
    let mut writer = Writer::new(Algorithm::Sha256);
    writer.append(Channel::Out, b"good");
    writer.append(Channel::Out, b"bad");
    writer.spool.write(Channel::Out, 5, b"x").unwrap();
    assert_eq!(writer.find().content.end.number, 1);
}

/// The newer slot is torn: the older one does, with more to check.
#[test]
fn a_torn_checkpoint_is_made_up_for_by_the_one_before() {
    let mut writer = Writer::new(Algorithm::Sha256);
    for number in 0..3 {
        writer.append(Channel::Out, b"bytes");
        writer.checkpoint(Mark::default());
        if number == 1 {
            writer.append(Channel::Err, b"more");
        }
    }
    for slot in [0, SLOT as u64] {
        let file = writer.file("checkpoints");
        let mut whole = vec![0; SLOT];
        let reader = File::open(writer.dir.path().join("jobs/job/checkpoints")).unwrap();
        reader.read_exact_at(&mut whole, slot).unwrap();
        file.write_all_at(&[0xff; 100], slot + 10).unwrap();
        let found = writer.find();
        writer.check(&found);
        assert_eq!(found.content.end.number, 4);
        file.write_all_at(&whole, slot).unwrap();
    }
}

#[test]
fn blake3_goes_on_from_a_checkpoint() {
    let mut writer = Writer::new(Algorithm::Blake3);
    writer.append(Channel::Out, &[7; 70_000]);
    writer.checkpoint(writer.mark);
    writer.append(Channel::Out, b"more");
    let found = writer.find();
    writer.check(&found);
    assert_eq!((found.content.kept.at.out, found.content.end.at.out), (70_000, 70_004));
}

#[test]
fn what_is_punched_needs_no_room_and_is_not_looked_at() {
    let mut writer = Writer::new(Algorithm::Sha256);
    for _ in 0..64 {
        writer.append(Channel::Out, &[7; 64 * 1024]);
    }
    let blocks = || {
        use std::os::unix::fs::MetadataExt;
        writer.file("out").metadata().unwrap().blocks()
    };
    let before = blocks();
    let kept = writer.spool.entry(48).unwrap().before(48);
    writer.checkpoint(kept);
    writer.spool.punch(&Mark::default(), &kept).unwrap();
    assert!(blocks() <= before / 4 + 16, "{} of {before}", blocks());
    assert_eq!(size_between(&kept, &writer.mark), 16 * (64 * 1024 + ENTRY));
    let found = writer.find();
    assert_eq!(found.content.kept, kept);
    writer.check(&found);
}

/// Of an index a part of a block goes at a time, and no block of it was ever given back.
#[test]
fn what_is_punched_bit_by_bit_needs_no_room_either() {
    let mut writer = Writer::new(Algorithm::Sha256);
    for _ in 0..4096 {
        writer.append(Channel::Out, b"x");
    }
    let mut from = Mark::default();
    for number in (16..=4096 - 16).step_by(16) {
        let kept = writer.spool.entry(number).unwrap().before(number);
        writer.checkpoint(kept);
        writer.spool.punch(&from, &kept).unwrap();
        from = kept;
    }
    use std::os::unix::fs::MetadataExt;
    let blocks = writer.file("index").metadata().unwrap().blocks();
    assert!(blocks <= 2 * BLOCK / 512, "{blocks} blocks of 512 bytes");
    let found = writer.find();
    assert_eq!(found.content.kept, from);
    writer.check(&found);
}

#[test]
fn the_end_is_kept_as_it_was() {
    let writer = Writer::new(Algorithm::Sha256);
    assert!(writer.find().end.is_none());
    let exit = Exit::of_nothing(Outcome::Exited { code: 3 }, Algorithm::Sha256);
    let end = End { pid: 1, ended_ms: 2, exit: Ending::from(&exit) };
    writer.spool.end(&end).unwrap();
    let found = writer.find();
    assert_eq!((found.end, found.meta), (Some(end), writer.meta.clone()));
    found.spool.delete().unwrap();
    let folder = Folder::open(writer.dir.path().join("jobs")).unwrap();
    assert!(folder.list().unwrap().is_empty());
    assert!(folder.find(&writer.meta.job).is_err());
}

/// Nothing is followed, and nothing that others could write is believed.
#[test]
fn a_link_or_a_file_of_others_is_refused() {
    let writer = Writer::new(Algorithm::Sha256);
    let jobs = writer.dir.path().join("jobs");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&jobs), 0o700);
    assert_eq!(mode(&jobs.join("job")), 0o700);
    for name in ["meta.json", "index", "out", "err", "checkpoints"] {
        assert_eq!(mode(&jobs.join("job").join(name)), 0o600, "{name}");
    }
    let folder = Folder::open(jobs.clone()).unwrap();
    let out = jobs.join("job/out");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o602)).unwrap();
    assert!(folder.find(&writer.meta.job).is_err());
    fs::remove_file(&out).unwrap();
    symlink("/dev/null", &out).unwrap();
    assert!(folder.find(&writer.meta.job).is_err());
    fs::rename(jobs.join("job"), jobs.join("other")).unwrap();
    assert!(folder.find(&JobId::new("other").unwrap()).is_err(), "it says that it is another's");
    let linked = writer.dir.path().join("linked");
    symlink(&jobs, &linked).unwrap();
    assert!(Folder::open(linked).is_err());
}

#[test]
fn what_was_half_made_is_swept() {
    let writer = Writer::new(Algorithm::Sha256);
    let jobs = writer.dir.path().join("jobs");
    fs::create_dir(jobs.join(".new-x")).unwrap();
    fs::write(jobs.join(".new-x/out"), "x").unwrap();
    let folder = Folder::open(jobs.clone()).unwrap();
    assert!(!jobs.join(".new-x").exists());
    assert_eq!(folder.list().unwrap(), std::slice::from_ref(&writer.meta.job));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Any records, any checkpoints, any of the files cut anywhere: a prefix is found, and goes on.
    #[test]
    fn any_cut_leaves_a_prefix(
        chunks in prop::collection::vec((any::<bool>(), 1usize..200, any::<bool>()), 1..150),
        cuts in prop::array::uniform3(0u64..400),
    ) {
        let mut writer = Writer::new(Algorithm::Sha256);
        for (number, (is_err, length, checkpoint)) in chunks.into_iter().enumerate() {
            let channel = if is_err { Channel::Err } else { Channel::Out };
            writer.append(channel, &vec![number as u8; length]);
            if checkpoint && number < 20 {
                writer.checkpoint(Mark::default());
            }
        }
        for (name, cut) in ["index", "out", "err"].into_iter().zip(cuts) {
            let file = writer.file(name);
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(cut)).unwrap();
        }
        let found = writer.find();
        writer.check(&found);
        let middle = found.content.end.number / 2;
        let at = found.spool.bisect(0, found.content.end.number, |n, _| n >= middle).unwrap();
        prop_assert_eq!(at, middle);
    }
}

#[test]
fn hashers_go_on() {
    for algorithm in Algorithm::ALL {
        let prefix = Prefix::of(&Hasher::new(algorithm));
        assert!(prefix.hasher(algorithm).is_some());
    }
}

#[test]
fn a_closed_spool_is_read_as_before_also_when_it_is_deleted() {
    let mut writer = Writer::new(Algorithm::Sha256);
    writer.append(Channel::Out, b"abc");
    let Found { spool, content, .. } = writer.find();
    spool.close();
    let read = || spool.records(0, content.end.number).unwrap()[0].1.clone();
    assert_eq!(&*read(), b"abc");
    spool.delete().unwrap();
    assert_eq!(&*read(), b"abc");
}
