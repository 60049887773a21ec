//! Both ends at once, over pipes, as the agent's program and a client have them.

use crate::helper;
use crate::receive::landing::Landing;
use crate::receive::scraps::Scraps;
use crate::receive::stream::ToStream;
use crate::receive::{Receiver, Rules};
use crate::send::{Choice, Sender};
use crate::wire::{Reader, Writer};
use rexec_protocol::files::{
    FilesRequest, Finished, Get, Store, Target, ToReceiver, ToSender, Update,
};
use rexec_protocol::{Algorithm, Digest};
use serde_bytes::ByteBuf;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread;

fn bytes(path: &Path) -> ByteBuf {
    ByteBuf::from(path.as_os_str().as_bytes())
}

/// Fetches `from` to `to`; what was said, and the end.
fn fetch(from: &Path, to: &Path, store: Store) -> (Vec<ToSender>, Finished) {
    fetch_by(Algorithm::Sha256, from, to, store)
}

fn fetch_by(digest: Algorithm, from: &Path, to: &Path, store: Store) -> (Vec<ToSender>, Finished) {
    let get = Get {
        paths: vec![bytes(from)],
        recursive: true,
        glob: false,
        ask: store.asks(),
        digest,
        links: true,
    };
    let (down, up) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let sending = thread::spawn(move || helper::run(&FilesRequest::Get(get), up.0, down.1));
    let mut said = Vec::new();
    let mut answers = Writer::new(up.1);
    let mut out = |message: ToSender| {
        if matches!(message, ToSender::Want(_) | ToSender::Skip {} | ToSender::Compare(_)) {
            answers.send(&message, &[])?;
            answers.flush()
        } else {
            said.push(message);
            Ok(())
        }
    };
    let rules = Rules { store, recursive: true, links: false, expected: &|_| true };
    let landing = Landing::find(to.as_os_str().as_bytes(), Target::Exact, true).unwrap();
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
    let mut reader = Reader::new(down.0);
    while let Some((message, body)) = reader.read::<ToReceiver>().unwrap() {
        if receiver.take(message, body).unwrap() {
            break;
        }
    }
    drop(receiver);
    sending.join().unwrap().unwrap();
    match said.pop() {
        Some(ToSender::Finished(finished)) => (said, finished),
        other => panic!("{other:?}"),
    }
}

/// How many there are, with this one.
fn folders(path: &Path) -> u64 {
    let inner = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let inner = inner.filter(|entry| entry.file_type().unwrap().is_dir());
    1 + inner.map(|entry| folders(&entry.path())).sum::<u64>()
}

/// A tree with what trees have.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("a/b/empty")).unwrap();
    fs::write(at.join("a/small"), "small").unwrap();
    fs::write(at.join("a/none"), "").unwrap();
    fs::write(at.join("a/b/big"), vec![7; 700_000]).unwrap();
    fs::write(at.join("a/\n -rf"), "odd").unwrap();
    fs::write(at.join(std::ffi::OsString::from_vec(b"\xff\xfe".to_vec())), "no UTF-8").unwrap();
    fs::write(at.join("x".repeat(255)), "long").unwrap();
    symlink("a/small", at.join("link")).unwrap();
    symlink("/nowhere/at/all", at.join("dangling")).unwrap();
    fs::set_permissions(at.join("a/small"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(at.join("a/b/empty"), fs::Permissions::from_mode(0o500)).unwrap();
}

/// Names, kinds and contents.
fn contents(at: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let inner = if meta.is_dir() { contents(&path) } else { Vec::new() };
        let content = if meta.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            b"a folder".to_vec()
        };
        let name = Path::new(path.file_name().unwrap());
        found.extend(inner.into_iter().map(|(path, content)| (name.join(path), content)));
        found.push((name.to_owned(), content));
    }
    found.sort();
    found
}

fn same(one: &Path, two: &Path) {
    assert!(contents(one) == contents(two), "{} and {}", one.display(), two.display());
}

#[test]
fn a_tree_arrives_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    tree(&from);
    let store = Store { preserve: true, ..Store::default() };
    let (_, finished) = fetch(&from, &to, store);
    let bytes = 5 + 700_000 + 3 + 8 + 4;
    let folders = folders(&from);
    assert_eq!(finished, Finished { stored: 8, bytes, folders, ..Finished::default() });
    same(&from, &to);
    for name in ["a/small", "a/b/empty", "a/b", "a/b/big", "."] {
        let (one, two) = (from.join(name).metadata().unwrap(), to.join(name).metadata().unwrap());
        assert_eq!(one.mode(), two.mode(), "{name}");
        assert_eq!((one.mtime(), one.mtime_nsec()), (two.mtime(), two.mtime_nsec()), "{name}");
    }
}

#[test]
fn any_digest_proves_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("small"), "small").unwrap();
    fs::write(from.join("large"), vec![7; 3 << 20]).unwrap();
    for algorithm in Algorithm::ALL {
        let to = dir.path().join(algorithm.name());
        let (said, finished) = fetch_by(algorithm, &from, &to, Store::default());
        assert_eq!((finished.stored, finished.failed), (2, 0), "{said:?}");
        same(&from, &to);
        for stored in said {
            let ToSender::Stored(stored) = stored else { panic!("{stored:?}") };
            let has_one = !stored.folder && algorithm == Algorithm::Sha256;
            assert_eq!(stored.sha256.is_some(), has_one);
        }
        let store = Store { update: Some(Update::Digest), ..Store::default() };
        assert_eq!(fetch_by(algorithm, &from, &to, store).1.skipped, 2);
        fs::write(to.join("large"), vec![8; 3 << 20]).unwrap();
        assert_eq!(fetch_by(algorithm, &from, &to, store).1.stored, 1);
        same(&from, &to);
    }
}

#[test]
fn only_what_differs_moves() {
    for update in [Update::Times, Update::Digest] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        tree(&from);
        let store = Store { update: Some(update), delete: true, ..Store::default() };
        assert_eq!(fetch(&from, &to, store).1.stored, 8);
        assert_eq!(fetch(&from, &to, store).1, Finished { skipped: 8, ..Finished::default() });
        fs::write(from.join("a/small"), "other").unwrap();
        fs::write(to.join("a/b/extra"), "").unwrap();
        fs::create_dir_all(to.join("more/of/it")).unwrap();
        let only_said = Store { dry_run: true, ..store };
        let said = fetch(&from, &to, only_said).1;
        assert_eq!((said.stored, said.skipped, said.removed), (1, 7, 4));
        assert!(to.join("a/b/extra").exists() && to.join("more").exists());
        assert_eq!(fs::read(to.join("a/small")).unwrap(), b"small");
        assert_eq!(fetch(&from, &to, store).1, Finished { bytes: 5, ..said });
        same(&from, &to);
    }
}

#[test]
fn what_cannot_be_sent_is_said_and_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for at in [&from, &to] {
        fs::create_dir(at).unwrap();
    }
    nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(to.join("pipe"), "a file here").unwrap();
    let store = Store { delete: true, ..Store::default() };
    let (said, finished) = fetch(&from, &to, store);
    assert_eq!((finished.failed, finished.removed), (1, 0), "{said:?}");
    assert!(to.join("pipe").exists());
}

/// The last part of a path is not enough to find a file again.
#[test]
fn a_failure_names_the_whole_path_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    nix::unistd::mkfifo(&from.join("a/b/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(from.join("a/b/file"), "").unwrap();
    fs::create_dir_all(to.join("a/b/file")).unwrap();
    let failures = |from: &Path, to: &Path| {
        let (said, _) = fetch(from, to, Store::default());
        let at = said.into_iter().filter_map(|said| match said {
            ToSender::Failed(failed) => failed.at,
            _ => None,
        });
        let mut at: Vec<_> = at.map(|at| String::from_utf8(at.into_vec()).unwrap()).collect();
        at.sort();
        at
    };
    let at = |folder: &Path, name: &str| folder.join(name).display().to_string();
    assert_eq!(failures(&from, &to), [at(&from, "a/b/pipe"), at(&to, "a/b/file")]);
    assert_eq!(failures(&from.join("."), &to), [at(&from, "a/b/pipe"), at(&to, "a/b/file")]);
    assert_eq!(failures(&from.join("none"), &to), [at(&from, "none")]);
    let pipe = from.join("a/b/pipe");
    assert_eq!(failures(&pipe, &to), [pipe.display().to_string()]);
}

/// The receiver took the name in the failure for a breach, and ended the transfer.
#[test]
fn a_name_that_is_too_long_is_a_failure_and_no_breach() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("x".repeat(300));
    let (said, finished) = fetch(&from, &dir.path().join("to"), Store::default());
    assert_eq!(finished, Finished { failed: 1, ..Finished::default() }, "{said:?}");
    let at = Some(bytes(&from));
    assert!(matches!(&said[..], [ToSender::Failed(failed)] if failed.at == at), "{said:?}");
}

#[test]
fn holes_are_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let file = File::create(&from).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"in the middle", 32 << 20).unwrap();
    let (_, finished) = fetch(&from, &to, Store::default());
    assert_eq!((finished.stored, finished.bytes), (1, 64 << 20));
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
    assert!(fs::metadata(&to).unwrap().blocks() < 256);
}

#[test]
fn files_that_are_made_as_they_are_read_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("version");
    assert_eq!(fetch("/proc/version".as_ref(), &to, Store::default()).1.stored, 1);
    assert_eq!(fs::read(&to).unwrap(), fs::read("/proc/version").unwrap());
}

/// Sends a file while something happens to it, and gives what the receiver says.
fn sent_while(path: &Path, mut happens: impl FnMut(u64) + Send) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut reader_end = Vec::new();
    let digest = Algorithm::Sha256;
    let choice = Choice { recursive: false, ask: false, links: true, digest };
    let mut sent = 0;
    let mut watch = |event| {
        if let crate::send::Sent::Bytes(n) = event {
            sent += n;
            happens(sent);
        }
    };
    let mut none = || unreachable!("nothing is asked");
    let mut sender = Sender::new(&mut reader_end, choice, &mut none, &mut watch);
    sender.path(path.as_os_str().as_bytes()).unwrap();
    sender.finish().unwrap();
    let to = dir.path().join("to");
    fs::write(&to, "old").unwrap();
    let mut said = Vec::new();
    let mut out = |message| {
        said.push(message);
        Ok(())
    };
    let rules =
        Rules { store: Store::default(), recursive: false, links: false, expected: &|_| true };
    let landing = Landing::find(to.as_os_str().as_bytes(), Target::Exact, true).unwrap();
    let mut receiver = Receiver::new(landing, rules, Scraps::default(), &mut out);
    let mut reader = Reader::new(reader_end.as_slice());
    while let Some((message, body)) = reader.read::<ToReceiver>().unwrap() {
        receiver.take(message, body).unwrap();
    }
    drop(receiver);
    assert_eq!(fs::read(&to).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no debris");
    format!("{said:?}")
}

#[test]
fn a_file_that_changes_while_it_is_read_is_said_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let append = || fs::OpenOptions::new().append(true).open(&path).unwrap();
    let new = || fs::write(&path, vec![1; 1 << 20]).unwrap();
    new();
    let said = sent_while(&path, |_| append().write_all(b"more").unwrap());
    assert!(said.contains("grew from 1048576"), "{said}");
    new();
    let said = sent_while(&path, |_| append().set_len(600_000).unwrap());
    assert!(said.contains("shrank from 1048576 to 600000"), "{said}");
    new();
    let overwrite = |_| {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 0).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    let said = sent_while(&path, overwrite);
    assert!(said.contains("changed while"), "{said}");
}

#[test]
fn a_pipe_gets_what_was_sent_or_is_told() {
    let whole = Some(Digest::of(Algorithm::Sha256, b"right"));
    let file = |size| rexec_protocol::files::File {
        name: ByteBuf::from("f"),
        size: Some(size),
        meta: Default::default(),
        ask: false,
        digest: Algorithm::Sha256,
        whole,
    };
    for (body, failed) in [(&b"right"[..], 0), (b"wrong", 1)] {
        let (mut output, mut end) = (Vec::new(), None);
        let mut out = |message| {
            if let ToSender::Finished(finished) = message {
                end = Some(finished);
            }
            Ok(())
        };
        let mut stream = ToStream::new(&mut output, &mut out);
        stream.take(ToReceiver::File(file(5)), body).unwrap();
        stream.take(ToReceiver::Done(rexec_protocol::files::Done { entries: 1 }), b"").unwrap();
        assert_eq!(end.unwrap().failed, failed);
    }
}
