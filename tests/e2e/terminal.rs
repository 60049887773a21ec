//! Commands on a terminal, through the client library: what they see, and what reaches them.

use crate::hostile::agent_side::client_config;
use crate::support::TestAgent;
use crate::support::chaos::{Chaos, Plan};
use crate::support::proc::{eventually, running_with};
use crate::support::raw::{Raw, wire};
use rexec_client::{Child, Connector, Link, Outcome, Place, Session, TerminalSize};
use rexec_protocol::{ErrorCode, Message};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const SIZE: TerminalSize = TerminalSize { columns: 90, rows: 30, width: 0, height: 0 };
const PATIENCE: Duration = Duration::from_secs(20);

/// What a terminal shows, as far as the test has read it.
struct Screen(String);

impl Screen {
    /// Reads on until `part` is there, and forgets all up to it.
    async fn shows(&mut self, child: &mut Child, part: &str) {
        let read = async {
            while !self.0.contains(part) {
                let chunk = child.stdout.as_mut().unwrap().chunk().await.unwrap();
                self.0.push_str(&String::from_utf8_lossy(&chunk.expect("more output")));
            }
        };
        if timeout(PATIENCE, read).await.is_err() {
            panic!("{part:?} is not in {:?}", self.0);
        }
        let at = self.0.find(part).unwrap() + part.len();
        self.0.drain(..at);
    }
}

async fn type_in(child: &mut Child, keys: &str) {
    child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).await.unwrap();
}

async fn on_terminal(session: &Session, line: &str) -> (Child, Screen) {
    let child = session.shell(line).terminal("vt100", SIZE).spawn().await.unwrap();
    assert!(child.has_terminal());
    (child, Screen(String::new()))
}

/// Says its size, and each time that it is told of another. (A shell's trap may miss one of two.)
const SIZES: &str = "perl -e '$| = 1; sub size { print `stty size </dev/tty` } $SIG{WINCH} = \\&size; size; \
                     sleep 1 while 1'";

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_a_terminal_and_its_output_is_one_stream() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = "tty >/dev/null && echo $TERM $LANG ${LC_ALL-none}; stty size; echo err >&2";
    let command = session.shell(line).terminal("vt100", SIZE);
    let locale = [("LANG", "de_DE.UTF-8"), ("LC_ALL", "/tmp/x")];
    let output = command.locale(locale).output().await.unwrap();
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(screen, "vt100 de_DE.UTF-8 none\r\n30 90\r\nerr\r\n");
    assert!(output.stderr.is_empty());
    assert!(output.status.success() && output.status.is_verified());
    assert!(session.jobs().await.unwrap().iter().all(|job| job.terminal));
}

/// The shell knows that it is one for logins, on a terminal and without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_shell_takes_what_is_typed() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut child = session.login().spawn().await.unwrap();
    type_in(&mut child, "echo $0; test -t 0 || echo piped; exit 3\n").await;
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with('-') && text.ends_with("\npiped\n"), "{text}");
    assert_eq!(output.status.code(), Some(3));

    let mut child = session.login().terminal("vt100", SIZE).spawn().await.unwrap();
    let mut screen = Screen(String::new());
    // Not as it is echoed.
    type_in(&mut child, "echo a''b-$(tty)\r").await;
    screen.shows(&mut child, "ab-/dev/pts/").await;
    type_in(&mut child, "exit 4\r").await;
    child.stdout = None;
    assert!(matches!(
        child.wait().await.unwrap().outcome(),
        Outcome::Exited { .. } | Outcome::Cancelled
    ));
}

/// Nothing ends a terminal but what runs there: as with ssh, the end of stdin is not told.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_what_they_are_to_a_terminal() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = "trap 'echo got INT' INT; echo ready; while read -r word; do echo got $word; done; echo end";
    let (mut child, mut screen) = on_terminal(&session, line).await;
    screen.shows(&mut child, "ready").await;
    type_in(&mut child, "\x03").await;
    screen.shows(&mut child, "got INT").await;
    type_in(&mut child, "wrng\x7f\x7f\x7fong\r").await;
    screen.shows(&mut child, "got wong").await;
    type_in(&mut child, "\x04").await;
    screen.shows(&mut child, "end").await;
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_of_the_last_resize_also_after_a_cut() {
    let agent = TestAgent::start();
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let connector = Connector::new(&agent.files()).unwrap();
    let session = connector.connect("127.0.0.1", chaos.port).await.unwrap();
    let (mut child, mut screen) = on_terminal(&session, SIZES).await;
    screen.shows(&mut child, "30 90").await;
    child.resize(TerminalSize { rows: 31, ..SIZE }).await;
    screen.shows(&mut child, "31 90").await;
    // One that happens while there is no connection.
    let mut link = session.link();
    chaos.refuse(true);
    chaos.cut();
    link.wait_for(|link| matches!(link, Link::Away { .. })).await.unwrap();
    child.resize(TerminalSize { rows: 32, ..SIZE }).await;
    chaos.refuse(false);
    screen.shows(&mut child, "32 90").await;
    child.redraw(TerminalSize { rows: 32, ..SIZE }).await;
    screen.shows(&mut child, "32 90").await;
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_a_terminal_with_control_gets_its_keys_and_its_size() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = format!("{SIZES} & trap '' WINCH; while read -r word; do echo got $word; done");
    let (mut child, mut screen) = on_terminal(&session, &line).await;
    screen.shows(&mut child, "30 90").await;
    let job = child.job().clone();
    child.detach().await.unwrap();

    let (mut second, mut screen) = (
        session.attach(job).from(Place::Live {}).control(true).join().await.unwrap(),
        Screen(String::new()),
    );
    assert!(second.has_terminal());
    second.redraw(TerminalSize { columns: 50, ..SIZE }).await;
    screen.shows(&mut second, "30 50").await;
    type_in(&mut second, "word\r").await;
    screen.shows(&mut second, "got word").await;

    // Who only watches sees it all, and changes nothing.
    let mut watcher =
        session.attach(second.job().clone()).from(Place::Live {}).join().await.unwrap();
    watcher.resize(TerminalSize { columns: 20, ..SIZE }).await;
    type_in(&mut second, "seen\r").await;
    Screen(String::new()).shows(&mut watcher, "got seen").await;
    second.kill().await.unwrap();
}

/// F37: the terminal hangs up, and with it all that a shell has started, in whatever group.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_hangs_the_terminal_up() {
    let agent = TestAgent::with("[limits]\nkill_grace = '1h'");
    let session = agent.session().await;
    let mark = format!("2201.{}", agent.pid());
    // It hears of the hang-up itself, does not pass it on, and says so; only HUP ends the job.
    let note = agent.path("note");
    let line = format!(
        "set -m; trap 'echo HUP >{}; exit' HUP; sleep {mark} & echo ready; while :; do sleep 0.01; done",
        note.display()
    );
    let (mut child, mut screen) = on_terminal(&session, &line).await;
    screen.shows(&mut child, "ready").await;
    eventually("it runs", || !running_with(&mark).is_empty());
    drop((child, session));
    eventually("it is gone", || running_with(&mark).is_empty());
    eventually("it was told", || std::fs::read_to_string(&note).is_ok_and(|text| text == "HUP\n"));
}

/// F37: whoever floods a terminal with sizes is cut off; the agent and everybody else go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sizes_harms_nobody_else() {
    let agent = TestAgent::start();
    let (session, flooding) = (agent.session().await, agent.session().await);
    let (mut other, mut screen) = on_terminal(&session, SIZES).await;
    screen.shows(&mut other, "30 90").await;
    let (child, _) = on_terminal(&flooding, "exec sleep 1000").await;
    for rows in 1..20_000 {
        child.resize(TerminalSize { rows, ..SIZE }).await;
    }
    other.resize(TerminalSize { rows: 33, ..SIZE }).await;
    screen.shows(&mut other, "33 90").await;
    other.kill().await.unwrap();
}

/// F37: what a command puts into a terminal by force (TIOCSTI) can only be its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_type_into_no_terminal_but_its_own() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let (mut victim, mut screen) =
        on_terminal(&session, "stty -echo; tty; while read -r word; do echo got $word; done").await;
    screen.shows(&mut victim, "/dev/").await;
    screen.shows(&mut victim, "\r\n").await;
    // Without the right to any terminal: root's other powers are not what this is about.
    let script = r#"for my $name (glob "/dev/pts/[0-9]*") {
            open(my $file, "+<", $name) or next;
            ioctl($file, 0x5412, $_) for split //, "forced\n";
        } print "tried\n";"#;
    let nobody = if nix::unistd::Uid::effective().is_root() {
        "setpriv --reuid 65534 --regid 65534 --clear-groups "
    } else {
        ""
    };
    let line = format!("{nobody}perl -e '{script}'");
    let (mut attacker, mut seen) = on_terminal(&session, &line).await;
    seen.shows(&mut attacker, "tried").await;
    attacker.wait().await.unwrap();
    type_in(&mut victim, "mine\r").await;
    screen.shows(&mut victim, "got ").await;
    screen.shows(&mut victim, "mine").await;
    assert!(!screen.0.contains("forced"));
    victim.kill().await.unwrap();
}

/// Only who controls a job may change its terminal; no client of ours sends it otherwise.
#[test]
fn a_watcher_that_resizes_breaks_the_protocol() {
    let agent = TestAgent::start();
    let mut raw = Raw::connect(agent.port, &client_config(&agent)).unwrap();
    raw.send(&wire::hello()).unwrap();
    raw.send(&wire::exec(1, &["sleep", "1000"], true)).unwrap();
    let job = loop {
        if let Message::Started(started) = raw.next().unwrap().unwrap().message {
            break started.job;
        }
    };
    let flag = |on: bool| vec![if on { 0xc3 } else { 0xc2 }];
    let attach = [
        ("window", wire::uint(1 << 20)),
        ("job", wire::text(job.as_str())),
        ("from", wire::map(&[("live", wire::map(&[]))])),
        ("output", flag(true)),
        ("follow", flag(true)),
        ("control", flag(false)),
    ];
    raw.send(&wire::frame("attach", 2, &attach)).unwrap();
    raw.wait_for("started");
    let size = wire::map(&[("columns", wire::uint(20)), ("rows", wire::uint(20))]);
    raw.send(&wire::frame("resize", 2, &[("size", size)])).unwrap();
    assert_eq!(raw.errors(), [ErrorCode::WrongState]);
}
