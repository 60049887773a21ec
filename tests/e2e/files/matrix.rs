//! Kinds, names and modes, beside what `cp -a` and `scp` make of them.

use super::*;
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

/// A file as it matters here: kind, mode, time and content.
type Seen = BTreeMap<Vec<u8>, (char, u32, i64, Vec<u8>)>;

fn look(at: &Path) -> Seen {
    fn walk(at: &Path, below: &Path, seen: &mut Seen) {
        let meta = fs::symlink_metadata(at).unwrap();
        let (kind, content) = if meta.is_symlink() {
            ('l', fs::read_link(at).unwrap().into_os_string().into_vec())
        } else if meta.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(&entry.unwrap().path(), below, seen);
            }
            ('d', Vec::new())
        } else {
            ('f', fs::read(at).unwrap())
        };
        let name = at.strip_prefix(below).unwrap().as_os_str().as_bytes().to_vec();
        seen.insert(
            name,
            (kind, meta.mode() & 0o7777, meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), content),
        );
    }
    let mut seen = Seen::new();
    walk(at, at, &mut seen);
    seen
}

/// All that a tree can hold and that is to arrive.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("deep/er/and/deeper/still")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    for name in [
        &b"plain"[..],
        b"with blank",
        b"with\nnewline",
        b"-rf",
        b"--",
        b".hidden",
        b"no \xff\xfe text",
        b"quotes '\"`$(id)\\",
        b"*",
        b"[x]",
        "größe".as_bytes(),
        &[b'l'; 255],
    ] {
        fs::write(at.join(OsStr::from_bytes(name)), noise(7, name.len())).unwrap();
    }
    for (name, mode) in [("m0400", 0o400), ("m0755", 0o755), ("m0666", 0o666), ("m0640", 0o640)] {
        let path = at.join("deep").join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    for size in [0, 1, 128 << 10, (128 << 10) + 1, 256 << 10, 1_000_003] {
        fs::write(at.join(format!("deep/er/size{size}")), noise(size as u64, size)).unwrap();
    }
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_at(b"here", 4 << 20).unwrap();
    symlink("deep/m0755", at.join("link")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink("..", at.join("deep/up")).unwrap();
    symlink("/etc", at.join("absolute")).unwrap();
    fs::set_permissions(at.join("empty"), Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(at.join("deep/er"), Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn a_tree_goes_there_and_back_as_cp_would_take_it() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    tree(&path("src"));
    let copied = Command::new("cp").arg("-a").arg(path("src")).arg(path("cp")).status().unwrap();
    assert!(copied.success());
    let up = ends(rexec(&agent, "cp -rp --json").arg(path("src")).arg(there(path("up"))), 0);
    ends(rexec(&agent, "cp -rp").arg(there(path("up"))).arg(path("down")), 0);
    ends(rexec(&agent, "cp -rp").arg(there(path("src"))).arg(there(path("across"))), 0);
    let wanted = look(&path("cp"));
    for name in ["up", "down", "across"] {
        assert_eq!(look(&path(name)), wanted, "{name}");
        let sparse = path(name).join("sparse").metadata().unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "{name} has no hole");
    }
    // The report names each file with its digest.
    let lines = String::from_utf8(up.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, files) = lines.split_last().unwrap();
    let count = |kind: &str| files.iter().filter(|file| file["type"] == kind).count();
    assert_eq!(summary["stored"], count("file"));
    assert_eq!(summary["folders"], count("folder"));
    let plain = files.iter().find(|file| file["path"] == "up/plain").unwrap();
    let digest = rexec_client::Digest::of(rexec_client::Algorithm::Sha256, &noise(7, 5));
    assert_eq!((&plain["size"], &plain["sha256"]), (&5.into(), &digest.to_string().into()));
}

/// Real scp, with an sftp-server at the end of a pipe in the place of ssh.
#[test]
fn what_scp_makes_of_the_same_tree() {
    let server = ["/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server"];
    let server = server.iter().find(|path| Path::new(path).exists());
    let has_scp = Command::new("scp").output().is_ok();
    let Some(server) = server.filter(|_| has_scp) else {
        return eprintln!("skipped: there is no scp, or no sftp-server");
    };
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    tree(&path("src"));
    // It follows links, into a circle and to nowhere.
    for link in ["deep/up", "dangling", "absolute"] {
        fs::remove_file(path("src").join(link)).unwrap();
    }
    fs::write(path("ssh"), format!("#!/bin/sh\nexec {server}\n")).unwrap();
    fs::set_permissions(path("ssh"), Permissions::from_mode(0o755)).unwrap();
    let mut scp = Command::new("scp");
    scp.arg("-rpq").arg("-S").arg(path("ssh")).arg(path("src"));
    ends(scp.arg(format!("h:{}", path("scp").display())), 0);
    ends(rexec(&agent, "cp -rp").arg(path("src")).arg(there(path("rexec"))), 0);
    let (theirs, mut ours) = (look(&path("scp")), look(&path("rexec")));
    // The differences that are meant: a link stays a link, and a hole stays a hole.
    let link = ours.insert(b"link".to_vec(), theirs[&b"link"[..]].clone()).unwrap();
    assert_eq!((link.0, theirs[&b"link"[..]].0), ('l', 'f'));
    let seconds = |seen: Seen| -> Vec<_> {
        // sftp knows seconds only.
        seen.into_iter()
            .map(|(name, (kind, mode, _, content))| (name, kind, mode, content))
            .collect()
    };
    assert_eq!(seconds(ours), seconds(theirs));
}

#[test]
fn what_is_no_file_is_named_and_the_rest_arrives() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("src")).unwrap();
    nix::unistd::mkfifo(&path("src/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("src/socket")).unwrap();
    fs::write(path("src/file"), "x").unwrap();
    for (from, to) in
        [(path("src").into(), there(path("up"))), (there(path("src")), path("down").into())]
    {
        let output = ends(rexec(&agent, "cp -r").args([from, to]), 1);
        let said = said(&output);
        assert!(
            said.contains("fifo: at the source: is a FIFO")
                && said.contains("socket: at the source: is a socket"),
            "{said}"
        );
    }
    assert_eq!(fs::read(path("up/file")).unwrap(), b"x");
    assert_eq!(fs::read(path("down/file")).unwrap(), b"x");
    // By name, too, and at once.
    let output = ends(rexec(&agent, "get").arg(there(path("src/fifo"))).arg(path("x")), 1);
    assert!(said(&output).contains("is a FIFO"));
    let output = ends(rexec(&agent, "get").arg(there("/dev/zero")).arg(path("x")), 1);
    assert!(said(&output).contains("is a device"));
}

#[test]
fn special_modes_travel_only_if_they_are_asked_for() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("src"), "x").unwrap();
    fs::set_permissions(path("src"), Permissions::from_mode(0o4755)).unwrap();
    let mode = |name: &str| path(name).metadata().unwrap().mode() & 0o7777;
    for (options, up) in [("cp", 0o755), ("cp -p", 0o755), ("cp -p --special-modes", 0o4755)] {
        ends(rexec(&agent, options).arg(path("src")).arg(there(path("up"))), 0);
        assert_eq!(mode("up"), up, "{options}");
        ends(rexec(&agent, options).arg(there(path("src"))).arg(path("down")), 0);
        assert_eq!(mode("down"), up, "{options}");
    }
}
