//! Terminal sessions as a person has them: `rexec` in a window of a real terminal multiplexer.

use crate::support::TestAgent;
use crate::support::chaos::{Chaos, Plan};
use crate::support::proc::{eventually, running_with};
use crate::support::tmux::{Terminal, available};
use std::fs;
use std::process::Command;

/// Whether this machine has an editor that fills the screen.
fn has_editor() -> bool {
    let has_one = Command::new("vi").arg("--version").output().is_ok();
    if !has_one {
        eprintln!("skipped: vi is missing (apt-get install vim-tiny)");
    }
    has_one
}

/// Starts a login shell at `target`, with a prompt that tells it from the one here.
fn log_in(terminal: &Terminal, options: &str, target: &str) {
    terminal.enter(&format!("rexec {options} {target}"));
    // Whatever the shell there says first, it is ready when it answers.
    terminal.enter("PS1='there> '; clear; echo rea''dy");
    terminal.shows_line("ready");
}

/// The terminal is as it was: it echoes, and edits lines.
fn is_restored(terminal: &Terminal) {
    terminal.enter("clear; stty -a | tr ' ;' '\\n\\n' | grep -xE 'icanon|echo|isig|opost' | sort | tr '\\n' ' '");
    terminal.shows("echo icanon isig opost");
}

#[test]
fn an_editor_a_resize_and_job_control() {
    if !(available() && has_editor()) {
        return;
    }
    let agent = TestAgent::start();
    let terminal = Terminal::open(&agent, 100, 30);
    log_in(&terminal, "", &agent.target());

    let file = agent.path("text");
    terminal.enter(&format!("vi -N -u NONE {}", file.display()));
    terminal.shows_line("~");
    terminal.types("ihello");
    terminal.shows_line("hello");
    terminal.press(&["Escape"]);
    terminal.enter(":set lines?");
    terminal.shows("lines=30");
    terminal.resize(90, 20);
    terminal.enter(":set lines? columns?");
    terminal.shows("lines=20");
    terminal.shows("columns=90");
    terminal.press(&["Enter"]);

    // Job control is that of the shell there.
    terminal.press(&["C-z"]);
    terminal.shows("Stopped");
    terminal.enter("fg");
    terminal.shows_line("~");
    terminal.shows_line("hello");
    terminal.enter(":wq");
    eventually("it is written", || fs::read_to_string(&file).is_ok_and(|text| text == "hello\n"));

    // Another test's sleep is not this one's.
    let mark = format!("1000.{}", agent.pid());
    terminal.enter(&format!("clear; sleep {mark}; echo code=$?"));
    eventually("it sleeps", || !running_with(&format!("sleep\u{0}{mark}")).is_empty());
    terminal.press(&["C-c"]);
    terminal.enter("echo code=$?");
    terminal.shows("code=130");
    terminal.enter("exit 7");
    terminal.is_back();
    terminal.enter("echo code=$?");
    terminal.shows("code=7");
    is_restored(&terminal);
}

#[test]
fn a_session_is_left_and_found_again_from_another_terminal() {
    if !(available() && has_editor()) {
        return;
    }
    let agent = TestAgent::start();
    let first = Terminal::open(&agent, 100, 30);
    log_in(&first, "", &agent.target());
    let file = agent.path("text");
    first.enter(&format!("vi -N -u NONE {}", file.display()));
    first.shows_line("~");
    first.types("ifrom the first");
    first.press(&["Escape"]);
    first.shows_line("from the first");
    // At the start of a line, as far as the keys know.
    first.press(&["Enter"]);
    first.types("~d");
    first.is_back();
    first.shows("to come back: ");
    is_restored(&first);

    let second = Terminal::open(&agent, 80, 20);
    let jobs = agent.rexec().args(["jobs", "--json", &agent.target()]).output().unwrap();
    let job: serde_json::Value = serde_json::from_slice(&jobs.stdout).unwrap();
    let id = job["id"].as_str().unwrap_or_else(|| panic!("{job}"));
    second.enter(&format!("rexec attach {} {id}", agent.target()));
    second.shows_line("from the first");
    // One line less was for a moment only.
    let empty = |screen: &str| screen.lines().filter(|line| line.trim_end() == "~").count();
    second.becomes("it is drawn for its size", |screen| empty(screen) == 18);
    second.types("oand the second");
    second.press(&["Escape"]);
    second.shows_line("and the second");
    second.enter(":set lines?");
    second.shows("lines=20");
    second.enter(":wq");
    let text = "from the first\nand the second\n";
    eventually("it is written", || fs::read_to_string(&file).is_ok_and(|now| now == text));
    second.enter("exit 3");
    second.is_back();
    second.enter("echo code=$?");
    second.shows("code=3");
    is_restored(&second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_cut_in_the_middle_of_an_editor() {
    if !(available() && has_editor()) {
        return;
    }
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let target = format!("127.0.0.1:{}", chaos.port);
    // The proxy goes on while this waits for the screen.
    tokio::task::block_in_place(|| {
        let terminal = Terminal::open(&agent, 100, 30);
        log_in(&terminal, "", &target);
        let file = agent.path("text");
        terminal.enter(&format!("vi -N -u NONE {}", file.display()));
        terminal.shows_line("~");
        terminal.types("ibefore");
        terminal.shows_line("before");

        chaos.refuse(true);
        chaos.cut();
        terminal.shows("connection lost");
        terminal.shows("~. leaves");
        // What is typed meanwhile is not lost.
        terminal.types(" and meanwhile");
        chaos.refuse(false);
        terminal.shows_line("before and meanwhile");
        terminal.becomes("the last line is the editor's again", |screen| {
            !screen.contains("connection lost") && screen.contains("-- INSERT --")
        });
        terminal.types(" and after");
        terminal.press(&["Escape"]);
        terminal.enter(":wq");
        let text = "before and meanwhile and after\n";
        eventually("it is written", || fs::read_to_string(&file).is_ok_and(|now| now == text));

        // Doubled escapes reach the inner of two sessions, also now.
        terminal.enter("clear; stty -echo; echo go''ing; cat; stty echo");
        terminal.shows_line("going");
        terminal.enter("~~.");
        terminal.shows_line("~.");
        terminal.press(&["C-d"]);
        terminal.enter("exit");
        terminal.is_back();
        is_restored(&terminal);
    });
}

#[test]
fn escapes_are_for_this_side() {
    if !available() {
        return;
    }
    let agent = TestAgent::start();
    let terminal = Terminal::open(&agent, 100, 30);
    log_in(&terminal, "", &agent.target());
    terminal.types("~?");
    terminal.shows("leave at once");

    terminal.types("~");
    terminal.press(&["C-z"]);
    terminal.shows("Stopped");
    terminal.is_back();
    is_restored(&terminal);
    terminal.enter("fg");
    terminal.enter("clear; echo back-$(tty)");
    terminal.shows("back-/dev/pts/");

    let mark = format!("2301.{}", agent.pid());
    terminal.enter(&format!("sleep {mark}"));
    eventually("it sleeps", || !running_with(&mark).is_empty());
    terminal.types("~.");
    terminal.shows("without waiting");
    terminal.enter("clear; echo code=$?");
    is_restored(&terminal);
    eventually("it was hung up", || running_with(&mark).is_empty());
}

/// Who only looks on, and leaves in the middle, does not keep what the program has made of the screen.
#[test]
fn a_watcher_who_leaves_has_the_own_screen_again() {
    if !available() {
        return;
    }
    let agent = TestAgent::start();
    let fills = r"printf '\033[?1049hin the whole screen'; sleep 2303";
    let owner = Terminal::open(&agent, 100, 30);
    owner.enter(&format!("rexec -t --id fills {} \"{fills}\"", agent.target()));
    owner.shows("in the whole screen");
    let watcher = Terminal::open(&agent, 100, 30);
    watcher.enter(&format!("rexec attach --read-only {} fills", agent.target()));
    watcher.shows("in the whole screen");
    assert!(watcher.is_filled());
    watcher.press(&["C-c"]);
    eventually("it is as it was", || !watcher.is_filled());
    watcher.is_back();
    assert!(owner.is_filled(), "the other one goes on");
}

/// However it ends, the terminal is as it was.
#[test]
fn a_signal_restores_the_terminal() {
    if !available() {
        return;
    }
    let agent = TestAgent::start();
    for (number, signal) in ["TERM", "HUP", "INT", "QUIT"].into_iter().enumerate() {
        let terminal = Terminal::open(&agent, 100, 30);
        let mark = format!("2302{number}.{}", agent.pid());
        terminal.enter(&format!("rexec -t {} sleep {mark}", agent.target()));
        // This side and that one.
        eventually("it runs", || running_with(&mark).len() >= 2);
        let rexec = running_with(&agent.target());
        assert_eq!(rexec.len(), 1, "{rexec:?}");
        let kill = format!("kill -{signal} {}", rexec[0]);
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        eventually("both are gone", || running_with(&mark).is_empty());
        terminal.is_back();
        is_restored(&terminal);
    }
}
