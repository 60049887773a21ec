//! Bytes in both directions: all values, all sizes, all endings.

use crate::support::cli::code;
use crate::support::proc::{eventually, memory, running_with};
use crate::support::{TestAgent, noise};
use rexec_client::{Algorithm, Child, Digest, Outcome, Signal, Stdio};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio as Pipe;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// Sends `bytes` through the child and returns what came out.
async fn through(mut child: Child, bytes: Vec<u8>) -> rexec_client::Output {
    let mut stdin = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move {
        for piece in bytes.chunks(100_000) {
            stdin.write_all(piece).await.unwrap();
        }
        stdin.shutdown().await.unwrap();
        stdin.tally()
    });
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(feed.await.unwrap(), output.status.stdin());
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_in_all_sizes_and_digests() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    for algorithm in Algorithm::ALL {
        for size in [0, 1, 256, 4095, 4096, 65_535, 65_536, 65_537, 300_000, 5 * MIB + 1] {
            let bytes: Vec<u8> = (0..=255).chain(noise(1, size)).take(size).collect();
            let child = session.command("cat").digest(algorithm).spawn().await.unwrap();
            let output = through(child, bytes.clone()).await;
            assert!(output.stdout == bytes, "{size} bytes are not what came back");
            assert_eq!(output.status.stdout().hash, Digest::of(algorithm, &bytes));
            assert_eq!(output.status.stdout().size, size as u64);
        }
    }
}

#[tokio::test]
async fn the_digest_can_be_left_to_the_agent() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let bytes = noise(2, MIB);
    let child = session.command("cat").any_digest().spawn().await.unwrap();
    let output = through(child, bytes.clone()).await;
    assert!(output.stdout == bytes);
    assert_eq!(output.status.algorithm(), Algorithm::Blake3, "the faster one");
    assert_eq!(output.status.stdout().hash, Digest::of(Algorithm::Blake3, &bytes));
    let refused = session.command("no-such-program").any_digest().output().await.unwrap_err();
    assert!(matches!(refused.outcome(), Outcome::NeverStarted { .. }), "{refused}");
}

#[tokio::test]
async fn lines_and_files_work_as_on_a_pipe() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.shell("for n in 1 2 3; do echo line $n; done").spawn().await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 1..=3 {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("line {n}"));
    }
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert!(child.wait().await.unwrap().success());
}

/// A conversation: each answer comes before the next question, so nothing is held back.
#[tokio::test]
async fn output_appears_as_it_is_written() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child =
        session.shell("while read word; do echo \"<$word>\"; done").spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for word in ["one", "two", "three"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), format!("<{word}>\n").as_bytes());
    }
    drop(stdin);
    assert!(stdout.chunk().await.unwrap().is_none());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn stderr_goes_on_after_the_end_of_stdout() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.shell("exec >&-; read x; echo late >&2").spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert!(stdout.chunk().await.unwrap().is_none(), "stdout ends while the command runs");
    child.stdin = None;
    let mut late = String::new();
    child.stderr.take().unwrap().read_to_string(&mut late).await.unwrap();
    assert_eq!(late, "late\n");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_command_that_does_not_read_its_stdin_is_no_error() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.command("true").spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let error = loop {
        if let Err(error) = stdin.write_all(&[0; 100_000]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn dropping_stdout_gives_the_command_sigpipe() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.command("yes").spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert!(stdout.chunk().await.unwrap().is_some());
    drop(stdout);
    assert_eq!(child.wait().await.unwrap().signal(), Signal::from_number(13));
}

/// `rexec host yes | head -1`
#[test]
fn a_closed_stdout_ends_both_sides() {
    let agent = TestAgent::start();
    let mut rexec = agent.rexec();
    let mark = format!("mark-{}", agent.pid());
    rexec.arg(agent.target()).args(["yes", &mark]);
    let mut child = rexec.stdout(Pipe::piped()).spawn().unwrap();
    let mut line = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    eventually("yes ends", || running_with(&mark).is_empty());
}

/// It was ended at once, or at a terminal hung up, whatever it did and without a byte that was to be written.
#[test]
fn a_command_whose_reader_has_left_goes_on_until_it_writes() {
    let agent = TestAgent::start();
    for (options, end) in [(&[][..], 141), (&["-tt"], 130)] {
        let path = |name: &str| agent.path(&format!("{name}{end}"));
        let (heard, mark) = (path("heard"), path("mark"));
        let line = format!(
            "stty -echo 2>/dev/null; echo first; read -r line; touch {}; read -r line; touch {}; \
             while echo more; do :; done",
            heard.display(),
            mark.display()
        );
        let mut rexec = agent.rexec();
        rexec.args(options).args([&agent.target(), &line]).stdin(Pipe::piped());
        let mut child = rexec.stdout(Pipe::piped()).spawn().unwrap();
        let mut first = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever sends this on has seen before that nobody reads any more.
        for (told, is_there) in [("one\n", heard), ("two\n", mark)] {
            stdin.write_all(told.as_bytes()).unwrap();
            eventually("the command goes on", || is_there.exists());
        }
        assert_eq!(child.wait().unwrap().code(), Some(end), "{options:?}");
    }
}

/// `rexec host 'echo a; …' >fifo`, with `head -1 fifo; cat fifo` at its other end: what came after the first reader
/// was lost, as at a pipe that nobody can read any more.
#[test]
fn a_fifo_may_get_another_reader() {
    let agent = TestAgent::start();
    let (fifo, heard) = (agent.path("fifo"), agent.path("heard"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // None of these waits for another one, because this is both.
    let both = File::options().read(true).write(true).open(&fifo).unwrap();
    let mut reader = File::open(&fifo).unwrap();
    let writer = File::options().write(true).open(&fifo).unwrap();
    drop(both);
    let line =
        format!("echo a; read -r line; touch {}; read -r line; echo b; echo c", heard.display());
    let mut rexec = agent.rexec();
    rexec.args([&agent.target(), &line]).stdin(Pipe::piped()).stdout(writer);
    let mut child = rexec.spawn().unwrap();
    drop(rexec);
    let mut first = [0; 2];
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    eventually("the command goes on", || heard.exists());
    let mut reader = File::open(&fifo).unwrap();
    stdin.write_all(b"two\n").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("b\nc\n", Some(0)));
}

/// What a grandchild writes later is not waited for, but all that the command wrote is there.
#[tokio::test]
async fn a_grandchild_that_holds_stdout_hangs_nobody() {
    let agent = TestAgent::with("[limits]\ndrain_quiet = '100ms'");
    let session = agent.session().await;
    let line = "sleep 300 & head -c 1000000 /dev/zero; echo done >&2; echo $!";
    let output = session.shell(line).output().await.unwrap();
    assert!(output.status.success());
    assert!(output.status.held());
    assert_eq!(output.stderr, b"done\n");
    let (zeros, pid) = output.stdout.split_at(1_000_000);
    assert!(zeros.iter().all(|byte| *byte == 0));
    // The command's end is no reason to kill what it left behind on purpose.
    let pid: u32 = String::from_utf8_lossy(pid).trim().parse().unwrap();
    assert!(crate::support::proc::is_running(pid));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

/// The same while the reader is slow: the wait for the grandchild must not cut what is in the pipe.
#[tokio::test]
async fn a_slow_reader_loses_nothing_to_the_drain() {
    let agent = TestAgent::with("[limits]\ndrain_quiet = '50ms'\ndrain_max = '100ms'");
    let session = agent.session().await;
    let size = 6 * MIB;
    let line = format!("sleep 300 & echo $! >&2; head -c {size} /dev/zero; exit 5");
    let mut child = session.shell(line).spawn().await.unwrap();
    let mut pid = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut pid).await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut total = 0;
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        total += chunk.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(total, size);
    assert_eq!(child.wait().await.unwrap().code(), Some(5));
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A stalled reader stops the command, costs the agent a bounded amount, and loses nothing.
/// `REXEC_TEST_STALL_GIB` makes it as long as the acceptance run.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_costs_bounded_memory() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let size = std::env::var("REXEC_TEST_STALL_GIB").map_or(1, |gib| gib.parse().unwrap()) << 30;
    session.command("true").status().await.unwrap();
    let before = memory(agent.pid(), "VmRSS");
    let line = format!("head -c {size} /dev/zero; echo over >&2");
    let mut child = session.shell(line).stdin(Stdio::Null).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let first = stdout.chunk().await.unwrap().unwrap();
    // Stalled: the command is blocked in write(2) once its pipe is full.
    let wchan = format!("/proc/{}/task/{}/children", child.id(), child.id());
    let writer = || fs::read_to_string(&wchan).unwrap_or_default().trim().to_owned();
    eventually("the command waits for its reader", || {
        let stat = fs::read_to_string(format!("/proc/{}/wchan", writer())).unwrap_or_default();
        stat.contains("pipe_write")
    });
    let mut total = first.len();
    drop(first);
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        total += chunk.len();
    }
    assert_eq!(total, size);
    let status = child.wait().await.unwrap();
    assert_eq!(status.stdout().size, size as u64);
    let grown = memory(agent.pid(), "VmHWM") - before;
    assert!(grown < 8 * 1024, "the agent grew by {grown} KiB");
}

/// F11: a command that never reads its stdin holds its sender up, costs a bounded amount, and can be
/// cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_stdin_that_nobody_reads_costs_bounded_memory() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    session.command("true").status().await.unwrap();
    let before = memory(agent.pid(), "VmRSS");
    let mut child = session.command("sleep").arg("1000").spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut sent = 0;
    // Once all windows and pipes are full, no piece is ever taken.
    let piece = vec![b'x'; 64 * 1024];
    while let Ok(taken) = timeout(Duration::from_secs(2), stdin.write(&piece)).await {
        sent += taken.unwrap();
        assert!(sent < 16 * MIB, "{sent} bytes were taken for a command that reads none");
    }
    let grown = memory(agent.pid(), "VmHWM") - before;
    assert!(grown < 8 * 1024, "the agent grew by {grown} KiB");
    child.cancel().await;
    let status = timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
    assert_eq!(*status.outcome(), Outcome::Cancelled);
}

/// The program itself, with a file and a pipe, through `cat`.
#[test]
fn the_program_is_binary_clean() {
    let agent = TestAgent::start();
    let mib = std::env::var("REXEC_TEST_ROUND_TRIP_MIB").map_or(20, |mib| mib.parse().unwrap());
    let bytes: Vec<u8> = (0..=255).chain(noise(1, mib * MIB)).collect();
    fs::write(agent.path("in"), &bytes).unwrap();
    let run = |stdin: OwnedFd| {
        let out = File::create(agent.path("out")).unwrap();
        let mut rexec = agent.rexec();
        rexec.arg("--digest").arg(agent.target()).arg("cat");
        let output = rexec.stdin(stdin).stdout(out).output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        assert!(fs::read(agent.path("out")).unwrap() == bytes);
        String::from_utf8(output.stderr).unwrap()
    };
    let digest = Digest::of(Algorithm::Sha256, &bytes).to_string();
    let said = run(File::open(agent.path("in")).unwrap().into());
    assert!(said.contains(&format!("stdout {} bytes sha256 {digest}", bytes.len())), "{said}");
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes).map(|()| drop(writer)));
        run(reader.into());
    });
}

/// A log that is appended to stays a log: the client must not disturb its descriptor's flags.
#[test]
fn an_appending_stdout_is_appended_to() {
    let agent = TestAgent::start();
    let path = agent.path("log.txt");
    fs::write(&path, "before\n").unwrap();
    let append = File::options().append(true).open(&path).unwrap();
    let mut rexec = agent.rexec();
    let status = rexec.arg(agent.target()).arg("echo after").stdout(append).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn a_full_disk_is_a_local_failure() {
    let agent = TestAgent::start();
    for command in ["yes", "echo"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut rexec = agent.rexec();
        let output = rexec.arg(agent.target()).args([command, "x"]).stdout(full).output().unwrap();
        assert_eq!(code(&output), 125, "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
    }
}

/// With `>&-` what was printed went to the /dev/null that Rust's runtime puts there, and the end was 0.
#[test]
fn output_for_a_closed_stdout_is_not_called_written() {
    let agent = TestAgent::start();
    fs::write(agent.path("f"), "x").unwrap();
    let file = format!("rexec://{}{}", agent.target(), agent.path("f").display());
    let target = agent.target();
    for (words, expected) in [
        (&[&*target, "echo hi"][..], 125),
        (&["--json", &target, "true"], 125),
        (&["jobs", &target], 125),
        (&["get", &file, "-"], 1),
        (&[&*target, "echo err >&2; exit 3"], 3),
    ] {
        let rexec = agent.rexec();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$@\" >&-", "sh"]).arg(rexec.get_program()).args(rexec.get_args());
        for (name, value) in rexec.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let output = shell.args(words).output().unwrap();
        assert_eq!(code(&output), expected, "{words:?}: {output:?}");
    }
}

/// Empty output, and no stdin: nothing hangs, whatever the caller's own stdin is.
#[test]
fn an_open_stdin_does_not_hold_up_the_end() {
    let agent = TestAgent::start();
    let (reader, _kept_open) = std::io::pipe().unwrap();
    let start = Instant::now();
    let mut rexec = agent.rexec();
    let status = rexec.arg(agent.target()).arg("true").stdin(reader).status().unwrap();
    assert!(status.success());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn cancelled_output_is_still_verified() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session
        .shell("trap 'echo bye; exit' INT; echo hi; while :; do sleep 0.01; done")
        .spawn()
        .await
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"hi\n");
    child.cancel_with(Signal::INT, Duration::from_secs(20)).await;
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"bye\n");
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
}

/// It was told as the end of the input, and what reads to the end went on with a part of it.
#[test]
fn input_that_cannot_be_read_is_not_the_end_of_it() {
    let agent = TestAgent::start();
    let ended = agent.path("ended");
    let line = format!("cat && touch {}", ended.display());
    let mut client = agent.rexec();
    client.args([&agent.target(), &line]);
    let output = client.stdin(File::open(agent.path("")).unwrap()).output().unwrap();
    assert_eq!(code(&output), 125, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot read stdin") && said.contains("has ended"), "{said}");
    assert!(!ended.exists());
}
