//! What a user calls as temporary files are called, and parts that another transfer holds.

use super::places::MIRROR;
use super::*;

#[test]
fn a_mirror_hides_what_is_temporary_and_nothing_else() {
    let mut bench = Bench::new();
    let d = bench.path().join("d");
    fs::create_dir(&d).unwrap();
    let of_sent = scraps::part_of(b"x");
    let of_others = scraps::part_of(b"never sent");
    for name in [".rexec-notes", ".rexec-0123456789abcdef", &of_sent, &of_others] {
        fs::write(d.join(name), "old").unwrap();
        fs::set_permissions(d.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let sent = [dir(b"d"), small(b"x", b"new"), leave(), done(1)];
    let held = scraps::part_of(b"of another transfer");
    let lock = fs::File::create_new(d.join(&held)).unwrap();
    lock.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    lock.lock().unwrap();
    assert!(bench.take(MIRROR, &sent).unwrap(), "{:?}", bench.said);
    let mut left: Vec<_> = fs::read_dir(&d)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut wanted = [".rexec-0123456789abcdef", &of_sent, &held, "x"];
    wanted.sort_unstable();
    assert_eq!(left, wanted);
}

const SIZE: u64 = 2 << 20;

/// Its client was killed, and its lease is not over.
fn held<'a>(dir: &Path, out: Out<'a>, whole: &[u8]) -> Receiver<'a> {
    let rules = Rules { store: PARTS, recursive: false, links: false, expected: &|_| true };
    let landing = Landing::find(dir.as_os_str().as_bytes(), Target::Into, true).unwrap();
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), out);
    for (message, body) in [ask(SIZE), begin(0), data(0, &whole[..100_000])] {
        receiver.take(message, body).unwrap();
    }
    receiver
}

fn rest(whole: &[u8]) -> Vec<(ToReceiver, &[u8])> {
    let pieces = whole[100_000..].chunks(200_000).enumerate();
    let pieces = pieces.map(|(n, piece)| data(100_000 + n as u64 * 200_000, piece)).collect();
    [vec![ask(SIZE), begin(100_000)], pieces, vec![end(SIZE, whole), done(1)]].concat()
}

#[test]
fn a_part_that_another_transfer_holds_is_gone_on_with_and_does_not_stay() {
    let whole: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    for ends_first in [true, false] {
        for old in [true, false] {
            let mut bench = Bench::new();
            if old {
                fs::write(bench.path().join("f"), "old").unwrap();
            }
            let mut ignored = |_| Ok(());
            let mut first = Some(held(bench.path(), &mut ignored, &whole));
            let mut messages = rest(&whole);
            let (asked, rest) = messages.split_at_mut(1);
            let rules = Rules { store: PARTS, recursive: false, links: false, expected: &|_| true };
            let path = bench.dir.path().as_os_str().as_bytes().to_owned();
            let mut out = |message| {
                bench.said.push(message);
                Ok(())
            };
            let landing = Landing::find(&path, Target::Into, true).unwrap();
            let mut second = Receiver::new(landing, rules, Scraps::default(), &mut out);
            second.take(asked[0].0.clone(), b"").unwrap();
            if ends_first {
                first = None;
            }
            for (message, body) in rest {
                second.take(message.clone(), body).unwrap();
            }
            drop(second);
            drop(first);
            let hash = Some(sha256(&whole[..100_000]));
            assert_eq!(bench.said[0], ToSender::Want(Want { from: 100_000, hash }));
            assert!(fs::read(bench.path().join("f")).unwrap() == whole);
            assert_eq!(bench.names(), ["f"], "{ends_first} {old}");
        }
    }
}

/// Whoever has brought the file.
#[test]
fn a_part_goes_when_the_file_comes_without_it() {
    let mut bench = Bench::new();
    let whole = vec![7; SIZE as usize];
    let mut ignored = |_| Ok(());
    drop(held(bench.path(), &mut ignored, &whole));
    assert_eq!(bench.names(), [scraps::part_of(b"f")]);
    let pieces = whole.chunks(200_000).enumerate();
    let pieces: Vec<_> = pieces.map(|(n, piece)| data(n as u64 * 200_000, piece)).collect();
    let announced = (ToReceiver::File(file(b"f", SIZE)), &b""[..]);
    let sent = [&[announced], &pieces[..], &[end(SIZE, &whole), done(1)]].concat();
    assert!(bench.take(Store::default(), &sent).unwrap());
    assert_eq!(bench.names(), ["f"]);
}

/// It is what a later run goes on with.
#[test]
fn a_part_stays_while_the_file_is_not_there_in_whole() {
    let bench = Bench::new();
    fs::write(bench.path().join("f"), "old").unwrap();
    let whole = vec![7; SIZE as usize];
    let mut ignored = |_| Ok(());
    drop(held(bench.path(), &mut ignored, &whole));
    assert_eq!(bench.names(), [scraps::part_of(b"f").as_str(), "f"]);
}

/// A folder that is not safe takes with it what is below it, and nothing else; also what comes later.
#[test]
fn a_folder_that_cannot_be_made_durable_fails_what_is_below_it_only() {
    let at = tempfile::tempdir().unwrap();
    let landing = Landing::find(at.path().as_os_str().as_bytes(), Target::Into, true).unwrap();
    let (store, expected) = (Store::default(), |_: &[u8]| true);
    let rules = Rules { store, recursive: true, links: false, expected: &expected };
    let mut said = Vec::new();
    let mut out = |message| {
        said.push(message);
        Ok(())
    };
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
    // A descriptor that is only a path cannot be synced.
    for (name, flags) in [("bad", OFlag::O_PATH), ("good", OFlag::O_RDONLY)] {
        let path = at.path().join(name);
        fs::create_dir(&path).unwrap();
        let fd = open(&path, flags | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let folder = Some(Arc::new(Folder::new(fd, false).unwrap()));
        let (path, meta) = (name.as_bytes().to_vec(), META);
        receiver.levels.push(Level { folder, skip: false, path, meta, names: None, news: None });
        receiver.take(dir(b"d").0, b"").unwrap();
        receiver.take(small(b"x", b"x").0, b"x").unwrap();
        if name == "bad" {
            receiver.settle().unwrap();
            receiver.take(small(b"later", b"x").0, b"x").unwrap();
        }
        receiver.take(leave().0, b"").unwrap();
        receiver.levels.pop();
    }
    receiver.settle().unwrap();
    drop(receiver);
    let told: Vec<_> = said
        .iter()
        .map(|said| match said {
            ToSender::Stored(stored) => (stored.path.as_slice(), true),
            ToSender::Failed(failed) => (failed.path.as_slice(), false),
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted: [(&[u8], bool); 5] = [
        (b"bad/d/x", false),
        (b"bad/d/later", false),
        (b"good/d/x", true),
        (b"bad/d", false),
        (b"good/d", true),
    ];
    assert_eq!(told, wanted);
}
