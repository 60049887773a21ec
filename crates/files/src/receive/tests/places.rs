//! A folder and something else that change places between the source and the destination.

use super::*;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const MIRROR: Store = Store {
    preserve: false,
    special: false,
    update: None,
    partial: false,
    delete: true,
    dry_run: false,
};

fn link(name: &str) -> (ToReceiver, &'static [u8]) {
    let (name, target) = (ByteBuf::from(name.as_bytes()), ByteBuf::from("nowhere"));
    (ToReceiver::Link(Link { name, target, meta: META }), b"")
}

/// `d` with four things of another kind than the tree of [`sent`] has, and a link to `outside`.
fn destination(bench: &Bench, outside: &Path) {
    for full in ["d/file/deep/er", "d/link"] {
        fs::create_dir_all(bench.path().join(full)).unwrap();
        fs::write(bench.path().join(full).join("old"), "old").unwrap();
    }
    fs::write(bench.path().join("d/folder"), "old").unwrap();
    symlink(outside, bench.path().join("d/other")).unwrap();
    symlink(outside, bench.path().join("d/file/out")).unwrap();
}

fn sent() -> Vec<(ToReceiver, &'static [u8])> {
    let folder = |name, inner| vec![dir(name), small(inner, b"new"), leave()];
    let (one, two) = (folder(b"folder", b"x"), folder(b"other", b"y"));
    [vec![dir(b"d"), small(b"file", b"new"), link("link")], one, two, vec![leave(), done(4)]]
        .concat()
}

/// What makes way, with all that is in it.
const GONE: [&str; 9] = [
    "d/file",
    "d/file/deep",
    "d/file/deep/er",
    "d/file/deep/er/old",
    "d/file/out",
    "d/folder",
    "d/link",
    "d/link/old",
    "d/other",
];

fn removed_names(bench: &Bench) -> Vec<String> {
    let name = |said: &ToSender| match said {
        ToSender::Removed { path } => Some(String::from_utf8(path.to_vec()).unwrap()),
        _ => None,
    };
    let mut names: Vec<_> = bench.said.iter().filter_map(name).collect();
    names.sort();
    names
}

fn finished(bench: &Bench) -> Finished {
    match bench.said.last() {
        Some(ToSender::Finished(finished)) => *finished,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mirror_puts_the_one_in_the_place_of_the_other() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let mut bench = Bench::new();
    destination(&bench, outside.path());
    assert!(bench.take(MIRROR, &sent()).unwrap(), "{:?}", bench.said);
    let Finished { stored, removed, failed, folders, .. } = finished(&bench);
    assert_eq!((stored, removed, failed, folders), (4, 9, 0, 2), "{:?}", bench.said);
    assert_eq!(removed_names(&bench), GONE);
    let at = |name: &str| bench.path().join("d").join(name);
    assert_eq!(fs::read(at("file")).unwrap(), b"new");
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("nowhere"));
    for (folder, inner) in [("folder", "x"), ("other", "y")] {
        assert!(fs::symlink_metadata(at(folder)).unwrap().is_dir());
        assert_eq!(fs::read(at(folder).join(inner)).unwrap(), b"new");
    }
    assert_eq!(fs::read_dir(at("")).unwrap().count(), 4, "no debris");
    let kept: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(kept.len(), 1, "no link was followed");
}

fn failed_names(bench: &Bench) -> Vec<String> {
    let name = |said: &ToSender| match said {
        ToSender::Failed(failed) => Some(String::from_utf8(failed.path.to_vec()).unwrap()),
        _ => None,
    };
    let mut names: Vec<_> = bench.said.iter().filter_map(name).collect();
    names.sort();
    names
}

/// The removal stopped at it, and all that came after it in the order of the disk stayed, unnamed.
#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    // Two that are too deep, for the superuser too.
    let deep = |name: &str| ["d", name, &["f"; MAX_DEPTH - 1].join("/")].join("/");
    let stray = ["stray/one", "stray/two"].map(deep);
    for dry_run in [true, false] {
        let mut bench = Bench::new();
        for path in &stray {
            fs::create_dir_all(bench.path().join(path)).unwrap();
        }
        for number in 0..20 {
            fs::write(bench.path().join(format!("d/stray/{number}")), "").unwrap();
        }
        let messages = [dir(b"d"), leave(), done(0)];
        assert!(bench.take(Store { dry_run, ..MIRROR }, &messages).unwrap(), "{:?}", bench.said);
        let Finished { removed, failed, .. } = finished(&bench);
        assert_eq!((removed, failed), (20, 2), "{:?}", bench.said);
        assert_eq!(failed_names(&bench), stray);
        let left = fs::read_dir(bench.path().join("d/stray")).unwrap().count();
        assert_eq!(left, if dry_run { 22 } else { 2 });
    }
}

#[test]
fn a_file_does_not_come_where_a_folder_cannot_be_emptied() {
    let deep = ["d/file", &["f"; MAX_DEPTH + 1].join("/")].join("/");
    for dry_run in [true, false] {
        let mut bench = Bench::new();
        fs::create_dir_all(bench.path().join(&deep)).unwrap();
        fs::write(bench.path().join("d/file/x"), "").unwrap();
        let mut messages = [dir(b"d"), small(b"file", b"new"), leave(), done(1)];
        if let (true, (ToReceiver::File(file), body)) = (dry_run, &mut messages[1]) {
            (file.ask, file.whole, *body) = (true, None, b"");
        }
        assert!(bench.take(Store { dry_run, ..MIRROR }, &messages).unwrap(), "{:?}", bench.said);
        let Finished { stored, removed, failed, .. } = finished(&bench);
        assert_eq!((stored, removed, failed), (0, 1, 2), "{:?}", bench.said);
        assert_eq!(failed_names(&bench), ["d/file", deep.as_str()]);
        assert!(bench.path().join(&deep).exists());
    }
}

#[test]
fn a_dry_run_says_so_and_changes_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    destination(&bench, outside.path());
    let dry_run = Store { dry_run: true, ..MIRROR };
    let mut messages = sent();
    for (message, body) in &mut messages {
        if let ToReceiver::File(file) = message {
            (file.ask, file.whole, *body) = (true, None, b"");
        }
    }
    assert!(bench.take(dry_run, &messages).unwrap(), "{:?}", bench.said);
    let Finished { stored, removed, failed, folders, .. } = finished(&bench);
    assert_eq!((stored, removed, failed, folders), (4, 9, 0, 2), "{:?}", bench.said);
    assert_eq!(removed_names(&bench), GONE);
    assert!(bench.path().join("d/file/deep/er/old").exists());
    assert_eq!(fs::read(bench.path().join("d/folder")).unwrap(), b"old");
}

#[test]
fn without_delete_it_is_said_what_to_do() {
    let outside = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    destination(&bench, outside.path());
    assert!(bench.take(Store::default(), &sent()).unwrap());
    for path in ["d/file", "d/link", "d/folder", "d/other"] {
        let told = |said: &ToSender| {
            matches!(said, ToSender::Failed(Failed { path: at, message, .. })
                if at == path.as_bytes() && message.contains("--delete replaces it"))
        };
        assert!(bench.said.iter().any(told), "{path}: {:?}", bench.said);
    }
    assert!(bench.path().join("d/file/deep/er/old").exists());
}

/// What a user has named is no part of the tree that he mirrors.
#[test]
fn at_the_top_nothing_makes_way() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path().join("f")).unwrap();
    fs::write(bench.path().join("d"), "old").unwrap();
    let sent = [small(b"f", b"new"), dir(b"d"), leave(), done(1)];
    assert!(bench.take(MIRROR, &sent).unwrap());
    assert_eq!(finished(&bench).failed, 2, "{:?}", bench.said);
    assert!(bench.path().join("f").is_dir() && bench.path().join("d").is_file());
    let said = format!("{:?}", bench.said);
    assert!(said.contains("name another place") && !said.contains("--delete"), "{said}");
}

/// Nobody is to remove /dev/null.
#[test]
fn at_the_top_a_device_is_named_and_no_hint_is_given_that_harms() {
    let mut bench = Bench::new();
    nix::unistd::mkfifo(&bench.path().join("f"), Mode::S_IRWXU).unwrap();
    assert!(bench.take(MIRROR, &[small(b"f", b"new"), done(1)]).unwrap());
    let said = format!("{:?}", bench.said);
    assert!(said.contains("device, FIFO or socket"), "{said}");
    assert!(!said.contains("remove it") && !said.contains("--delete"), "{said}");
}

/// As root, `rexec get web1:x /dev/stdout` made a file of that link.
#[test]
fn a_link_to_a_device_stays_where_it_is_named() {
    let mut bench = Bench::new();
    std::os::unix::fs::symlink("/dev/null", bench.path().join("f")).unwrap();
    assert!(bench.take(MIRROR, &[small(b"f", b"new"), done(1)]).unwrap());
    let said = format!("{:?}", bench.said);
    assert!(said.contains("device, FIFO or socket"), "{said}");
    assert!(fs::symlink_metadata(bench.path().join("f")).unwrap().is_symlink());
}

/// `rexec get -T web1:x /dev/stdout >file` put a file in the place of that link.
#[test]
fn a_link_to_an_open_file_stays_where_it_is_named() {
    let mut bench = Bench::new();
    let other = bench.path().join("other");
    fs::write(&other, "old").unwrap();
    let open = fs::File::open(&other).unwrap();
    let leads = format!("/proc/self/fd/{}", open.as_raw_fd());
    std::os::unix::fs::symlink(&leads, bench.path().join("f")).unwrap();
    assert!(bench.take(MIRROR, &[small(b"f", b"new"), done(1)]).unwrap());
    let said = format!("{:?}", bench.said);
    assert!(said.contains("what a process has open") && said.contains("- is stdout"), "{said}");
    assert!(fs::symlink_metadata(bench.path().join("f")).unwrap().is_symlink());
    assert_eq!(fs::read(other).unwrap(), b"old");
    // Without -T it was "too many levels of symbolic links", which is not what there are.
    for path in [leads.clone(), format!("{leads}/x"), "/proc/self/cwd/x/y".to_owned()] {
        let why = Landing::find(path.as_bytes(), Target::Either, true).unwrap_err();
        assert!(why.contains("what a process has open"), "{why}");
    }
}

#[test]
fn links_to_each_other_are_called_that_and_replaced() {
    let mut bench = Bench::new();
    let path = bench.path().join("f");
    std::os::unix::fs::symlink("f", &path).unwrap();
    let why = Landing::find(path.as_os_str().as_bytes(), Target::Either, true).unwrap_err();
    assert!(why.contains("symbolic links"), "{why}");
    assert!(bench.take(MIRROR, &[small(b"f", b"new"), done(1)]).unwrap());
    assert_eq!(fs::read(path).unwrap(), b"new");
}

#[test]
fn at_every_moment_there_is_the_one_or_the_other() {
    let mut bench = Bench::new();
    let path = bench.path().join("d/f");
    fs::create_dir_all(&path).unwrap();
    let stop = AtomicBool::new(false);
    let looked = path.clone();
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(fs::symlink_metadata(&looked).is_ok(), "there is nothing");
            }
        });
        for n in 0..100 {
            let now = if n % 2 == 0 { vec![small(b"f", b"new")] } else { vec![dir(b"f"), leave()] };
            let entries = 1 - n % 2;
            let sent = [vec![dir(b"d")], now, vec![leave(), done(entries)]].concat();
            assert!(bench.take(MIRROR, &sent).unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        looking.join().unwrap();
    });
    assert!(bench.said.iter().all(|said| !matches!(said, ToSender::Failed(_))));
}

/// A part that has become a file leaves the folder that had its name, and that goes.
#[test]
fn a_part_takes_the_place_of_a_folder() {
    let mut bench = Bench::new();
    fs::create_dir_all(bench.path().join("d/f/in")).unwrap();
    let whole = vec![7; 1 << 20];
    let pieces: Vec<_> = whole
        .chunks(200_000)
        .enumerate()
        .map(|(n, piece)| data(n as u64 * 200_000, piece))
        .collect();
    let size = whole.len() as u64;
    let sent =
        [&[dir(b"d"), ask(size), begin(0)], &pieces[..], &[end(size, &whole), leave(), done(1)]];
    assert!(bench.take(Store { partial: true, ..MIRROR }, &sent.concat()).unwrap());
    assert_eq!(fs::read(bench.path().join("d/f")).unwrap(), whole);
    assert_eq!(fs::read_dir(bench.path().join("d")).unwrap().count(), 1);
}

/// It was called a loop of links.
#[test]
fn a_folder_that_is_too_deep_to_be_removed_is_called_that() {
    for dry_run in [true, false] {
        let mut bench = Bench::new();
        let deep = ["a"; MAX_DEPTH + 1].join("/");
        fs::create_dir_all(bench.path().join("d").join(&deep)).unwrap();
        let sent = [dir(b"d"), leave(), done(0)];
        assert!(bench.take(Store { dry_run, ..MIRROR }, &sent).unwrap());
        let failed = bench.said.iter().find_map(|said| match said {
            ToSender::Failed(Failed { path, message, .. }) => {
                Some((path.to_vec(), message.as_str()))
            }
            _ => None,
        });
        let path = format!("d/{deep}").into_bytes();
        assert_eq!(failed, Some((path, "is more than 256 folders deep, and not removed")));
    }
}

/// Files that are asked about come when their folders were left long ago, and more folders than a batch holds.
#[test]
fn a_folder_looks_as_it_was_sent_when_its_last_file_is_in() {
    const FOLDERS: u64 = 300;
    let mut bench = Bench::new();
    let store = Store { preserve: true, update: Some(Update::Times), delete: false, ..MIRROR };
    let names: Vec<_> = (0..FOLDERS).map(|n| format!("d{n}").into_bytes()).collect();
    let asked = || (ToReceiver::File(File { ask: true, ..file(b"x", 1) }), &b""[..]);
    let mut sent = vec![dir(b"d")];
    sent.extend(names.iter().flat_map(|name| [dir(name), asked(), leave()]));
    sent.push(leave());
    sent.extend(names.iter().flat_map(|_| [begin(0), data(0, b"x"), end(1, b"x")]));
    sent.push(done(FOLDERS));
    assert!(bench.take(store, &sent).unwrap(), "{:?}", bench.said);
    for name in names {
        let folder = bench.path().join("d").join(std::str::from_utf8(&name).unwrap());
        assert_eq!(fs::read(folder.join("x")).unwrap(), b"x");
        let found = fs::metadata(&folder).unwrap();
        assert_eq!((found.mtime(), found.mode() & 0o777), (META.mtime, 0o755), "{folder:?}");
    }
}

/// It was left with mode 700, and a later transfer without `-p` leaves a folder that is there as it is.
#[test]
fn a_folder_that_was_never_complete_can_be_entered_by_others() {
    for (sent, expected) in [(0o755, 0o755), (0o777, 0o755), (0o550, 0o750), (0o700, 0o700)] {
        let mut bench = Bench::new();
        let entry = Entry { name: ByteBuf::from("d"), meta: Meta { mode: sent, ..META } };
        let message = (ToReceiver::Dir(entry), &b""[..]);
        let store = Store { preserve: true, delete: false, ..MIRROR };
        assert!(!bench.take(store, &[message]).unwrap(), "{:?}", bench.said);
        let mode = fs::metadata(bench.path().join("d")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, expected, "{sent:o}");
    }
}
