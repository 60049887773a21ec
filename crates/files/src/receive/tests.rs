//! A receiver, and what a sender can do to it.

mod once;
mod places;
mod temporary;

use super::*;
use folder::Folder;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use rexec_protocol::Algorithm;
use rexec_protocol::files::{
    Compared, Entry, Leave, MAX_ASKED, MAX_DEPTH, Meta, Target, Update, Want,
};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// What a test says to a receiver, and what that did.
struct Bench {
    dir: TempDir,
    said: Vec<ToSender>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), said: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Has a receiver take messages for the folder of this test, up to its first refusal.
    fn take(&mut self, store: Store, messages: &[(ToReceiver, &[u8])]) -> Result<bool, Error> {
        let expected = |name: &[u8]| matches!(name, b"f" | b"d" | b"");
        let rules = Rules { store, recursive: true, links: false, expected: &expected };
        self.take_by(rules, messages)
    }

    fn take_by(
        &mut self,
        rules: Rules<'_>,
        messages: &[(ToReceiver, &[u8])],
    ) -> Result<bool, Error> {
        let path = self.dir.path().as_os_str().as_bytes();
        let landing = Landing::find(path, Target::Into, true).unwrap();
        let scraps = Scraps::default();
        let mut out = |message| {
            self.said.push(message);
            Ok(())
        };
        let mut receiver = Receiver::new(landing, rules, scraps, &mut out);
        let mut done = false;
        for (message, body) in messages {
            done = receiver.take(message.clone(), body)?;
        }
        Ok(done)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn refused(taken: Result<bool, Error>, why: &str) {
    match taken {
        Err(Error::Peer(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?} instead of {why}"),
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

const META: Meta = Meta { mode: 0o6755, mtime: 1_000_000_000, nsec: 5 };

fn file(name: &[u8], size: u64) -> File {
    let (name, size) = (ByteBuf::from(name), Some(size));
    File { name, size, meta: META, ask: false, digest: Algorithm::Sha256, whole: None }
}

fn small<'a>(name: &[u8], body: &'a [u8]) -> (ToReceiver, &'a [u8]) {
    let whole = Some(sha256(body));
    (ToReceiver::File(File { whole, ..file(name, body.len() as u64) }), body)
}

fn dir(name: &[u8]) -> (ToReceiver, &'static [u8]) {
    (ToReceiver::Dir(Entry { name: ByteBuf::from(name), meta: META }), b"")
}

fn data(offset: u64, body: &[u8]) -> (ToReceiver, &[u8]) {
    (ToReceiver::Data(Data { offset }), body)
}

fn end(size: u64, all: &[u8]) -> (ToReceiver, &'static [u8]) {
    (ToReceiver::End(End { size, hash: sha256(all) }), b"")
}

fn done(entries: u64) -> (ToReceiver, &'static [u8]) {
    (ToReceiver::Done(Done { entries }), b"")
}

fn leave() -> (ToReceiver, &'static [u8]) {
    (ToReceiver::Leave(Leave { complete: true }), b"")
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [&b".."[..], b".", b"../x", b"/etc/x", b"a/b", b"x\0y", b""] {
        let mut bench = Bench::new();
        refused(bench.take(Store::default(), &[dir(b"d"), small(name, b"x")]), "a file named");
        assert_eq!(bench.names(), ["d"]);
        assert_eq!(fs::read_dir(bench.path().join("d")).unwrap().count(), 0);
    }
}

#[test]
fn a_failure_has_a_name_as_a_file_has() {
    let fail = |name: &[u8]| {
        let (name, message) = (Some(ByteBuf::from(name)), "no".to_owned());
        (ToReceiver::Fail(Fail { name, message, at: None }), &b""[..])
    };
    refused(Bench::new().take(Store::default(), &[fail(b"../../etc")]), "speaks of a file");
    let mut bench = Bench::new();
    assert!(bench.take(Store::default(), &[fail(b"x"), fail(b""), done(2)]).unwrap());
}

#[test]
fn names_that_were_not_asked_for_are_refused() {
    let mut bench = Bench::new();
    refused(bench.take(Store::default(), &[small(b".profile", b"x")]), "not asked for");
    assert!(bench.names().is_empty());
}

#[test]
fn contents_are_refused_where_a_folder_was_asked_for() {
    let mut bench = Bench::new();
    let expected = |name: &[u8]| name == b"d";
    let rules =
        Rules { store: Store::default(), recursive: true, links: false, expected: &expected };
    refused(bench.take_by(rules, &[dir(b""), small(b"x", b"x")]), "contents of a folder");
    assert!(bench.names().is_empty());
}

#[test]
fn folders_are_refused_where_a_file_was_asked_for() {
    let mut bench = Bench::new();
    let rules =
        Rules { store: Store::default(), recursive: false, links: false, expected: &|_| true };
    refused(bench.take_by(rules, &[dir(b"d")]), "sends a folder");
    assert!(bench.names().is_empty());
}

#[test]
fn a_link_that_was_sent_is_not_entered() {
    let outside = tempfile::tempdir().unwrap();
    let target = ByteBuf::from(outside.path().as_os_str().as_bytes());
    let link = ToReceiver::Link(Link { name: ByteBuf::from("l"), target, meta: META });
    let mut bench = Bench::new();
    let sent = [dir(b"d"), (link, &b""[..]), leave(), done(1)];
    assert!(bench.take(Store::default(), &sent).unwrap());
    let sent = [dir(b"d"), dir(b"l"), small(b"x", b"evil"), leave(), leave(), done(1)];
    assert!(bench.take(Store::default(), &sent).unwrap());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let said = format!("{:?}", bench.said);
    assert!(said.contains("no folder"), "{said}");
}

/// It would be taken for the file, with no digest to check.
#[test]
fn a_link_is_refused_where_a_file_was_asked_for() {
    let link = Link { name: ByteBuf::from("f"), target: ByteBuf::from("x"), meta: META };
    let mut bench = Bench::new();
    let sent = [(ToReceiver::Link(link), &b""[..]), done(1)];
    refused(bench.take(Store::default(), &sent), "a link in the place of a file");
    assert!(bench.names().is_empty());
}

/// A link's mode is 0777, and its owner is whoever put it there.
#[test]
fn a_file_in_the_place_of_a_link_is_a_new_file() {
    let mut bench = Bench::new();
    let path = bench.path().join("f");
    symlink("nowhere", &path).unwrap();
    let sent = File { meta: Meta { mode: 0o100_600, ..META }, ..file(b"f", 3) };
    let sent = [(ToReceiver::File(sent), &b""[..]), data(0, b"new"), end(3, b"new"), done(1)];
    assert!(bench.take(Store::default(), &sent).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_takes_the_place_of_a_link_and_not_of_what_that_leads_to() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let mut bench = Bench::new();
    symlink(outside.path(), bench.path().join("f")).unwrap();
    assert!(bench.take(Store::default(), &[small(b"f", b"new"), done(1)]).unwrap());
    assert_eq!(fs::read(bench.path().join("f")).unwrap(), b"new");
    assert_eq!(fs::read(outside.path()).unwrap(), b"");
}

#[test]
fn a_file_that_is_not_what_was_said_is_not_stored() {
    for (why, content) in [
        ("sha256 digest", vec![data(0, b"abcd"), end(4, b"other")]),
        ("bytes came", vec![data(0, b"ab"), end(2, b"ab")]),
        ("does not belong", vec![data(0, b"abcd"), data(4, b"e"), end(5, b"abcde")]),
        ("does not belong", vec![data(0, b"abcd"), data(0, b"abcd"), end(4, b"abcdabcd")]),
    ] {
        let mut bench = Bench::new();
        fs::write(bench.path().join("f"), "old").unwrap();
        let announced = [(ToReceiver::File(file(b"f", 4)), &b""[..])];
        let sent = [&announced[..], &content, &[done(1)]].concat();
        assert!(bench.take(Store::default(), &sent).unwrap());
        let ToSender::Failed(Failed { message, .. }) = &bench.said[0] else { panic!() };
        assert!(message.contains(why), "{message}");
        assert_eq!(fs::read(bench.path().join("f")).unwrap(), b"old");
        assert_eq!(bench.names(), ["f"], "no debris");
    }
}

/// The checks one by one, so that each of them can be seen to matter.
#[test]
fn a_file_with_another_digest_is_not_stored() {
    let mut bench = Bench::new();
    let wrong = ToReceiver::File(File { whole: Some(sha256(b"y")), ..file(b"f", 1) });
    assert!(bench.take(Store::default(), &[(wrong, b"x"), done(1)]).unwrap());
    assert!(bench.names().is_empty(), "{:?}", bench.said);
}

#[test]
fn a_file_of_another_size_is_not_stored() {
    let mut bench = Bench::new();
    let file = (ToReceiver::File(file(b"f", 4)), &b""[..]);
    assert!(bench.take(Store::default(), &[file, data(0, b"ab"), end(2, b"ab"), done(1)]).unwrap());
    assert!(bench.names().is_empty(), "{:?}", bench.said);
}

#[test]
fn a_piece_that_comes_again_is_not_hashed_twice() {
    let mut bench = Bench::new();
    let file = (ToReceiver::File(file(b"f", 2)), &b""[..]);
    let sent = [file, data(0, b"ab"), data(0, b"ab"), end(2, b"abab"), done(1)];
    assert!(bench.take(Store::default(), &sent).unwrap());
    assert!(bench.names().is_empty(), "{:?}", bench.said);
}

#[test]
fn files_that_did_not_come_are_missed() {
    let mut bench = Bench::new();
    refused(bench.take(Store::default(), &[small(b"f", b"x"), done(2)]), "1 of 2 files came");
}

#[test]
fn an_end_in_the_middle_of_a_file_leaves_nothing() {
    let mut bench = Bench::new();
    let file = (ToReceiver::File(file(b"f", 4)), &b""[..]);
    assert!(!bench.take(Store::default(), &[file, data(0, b"ab")]).unwrap());
    assert!(bench.names().is_empty());
}

#[test]
fn modes_are_masked_and_special_ones_dropped_unless_asked_for() {
    let umask = folder::umask();
    for (store, mode) in [
        (Store::default(), 0o755 & !umask),
        (Store { preserve: true, ..Store::default() }, 0o755),
        (Store { preserve: true, special: true, ..Store::default() }, 0o6755),
    ] {
        let mut bench = Bench::new();
        let sent = [dir(b"d"), small(b"x", b"x"), leave(), small(b"f", b"x"), done(2)];
        assert!(bench.take(store, &sent).unwrap());
        for name in ["f", "d"] {
            let meta = fs::metadata(bench.path().join(name)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{name} {store:?}");
            assert_eq!(meta.mtime() == META.mtime, store.preserve);
        }
    }
}

#[test]
fn a_file_that_is_replaced_keeps_its_mode() {
    let mut bench = Bench::new();
    let path = bench.path().join("f");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(bench.take(Store::default(), &[small(b"f", b"new"), done(1)]).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let mut bench = Bench::new();
    let path = bench.path().join("f");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(bench.take(Store::default(), &[small(b"f", b"new"), done(1)]).unwrap());
    assert!(matches!(&bench.said[0], ToSender::Failed(_)));
    assert!(
        fs::metadata(&path).unwrap().file_type()
            != fs::metadata("/proc/self/exe").unwrap().file_type()
    );
}

#[test]
fn holes_stay_holes() {
    let mut bench = Bench::new();
    let size = 1 << 20;
    let mut all = vec![0; size];
    all[300_000..300_003].copy_from_slice(b"abc");
    let file = (ToReceiver::File(file(b"f", size as u64)), &b""[..]);
    let sent = [file, data(300_000, b"abc"), end(size as u64, &all), done(1)];
    assert!(bench.take(Store::default(), &sent).unwrap());
    assert_eq!(fs::read(bench.path().join("f")).unwrap(), all);
    assert!(fs::metadata(bench.path().join("f")).unwrap().blocks() < 64);
}

const PARTS: Store = Store {
    preserve: false,
    special: false,
    update: None,
    partial: true,
    delete: false,
    dry_run: false,
};

fn ask(size: u64) -> (ToReceiver, &'static [u8]) {
    (ToReceiver::File(File { ask: true, ..file(b"f", size) }), b"")
}

fn begin(from: u64) -> (ToReceiver, &'static [u8]) {
    (ToReceiver::Begin(Begin { from }), b"")
}

#[test]
fn a_part_is_kept_and_gone_on_with() {
    let whole: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
    let size = whole.len() as u64;
    let mut bench = Bench::new();
    let piece = &whole[..100_000];
    assert!(!bench.take(PARTS, &[ask(size), begin(0), data(0, piece)]).unwrap());
    let names = bench.names();
    assert!(names.len() == 1 && names[0].starts_with(".rexec-part-"), "{names:?}");
    let part = bench.path().join(&names[0]);
    assert_eq!(fs::metadata(&part).unwrap().permissions().mode() & 0o7777, 0o600);
    bench.said.clear();
    let rest = &whole[100_000..];
    let pieces: Vec<_> = rest
        .chunks(200_000)
        .enumerate()
        .map(|(n, piece)| data(100_000 + n as u64 * 200_000, piece))
        .collect();
    let sent = [&[ask(size), begin(100_000)], &pieces[..], &[end(size, &whole), done(1)]].concat();
    assert!(bench.take(PARTS, &sent).unwrap());
    let hash = Some(sha256(piece));
    assert_eq!(bench.said[0], ToSender::Want(Want { from: 100_000, hash }));
    assert!(matches!(bench.said[1], ToSender::Stored(Stored { resumed: 100_000, .. })));
    assert_eq!(bench.names(), ["f"]);
    assert_eq!(fs::read(bench.path().join("f")).unwrap(), whole);
}

/// Files are asked about long before they come, and an answer looks for a part of each.
#[test]
fn a_part_of_which_nothing_came_does_not_stay() {
    let mut bench = Bench::new();
    let other = ToReceiver::File(File { ask: true, ..file(b"d", 2 << 20) });
    assert!(!bench.take(PARTS, &[ask(2 << 20), (other, b""), begin(0)]).unwrap());
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

/// As when a signal ends the program: then nothing is dropped.
#[test]
fn a_part_of_which_nothing_came_goes_when_all_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let rules = Rules { store: PARTS, recursive: false, links: false, expected: &|_| true };
    let landing = Landing::find(dir.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let (scraps, mut out) = (Scraps::default(), |_| Ok(()));
    let mut receiver = Receiver::new(landing, rules, scraps.clone(), &mut out);
    receiver.take(ask(2 << 20).0, b"").unwrap();
    receiver.take(ToReceiver::File(File { ask: true, ..file(b"d", 2 << 20) }), b"").unwrap();
    receiver.take(begin(0).0, b"").unwrap();
    receiver.take(ToReceiver::Data(Data { offset: 0 }), b"abc").unwrap();
    assert_eq!(names(), 2);
    scraps.clear();
    assert_eq!(names(), 1, "what there is of the first");
    drop(receiver);
    assert_eq!(names(), 1);
}

/// Others could have prepared it, or could read along.
#[test]
fn a_part_that_others_can_reach_is_not_used() {
    let mut bench = Bench::new();
    assert!(!bench.take(PARTS, &[ask(2 << 20), begin(0), data(0, b"abc")]).unwrap());
    let part = bench.path().join(&bench.names()[0]);
    fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).unwrap();
    bench.said.clear();
    assert!(!bench.take(PARTS, &[ask(2 << 20)]).unwrap());
    assert_eq!(bench.said, [ToSender::Want(Want::default())]);
}

#[test]
fn only_what_was_asked_about_has_content_or_a_verdict() {
    for message in [begin(0), (ToReceiver::Compared(Compared { same: true }), b""), data(0, b"x")] {
        let mut bench = Bench::new();
        assert!(matches!(bench.take(PARTS, &[message]), Err(Error::Peer(_))));
    }
    let mut bench = Bench::new();
    let too_many = vec![ask(1 << 21); MAX_ASKED + 1];
    refused(bench.take(PARTS, &too_many), "too many");
}

#[test]
fn a_part_that_waits_for_its_name_is_not_gone_on_with_by_another_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store { partial: true, ..Store::default() };
    let expected = |_: &[u8]| true;
    let rules = Rules { store, recursive: false, links: false, expected: &expected };
    let landing = || Landing::find(dir.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let (old, new) = (vec![b'a'; 8 << 20], vec![b'b'; 8 << 20]);
    let size = old.len() as u64;
    let ask = || ToReceiver::File(File { ask: true, ..file(b"f", size) });
    let end = |body| ToReceiver::End(End { size, hash: sha256(body) });
    let data = || ToReceiver::Data(Data { offset: 0 });
    let done = || ToReceiver::Done(Done { entries: 1 });

    let mut ignored = |_| Ok(());
    let mut first = Receiver::new(landing(), rules, Scraps::default(), &mut ignored);
    first.take(ask(), b"").unwrap();
    first.take(ToReceiver::Begin(Begin { from: 0 }), b"").unwrap();
    first.take(data(), &old).unwrap();
    first.take(end(&old), b"").unwrap();

    let mut said = Vec::new();
    let mut out = |message| {
        said.push(message);
        Ok(())
    };
    let mut second = Receiver::new(landing(), rules, Scraps::default(), &mut out);
    second.take(ask(), b"").unwrap();
    assert!(first.take(done(), b"").unwrap());
    second.take(ToReceiver::Begin(Begin { from: 0 }), b"").unwrap();
    second.take(data(), &new[..1 << 20]).unwrap();
    // The old file or the new one, and nothing in between.
    assert!(fs::read(dir.path().join("f")).unwrap() == old);
    drop(second);
    assert_eq!(said, [ToSender::Want(Want::default())]);
}

#[test]
fn files_in_many_folders_need_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let expected = |name: &[u8]| name == b"d";
    let rules =
        Rules { store: Store::default(), recursive: true, links: false, expected: &expected };
    let landing = Landing::find(dir.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let dirs =
        |name: &str| ToReceiver::Dir(Entry { name: ByteBuf::from(name.as_bytes()), meta: META });
    let leave = || ToReceiver::Leave(Leave { complete: true });
    // Folders that are there already get no mode, so nothing of them is left to be done.
    for n in 0..1500 {
        fs::create_dir_all(dir.path().join(format!("d/{n}"))).unwrap();
    }
    let mut ignored = |_| Ok(());
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut ignored);
    receiver.take(dirs("d"), b"").unwrap();
    let mut most = 0;
    for n in 0..1500 {
        receiver.take(dirs(&n.to_string()), b"").unwrap();
        let whole = Some(sha256(b"x"));
        receiver.take(ToReceiver::File(File { whole, ..file(b"f", 1) }), b"x").unwrap();
        receiver.take(leave(), b"").unwrap();
        most = most.max(fs::read_dir("/proc/self/fd").unwrap().count());
    }
    receiver.take(leave(), b"").unwrap();
    assert!(receiver.take(ToReceiver::Done(Done { entries: 1500 }), b"").unwrap());
    assert!(most < 700, "{most} descriptors");
    assert_eq!(fs::read(dir.path().join("d/1499/f")).unwrap(), b"x");
}

/// As rsync does: what is the same needs no content, and yet is to be what was sent.
#[test]
fn what_has_the_content_gets_mode_and_time_without_it() {
    for update in [Update::Times, Update::Digest] {
        let store = Store { preserve: true, update: Some(update), ..Store::default() };
        let mut bench = Bench::new();
        let path = bench.path().join("f");
        fs::write(&path, "same").unwrap();
        let looks = |mode: u32, time: u64| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::new(time, 5);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        };
        let seen = || {
            let meta = fs::metadata(&path).unwrap();
            (meta.mode() & 0o7777, meta.mtime(), meta.ino())
        };
        // -u has found by its time that it is the same.
        let time = if update == Update::Times { 1_000_000_000 } else { 7 };
        looks(0o600, time);
        let before = seen();
        let verdict = (ToReceiver::Compared(Compared { same: true }), &b""[..]);
        let sent = match update {
            Update::Times => vec![ask(4), done(1)],
            Update::Digest => vec![ask(4), verdict, done(1)],
        };
        let says = |bench: &Bench, adjusted: u64, skipped: u64| {
            let finished = Finished { adjusted, skipped, ..Finished::default() };
            assert_eq!(bench.said.last(), Some(&ToSender::Finished(finished)), "{update:?}");
        };
        let dry_run = Store { dry_run: true, ..store };
        assert!(bench.take(dry_run, &sent).unwrap());
        says(&bench, 1, 0);
        assert_eq!(seen(), before, "a dry run changes nothing");
        assert!(bench.take(store, &sent).unwrap());
        says(&bench, 1, 0);
        assert_eq!(seen(), (0o755, META.mtime, before.2), "{update:?}");
        assert!(bench.take(store, &sent).unwrap());
        says(&bench, 0, 1);
        // Without -p the mode is nobody's wish.
        looks(0o600, time);
        assert!(bench.take(Store { preserve: false, ..store }, &sent).unwrap());
        says(&bench, 0, 1);
        assert_eq!(seen(), before);
    }
}

/// Another name of the same file may be somebody else's, and is outside.
#[test]
fn a_file_with_another_name_is_not_changed_but_replaced() {
    let outside = tempfile::tempdir().unwrap();
    let other = outside.path().join("other");
    fs::write(&other, "same").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bench = Bench::new();
    fs::hard_link(&other, bench.path().join("f")).unwrap();
    let update = Some(Update::Digest);
    let store = Store { preserve: true, update, ..Store::default() };
    let sent = [ask(4), begin(0), data(0, b"same"), end(4, b"same"), done(1)];
    assert!(bench.take(store, &sent).unwrap(), "{:?}", bench.said);
    assert_eq!(bench.said[0], ToSender::Want(Want::default()));
    assert_eq!(fs::metadata(&other).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(bench.path().join("f")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn what_was_replaced_since_it_was_looked_at_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "same").unwrap();
    let store = Store { preserve: true, update: Some(Update::Digest), ..Store::default() };
    let rules = Rules { store, recursive: false, links: false, expected: &|_| true };
    let landing = Landing::find(dir.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let mut said = Vec::new();
    let mut out = |message| {
        said.push(message);
        Ok(())
    };
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
    receiver.take(ask(4).0, b"").unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "mine").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&secret, &path).unwrap();
    receiver.take(ToReceiver::Compared(Compared { same: true }), b"").unwrap();
    drop(receiver);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(
        matches!(&said[1], ToSender::Failed(failed) if failed.message.contains("changed meanwhile"))
    );
}

#[test]
fn what_was_written_to_since_it_was_looked_at_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "same").unwrap();
    let store = Store { preserve: true, update: Some(Update::Digest), ..Store::default() };
    let rules = Rules { store, recursive: false, links: false, expected: &|_| true };
    let landing = Landing::find(dir.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let mut said = Vec::new();
    let mut out = |message| {
        said.push(message);
        Ok(())
    };
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
    receiver.take(ask(4).0, b"").unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b", and more").unwrap();
    // As if nothing had been.
    file.set_modified(time).unwrap();
    receiver.take(ToReceiver::Compared(Compared { same: true }), b"").unwrap();
    drop(receiver);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    assert!(
        matches!(&said[1], ToSender::Failed(failed) if failed.message.contains("changed meanwhile"))
    );
}

/// The name of a new folder is in the one above it, and without that nothing in it is there after a
/// crash. A descriptor that is only a path shows what is synced, because it cannot be.
#[test]
fn the_folder_in_which_another_was_made_is_made_durable() {
    for (flags, stored) in [(OFlag::O_RDONLY, true), (OFlag::O_PATH, false)] {
        let at = tempfile::tempdir().unwrap();
        let fd = open(at.path(), flags | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let folder = Some(Arc::new(Folder::new(fd, false).unwrap()));
        let landing = Landing::find(at.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
        let store = Store::default();
        let rules = Rules { store, recursive: true, links: false, expected: &|_| true };
        let mut said = Vec::new();
        let mut out = |message| {
            said.push(message);
            Ok(())
        };
        let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
        let (path, meta) = (Vec::new(), META);
        receiver.levels.push(Level { folder, skip: false, path, meta, names: None, news: None });
        for (message, body) in [dir(b"d"), small(b"x", b"x"), leave()] {
            receiver.take(message, body).unwrap();
        }
        receiver.settle().unwrap();
        drop(receiver);
        match &said[0] {
            ToSender::Stored(_) => assert!(stored),
            ToSender::Failed(failed) => {
                assert!(
                    !stored && failed.message.contains("cannot write its folder"),
                    "{failed:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
