//! Every way a command can end, through the library and through the program alike.

use crate::support::cli::code;
use crate::support::{TestAgent, program};
use rexec_client::{Outcome, Signal};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

#[tokio::test]
async fn all_exit_codes() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    for code in 0..=255 {
        let status = session.shell(format!("exit {code}")).status().await.unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[tokio::test]
async fn death_by_signal() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    for (name, signal) in [("KILL", Signal::KILL), ("TERM", Signal::TERM), ("HUP", Signal::HUP)] {
        let status = session.shell(format!("kill -{name} $$")).status().await.unwrap();
        assert_eq!(status.signal(), Some(signal));
    }
}

#[tokio::test]
async fn signals_reach_the_process_group() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let line = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.01; done";
    let mut child = session.shell(line).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"ready\n");
    child.signal("USR1".parse().unwrap()).await;
    assert_eq!(&*stdout.chunk().await.unwrap().unwrap(), b"got it\n");
    assert_eq!(child.wait().await.unwrap().code(), Some(9));
}

#[tokio::test]
async fn a_timeout_is_the_agents() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let command = session.shell("echo begun; sleep 600").timeout(Duration::from_millis(300));
    let output = command.output().await.unwrap();
    assert_eq!(output.status.outcome(), &Outcome::TimedOut);
    assert_eq!(output.stdout, b"begun\n");
}

/// Exit code, `--json` and `--status-fd` tell the same story.
#[test]
fn code_json_and_status_fd_agree() {
    let agent = TestAgent::start();
    let file = agent.path("not-executable");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    for (options, words, outcome, expected) in [
        (&[][..], &["exit 0"][..], "exited", 0),
        (&[], &["exit 7"], "exited", 7),
        (&[], &["kill -9 $$"], "signaled", 137),
        (&["--timeout", "200ms"], &["sleep", "60"], "timed_out", 124),
        (&[], &["/no/such/program", "x"], "never_started", 127),
        (&[], &["no-such-program", "x"], "never_started", 127),
        (&[], &[file, "x"], "never_started", 126),
        (&["--cwd", "/no/such/dir"], &["true"], "never_started", 126),
        (&["-l", "somebody-else"], &["true"], "denied", 125),
        (&["-o", "Bogus=1"], &["true"], "local", 125),
        (&["-i", "/no/such/identity"], &["true"], "local", 125),
        (&["-p", "1"], &["true"], "unreachable", 255),
    ] {
        let target = if outcome == "unreachable" { "127.0.0.1".to_owned() } else { agent.target() };
        let plain = agent.rexec().args(options).arg(&target).args(words).output().unwrap();
        assert_eq!(code(&plain), expected, "{words:?} {plain:?}");

        let json =
            agent.rexec().args(options).arg("--json").arg(&target).args(words).output().unwrap();
        assert_eq!(code(&json), expected, "{json:?}");
        let last = String::from_utf8(json.stdout).unwrap();
        let exit: Value = serde_json::from_str(last.lines().last().unwrap_or_default()).unwrap();
        assert_eq!((&exit["type"], &exit["outcome"]), (&"exit".into(), &outcome.into()), "{exit}");
        assert_eq!(exit["code"], expected, "{exit}");

        let (output, status) = with_status_fd(&agent, options, &target, words);
        assert_eq!(code(&output), expected, "{output:?}");
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!((&status["outcome"], &status["code"]), (&exit["outcome"], &exit["code"]));
        let spoke = !plain.stderr.is_empty();
        assert_eq!(
            spoke,
            outcome != "exited",
            "{words:?}: {}",
            String::from_utf8_lossy(&plain.stderr)
        );
    }
}

/// Runs `rexec --status-fd 3`, with descriptor 3 going to a file.
fn with_status_fd(
    agent: &TestAgent,
    options: &[&str],
    target: &str,
    words: &[&str],
) -> (Output, String) {
    let file = agent.path("status");
    let mut command = Command::new("sh");
    let rexec = agent.rexec();
    for (name, value) in rexec.get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command
        .args(["-c", "exec 3>\"$0\"; exec \"$@\" </dev/null"])
        .arg(&file)
        .arg(program("rexec"))
        .args(options)
        .args(["--status-fd", "3", target])
        .args(words)
        .output()
        .unwrap();
    (output, std::fs::read_to_string(file).unwrap())
}

#[test]
fn who_types_a_line_in_several_words_is_told_how() {
    let agent = TestAgent::start();
    let output = agent.rexec().args([&agent.target(), "cd", "/tmp"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 127, "{said}");
    assert!(said.contains("cannot find 'cd'") && said.contains("--shell"), "{said}");
}
