//! `rexec chat`, `wall` and `who`, as people and scripts use them.

use super::{FAST, agent, hear, heard, open_to_all};
use crate::support::TestAgent;
use crate::support::chaos::{Chaos, Plan};
use crate::support::cli::code;
use crate::support::proc::eventually;
use crate::support::tmux;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use tokio::task::block_in_place;

/// `… | rexec chat TARGET`.
fn piped(agent: &TestAgent, options: &[&str], stdin: &[u8]) -> Output {
    let mut command = agent.rexec();
    command.arg("chat").args(options).arg(agent.target());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_posts_its_lines_and_leaves() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let output = piped(&agent, &[], b"deploying\n\n  \nta\tb\n/quit\nlast");
    assert_eq!((code(&output), &output.stderr[..]), (0, &b""[..]), "{output:?}");
    let expected = [
        "joined bob",
        "joined alice",
        "alice: deploying",
        "alice: ta    b",
        "alice: /quit",
        "alice: last",
        "left alice",
    ];
    assert_eq!(hear(&mut room, expected.len()).await, expected);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(" alice: deploying\n"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_shows_what_is_said_until_its_reader_is_gone() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    room.say("before").await.unwrap();
    let mut command = agent.rexec();
    command.args(["chat", "--read-only"]).arg(agent.target()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        let (time, rest) = line.split_at(9);
        assert!(time.as_bytes()[2] == b':' && time.as_bytes()[5] == b':', "{line}");
        rest.to_owned()
    };
    let shown: Vec<String> = (0..3).map(|_| next()).collect();
    assert_eq!(shown, ["-- joined: bob", "bob: before", "-- joined: alice"]);
    room.act("nods").await.unwrap();
    assert_eq!(next(), "* bob nods");
    drop(lines);
    room.say("is anybody there?").await.unwrap();
    assert!(child.wait().unwrap().code().is_some());
    while heard(&mut room).await != "left alice" {}
}

/// As with `rexec chat --read-only web1 | less`, while nobody scrolls.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_can_be_left() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let mut command = agent.rexec();
    command.args(["chat", "--read-only"]).arg(agent.target()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    while heard(&mut room).await != "joined alice" {}
    // More than the pipe holds.
    for _ in 0..40 {
        room.say(&"x".repeat(4000)).await.unwrap();
    }
    let waiting = || nix::poll::PollFd::new(stdout.as_fd(), nix::poll::PollFlags::POLLIN);
    nix::poll::poll(&mut [waiting()], nix::poll::PollTimeout::NONE).unwrap();
    let pipe = format!("/proc/{}/task", child.id());
    let is_stuck = || {
        let mut tasks = std::fs::read_dir(&pipe).unwrap();
        tasks.any(|task| {
            let channel = std::fs::read_to_string(task.unwrap().path().join("wchan"));
            channel.is_ok_and(|channel| channel.contains("pipe_write"))
        })
    };
    eventually("the pipe is full", is_stuck);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    eventually("it ends", || child.try_wait().unwrap().is_some());
    let mut shown = Vec::new();
    stdout.read_to_end(&mut shown).unwrap();
    assert!(shown.len() > 4000);
}

#[test]
fn a_stdin_that_cannot_be_read_is_no_end() {
    let agent = agent();
    let mut command = agent.rexec();
    command.arg("chat").arg(agent.target()).stdin(std::fs::File::open("/").unwrap());
    let output = command.output().unwrap();
    assert_eq!(code(&output), 125, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot read stdin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_exit_status_of_refusals() {
    let policy = "[[rule]]\nname = 'listen'\nusers = ['*']\nrooms = ['lobby']\n";
    let agent = TestAgent::with_both(FAST, policy);
    for (args, says) in [
        (vec!["chat"], "you may not say anything in the room 'lobby'"),
        (vec!["wall"], "may not tell everybody something"),
        (vec!["who"], "may not ask who is connected"),
    ] {
        let mut command = agent.rexec();
        command.args(&args).arg(agent.target());
        if args == ["wall"] {
            command.arg("reboot");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 125, "{said}");
        assert!(said.starts_with("rexec: 127.0.0.1: ") && said.contains(says), "{said}");
        assert!(!said.contains("started"), "{said}");
    }
    let mut command = agent.rexec();
    let output = command.args(["chat", &agent.target(), "no room"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("'no room' is no name of a room"));
}

/// The others are said, and the end is no success.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_pipe_that_are_none_are_named() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let long = "x".repeat(100_000);
    let lines = format!("one\n\nb\x1b[2J\n{long}\n\u{200b}\nlast\n").into_bytes();
    let lines = [&lines[..], b"\xff\n"].concat();
    let output = piped(&agent, &[], &lines);
    assert_eq!(code(&output), 125, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = [
        "rexec: line 3 was not said: the line holds \\u{1b}, which is a control character",
        "rexec: line 4 was not said: a line of 100000 bytes; at most 4096 are allowed",
        "rexec: line 5 was not said: the line holds \\u{200b}, which would not be seen",
        "rexec: line 7 was not said: the line is not UTF-8",
        "rexec: 127.0.0.1: 4 lines were not said",
    ];
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    for (line, expected) in said.lines().zip(expected) {
        assert!(line.starts_with(expected), "{said}");
    }
    let expected = ["joined bob", "joined alice", "alice: one", "alice: last", "left alice"];
    assert_eq!(hear(&mut room, 5).await, expected);
}

/// A pipe is as fast as it may be: all of it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_is_too_fast_waits() {
    let limits = "[rooms]\nlines_per_second = 20\nlines_burst = 5\n";
    let agent = TestAgent::with_both(limits, &open_to_all());
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let lines: Vec<String> = (0..25).map(|n| format!("{n}\n")).collect();
    let output = piped(&agent, &[], lines.concat().as_bytes());
    assert_eq!((code(&output), &output.stderr[..]), (0, &b""[..]), "{output:?}");
    assert_eq!(hear(&mut room, 2).await, ["joined bob", "joined alice"]);
    for n in 0..25 {
        assert_eq!(heard(&mut room).await, format!("alice: {n}"));
    }
    // Joining counts as a line, so that waits as well.
    let limits = "[rooms]\nlines_per_second = 2\nlines_burst = 2\n";
    let agent = TestAgent::with_both(limits, &open_to_all());
    for _ in 0..2 {
        let output = piped(&agent, &[], b"again\n");
        assert_eq!((code(&output), &output.stderr[..]), (0, &b""[..]), "{output:?}");
    }
}

/// Who has said all that one may may still have to tell everybody something.
#[tokio::test(flavor = "multi_thread")]
async fn talking_does_not_keep_one_from_a_word_to_all() {
    let limits = "[rooms]\nlines_per_second = 1\nlines_burst = 2\n";
    let agent = TestAgent::with_both(limits, &open_to_all());
    let alice = agent.session().await;
    let room = alice.join("lobby").await.unwrap();
    while room.say("and").await.is_ok() {}
    assert_eq!(alice.wall("the disk is full").await.unwrap().rooms, 1);
    let mut error = None;
    for _ in 0..3 {
        error = alice.wall("hello?").await.err();
    }
    let error = error.expect("words to all are paced as well");
    assert!(
        error.is_busy() && error.to_string().contains("too fast: 1 lines to all a second"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_and_who() {
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    let mut command = agent.rexec();
    let output = command.args(["wall", &agent.target(), "reboot", "in 5"]).output().unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(output.stdout, b"told 1 room and 0 connections with jobs\n");
    assert_eq!(hear(&mut room, 2).await, ["joined bob", "alice to all: reboot in 5"]);
    // Several lines come from stdin, as elsewhere.
    let mut command = agent.rexec();
    command.args(["wall", &agent.target(), "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"reboot\nsave all\n").unwrap();
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
    assert_eq!(hear(&mut room, 2).await, ["alice to all: reboot", "alice to all: save all"]);
    let output = agent.rexec().args(["wall", &agent.target(), "a\x1b[2J"]).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the line holds \\u{1b}"));
    let output = agent.rexec().args(["who", "--json", &agent.target()]).output().unwrap();
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let [first, second] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&first["user"], &second["user"]), (&"bob".into(), &"alice".into()));
    assert_eq!((&first["type"], &first["rooms"]), (&"connection".into(), &vec!["lobby"].into()));
    assert!(first["received"].as_u64().unwrap() > 0 && first["since"].is_string());
    let output = agent.rexec().args(["who", &agent.target()]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.starts_with("ID ") && table.contains("bob") && table.contains("lobby"),
        "{table}"
    );
}

/// The agent was killed in between. The line is named, and the rest is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_pipe_of_which_nothing_is_known_is_named() {
    let mut agent = agent();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let mut command = agent.rexec();
    command.arg("chat").arg(format!("127.0.0.1:{}", chaos.port));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut shows = |what: &str| {
        block_in_place(|| while !lines.next().expect("it goes on").unwrap().contains(what) {});
    };
    stdin.write_all(b"one\n").unwrap();
    shows("alice: one");
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    // It goes out, and never arrives.
    chaos.freeze_up();
    stdin.write_all(b"two\nthree\n").unwrap();
    block_in_place(|| eventually("it is out", || chaos.stuck.load(Ordering::Relaxed) > 0));
    chaos.refuse(true);
    chaos.cut();
    let noted = block_in_place(|| errors.next().unwrap().unwrap());
    assert!(noted.contains("the connection is lost") && !noted.contains("missed"), "{noted}");
    block_in_place(|| {
        agent.kill();
        agent.start_again();
    });
    chaos.freeze(false);
    chaos.refuse(false);
    shows("alice: three");
    drop(stdin);
    let status = block_in_place(|| child.wait().unwrap());
    let said: Vec<String> = block_in_place(|| errors.map_while(Result::ok).collect());
    assert_eq!(status.code(), Some(125), "{said:?}");
    let is_named = |line: &String| line.contains("line 2: it is not known whether it was said");
    assert_eq!(said.iter().filter(|line| is_named(line)).count(), 1, "{said:?}");
    let last = said.last().unwrap();
    assert!(last.ends_with("of 1 line it is not known whether it was said"), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("command")), "{said:?}");
}

/// Real terminals, of a server of their own.
struct Tmux {
    socket: String,
}

impl Tmux {
    /// `None` where there is no tmux.
    fn start() -> Option<Self> {
        let found = Command::new("tmux").arg("-V").output();
        if found.is_err() {
            println!("skipped: there is no tmux");
            return None;
        }
        Some(Self { socket: format!("rexec-test-{}", std::process::id()) })
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket, "-f", "/dev/null"]).args(args).env_remove("TMUX");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Opens a terminal of 80 columns in which `rexec chat` runs, and then says how it ended.
    fn chat(&self, agent: &TestAgent, name: &str) {
        let rexec = crate::support::program("rexec");
        let line = format!(
            "HOME={home} REXEC_IDENTITY={home}/{name}.pem REXEC_AUTHORITY={home}/authority.crt {rexec} chat {target}; echo ended $?; stty -a | grep -ow -e -echo -e echo; exec sleep 1000",
            home = agent.dir.path().display(),
            rexec = rexec.display(),
            target = agent.target(),
        );
        let options = ["-d", "-x", "80", "-y", "24", "-s", name, "sh", "-c", &line];
        self.run(&[&["new-session"][..], &options].concat());
    }

    fn keys(&self, name: &str, text: &str) {
        self.run(&["send-keys", "-t", name, "-l", text]);
    }

    fn enter(&self, name: &str, text: &str) {
        self.keys(name, text);
        self.run(&["send-keys", "-t", name, "Enter"]);
    }

    fn screen(&self, name: &str) -> Vec<String> {
        let text = self.run(&["capture-pane", "-p", "-t", name]);
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    }

    fn shows(&self, name: &str, what: &str) {
        let mut last = Vec::new();
        for _ in 0..1_000 {
            last = self.screen(name);
            if last.iter().any(|line| line.contains(what)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{name} never shows {what:?}:\n{}", last.join("\n"));
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        let _ = command.args(["-L", &self.socket, "kill-server"]).env_remove("TMUX").output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_terminals_talk() {
    let Some(tmux) = Tmux::start() else { return };
    let mut agent = agent();
    drop(agent.session_as("bob").await);
    tmux.chat(&agent, "alice");
    tmux.shows("alice", "joined: alice");
    tmux.chat(&agent, "bob");
    tmux.shows("alice", "joined: bob");
    tmux.shows("bob", "lobby>");
    // What comes in while somebody types does not tear it apart.
    tmux.keys("alice", "half a line");
    tmux.shows("alice", "lobby> half a line");
    for n in 0..5 {
        tmux.enter("bob", &format!("hello {n}"));
        tmux.shows("alice", &format!("bob: hello {n}"));
    }
    let screen = tmux.screen("alice");
    assert_eq!(screen.last().unwrap(), "lobby> half a line", "{screen:#?}");
    assert_eq!(screen.iter().filter(|line| line.contains("half")).count(), 1, "{screen:#?}");
    // Another size.
    tmux.run(&["resize-window", "-t", "alice", "-x", "50", "-y", "20"]);
    tmux.enter("bob", "after the resize");
    tmux.shows("alice", "bob: after the resize");
    assert_eq!(tmux.screen("alice").last().unwrap(), "lobby> half a line");
    tmux.enter("alice", " is whole");
    tmux.shows("bob", "alice: half a line is whole");
    tmux.enter("alice", "/me waves");
    tmux.shows("bob", "* alice waves");
    tmux.enter("bob", "/who");
    tmux.shows("bob", "2 are here:");
    tmux.enter("bob", "/rooms");
    tmux.shows("bob", "1 room is open:");
    tmux.enter("bob", "/dance");
    tmux.shows("bob", "/dance is no command here");
    // The agent is started again.
    tmux.keys("bob", "wait");
    agent.kill();
    tmux.shows("bob", "the connection is lost");
    agent.start_again();
    tmux.shows("bob", "connected again");
    tmux.shows("alice", "connected again");
    tmux.enter("bob", " for it");
    tmux.shows("alice", "bob: wait for it");
    // In good order, it leaves the room to the next one.
    tmux.keys("bob", "and once");
    agent.signal(Signal::SIGTERM);
    assert!(tokio::task::block_in_place(|| agent.wait()).success());
    tokio::task::block_in_place(|| agent.start_again());
    tmux.enter("bob", " more");
    tmux.shows("alice", "bob: and once more");
    let screen = tmux.screen("alice").join(" ");
    assert_eq!(screen.matches("agent was started again").count(), 1, "{screen}");
    // And everybody leaves; the terminal is as it was.
    tmux.enter("bob", "/quit");
    tmux.shows("alice", "left: bob");
    tmux.shows("bob", "ended 0");
    let screen = tmux.screen("bob");
    assert_eq!(screen.last().unwrap(), "echo", "{screen:#?}");
    tmux.run(&["send-keys", "-t", "alice", "C-d"]);
    tmux.shows("alice", "ended 0");
    eventually("nobody is there", || tmux.screen("alice").iter().any(|line| line == "echo"));
}

/// A row that begins at the edge of the terminal is one that rexec began, however long a line is.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_does_not_look_like_two() {
    let Some(tmux) = Tmux::start() else { return };
    let agent = agent();
    let mallory = agent.session_as("mallory").await;
    let room = mallory.join("lobby").await.unwrap();
    tmux.chat(&agent, "alice");
    tmux.shows("alice", "joined: alice");
    let forged = format!("{:<62}12:00:00 bob: I did it{:<58}-- joined: root", "hi", "");
    room.say(&forged).await.unwrap();
    tmux.shows("alice", "-- joined: root");
    let screen = tmux.screen("alice");
    let is_forged = |row: &String| row.starts_with("12:00") || row.starts_with("--");
    assert!(!screen.iter().any(is_forged), "{screen:#?}");
    assert!(screen.iter().any(|row| row.starts_with("         ")), "{screen:#?}");
}

/// The owner of a job sees on the terminal who watches it; a script sees nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_of_a_job_s_owner_shows_who_watches() {
    let Some(tmux) = Tmux::start() else { return };
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let line = format!(
        "HOME={home} REXEC_IDENTITY={home}/alice.pem REXEC_AUTHORITY={home}/authority.crt {rexec} {target} 'cat; sleep 1000'",
        home = agent.dir.path().display(),
        rexec = crate::support::program("rexec").display(),
        target = agent.target(),
    );
    tmux.run(&["new-session", "-d", "-x", "120", "-y", "24", "-s", "owner", "sh", "-c", &line]);
    let mut jobs = Vec::new();
    for _ in 0..1_000 {
        jobs = bob.jobs().await.unwrap();
        if jobs.first().is_some_and(|job| job.pid > 0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let watching = bob.attach(jobs[0].job.clone()).join().await.unwrap();
    tmux.shows("owner", "rexec: bob has come to job");
    let room = bob.join(&format!("job:{}", jobs[0].job)).await.unwrap();
    room.say("what is it?").await.unwrap();
    tmux.shows("owner", &format!("rexec: bob in the room of job {}: what is it?", jobs[0].job));
    watching.detach().await.unwrap();
    tmux.shows("owner", "rexec: bob has left job");
    bob.wall("reboot in 5").await.unwrap();
    tmux.shows("owner", "rexec: bob to all: reboot in 5");
}

/// The editor takes the terminal again, whichever shell had it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_prompt_is_a_prompt_again() {
    if !tmux::available() {
        return;
    }
    let agent = agent();
    let bob = agent.session_as("bob").await;
    let mut room = bob.join("lobby").await.unwrap();
    block_in_place(|| {
        let terminal = tmux::Terminal::open(&agent, 80, 24);
        terminal.enter(&format!("rexec chat {}", agent.target()));
        terminal.shows("joined: alice");
        for round in 0..4 {
            terminal.types("half");
            terminal.shows_line("lobby> half");
            terminal.press(&["C-z"]);
            terminal.is_back();
            terminal.enter("clear");
            terminal.becomes("it is clear", |screen| screen.trim_end() == "here$");
            terminal.enter("fg");
            terminal.shows_line("lobby> half");
            let modes = terminal.modes();
            assert!(modes.contains("-icanon") && modes.contains("-echo "), "{modes}");
            terminal.enter(&format!(" a line {round}"));
            terminal.shows_line("lobby>");
        }
    });
    assert_eq!(hear(&mut room, 2).await, ["joined bob", "joined alice"]);
    for round in 0..4 {
        assert_eq!(heard(&mut room).await, format!("alice: half a line {round}"));
    }
}

/// Beside what is shown of the transfer itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_of_a_transfer_shows_a_word_to_all() {
    if !tmux::available() {
        return;
    }
    let agent = TestAgent::with_both(FAST, &format!("{}write = ['/**']\n", open_to_all()));
    let bob = agent.session_as("bob").await;
    block_in_place(|| {
        let terminal = tmux::Terminal::open(&agent, 100, 24);
        let file = agent.path("copied");
        let to = format!("rexec://{}/{}", agent.target(), file.display());
        terminal.enter(&format!("cat | rexec cp - {to}"));
        let told = || {
            let told = tokio::runtime::Handle::current().block_on(bob.wall("reboot in 5"));
            told.unwrap().connections
        };
        eventually("somebody with a job is told", || told() > 0);
        terminal.shows_line("rexec: bob to all: reboot in 5");
        terminal.enter("content");
        terminal.press(&["C-d"]);
        terminal.is_back();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "content\n");
    });
}
