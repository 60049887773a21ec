//! A local user who swaps links while a transfer runs, and an agent that offers what nobody asked for.

use super::*;
use crate::support::proc::eventually;
use crate::support::raw::FakeAgent;
use crate::support::raw::wire::{bin, data, frame, hello, text, uint};
use crate::support::size_from_environment;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rexec_protocol::files::{Data, Done, Entry, File, Leave, Link, Meta, ToReceiver, encode};
use rexec_protocol::{Algorithm, Digest};
use serde_bytes::ByteBuf;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The folder `d` of a tree is exchanged with a link to another place, again and again, while the tree
/// is read and written. Nothing from there may arrive, and nothing may arrive there.
#[test]
fn a_link_that_is_swapped_in_leads_nowhere() {
    let tries = size_from_environment("REXEC_TEST_SWAPS", 20_000);
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["outside", "src/d", "dst/d", "in/d"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("outside/secret"), "secret").unwrap();
    // Many files, so that the folder is swapped while it is worked on.
    for n in 0..50 {
        fs::write(path(&format!("src/d/f{n}")), "plain").unwrap();
        fs::write(path(&format!("in/d/f{n}")), "plain").unwrap();
    }
    for tree in ["src", "dst"] {
        symlink(path("outside"), path(tree).join("link")).unwrap();
    }
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let swap = |tree: &str| {
        let (one, two) = (path(tree).join("d"), path(tree).join("link"));
        while !stop.load(Ordering::Relaxed) {
            if renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE).is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| swap("src"));
        scope.spawn(|| swap("dst"));
        while swaps.load(Ordering::Relaxed) < tries {
            let got = path("got");
            // Some fail, where a link is found in the place of a folder.
            let mut get = rexec(&agent, "get -rT");
            let output = get.arg(there(path("src"))).arg(&got).output().unwrap();
            assert!(matches!(code(&output), 0 | 1), "{output:?}");
            assert!(!holds_secret(&got), "read outside after {swaps:?} swaps");
            fs::remove_dir_all(&got).unwrap();
            let mut put = rexec(&agent, "cp -rT --delete");
            let output = put.arg(path("in")).arg(there(path("dst"))).output().unwrap();
            assert!(matches!(code(&output), 0 | 1), "{output:?}");
            let outside: Vec<_> = fs::read_dir(path("outside")).unwrap().flatten().collect();
            assert_eq!(outside.len(), 1, "written or removed outside after {swaps:?} swaps");
            if !path("dst/link").exists() {
                // It was not sent, so it was removed.
                let _ = symlink(path("outside"), path("dst/link"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn holds_secret(at: &Path) -> bool {
    let meta = fs::symlink_metadata(at).unwrap();
    if meta.is_dir() {
        fs::read_dir(at).unwrap().flatten().any(|entry| holds_secret(&entry.path()))
    } else {
        meta.is_file() && fs::read(at).unwrap() == b"secret"
    }
}

pub(super) const META: Meta = Meta { mode: 0o644, mtime: 0, nsec: 0 };

pub(super) fn file(name: &[u8], body: &[u8]) -> Vec<u8> {
    file_by(Algorithm::Sha256, name, body)
}

fn by_blake3(name: &[u8], body: &[u8]) -> Vec<u8> {
    [file_by(Algorithm::Blake3, name, body), message(ToReceiver::Done(Done { entries: 1 }))]
        .concat()
}

fn file_by(digest: Algorithm, name: &[u8], body: &[u8]) -> Vec<u8> {
    let whole = Some(Digest::of(digest, body));
    let (name, size) = (ByteBuf::from(name), Some(body.len() as u64));
    let file = File { name, size, meta: META, ask: false, digest, whole };
    [encode(&ToReceiver::File(file), body.len()), body.to_vec()].concat()
}

pub(super) fn message(message: ToReceiver) -> Vec<u8> {
    encode(&message, 0)
}

pub(super) fn dir(name: &[u8]) -> Vec<u8> {
    message(ToReceiver::Dir(Entry { name: ByteBuf::from(name), meta: META }))
}

pub(super) fn done(entries: u64) -> Vec<u8> {
    let leave = message(ToReceiver::Leave(Leave { complete: true }));
    [leave, message(ToReceiver::Done(Done { entries }))].concat()
}

/// An agent may offer what it likes: the client has asked for `x`, and takes nothing else.
#[test]
fn an_agent_cannot_choose_names() {
    let link = Link { name: ByteBuf::from("l"), target: ByteBuf::from("/tmp"), meta: META };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("another digest", by_blake3(b"x", b"right"), "it proves a file by blake3"),
        ("another name", file(b".profile", b"evil"), "not asked for"),
        ("a path", file(b"../x", b"evil"), "a file named"),
        ("an absolute path", file(b"/tmp/x", b"evil"), "a file named"),
        ("a path within", [dir(b"x"), file(b"a/b", b"evil")].concat(), "a file named"),
        ("the folder above", [dir(b"x"), dir(b"..")].concat(), "a file named"),
        ("a NUL", [dir(b"x"), file(b"a\0b", b"evil")].concat(), "a file named"),
        ("the folder itself", [dir(b""), file(b"y", b"evil")].concat(), "contents of a folder"),
        ("less than it says", [dir(b"x"), file(b"a", b"a"), done(2)].concat(), "1 of 2 files"),
        ("nonsense", b"\0\0\0\x05nonsense".to_vec(), "broke the rules"),
        ("a long header", b"\xff\xff\xff\xff".to_vec(), "broke the rules"),
        (
            "a way through a link",
            [dir(b"x"), message(ToReceiver::Link(link)), dir(b"l"), file(b"f", b"evil")].concat(),
            "before the transfer was complete",
        ),
    ];
    let fake = FakeAgent::new();
    for (what, bytes, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        let sent = bytes.clone();
        let serving = fake.serve(fake.config(), move |mut raw| {
            // Of which a client learns what proves the files.
            let _ = raw.send(&hello());
            raw.wait_for("exec");
            let id = "01890a5d-ac96-774b-bcce-b302099a8057";
            let started = [("job", text(id)), ("pid", uint(1)), ("digest", text("sha256"))];
            let all = [
                frame("started", 1, &started),
                data(1, "out", 0, &sent, &sent),
                crate::support::raw::wire::eof(1, "out", &sent),
                crate::support::raw::wire::eof(1, "err", b""),
                exit(1, &sent),
            ];
            let _ = raw.send(&all.concat());
            let _ = raw.errors();
        });
        let output = get(&fake, &["-r", "127.0.0.1:dir/x"], folder.path()).output().unwrap();
        let _ = serving.join().unwrap();
        assert!(said(&output).contains(says), "{what}: {output:?}");
        assert!(matches!(code(&output), 254 | 1), "{what}: {output:?}");
        assert!(!said(&output).contains("panicked"), "{what}: {output:?}");
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(names.iter().all(|entry| entry.file_name() == "x"), "{what}: {names:?}");
        assert_eq!(debris(folder.path()), [] as [std::path::PathBuf; 0], "{what}");
        assert!(!folder.path().parent().unwrap().join("x").exists(), "{what}");
    }
}

/// A thread is in there that nothing can stop. What it works on is gone nevertheless, at once.
#[test]
fn a_get_that_is_cancelled_in_the_middle_of_a_hole_leaves_nothing() {
    const HOLE: u64 = 1 << 40;
    let fake = FakeAgent::new();
    let folder = tempfile::tempdir().unwrap();
    let serving = fake.serve(fake.config(), move |mut raw| {
        let _ = raw.send(&hello());
        raw.wait_for("exec");
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let started = [("job", text(id)), ("pid", uint(1)), ("digest", text("sha256"))];
        let (name, size) = (ByteBuf::from("x"), Some(HOLE + 1));
        let file =
            File { name, size, meta: META, ask: false, digest: Algorithm::Sha256, whole: None };
        let piece = encode(&ToReceiver::Data(Data { offset: HOLE }), 1);
        let sent = [message(ToReceiver::File(file)), piece, b"x".to_vec()].concat();
        let all = [frame("started", 1, &started), data(1, "out", 0, &sent, &sent)];
        let _ = raw.send(&all.concat());
        let _ = raw.errors();
    });
    let mut get = get(&fake, &["127.0.0.1:x"], folder.path()).spawn().unwrap();
    eventually("it is in the hole", || {
        let drafts = debris(folder.path());
        drafts.first().and_then(|draft| draft.metadata().ok()).is_some_and(|f| f.len() >= HOLE)
    });
    let pid = nix::unistd::Pid::from_raw(get.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(get.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let _ = serving.join().unwrap();
}

/// `rexec get` of what a hostile agent has.
fn get(fake: &FakeAgent, words: &[&str], to: &std::path::Path) -> Command {
    let files = fake.files("alice");
    let mut get = Command::new(crate::support::program("rexec"));
    // `scripts/guards` switches a check of the program off by this.
    let guard = std::env::var_os("REXEC_GUARD_OFF").map(|name| ("REXEC_GUARD_OFF", name));
    get.env_clear().envs(guard).env("REXEC_IDENTITY", files.identity);
    get.env("REXEC_AUTHORITY", files.authority).env("REXEC_PORT", fake.port.to_string());
    get.arg("get").args(words).arg(to).stdin(std::process::Stdio::null());
    get
}

pub(super) fn exit(stream: u64, sent: &[u8]) -> Vec<u8> {
    let tally = |bytes: &[u8]| {
        let hash = bin(Digest::of(Algorithm::Sha256, bytes).as_bytes());
        crate::support::raw::wire::map(&[("size", uint(bytes.len() as u64)), ("hash", hash)])
    };
    let outcome = crate::support::raw::wire::map(&[("kind", text("exited")), ("code", uint(0))]);
    let usage = crate::support::raw::wire::map(&[
        ("wall_ms", uint(0)),
        ("user_ms", uint(0)),
        ("system_ms", uint(0)),
        ("max_rss_kib", uint(0)),
    ]);
    let args = [
        ("outcome", outcome),
        ("stdout", tally(sent)),
        ("stderr", tally(b"")),
        ("stdin", tally(b"")),
        ("held", vec![0xc2]),
        ("usage", usage),
    ];
    frame("exit", stream, &args)
}
