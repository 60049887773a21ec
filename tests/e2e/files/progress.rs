//! How far a transfer is: on a terminal, and nowhere else.

use super::*;
use crate::support::chaos::{Chaos, Faults, Plan};
use crate::support::tmux::{Terminal, available};
use nix::pty::openpty;
use rexec_client::{Target, TransferEvent, Update};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::task::block_in_place;

/// More than what is on its way while the line is held.
const LARGE: usize = 24 << 20;

/// A proxy that lets through a part of the large file, and then holds it.
async fn holding(agent: &TestAgent, is_up: bool) -> Chaos {
    let faults = Faults { hold: Some(3 << 20), ..Faults::default() };
    let plan = match is_up {
        true => Plan { up: faults, ..Plan::default() },
        false => Plan { down: faults, ..Plan::default() },
    };
    Chaos::start(agent.port, move |_| plan).await
}

fn small_and_large(dir: &Path) {
    for name in ["one", "two"] {
        fs::write(dir.join(name), noise(1, 1000)).unwrap();
    }
    fs::write(dir.join("large"), noise(2, LARGE)).unwrap();
    fs::create_dir(dir.join("to")).unwrap();
}

/// The line in which all of this is: bytes, rate, time and time left, files.
fn shown(screen: &str) -> Option<&str> {
    let is_it = |line: &&str| {
        ["iB/24.00 MiB ", "B/s ", "s<", "0 of 3 files"].iter().all(|part| line.contains(part))
    };
    screen.lines().find(is_it)
}

/// The time of such a line.
fn elapsed(screen: &str) -> Option<String> {
    let (before, _) = shown(screen)?.split_once('<')?;
    before.rsplit(' ').next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_how_far_it_is_and_no_more_of_that_at_the_end() {
    if !available() {
        return;
    }
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    small_and_large(dir.path());
    let here = |name: &str| dir.path().join(name).display().to_string();
    for (verb, from, to) in
        [("put", "", "127.0.0.1:"), ("get", "127.0.0.1:", ""), ("cp", "127.0.0.1:", "127.0.0.1:")]
    {
        let chaos = holding(&agent, verb == "put").await;
        block_in_place(|| {
            let terminal = Terminal::open(&agent, 100, 30);
            terminal.enter(&format!("cd {}; clear", here("")));
            let sources = ["one", "two", "large"].map(|name| format!("{from}{}", here(name)));
            let (port, sources) = (chaos.port, sources.join(" "));
            terminal.enter(&format!(
                "rexec {verb} -P {port} {sources} {to}{}; echo code=$?",
                here("to")
            ));
            terminal.becomes("the line is shown", |screen| shown(screen).is_some());
            // Also while nothing moves.
            let first = elapsed(&terminal.screen());
            terminal.becomes("time goes on", |screen| elapsed(screen) != first);
            chaos.freeze(false);
            terminal.shows_line("code=0");
            terminal.is_back();
            let screen = terminal.screen();
            let lines: Vec<_> = screen.lines().filter(|line| !line.trim().is_empty()).collect();
            let first_after = lines.iter().position(|line| line.trim_end() == "code=0").unwrap();
            assert!(!screen.contains("files") && !screen.contains("iB"), "{screen}");
            // What was typed, what came of it, and the next prompt.
            assert!(lines[first_after - 1].trim_end().ends_with("echo code=$?"), "{screen}");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_meanwhile_stands_above_the_line() {
    if !available() {
        return;
    }
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    small_and_large(dir.path());
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let chaos = holding(&agent, true).await;
    block_in_place(|| {
        let terminal = Terminal::open(&agent, 120, 30);
        let sources = ["fifo", "large"].map(path).join(" ");
        terminal.enter(&format!("rexec put -P {} {sources} 127.0.0.1:{}", chaos.port, path("to")));
        let line =
            format!("rexec: 127.0.0.1: {}: at the source: is a FIFO, and not copied", path("fifo"));
        terminal.shows_line(&line);
        terminal.shows("1 of 1 files");
        terminal.press(&["C-c"]);
        terminal.shows_line("rexec: 127.0.0.1: cancelled; each file is as it was, or complete");
        terminal.is_back();
        let screen = terminal.screen();
        assert!(screen.lines().any(|shown| shown.trim_end() == line), "{screen}");
        assert!(!screen.contains("files ") && !screen.contains("MiB"), "{screen}");
        terminal.enter("echo code=$?");
        terminal.shows_line("code=130");
    });
}

/// A terminal at each of the three ends that is one here, and what was shown there.
fn on_a_terminal(command: &mut Command, ends: [bool; 3], typed: &[u8]) -> String {
    let pty = openpty(None, None).unwrap();
    let mut end = |is_terminal| match is_terminal {
        true => Stdio::from(pty.slave.try_clone().unwrap()),
        false => Stdio::null(),
    };
    let [stdin, stdout, stderr] = ends.map(&mut end);
    command.stdin(stdin).stdout(stdout).stderr(stderr).env("TERM", "xterm");
    let mut child = command.spawn().unwrap();
    // The command keeps ends of it, too.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(pty.slave);
    let mut master = File::from(pty.master);
    master.write_all(typed).unwrap();
    let mut shown = Vec::new();
    // Its end is an error: nobody has the other side any more.
    let _ = master.read_to_end(&mut shown);
    assert!(child.wait().unwrap().success(), "{command:?}");
    String::from_utf8(shown).unwrap()
}

#[test]
fn nothing_of_it_is_seen_where_nobody_looks() {
    let agent = TestAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("f"), "one line\n").unwrap();
    let put = |options: &str| {
        let mut command = rexec(&agent, options);
        command.arg(path("f")).arg(there(path("g")));
        command
    };
    let only_stderr = [false, false, true];
    let shown = on_a_terminal(&mut put("put"), only_stderr, b"");
    assert!(shown.contains("of 1 files"), "{shown:?}");
    for options in ["put -q", "put --no-progress", "put --json"] {
        assert_eq!(on_a_terminal(&mut put(options), only_stderr, b""), "", "{options}");
    }
    assert_eq!(on_a_terminal(&mut put("put"), [true, true, false], b""), "");
    let output = ends(&mut put("put"), 0);
    assert_eq!((said(&output).as_str(), output.stdout.as_slice()), ("", &b""[..]));
    // Where the file itself is shown, or typed, it is in the way.
    let mut get = rexec(&agent, "get");
    get.arg(there(path("f"))).arg("-");
    assert_eq!(on_a_terminal(&mut get, [false, true, true], b""), "one line\r\n");
    let mut typed = rexec(&agent, "put -");
    typed.arg(there(path("typed")));
    let shown = on_a_terminal(&mut typed, [true, true, true], b"a line\n\x04");
    assert_eq!(
        (shown.as_str(), fs::read(path("typed")).unwrap().as_slice()),
        ("a line\r\n", &b"a line\n"[..])
    );
}

/// Whichever end knows what need not move, and whichever end this is: the line comes to its end.
#[tokio::test]
async fn what_is_found_moves_or_is_spared() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("src")).unwrap();
    let sizes = [0, 1, 100_000, 3_000_000];
    for size in sizes {
        fs::write(path("src").join(size.to_string()), noise(size, size as usize)).unwrap();
    }
    let all = sizes.iter().sum::<u64>();
    for (to, way) in [("up", 0), ("down", 1), ("across", 2)] {
        let transfer = || match way {
            0 => session.put([path("src")], path(to)),
            1 => session.get([path("src")], path(to)),
            _ => session.copy_to([path("src")], &session, path(to)),
        };
        for (update, dry_run, spared) in [
            // It comes in pieces, and changes nothing.
            (None, true, all),
            (None, false, 0),
            (Some(Update::Times), false, 0),
            (Some(Update::Times), false, all),
            (Some(Update::Times), true, all),
            (Some(Update::Digest), false, all),
            (Some(Update::Digest), true, all),
        ] {
            let sums = Arc::new(Mutex::new([0; 3]));
            let told = Arc::clone(&sums);
            let watch = move |event| {
                let [found, moved, spared] = &mut *told.lock().unwrap();
                match event {
                    TransferEvent::Found(n) => *found += n,
                    TransferEvent::Moved(n) => *moved += n,
                    TransferEvent::Spared(n) => *spared += n,
                    _ => {}
                }
            };
            let transfer = transfer().recursive(true).target(Target::Exact);
            let transfer = transfer.update(update).dry_run(dry_run).watch(watch);
            let summary = transfer.run().await.unwrap();
            assert_eq!((summary.stored + summary.skipped, summary.failed), (4, 0));
            let what = format!("{to}, {update:?}, {dry_run}: {summary:?}");
            assert_eq!(*sums.lock().unwrap(), [all, all - spared, spared], "{what}");
        }
    }
}
