//! What is left when something fails: the old file, and nothing else.

use super::*;
use crate::support::proc::{eventually, running_with};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

/// Starts `program` with a small file system of its own at `at`.
fn on_a_small_disk(program: &Command, at: &Path) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "--propagation", "private", "sh", "-c"]);
    wrapped.arg("mount -t tmpfs -o size=2m,mode=755 tmpfs \"$1\" && echo old >\"$1/f\" && shift && exec \"$@\"");
    wrapped.arg("sh").arg(at).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped
}

#[test]
fn a_full_disk_leaves_the_old_file_and_says_how_full_it_is() {
    if !crate::support::users::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    fs::write(dir.path().join("big"), noise(1, 5 << 20)).unwrap();
    let agent = TestAgent::prepared("", |command| {
        let mut wrapped = on_a_small_disk(command, &small);
        wrapped.stdin(Stdio::null()).stdout(Stdio::null());
        *command = wrapped;
    });
    for (options, part) in [
        ("put", None),
        ("put --partial", Some("the same command with --partial goes on from there")),
        ("put", Some("from an earlier --partial")),
    ] {
        let mut put = rexec(&agent, options);
        let output = ends(put.arg(dir.path().join("big")).arg(there(small.join("f"))), 1);
        let said = said(&output);
        let (written, free) = ("of 5242880 bytes were written", "are free");
        assert!(
            said.contains("no space left") && said.contains(written) && said.contains(free),
            "{said}"
        );
        assert_eq!(said.contains(".rexec-part-"), part.is_some(), "{said}");
        assert!(part.is_none_or(|part| said.contains(part)), "{said}");
    }
    let left = agent.run(["sh", "-c", &format!("cat {0}/f; ls -A {0} | wc -l", small.display())]);
    // The part of the second one.
    assert_eq!(left.stdout, b"old\n2\n");
    // The same here.
    let other = TestAgent::start();
    let get = on_a_small_disk(
        rexec(&other, "get").arg(there(dir.path().join("big"))).arg(small.join("f")),
        &small,
    );
    let mut get = get;
    let output = ends(get.stdin(Stdio::null()), 1);
    assert!(said(&output).contains("no space left"), "{output:?}");
}

/// I8: whoever looks at the name sees the old file or the new one, whole.
#[test]
fn at_every_moment_the_name_stands_for_one_whole_file() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (one, two) = (noise(1, 3 << 20), noise(2, 2 << 20));
    fs::write(path("one"), &one).unwrap();
    fs::write(path("two"), &two).unwrap();
    fs::write(path("f"), &one).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                let seen = fs::read(path("f")).unwrap();
                assert!(seen == one || seen == two, "{} bytes of neither", seen.len());
                looks += 1;
            }
            looks
        });
        for n in 0..6 {
            let source = path(["two", "one"][n % 2]);
            ends(rexec(&agent, "put").arg(&source).arg(there(path("f"))), 0);
            ends(rexec(&agent, "get").arg(there(&source)).arg(path("f")), 0);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(looking.join().unwrap() > 0);
    });
    assert_eq!(debris(dir.path()), [] as [std::path::PathBuf; 0]);
}

/// At whatever stage the receiving process is killed, the old file is there, or the new one.
#[test]
fn a_killed_receiver_leaves_the_old_file_or_the_new_one() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let new = noise(2, 24 << 20);
    fs::write(path("new"), &new).unwrap();
    let rounds = crate::support::size_from_environment("REXEC_TEST_KILLS", 12);
    for round in 0..rounds {
        fs::write(path("f"), "old").unwrap();
        let mut put = rexec(&agent, "put").arg(path("new")).arg(there(path("f"))).spawn().unwrap();
        // Wherever it is after so many bytes of its draft.
        let stage = round * (25 << 20) / rounds;
        let size = || {
            let drafts = debris(dir.path());
            drafts.first().and_then(|draft| draft.metadata().ok()).map(|meta| meta.len())
        };
        let mut done = false;
        eventually("a draft of this size, or the end", || {
            done = put.try_wait().unwrap().is_some();
            done || size().is_some_and(|size| size >= stage)
        });
        for pid in helpers_of(&agent) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let status = put.wait().unwrap();
        let content = fs::read(path("f")).unwrap();
        if status.success() {
            assert!(content == new, "success, and another file");
        } else {
            assert!(content == b"old" || content == new, "{} bytes", content.len());
        }
        for draft in debris(dir.path()) {
            fs::remove_file(draft).unwrap();
        }
    }
}

/// Its agent was killed, and with it what nobody had yet. The client read on behind that: what the file held there was
/// taken for messages, and could make and remove files.
#[test]
fn nothing_behind_a_gap_is_taken_for_a_message() {
    let mut agent = TestAgent::start();
    let bytes = noise(4, 16 << 20);
    fs::write(agent.path("f"), &bytes).unwrap();
    for round in 1.. {
        let mut get = rexec(&agent, "get");
        get.arg(there(agent.path("f"))).arg("-").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut get = get.spawn().unwrap();
        let mut stdout = get.stdout.take().unwrap();
        let mut got = vec![0; 1 << 20];
        stdout.read_exact(&mut got).unwrap();
        agent.kill();
        agent.start_again();
        stdout.read_to_end(&mut got).unwrap();
        let end = get.wait_with_output().unwrap();
        let said = said(&end);
        assert!(bytes.starts_with(&got), "what came is no beginning of the file: {said}");
        if code(&end) == 254 {
            assert!(got.len() < bytes.len() && !said.contains("broke the rules"), "{said}");
            break;
        }
        assert_eq!((code(&end), got.len()), (0, bytes.len()), "{said}");
        assert!(round < 20, "an agent that was killed had lost nothing");
    }
}

/// In a folder that only grows. One more stayed with each try, and nobody named it.
#[test]
fn what_cannot_be_removed_either_is_named() {
    let agent = TestAgent::start();
    let folder = agent.path("grows");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("x"), "old").unwrap();
    fs::write(agent.path("f"), "new").unwrap();
    let chattr = |how: &str| {
        let done = Command::new("chattr").arg(how).arg(&folder).status();
        done.is_ok_and(|status| status.success())
    };
    if !chattr("+a") {
        return eprintln!("skipped: no folder here can be told to grow only");
    }
    let put =
        rexec(&agent, "put").arg(agent.path("f")).arg(there(folder.join("x"))).output().unwrap();
    assert!(chattr("-a"));
    let left = debris(&folder);
    let name = left.first().unwrap().file_name().unwrap().to_str().unwrap();
    assert!(code(&put) == 1 && said(&put).contains(&format!("stays as {name}")), "{put:?}");
}

/// Some were listed for a while, as cancelled.
#[test]
fn a_transfer_that_failed_is_no_job_any_more() {
    let agent = TestAgent::start();
    fs::write(agent.path("f"), "x").unwrap();
    for _ in 0..6 {
        let nowhere = agent.path("no/folder/x");
        ends(rexec(&agent, "put").arg(agent.path("f")).arg(there(nowhere)), 1);
        let jobs = agent.rexec().args(["jobs", "--json", &agent.target()]).output().unwrap();
        assert!(
            jobs.status.success() && !String::from_utf8_lossy(&jobs.stdout).contains("files put"),
            "{jobs:?}"
        );
    }
}

/// The processes that transfer for this agent.
fn helpers_of(agent: &TestAgent) -> Vec<u32> {
    let helpers = running_with("rexec-agent\0files\0");
    helpers.into_iter().filter(|pid| is_below(*pid, agent.pid())).collect()
}

/// Whether a process descends from another.
fn is_below(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 && pid != ancestor {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        pid = fields.split_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()).unwrap_or(0);
    }
    pid == ancestor
}

#[test]
fn a_transfer_that_is_cancelled_leaves_nothing() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["up", "down"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("f"), "old").unwrap();
    }
    // One that does not end by itself: its source is a pipe that stays open.
    let mut put =
        rexec(&agent, "put -").arg(there(path("up/f"))).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    stdin.write_all(&noise(1, 2 << 20)).unwrap();
    fs::write(path("large"), noise(1, 2 << 20)).unwrap();
    fs::File::options().write(true).open(path("large")).unwrap().set_len(1 << 40).unwrap();
    let mut get =
        rexec(&agent, "get").arg(there(path("large"))).arg(path("down/f")).spawn().unwrap();
    for (folder, child) in [("up", &mut put), ("down", &mut get)] {
        eventually("a draft", || !debris(&path(folder)).is_empty());
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{folder}");
        eventually("no draft", || debris(&path(folder)).is_empty());
        assert_eq!(fs::read(path(folder).join("f")).unwrap(), b"old");
    }
    drop(stdin);
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_named_and_the_rest_arrives() {
    if nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: root can read and write everything; see permissions");
    }
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("src/closed")).unwrap();
    fs::write(path("src/secret"), "x").unwrap();
    fs::write(path("src/open"), "x").unwrap();
    fs::set_permissions(path("src/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(path("src/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let output = ends(rexec(&agent, "cp -r").arg(path("src")).arg(there(path("dst"))), 1);
    let said = said(&output);
    assert!(
        said.contains("src/secret: at the source: permission denied")
            && said.contains("src/closed: "),
        "{said}"
    );
    assert!(path("dst/open").exists());
    fs::set_permissions(path("src/closed"), fs::Permissions::from_mode(0o700)).unwrap();
}
