//! What becomes of what is typed at the prompt of `rexec chat`.

use super::{agent, hear, heard, open_to_all};
use crate::support::TestAgent;
use crate::support::chaos::{Chaos, Plan};
use crate::support::tmux::{Terminal, available};
use rexec_client::Room;
use tokio::task::block_in_place;

/// A terminal at the prompt of a room that bob listens in, and the network in between.
struct Scene {
    agent: TestAgent,
    chaos: Chaos,
    terminal: Terminal,
    room: Room,
}

impl Scene {
    /// `None` where there is no tmux.
    async fn open(options: &str) -> Option<Self> {
        if !available() {
            return None;
        }
        let agent = agent();
        let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
        let mut room = agent.session_as("bob").await.join("lobby").await.unwrap();
        let terminal = block_in_place(|| Terminal::open(&agent, 250, 24));
        terminal.enter(&format!("rexec chat {options} 127.0.0.1:{}", chaos.port));
        block_in_place(|| terminal.shows("joined: alice"));
        assert_eq!(hear(&mut room, 2).await, ["joined bob", "joined alice"]);
        Some(Self { agent, chaos, terminal, room })
    }

    /// From now on there is no connection.
    fn cut(&self) {
        self.chaos.refuse(true);
        self.chaos.cut();
        self.terminal.shows("the connection is lost");
    }

    /// How rexec ended, and what its terminal shows.
    fn ends(&self) -> String {
        self.terminal.is_back();
        let screen = self.terminal.screen();
        self.terminal.enter("echo code=$?");
        self.terminal.becomes("it says how it ended", |screen| screen.contains("\ncode="));
        let code = self.terminal.screen();
        screen + code.lines().find(|line| line.starts_with("code=")).unwrap()
    }

    /// What bob hears before `last`.
    async fn hears_before(&mut self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match heard(&mut self.room).await {
                event if event == last => return all,
                event => all.push(event),
            }
        }
    }
}

/// As they do from somebody who types ahead, and from a paste that the terminal does not mark.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_at_once_are_all_said() {
    let Some(mut scene) = Scene::open("").await else { return };
    scene.terminal.types("A1\rA2\r/me waves\rA3\rha");
    assert_eq!(
        hear(&mut scene.room, 4).await,
        ["alice: A1", "alice: A2", "* alice waves", "alice: A3"]
    );
    block_in_place(|| scene.terminal.shows_line("lobby> ha"));
    // More than is read at once.
    let lines: Vec<String> = (0..200).map(|n| format!("lf {n} {}", "x".repeat(20))).collect();
    scene.terminal.types(&format!("{}\r/quit\r", lines.join("\r")));
    for line in lines {
        let line = if line.starts_with("lf 0 ") { format!("ha{line}") } else { line };
        assert_eq!(heard(&mut scene.room).await, format!("alice: {line}"));
    }
    let shown = block_in_place(|| scene.ends());
    assert!(shown.ends_with("code=0") && !shown.contains("not said"), "{shown}");
    assert_eq!(heard(&mut scene.room).await, "left alice");
}

/// They are not said later either, so which they are must be seen.
#[test]
fn lines_that_come_too_fast_are_named() {
    if !available() {
        return;
    }
    let limits = "[rooms]\nlines_per_second = 1\nlines_burst = 2\n";
    let agent = TestAgent::with_both(limits, &open_to_all());
    let terminal = Terminal::open(&agent, 250, 50);
    terminal.enter(&format!("rexec chat {}", agent.target()));
    terminal.shows("joined: alice");
    let lines: Vec<String> = (0..20).map(|n| format!("L{n}\r")).collect();
    terminal.types(&lines.concat());
    terminal.shows("-- 'L19' was not said: too fast: 1 lines a second are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_lines_that_are_pasted_are_refused_as_such() {
    let Some(mut scene) = Scene::open("").await else { return };
    block_in_place(|| {
        scene.terminal.pastes("one\ntwo\nthree");
        scene.terminal.shows("three");
        scene.terminal.press(&["Enter"]);
        scene.terminal.shows("-- several lines were pasted, and nothing of them was said");
        // What rexec leaves out is what it says that it leaves out.
        scene.terminal.pastes("a \x1b[31mpaste\n");
        scene.terminal.shows("a paste");
        scene.terminal.press(&["Enter"]);
        scene.terminal.enter("/who bob");
        scene.terminal.shows("/who takes no word after it");
    });
    assert_eq!(heard(&mut scene.room).await, "alice: a paste");
}

/// However one asks to leave: what is not said is told, Ctrl-C drops it, and it is not said later.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_without_a_connection_is_told_what_is_not_said() {
    for leave in [&["C-c"][..], &["C-d"], &["/quit", "Enter"]] {
        let Some(mut scene) = Scene::open("").await else { return };
        let shown = block_in_place(|| {
            scene.cut();
            scene.terminal.types("dropped 1\r/who\rdropped 2\r");
            scene.terminal.shows("dropped 2");
            scene.terminal.press(leave);
            scene.terminal.shows("-- 2 lines are not said yet; Ctrl-C again drops them");
            scene.terminal.press(&["C-c"]);
            scene.ends()
        });
        assert!(shown.contains("-- 2 lines were not said"), "{shown}");
        assert!(shown.ends_with("code=130"), "{shown}");
        scene.chaos.refuse(false);
        let bob = scene.agent.session_as("bob").await.join("lobby").await.unwrap();
        bob.say("the last").await.unwrap();
        let all = scene.hears_before("bob: the last").await;
        assert!(!all.iter().any(|event| event.contains("dropped")), "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_without_a_connection_may_wait_for_it() {
    let Some(mut scene) = Scene::open("").await else { return };
    let shown = block_in_place(|| {
        scene.cut();
        scene.terminal.types("one\r/who\rtwo\r/quit\r");
        scene.terminal.shows("-- 2 lines are not said yet; Ctrl-C again drops them");
        scene.chaos.refuse(false);
        scene.ends()
    });
    assert!(shown.ends_with("code=0") && !shown.contains("not known"), "{shown}");
    let said: Vec<String> = scene.hears_before("left alice").await;
    let said: Vec<&String> = said.iter().filter(|event| event.starts_with("alice: ")).collect();
    assert_eq!(said, ["alice: one", "alice: two"]);
}

/// What became of the lines is told, and why is told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_given_up_tells_what_became_of_the_lines() {
    let Some(scene) = Scene::open("--reconnect-for 3s").await else { return };
    let shown = block_in_place(|| {
        scene.cut();
        scene.terminal.types("one\rtwo\r");
        scene.ends()
    });
    assert!(shown.ends_with("code=255"), "{shown}");
    assert_eq!(shown.matches("gave up after").count(), 1, "{shown}");
    let last = shown.split("rexec: 127.0.0.1: ").nth(1).unwrap();
    assert!(last.contains("; 2 lines were not said"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_none_for_a_prompt_is_named() {
    if !available() {
        return;
    }
    let agent = agent();
    block_in_place(|| {
        let terminal = Terminal::open(&agent, 200, 24);
        terminal.enter(&format!("TERM=dumb; rexec chat {}; echo code=$?", agent.target()));
        terminal.shows("TERM=dumb is no terminal for a prompt: set TERM to what the terminal is");
        terminal.shows_line("code=125");
    });
}

/// Such a terminal joins the rows of a long prompt to fewer ones, and above them are the lines of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_becomes_wider_loses_no_line_above_the_prompt() {
    if !available() {
        return;
    }
    let agent = agent();
    let room = agent.session_as("bob").await.join("lobby").await.unwrap();
    for n in 0..20 {
        room.say(&format!("line {n}")).await.unwrap();
    }
    let typed = "half a line of several rows ".repeat(4);
    // At its end, in its middle, and at its start.
    for keys in [&[][..], &["C-Left"; 10], &["C-a"]] {
        block_in_place(|| {
            let terminal = Terminal::open(&agent, 40, 16);
            terminal.enter(&format!("rexec chat {}", agent.target()));
            terminal.shows("joined: alice");
            terminal.types(typed.trim_end());
            terminal.shows("several rows half a");
            terminal.press(keys);
            terminal.types("!");
            terminal.shows("!");
            // After that, the prompt is drawn anew.
            tokio::runtime::Handle::current().block_on(room.say("line 20")).unwrap();
            terminal.shows("bob: line 20");
            for columns in [60, 90, 150] {
                terminal.resize(columns, 16);
                let prompt = |screen: &str| {
                    let rows = screen.lines().filter(|row| row.starts_with("lobby> "));
                    matches!(rows.collect::<Vec<_>>()[..], [row] if row.len() > 40)
                };
                let is_whole = |screen: &str| {
                    let lines = (16..=20).all(|n| screen.contains(&format!("bob: line {n}\n")));
                    lines && prompt(screen)
                };
                terminal.becomes("all is there once", is_whole);
            }
        });
    }
}
