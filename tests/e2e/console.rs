//! `rexec-agent ctl`: the console of a running agent.

use crate::rooms::open_to_all;
use crate::support::agent::own_user;
use crate::support::disk::SmallDisk;
use crate::support::proc::eventually;
use crate::support::tmux;
use crate::support::{TestAgent, program};
use nix::unistd::Uid;
use rexec_client::{Connector, OnDisconnect, Outcome};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::task::block_in_place;

impl TestAgent {
    /// `rexec-agent ctl WORDS…`.
    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        self.ctl_command().args(words).stdin(Stdio::null()).output().unwrap()
    }

    fn ctl_command(&self) -> Command {
        let mut command = Command::new(program("rexec-agent"));
        command.arg("--config").arg(self.path("agent.toml")).arg("ctl");
        command
    }

    /// The data of the answer; the action must have been done.
    fn data(&self, words: &[&str]) -> Value {
        let output = self.ctl(&[&["--json"], words].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success() && answer["ok"] == true, "{words:?}: {answer}");
        answer["data"].clone()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn agent() -> TestAgent {
    TestAgent::with_both("[limits]\nkill_grace = '200ms'", &open_to_all())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_what_the_agent_does() {
    let agent = agent();
    let session = agent.session().await;
    let mut child = session.command("sleep").arg("1000").spawn().await.unwrap();
    let _room = session.join("lobby").await.unwrap();
    let status = agent.data(&["status"]);
    assert_eq!((&status["state"], &status["pid"]), (&"running".into(), &agent.pid().into()));
    for (key, value) in [("connections", 1), ("jobs_running", 1), ("rooms", 1), ("members", 1)] {
        assert_eq!(status[key], value, "{key}: {status}");
    }
    let who = agent.data(&["who"]);
    assert_eq!((&who[0]["user"], &who[0]["rooms"][0]), (&"alice".into(), &"lobby".into()));
    assert_eq!(who[0]["jobs"][0], child.job().as_str());
    let jobs = agent.data(&["jobs"]);
    assert_eq!(jobs[0]["job"], child.job().as_str());
    let table = text(&agent.ctl(&["jobs"]));
    assert!(table.starts_with("JOB ") && table.contains("sleep 1000"), "{table}");
    assert!(text(&agent.ctl(&["who"])).starts_with("ID "));
    let rooms = serde_json::json!([{"room": "lobby", "members": 1, "lines": 0}]);
    assert_eq!(agent.data(&["rooms"]), rooms);
    assert!(text(&agent.ctl(&["rooms"])).starts_with("ROOM "));
    let output = agent.ctl(&["reboot"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("'reboot' means nothing here"), "{output:?}");
    child.kill().await.unwrap();
}

/// Otherwise it would only read that its command was cancelled, by whomever.
#[test]
fn who_runs_a_command_is_told_that_an_operator_ends_it() {
    let agent = agent();
    let mut command = agent.rexec();
    command.args([&agent.target(), "echo up; sleep 1000"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    client.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let job = agent.data(&["jobs"])[0]["job"].as_str().unwrap().to_owned();
    agent.data(&["kill", &job]);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let user = if Uid::effective().is_root() { "root".to_owned() } else { own_user() };
    let warning = format!(
        "rexec: warning: an operator of the agent's machine (local:{user}) ends job {job}\n"
    );
    assert!(said.starts_with(&warning), "{said}");
    assert_eq!(output.status.code(), Some(130), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kick_and_kill_end_what_they_name() {
    let agent = agent();
    let (alice, bob) = (agent.session().await, agent.session_as("bob").await);
    let mut child = bob.command("sleep").arg("1000").spawn().await.unwrap();
    agent.data(&["kill", child.job().as_str()]);
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
    assert_eq!(agent.ctl(&["kill", child.job().as_str()]).status.code(), Some(1));
    // A part of a long id is enough, if it is a part of one.
    let mut one = bob.command("sleep").arg("1000").spawn().await.unwrap();
    let mut two = bob.command("sleep").arg("1000").spawn().await.unwrap();
    let (id, other) = (one.job().as_str().to_owned(), two.job().as_str().to_owned());
    let output = agent.ctl(&["kill", &id[..4]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&id) && text(&output).contains(&other), "{output:?}");
    assert_eq!(agent.data(&["kill", &id[24..]])["job"], *id);
    assert_eq!(one.wait().await.unwrap().outcome(), &Outcome::Cancelled);
    two.kill().await.unwrap();
    let mut room = alice.join("lobby").await.unwrap();
    assert_eq!(agent.data(&["kick", "alice", "go", "home"])["kicked"], 1);
    // Whoever is kicked is told why, and does not come back by itself.
    let error = loop {
        match room.next().await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("go home"), "{error}");
    assert_eq!(agent.ctl(&["kick", "alice"]).status.code(), Some(1));
    assert!(bob.ping().await.is_ok());
    let number = agent.data(&["who"])[0]["id"].to_string();
    agent.data(&["kick", &number]);
    eventually("nobody is there", || agent.data(&["status"])["connections"] == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_takes_no_new_commands_and_waits_for_the_running() {
    let agent = agent();
    let session = agent.session().await;
    let mut child = session.command("cat").spawn().await.unwrap();
    let mut draining = agent.ctl_command();
    draining.arg("drain").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut draining = draining.spawn().unwrap();
    // Whoever waits knows for what, and how to go on.
    let mut told = String::new();
    BufReader::new(draining.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert_eq!(
        told,
        "waiting for 1 command; Ctrl-C stops waiting, and the agent stays draining until 'drain off'\n"
    );
    eventually("it drains", || agent.data(&["status"])["state"] == "draining");
    let error = session.command("true").status().await.unwrap_err();
    assert!(error.to_string().contains("being drained") && error.nothing_ran(), "{error}");
    // A connection that breaks now comes back to its command; new connections are welcome.
    assert!(agent.session().await.ping().await.is_ok());
    assert!(draining.try_wait().unwrap().is_none(), "a command still runs");
    drop(child.stdin.take());
    child.wait().await.unwrap();
    let output = draining.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).contains("drained"), "{output:?}");
    agent.data(&["drain", "off"]);
    assert_eq!(session.command("true").status().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_log_level_and_quit() {
    let mut agent = agent();
    assert_eq!(agent.data(&["reload"])["policy"], "as before");
    fs::write(agent.path("policy.toml"), "[[rule]]\nname = 'x'\nusers = ['alice']\nwho = true\n")
        .unwrap();
    // The agent may see it by itself first.
    agent.data(&["reload"]);
    assert_eq!(agent.data(&["status"])["rules"], 1);
    fs::write(agent.path("policy.toml"), "[[rule]]\nnonsense").unwrap();
    let output = agent.ctl(&["reload"]);
    assert_eq!(agent.data(&["status"])["rules"], 1);
    assert!(text(&output).contains("policy"), "{output:?}");
    assert_eq!(agent.data(&["log-level"])["level"], "debug");
    agent.data(&["log-level", "warn"]);
    let before = agent.log().len();
    agent.data(&["status"]);
    assert_eq!(agent.log().len(), before, "nothing is said at this level");
    for bad in ["a=b=c", "inof", "x\x1b[2J"] {
        let output = agent.ctl(&["log-level", bad]);
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
        assert!(text(&output).contains("no level of the log") && !text(&output).contains('\x1b'));
    }
    assert_eq!(agent.data(&["log-level"])["level"], "warn");
    agent.data(&["log-level", "debug"]);
    agent.data(&["status"]);
    assert!(agent.log().len() > before);
    agent.data(&["quit"]);
    assert!(agent.wait().success());
    let output = agent.ctl(&["status"]);
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(2), ""));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("does the agent run"), "{said}");
    // Help is there without one.
    let output = agent.ctl(&["help"]);
    assert!(output.status.success() && text(&output).contains("log-level [LEVEL]"), "{output:?}");
    let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    let quits = audit.lines().filter(|line| line.contains("\"console\"") && line.contains("quit"));
    assert_eq!(quits.count(), 1, "{audit}");
}

/// The look that comes by itself has seen it before, and says it in the log only.
#[test]
fn what_is_refused_is_told_as_long_as_it_is() {
    let agent = agent();
    assert_eq!(agent.data(&["status"])["refused"], serde_json::json!({}));
    let right = fs::read_to_string(agent.path("policy.toml")).unwrap();
    let pem = fs::read_to_string(agent.path("agent.pem")).unwrap();
    for (name, good, what, log) in [
        ("policy.toml", &right, "policy", "the new policy cannot be used"),
        ("agent.pem", &pem, "certificates", "the new certificate files cannot be used"),
    ] {
        fs::write(agent.path(name), "nonsense").unwrap();
        eventually("it is refused", || agent.log().contains(log));
        for _ in 0..2 {
            let output = agent.ctl(&["reload"]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let line = format!("{what}: the version on disk is refused: ");
            assert!(text(&output).contains(&line) && text(&output).contains(name), "{output:?}");
        }
        let output = agent.ctl(&["--json", "reload"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.code() == Some(1) && answer["ok"] == false, "{answer}");
        let told = answer["data"][what].as_str().unwrap();
        assert!(told.starts_with("the version on disk is refused: "), "{answer}");
        let status = agent.data(&["status"]);
        assert!(status["refused"][what].as_str().unwrap().contains(name), "{status}");
        let table = text(&agent.ctl(&["status"]));
        assert!(table.contains(&format!("\nrefused      {what}: the version on disk")), "{table}");
        fs::write(agent.path(name), good).unwrap();
        agent.data(&["reload"]);
        assert_eq!(agent.data(&["status"])["refused"], serde_json::json!({}));
    }
}

/// 2 is for an agent that does not answer.
#[test]
fn a_reader_that_has_left_is_no_agent_that_is_gone() {
    let agent = agent();
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let near = OwnedFd::from(near);
    let mut command = agent.ctl_command();
    let command = command.arg("status").stdin(Stdio::null()).stdout(near).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(141), &b""[..]), "{output:?}");
}

/// As SIGTERM does: the next agent has the command, and the client is there again.
#[tokio::test(flavor = "multi_thread")]
async fn quit_leaves_running_commands_to_the_next_agent() {
    let mut agent = agent();
    let session = agent.session().await;
    let mut child = session.command("cat").spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"one").await.unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"one");
    assert_eq!(agent.data(&["quit"])["jobs_running"], 1);
    assert!(block_in_place(|| agent.wait()).success());
    block_in_place(|| agent.start_again());
    stdin.write_all(b"two").await.unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"two");
    // And the next one knows it as its own.
    assert_eq!(agent.data(&["jobs"])[0]["job"], child.job().as_str());
    agent.data(&["kill", child.job().as_str()]);
    assert_eq!(child.wait().await.unwrap().outcome(), &Outcome::Cancelled);
}

/// As SIGINT does. Once it is decided what becomes of the commands, they can only be ended.
#[tokio::test(flavor = "multi_thread")]
async fn quit_waits_for_running_commands_or_ends_them() {
    let mut agent = agent();
    let session = agent.session().await;
    let mut child = session.command("cat").spawn().await.unwrap();
    agent.data(&["quit", "wait"]);
    assert_eq!(agent.data(&["status"])["state"], "stopping");
    for words in [&["quit"][..], &["quit", "wait"]] {
        assert!(text(&agent.ctl(words)).contains("stops already"), "{words:?}");
    }
    let output = agent.ctl(&["drain", "off"]);
    assert!(text(&output).contains("takes no new commands any more"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&agent.ctl(&["drain"])).contains("1 command still runs"));
    drop(child.stdin.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(block_in_place(|| agent.wait()).success());
    block_in_place(|| agent.start_again());
    let session = agent.session().await;
    let mut child = session.command("cat").spawn().await.unwrap();
    agent.data(&["quit", "wait"]);
    agent.data(&["quit", "now"]);
    assert_ne!(child.wait().await.unwrap().code(), Some(0));
    assert!(block_in_place(|| agent.wait()).success());
}

/// Nobody waits for the end of a detached job: it is neither held up for nor ended, whoever looks on.
#[tokio::test(flavor = "multi_thread")]
async fn quit_wait_leaves_what_goes_on_without_a_client() {
    let config = "[limits]\nkill_grace = '200ms'\ndrain = '300ms'";
    let mut agent = TestAgent::with_both(config, &open_to_all());
    let session = agent.session().await;
    let gate = agent.path("gate");
    let line = format!("until test -e {}; do sleep 0.01; done; exit 7", gate.display());
    let detached = session.shell(&line).detach().await.unwrap();
    let kept = session.shell(&line).on_disconnect(OnDisconnect::Keep {}).spawn().await.unwrap();
    let mut watcher = session.attach(detached).output(false).join().await.unwrap();
    let mut kept = kept;
    let other = agent.session().await;
    let mut ended = other.command("sleep").arg("1000").spawn().await.unwrap();
    agent.data(&["quit", "wait"]);
    assert_ne!(ended.wait().await.unwrap().code(), Some(0), "its time was over");
    assert!(block_in_place(|| agent.wait()).success());
    block_in_place(|| agent.start_again());
    fs::write(gate, "").unwrap();
    assert_eq!(watcher.wait().await.unwrap().code(), Some(7));
    assert_eq!(kept.wait().await.unwrap().code(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_keeps_even_root_from_something() {
    let rule =
        "[[rule]]\nname = 'no-quit'\neffect = 'deny'\nusers = ['*']\nctl = ['quit', 'kick']\n";
    let agent = TestAgent::with_both("", &(rule.to_owned() + &open_to_all()));
    let output = agent.ctl(&["quit", "now"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("rule 'no-quit'"), "{output:?}");
    agent.data(&["status"]);
    let audit = agent.path("audit.jsonl");
    eventually("it is on record", || {
        let text = fs::read_to_string(&audit).unwrap();
        text.lines().any(|line| line.contains("\"console\"") && line.contains("no-quit"))
    });
}

/// Each of them waits for a command that does not end.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_drains_leave_the_console_to_others() {
    let agent = agent();
    let session = agent.session().await;
    let _child = session.command("cat").spawn().await.unwrap();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(agent.path("state/console.sock")).unwrap();
        stream.write_all(b"{\"words\":[\"drain\"]}\n").unwrap();
    }
    eventually("the console answers", || agent.ctl(&["status"]).status.success());
    assert_eq!(agent.data(&["status"])["state"], "draining");
}

#[test]
fn the_seventeenth_console_is_told_that_there_are_sixteen() {
    let agent = agent();
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut stream = UnixStream::connect(agent.path("state/console.sock")).unwrap();
        stream.write_all(b"{\"words\":[\"who\"]}\n").unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        idle.push(stream);
    }
    let output = agent.ctl(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output).contains("has its 16 consoles open already"), "{output:?}");
    let output = agent.ctl(&["--json", "status"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    drop(idle.pop());
    eventually("there is a place again", || agent.ctl(&["status"]).status.success());
}

#[test]
fn help_as_json_is_json() {
    let agent = agent();
    let output = agent.ctl(&["--json", "help"]);
    let help: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&help["ok"], &help["data"][5]["words"]), (&true.into(), &"kill JOB".into()));
    assert!(help["text"].as_str().unwrap().contains("\nexit "), "{help}");
    let mut command = agent.ctl_command();
    command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"help\nkill\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<Value> =
        text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers[0]["data"], help["data"]);
    assert!(answers[1]["text"].as_str().unwrap().starts_with("usage: kill JOB"), "{answers:?}");
}

/// In a pipe the same words, a line each. That all were done is success, and nothing else.
#[test]
fn words_come_from_a_pipe_as_well() {
    let agent = agent();
    let mut command = agent.ctl_command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"status\n\nhelp\nreboot\nwho\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = text(&output);
    for part in ["state        running", "log-level [LEVEL]", "ID  USER", "means nothing here"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(output.status.code(), Some(1));
}

/// The other way round, what happened could be on no record.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_on_record_is_not_done() {
    let Some(disk) = SmallDisk::mount("256k") else { return };
    let config = format!("[audit]\nfile = '{}'", disk.path("audit.jsonl").display());
    let agent = TestAgent::with_both(&config, &open_to_all());
    let session = agent.session().await;
    let _child = session.command("sleep").arg("1000").spawn().await.unwrap();
    disk.fill();
    // The last block of the file still has some room.
    let long = "x".repeat(500);
    let mut words = String::new();
    for _ in 0..50 {
        words = text(&agent.ctl(&["kick", "nobody-at-all", &long]));
        if words.contains("nothing was done") {
            break;
        }
    }
    assert!(words.contains("nothing was done: audit_unavailable"), "{words}");
    let output = agent.ctl(&["kick", "alice"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("nothing was done"));
    assert!(session.ping().await.is_ok());
    // To look is possible all the same.
    assert_eq!(agent.data(&["status"])["jobs_running"], 1);
    disk.drain();
    eventually("it is possible again", || agent.ctl(&["kick", "alice"]).status.success());
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let agent = agent();
    let path = agent.path("state/console.sock");
    for bad in [&b"\n"[..], b"{}\n", b"[1,2]\n", b"{\"words\":[1]}\n", b"\xff\xfe\n"] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(bad).unwrap();
        let mut answer = [0; 256];
        let n = stream.read(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).contains("\"ok\":false"), "{bad:?}");
    }
    // What is behind the longest line there may be is no request.
    let mut long = UnixStream::connect(&path).unwrap();
    let two = [&[b'x'; 64 * 1024][..], b"{\"words\":[\"quit\"]}\n"].concat();
    long.write_all(&two).unwrap();
    let mut answers = Vec::new();
    // The end may come as a reset: not all was read.
    let _ = long.read_to_end(&mut answers);
    assert!(String::from_utf8_lossy(&answers).matches("\"ok\"").count() <= 1);
    // A line without end, and nothing at all.
    let mut endless = UnixStream::connect(&path).unwrap();
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    drop(endless);
    let _silent: Vec<UnixStream> = (0..10).map(|_| UnixStream::connect(&path).unwrap()).collect();
    agent.data(&["status"]);
}

/// The folder, the socket's mode and the kernel's word, one by one.
#[test]
fn nobody_else_gets_to_the_console() {
    let agent = agent();
    let path = agent.path("state/console.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(agent.path("state")).unwrap().permissions().mode() & 0o777, 0o700);
    if !Uid::effective().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups"]).arg(program("rexec-agent"));
        command.arg("--config").arg(agent.path("agent.toml")).arg("ctl").args(words);
        command.stdin(Stdio::null()).output().unwrap()
    };
    // However open the way is.
    for (name, mode) in
        [("", 0o755), ("agent.toml", 0o644), ("state", 0o755), ("state/console.sock", 0o666)]
    {
        let file = if name.is_empty() { agent.dir.path().to_owned() } else { agent.path(name) };
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = as_nobody(&["status"]);
    let said = text(&output);
    if said.is_empty() {
        println!("skipped: nobody may not run the program: {output:?}");
        return;
    }
    assert_ne!(output.status.code(), Some(0));
    assert!(said.contains("the console is for root and root, not for uid 65534"), "{output:?}");
    assert!(agent.log().contains("somebody else is at the console"), "{}", agent.log());
    let audit = agent.path("audit.jsonl");
    eventually("it is on record", || {
        let records = fs::read_to_string(&audit).unwrap();
        records.lines().any(|line| line.contains("\"console\"") && line.contains("\"uid\":65534"))
    });
}

/// A number is a connection's, if there is one; whoever is called like that can be kicked by another word.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_means_the_connection() {
    let agent = agent();
    let (alice, one) = (agent.session().await, agent.session_as("1").await);
    one.ping().await.unwrap();
    let who = agent.data(&["who"]);
    assert_eq!((&who[0]["id"], &who[0]["user"]), (&1.into(), &"alice".into()), "{who}");
    assert_eq!((&who[1]["id"], &who[1]["user"]), (&2.into(), &"1".into()), "{who}");
    assert_eq!(agent.data(&["kick", "1"])["kicked"], 1);
    one.ping().await.unwrap();
    eventually("alice is gone", || agent.data(&["status"])["connections"] == 1);
    assert_eq!(agent.data(&["kick", "1"])["kicked"], 1);
    eventually("nobody is there", || agent.data(&["status"])["connections"] == 0);
    drop((alice, one));
}

/// What it is, by whom, and that it was asked for at all.
#[tokio::test(flavor = "multi_thread")]
async fn every_action_is_on_record() {
    let mut agent = agent();
    let session = agent.session().await;
    let child = session.command("sleep").arg("1000").spawn().await.unwrap();
    let id = child.job().as_str().to_owned();
    let help = agent.data(&["help"]);
    let actions: [&[&str]; 10] = [
        &["status"],
        &["who"],
        &["rooms"],
        &["jobs"],
        &["kill", &id],
        &["kick", "alice", "go", "home"],
        &["drain"],
        &["reload"],
        &["log-level", "info"],
        &["quit"],
    ];
    for words in actions {
        agent.data(words);
    }
    assert!(block_in_place(|| agent.wait()).success());
    let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    let records = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seen: Vec<Value> = records.filter(|record| record["event"] == "console").collect();
    let words: Vec<&Value> = seen.iter().map(|record| &record["words"]).collect();
    let expected: Vec<Value> = actions.iter().map(|&words| words.into()).collect();
    assert_eq!(words, expected.iter().collect::<Vec<_>>());
    let mut names: Vec<&str> = actions.iter().map(|words| words[0]).collect();
    names.sort_unstable();
    let words = help.as_array().unwrap().iter().map(|row| row["words"].as_str().unwrap());
    let mut all: Vec<&str> = words.map(|words| words.split(' ').next().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(names, all, "an action has no row here");
    let uid = Uid::effective().as_raw();
    assert!(seen.iter().all(|record| record["uid"] == uid && record["user"].is_string()));
}

/// On a terminal: what is typed is completed, by what there is just now.
#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_completes_what_is_typed() {
    if !tmux::available() {
        return;
    }
    let mut agent = agent();
    let session = agent.session().await;
    let child = session.command("sleep").arg("1000").spawn().await.unwrap();
    let id = child.job().as_str().to_owned();
    // Ended, but kept: there is nothing to kill.
    let target = agent.target();
    let mut detached = agent.rexec();
    block_in_place(|| {
        assert!(detached.args(["-d", &target, "true"]).output().unwrap().status.success());
        eventually("one has ended", || {
            let jobs = agent.data(&["jobs"]);
            jobs.as_array().unwrap().iter().any(|job| job["outcome"].is_object())
        });
        let terminal = tmux::Terminal::open(&agent, 120, 40);
        let (program, config) = (program("rexec-agent"), agent.path("agent.toml"));
        terminal.enter(&format!("{} --config {} ctl", program.display(), config.display()));
        terminal.shows_line("rexec-agent>");
        let completes = |typed: &str, whole: &str| {
            terminal.types(typed);
            terminal.press(&["Tab"]);
            terminal.shows_line(&format!("rexec-agent> {whole}"));
            terminal.press(&["Enter"]);
        };
        completes("st", "status");
        terminal.shows_line("state        running");
        completes("kill ", &format!("kill {id}"));
        terminal.shows_line(&format!("job {id} is being ended"));
        completes("kick al", "kick alice");
        terminal.shows_line("one connection is ended");
        completes("log-level i", "log-level info");
        terminal.shows_line("logging info");
        completes("qu", "quit");
        terminal.shows("stopping; running commands are left");
        assert!(agent.wait().success());
        // The prompt is there, the agent is not.
        terminal.enter("status");
        terminal.shows_line("rexec-agent: the agent has closed the console");
        terminal.is_back();
    });
    drop((child, session));
}

/// Who has waited long enough is at the prompt again, and not in the shell.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_waiting_and_leaves_the_prompt() {
    if !tmux::available() {
        return;
    }
    let agent = agent();
    let session = agent.session().await;
    let _child = session.command("cat").spawn().await.unwrap();
    block_in_place(|| {
        let terminal = tmux::Terminal::open(&agent, 120, 40);
        let (program, config) = (program("rexec-agent"), agent.path("agent.toml"));
        terminal.enter(&format!("{} --config {} ctl", program.display(), config.display()));
        terminal.shows_line("rexec-agent>");
        terminal.enter("drain");
        terminal.shows("waiting for 1 command; Ctrl-C stops waiting");
        terminal.press(&["C-c"]);
        terminal.becomes("the prompt is there again", |screen| {
            screen.trim_end().ends_with("rexec-agent>")
        });
        terminal.enter("status");
        terminal.shows_line("state        draining");
        terminal.enter("drain off");
        terminal.shows_line("new commands are taken again");
        terminal.enter("exit");
        terminal.is_back();
    });
}

/// The reconnecting client of before is not let in by a kick of its own: it has to be called again.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_kicked_may_be_called_again() {
    let agent = agent();
    let session = agent.session().await;
    session.ping().await.unwrap();
    agent.data(&["kick", "alice"]);
    let connector = Connector::new(&agent.files()).unwrap();
    let again = connector.connect("127.0.0.1", agent.port).await.unwrap();
    again.ping().await.unwrap();
}
