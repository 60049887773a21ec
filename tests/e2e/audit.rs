//! The audit log of a real agent.

use crate::support::agent::own_user;
use crate::support::proc::eventually;
use crate::support::raw::{Raw, wire};
use crate::support::{SmallDisk, TestAgent, cli, program};
use rexec_client::{NeverStarted, Outcome, Stdio};
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// All of them, the oldest first.
pub fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first record of this kind for which `is` holds, once there is one.
fn wait_for(file: &Path, event: &str, is: impl Fn(&Value) -> bool) -> Value {
    let find = || records(file).into_iter().find(|it| it["event"] == event && is(it));
    eventually(event, || find().is_some());
    find().unwrap()
}

fn verify(agent: &TestAgent) -> Output {
    let mut command = Command::new(program("rexec-agent"));
    command.args(["audit", "verify", "--config"]).arg(agent.path("agent.toml"));
    command.output().unwrap()
}

fn assert_good(agent: &TestAgent) {
    let output = verify(agent);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && said.contains("ok: "), "{output:?}");
}

/// The command itself looks for its record.
#[tokio::test]
async fn a_command_is_on_record_before_it_runs_and_after() {
    let agent = TestAgent::start();
    let (session, file) = (agent.session().await, agent.path("audit.jsonl"));
    let line = format!("grep -F \"$REXEC_JOB\" '{}'; exit 3", file.display());
    let output = session.shell(&line).env("NAME", "a-secret-value").output().await.unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let intent: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(intent["event"], "exec");
    assert_eq!(intent["user"], "alice");
    assert_eq!(intent["argv"][2], line);
    assert_eq!(intent["env_names"], serde_json::json!(["NAME"]));
    assert!(intent["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{intent}");
    assert_eq!(intent["fingerprint"].as_str().unwrap().len(), 64);
    let ended = wait_for(&file, "ended", |it| it["job"] == intent["job"]);
    assert_eq!(ended["outcome"], serde_json::json!({ "kind": "exited", "code": 3 }));
    assert_eq!(ended["stdout"]["bytes"], text.len());
    let hash = rexec_protocol::Digest::of(rexec_protocol::Algorithm::Sha256, text.as_bytes());
    let digest = ended["stdout"]["digest"].as_str().unwrap();
    assert_eq!(digest, format!("sha256:{hash}"));
    assert!(ended["pid"].as_u64().is_some() && ended["usage"]["wall_ms"].as_u64().is_some());
    assert!(!fs::read_to_string(&file).unwrap().contains("a-secret-value"));
    assert_good(&agent);
}

#[tokio::test]
async fn what_does_not_start_is_on_record_too() {
    let agent = TestAgent::start();
    let (session, file) = (agent.session().await, agent.path("audit.jsonl"));
    session.command("no-such-program").output().await.unwrap_err();
    let intent = wait_for(&file, "exec", |it| it["argv"][0] == "no-such-program");
    let ended = wait_for(&file, "ended", |it| it["job"] == intent["job"]);
    assert_eq!(ended["outcome"]["kind"], "never_started");
    assert_eq!(ended["outcome"]["reason"], "not_found");
    session.command("true").user("mallory").output().await.unwrap_err();
    let denied = wait_for(&file, "denied", |it| it["as"] == "mallory");
    assert_eq!(denied["argv"], serde_json::json!(["true"]));
    assert!(denied["reason"].as_str().unwrap().contains("may not run"), "{denied}");
    // No client of ours would ask for this.
    let config = tls::client_config(&Credentials::load(&agent.files()).unwrap()).unwrap();
    let mut raw = Raw::connect(agent.port, &config).unwrap();
    raw.send(&[wire::hello(), wire::exec(1, &[""], false)].concat()).unwrap();
    raw.wait_for("exit");
    let rejected = wait_for(&file, "rejected", |it| it["job"].is_string());
    assert_eq!(rejected["reason"], "the command is empty");
    assert_good(&agent);
}

/// It has accepted nothing, and whoever starts the next agent finds the log closed.
#[test]
fn a_start_that_fails_late_is_no_start_on_record() {
    let mut agent = TestAgent::start();
    let file = agent.path("audit.jsonl");
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(agent.wait().success());
    // Where what is to be handed over is written.
    let in_the_way = agent.path("state/handover.new");
    fs::create_dir(&in_the_way).unwrap();
    assert!(!agent.start_that_fails().success());
    let log = agent.log();
    assert!(log.contains("handover"), "{log}");
    assert_eq!(log.matches("the audit log is open").count(), 2);
    assert_eq!(log.matches("the audit log is closed").count(), 2, "{log}");
    let starts = || records(&file).iter().filter(|it| it["event"] == "agent_started").count();
    assert_eq!(starts(), 1);
    fs::remove_dir(in_the_way).unwrap();
    // Nor is one that cannot listen.
    let taken = std::net::TcpListener::bind(("127.0.0.1", agent.port)).unwrap();
    assert!(!agent.start_that_fails().success());
    assert_eq!(agent.log().matches("the audit log is closed").count(), 3);
    drop(taken);
    agent.start_again();
    wait_for(&file, "agent_started", |it| it["pid"] == agent.pid());
    assert_eq!(starts(), 2);
    assert_good(&agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_go_and_are_refused_are_on_record() {
    let mut agent = TestAgent::start();
    let file = agent.path("audit.jsonl");
    wait_for(&file, "agent_started", |it| it["pid"] == agent.pid());
    let session = agent.session().await;
    session.ping().await.unwrap();
    let connected = wait_for(&file, "connected", |it| it["user"] == "alice");
    drop(session);
    wait_for(&file, "disconnected", |it| it["from"] == connected["from"]);
    let mut stranger = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
    let from = stranger.local_addr().unwrap().to_string();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let refused = wait_for(&file, "refused", |it| it["from"] == from.as_str());
    assert!(!refused["reason"].as_str().unwrap().is_empty());
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(agent.wait().success());
    assert_eq!(records(&file).last().unwrap()["event"], "agent_stopped");
    assert!(agent.log().contains("the audit log is closed"), "the head is in the log");
    assert_good(&agent);
}

#[tokio::test]
async fn words_stay_one_line_and_stdin_is_not_on_record() {
    let agent = TestAgent::start();
    let (session, file) = (agent.session().await, agent.path("audit.jsonl"));
    let word = "a\n{\"seq\":1}\r\x1b[2J\u{202e}\u{2028}\\";
    let mut child = session
        .command("cat")
        .arg("-")
        .arg("--")
        .arg("/dev/null")
        .env("X", word)
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"typed-by-alice").await.unwrap();
    drop(stdin);
    assert!(child.wait().await.unwrap().success());
    session.command("true").arg(word).output().await.unwrap();
    let intent = wait_for(&file, "exec", |it| it["argv"][0] == "true");
    let shown = r#"a\u{a}{"seq":1}\u{d}\u{1b}[2J\u{202e}\u{2028}\\"#;
    assert_eq!(intent["argv"][1], shown);
    let ended = wait_for(&file, "ended", |it| it["stdin"]["bytes"] == 14);
    assert_eq!(ended["user"], "alice");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("typed-by-alice"));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    assert_good(&agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_are_two_thousand_records() {
    let agent = TestAgent::start();
    let (session, file) = (agent.session().await, agent.path("audit.jsonl"));
    let mut tasks = JoinSet::new();
    for n in 0..1000 {
        if tasks.len() == 64 {
            tasks.join_next().await.unwrap().unwrap();
        }
        let session = session.clone();
        tasks.spawn(async move {
            assert!(session.command("true").arg(n.to_string()).status().await.unwrap().success());
        });
    }
    tasks.join_all().await;
    let count = |event: &str| records(&file).iter().filter(|it| it["event"] == event).count();
    eventually("all ends are on record", || count("ended") == 1000);
    assert_eq!(count("exec"), 1000);
    assert_good(&agent);
}

/// What the agent wrote is changed under it.
#[tokio::test]
async fn verify_says_where_a_record_was_changed() {
    let agent = TestAgent::start();
    assert_eq!(cli::code(&agent.run(["true"])), 0);
    let file = agent.path("audit.jsonl");
    wait_for(&file, "ended", |_| true);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"exec\"", "\"exex\"")).unwrap();
    let output = verify(&agent);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("audit.jsonl line 3 (seq 3): was changed"), "{said}");
    fs::remove_file(&file).unwrap();
    assert_eq!(verify(&agent).status.code(), Some(2));
}

#[test]
fn an_agent_without_a_place_for_its_log_does_not_start() {
    let agent = TestAgent::start();
    let config = format!("[audit]\nfile = '{}/audit.jsonl'\n", agent.path("ready").display());
    fs::write(agent.path("other.toml"), config).unwrap();
    let output = Command::new(program("rexec-agent"))
        .arg("--config")
        .arg(agent.path("other.toml"))
        .args(["--listen", "127.0.0.1:0", "--identity"])
        .arg(agent.path("agent.pem"))
        .arg("--authority")
        .arg(agent.path("authority.crt"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("cannot write the audit log") && said.contains("enabled = false"),
        "{said}"
    );
}

/// New commands are refused, running ones go on, and all is well again once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_commands_and_recovers() {
    let Some(disk) = SmallDisk::mount("256k") else { return };
    let file = disk.path("audit.jsonl");
    let agent = TestAgent::with(&format!("[audit]\nfile = '{}'", file.display()));
    let session = agent.session().await;
    let mut running =
        session.shell("read x; echo \"$x\"; exit 5").stdin(Stdio::Piped).spawn().await.unwrap();
    disk.fill();
    // The last block of the file still has some room.
    let mut refused = None;
    for _ in 0..50 {
        refused = session.command("true").arg("x".repeat(500)).status().await.err();
        if refused.is_some() {
            break;
        }
    }
    let error = refused.expect("no command is refused");
    let Outcome::NeverStarted { reason: NeverStarted::AuditUnavailable, message } = error.outcome()
    else {
        panic!("{error:?}")
    };
    assert!(message.starts_with("audit_unavailable: "), "{message}");
    let refused = session.command("touch").arg(disk.path("was-run")).status().await;
    assert!(refused.is_err() && !disk.path("was-run").exists());
    running.stdin.take().unwrap().write_all(b"go on\n").await.unwrap();
    assert_eq!(running.wait().await.unwrap().code(), Some(5));
    disk.drain();
    // By itself, without another command.
    let ended = wait_for(&file, "ended", |it| it["outcome"]["code"] == 5);
    assert_eq!(ended["stdout"]["bytes"], 6);
    wait_for(&file, "rejected", |it| it["reason"].as_str().unwrap().contains("audit_unavailable"));
    wait_for(&file, "resumed", |it| it["dropped"] == 0);
    assert!(session.command("true").status().await.unwrap().success());
    let of = |event: &str| records(&file).iter().filter(|it| it["event"] == event).count();
    eventually("every intent has its end", || of("exec") == of("ended"));
    assert_good(&agent);
}

/// Who may run nothing says as much as it likes, and the disk is everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_fill_neither_the_audit_log_nor_the_agents_own() {
    let user = own_user();
    let agent = TestAgent::with_policy(&format!(
        "[[rule]]\nname = 'alice'\nusers = ['alice']\nas = ['{user}']\ncommands = [['true']]\n"
    ));
    let session = agent.session().await;
    let long = "x".repeat(10_000);
    for _ in 0..400 {
        let refused = session.command("false").arg(&long).output().await.unwrap_err();
        assert!(refused.nothing_ran());
    }
    let log = agent.log();
    let lines = |text| log.lines().filter(|line| line.contains(text)).count();
    assert!((100..300).contains(&lines("command refused")), "{}", lines("command refused"));
    assert_eq!(lines("command requested") + lines("command ended"), 0);
    assert!(log.lines().all(|line| line.len() < 1500));
    assert!(session.command("true").status().await.unwrap().success());
    eventually("it is in the log", || agent.log().contains("command requested"));
}
