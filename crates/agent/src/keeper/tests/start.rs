//! What starts, and what does not.

use super::*;

#[tokio::test]
async fn output_and_status_come_back() {
    let zygote = zygote().await;
    let running = launch(&zygote, sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!(finish(running).await, (Status::Code(7), "out\n".into(), "err\n".into()));
    for (line, status) in [
        ("exit 0", Status::Code(0)),
        ("exit 255", Status::Code(255)),
        ("kill -TERM $$", Status::Signal(Signal::TERM)),
        ("kill -KILL $$", Status::Signal(Signal::KILL)),
        ("kill -40 $$", Status::Signal(Signal::from_number(40).unwrap())),
    ] {
        assert_eq!(finish(launch(&zygote, sh(line)).await).await.0, status, "{line}");
    }
}

#[tokio::test]
async fn stdin_is_a_pipe_or_null() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    running.stdin.as_mut().unwrap().write_all(b"hello").await.unwrap();
    assert_eq!(finish(running).await, (Status::Code(0), "hello".into(), String::new()));
    assert_eq!(output(&zygote, spec(&["cat"])).await, "");
    assert_eq!(output(&zygote, spec(&["readlink", "/proc/self/fd/0"])).await, "/dev/null\n");
}

#[tokio::test]
async fn usage_is_measured() {
    let zygote = zygote().await;
    let line = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 0.05";
    let mut running = launch(&zygote, sh(line)).await;
    match running.keeper.next().await {
        Some(Event::Exited { usage, .. }) => {
            assert!(usage.wall_ms >= 50 && usage.max_rss_kib > 0, "{usage:?}");
            assert!(usage.user_ms + usage.system_ms > 0, "{usage:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let zygote = zygote().await;
    let scratch = Scratch::new("why");
    let plain = scratch.file("plain", b"echo hi\n", 0o644);
    let orphan = scratch.file("orphan", b"#!/no/such/interpreter\n", 0o755);
    let alien = scratch.file("alien", b"\x7fELF\0\0\0\0", 0o755);
    let busy = scratch.file("busy", &fs::read("/bin/true").unwrap(), 0o755);
    let _writer = fs::OpenOptions::new().write(true).open(&busy).unwrap();
    let long = "x".repeat(200 * 1024);
    for (words, reason, says) in [
        (&["no-such-program"][..], NeverStarted::NotFound, "in PATH (/usr/bin:/bin)"),
        (&["/no/such/program"], NeverStarted::NotFound, "cannot find '/no/such/program'"),
        (&["/bin/true/x"], NeverStarted::NotFound, "Not a directory"),
        (&[&plain], NeverStarted::NotExecutable, "Permission denied"),
        (&["/"], NeverStarted::NotExecutable, "Permission denied"),
        (&[&orphan], NeverStarted::NotExecutable, "the interpreter or loader that it names is not"),
        (&[&alien], NeverStarted::NotExecutable, "Exec format error"),
        (&[&busy], NeverStarted::NotExecutable, "Text file busy"),
        (&["true", &long], NeverStarted::TooLarge, "too large"),
        (&[""], NeverStarted::Invalid, "empty"),
        (&["a\0b"], NeverStarted::Invalid, "NUL"),
    ] {
        let (kind, message) = failure(&zygote, spec(words)).await;
        assert_eq!(kind, reason, "{message}");
        assert!(message.contains(says), "{message}");
    }
    for cwd in ["/no/such/directory", "/etc/passwd"] {
        let spec = LaunchSpec { cwd: bytes(cwd), ..spec(&["true"]) };
        let (reason, message) = failure(&zygote, spec).await;
        assert_eq!(reason, NeverStarted::Cwd);
        assert!(message.contains(cwd), "{message}");
    }
    // A relative program is one below the command's directory.
    let there = LaunchSpec { cwd: bytes(scratch.0.to_str().unwrap()), ..spec(&["./orphan"]) };
    assert_eq!(failure(&zygote, there).await.0, NeverStarted::NotExecutable);
}

#[tokio::test]
async fn the_path_is_that_of_the_command() {
    let zygote = zygote().await;
    let scratch = Scratch::new("path");
    scratch.file("tool", b"echo mine $0\n", 0o755);
    let dir = scratch.0.to_str().unwrap();
    let path = |path: &str| vec![(bytes("PATH"), bytes(path))];
    // Through a directory that is none, one that is a file, and one where it may not be executed.
    let other = Scratch::new("path2");
    other.file("tool", b"", 0o644);
    let many = format!("/nowhere:/bin/true:{}:{dir}", other.0.display());
    let tool = LaunchSpec { env: path(&many), ..spec(&["tool"]) };
    // Without a `#!` line it is run by /bin/sh.
    assert_eq!(output(&zygote, tool).await, format!("mine {dir}/tool\n"));
    let here = LaunchSpec { env: path(""), cwd: bytes(dir), ..spec(&["tool"]) };
    assert_eq!(output(&zygote, here).await, "mine tool\n");
    let denied = LaunchSpec { env: path(other.0.to_str().unwrap()), ..spec(&["tool"]) };
    assert_eq!(failure(&zygote, denied).await.0, NeverStarted::NotExecutable);
    let no_path = LaunchSpec { env: vec![], ..spec(&["echo", "x"]) };
    assert_eq!(output(&zygote, no_path).await, "x\n");
}

#[tokio::test]
async fn words_environment_and_directory_arrive_as_they_are() {
    let zygote = zygote().await;
    let env = vec![
        (bytes("Z"), bytes("last=first")),
        (bytes("PATH"), bytes("/usr/bin")),
        (ByteBuf::from(b"B\xff".to_vec()), ByteBuf::from(b"\xfe\n".to_vec())),
        (bytes("EMPTY"), bytes("")),
    ];
    let running = launch(&zygote, LaunchSpec { env, ..spec(&["cat", "/proc/self/environ"]) }).await;
    let (_, out, _) = finish(running).await;
    let expected = b"Z=last=first\0PATH=/usr/bin\0B\xff=\xfe\n\0EMPTY=\0";
    assert_eq!(out, String::from_utf8_lossy(expected));

    let words = spec(&["printf", "[%s]", "a b", "", "*", "$HOME", "ä\n"]);
    assert_eq!(output(&zygote, words).await, "[a b][][*][$HOME][ä\n]");
    let there = LaunchSpec { cwd: bytes("/usr"), ..spec(&["pwd"]) };
    assert_eq!(output(&zygote, there).await, "/usr\n");
    let program = Program::Argv {
        words: vec![bytes("/bin/sh"), bytes("-c"), bytes("echo $0")],
        argv0: Some(bytes("-sh")),
    };
    let login = LaunchSpec { program, ..spec(&[]) };
    assert_eq!(output(&zygote, login).await, "-sh\n");
}

#[tokio::test]
async fn large_commands_arrive_whole() {
    let zygote = zygote().await;
    let word = "x".repeat(100 * 1024);
    let mut words = vec!["printf", "%s"];
    words.extend([word.as_str(); 10]);
    assert_eq!(output(&zygote, spec(&words)).await.len(), 1000 * 1024);
    let many = vec!["x"; 100_000];
    let words = [&["printf", "%s"][..], &many].concat();
    assert_eq!(output(&zygote, spec(&words)).await.len(), 100_000);
    let huge = "x".repeat(5 * 1024 * 1024);
    assert_eq!(failure(&zygote, spec(&["true", &huge])).await.0, NeverStarted::TooLarge);
}

#[tokio::test]
async fn a_command_starts_clean() {
    let zygote = zygote().await;
    let mut running = launch(&zygote, LaunchSpec { stdin: true, ..spec(&["cat"]) }).await;
    // Once it answers it has loaded its libraries, for which it opens descriptors of its own.
    running.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    assert_eq!(running.stdout.read_u8().await.unwrap(), b'x');
    let proc = PathBuf::from(format!("/proc/{}", running.pid));
    let mut fds: Vec<_> =
        fs::read_dir(proc.join("fd")).unwrap().map(|e| e.unwrap().file_name()).collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2"]);
    drop(running.stdin.take());
    finish(running).await;

    let status = output(&zygote, spec(&["cat", "/proc/self/status"])).await;
    for line in ["SigPnd", "SigBlk", "SigIgn", "SigCgt"] {
        assert!(status.contains(&format!("\n{line}:\t0000000000000000\n")), "{status}");
    }

    let line = "cut -d' ' -f1,5,6 /proc/$$/stat; echo $$";
    let ids = output(&zygote, sh(line)).await;
    let (ids, pid) = ids.trim().split_once('\n').unwrap();
    assert_eq!(ids, format!("{pid} {pid} {pid}"), "pid, group and session");
    assert_eq!(output(&zygote, sh("ulimit -c; umask")).await, "0\n0022\n");
}

#[tokio::test]
async fn scripts_run_by_their_first_line_or_by_sh() {
    let zygote = zygote().await;
    let script = |text: &str| {
        let args = vec![bytes("a b"), bytes("c")];
        LaunchSpec {
            program: Program::Script { text: bytes(text), args, name: bytes("deploy") },
            ..spec(&[])
        }
    };
    assert_eq!(output(&zygote, script("printf '<%s>' \"$@\"")).await, "<a b><c>");
    assert_eq!(output(&zygote, script("#!/bin/sh\nprintf '<%s>' \"$@\"")).await, "<a b><c>");
    assert_eq!(output(&zygote, script("#!/usr/bin/env sh\necho $#")).await, "2\n");
    let (reason, message) = failure(&zygote, script("#!/no/such/interpreter\n")).await;
    assert_eq!(reason, NeverStarted::NotExecutable);
    assert!(message.contains("the script 'deploy'"), "{message}");
    // Nobody can change it while it runs.
    let write = script("echo x 2>/dev/null >$0 || echo sealed");
    assert_eq!(output(&zygote, write).await, "sealed\n");
}
