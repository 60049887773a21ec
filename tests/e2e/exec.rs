//! Commands through the client library: words, environment, directory.

use crate::support::{TestAgent, size_from_environment};
use rexec_client::{NeverStarted, Outcome, Stdio};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

#[tokio::test]
async fn output_and_status_come_back() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let output = session.shell("echo out; echo err >&2; exit 7").output().await.unwrap();
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(7));
    assert!(!output.status.success());
}

/// Spaces, quotes, newlines, globs, the empty string, invalid UTF-8 and 100 KB.
#[tokio::test]
async fn words_arrive_as_they_are() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let mut words: Vec<OsString> =
        ["a b", "'", "\"", "$HOME", "*", "a\nb", "", "-n", "--", "\\", "`id`", "ä"]
            .map(Into::into)
            .into();
    words.push(OsString::from_vec(vec![0xff, 0xfe, b'x']));
    words.push("x".repeat(100_000).into());
    let output = session.command("printf").arg("%s\\0").args(&words).output().await.unwrap();
    let arrived: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
    let sent: Vec<&[u8]> = words.iter().map(|word| word.as_encoded_bytes()).collect();
    assert_eq!(arrived[..sent.len()], sent);
    assert_eq!(arrived.len(), sent.len() + 1);
}

#[tokio::test]
async fn a_line_is_the_shells() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let output = session.shell("printf '%s|' a 'b c' \"$((1 + 1))\"").output().await.unwrap();
    assert_eq!(output.stdout, b"a|b c|2|");
}

#[tokio::test]
async fn the_environment_is_built_from_nothing() {
    let agent = TestAgent::prepared("", |command| {
        command.env("LEAKED", "from the agent");
    });
    let session = agent.session().await;
    let output = session.command("env").env("ASKED", "yes").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let expected =
        ["ASKED", "HOME", "LOGNAME", "PATH", "REXEC_CALLER", "REXEC_JOB", "SHELL", "USER"];
    assert_eq!(names, expected);
    assert!(text.contains("REXEC_CALLER=alice\n"), "{text}");
}

#[tokio::test]
async fn the_directory_is_home_or_what_was_asked_for() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let output = session.shell("[ \"$PWD\" = \"$HOME\" ]").output().await.unwrap();
    assert!(output.status.success());
    let output = session.command("pwd").current_dir("/usr/lib").output().await.unwrap();
    assert_eq!(output.stdout, b"/usr/lib\n");
    let error = session.command("pwd").current_dir("/nowhere/at all").output().await.unwrap_err();
    let Outcome::NeverStarted { reason: NeverStarted::Cwd, message } = error.outcome() else {
        panic!("{error:?}")
    };
    assert!(message.contains("/nowhere/at all"), "{message}");
    assert!(error.nothing_ran());
}

#[tokio::test]
async fn a_script_is_sent_along_and_run() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let script = "#!/bin/bash\nread line; echo \"$1|$2|$line\"; exit 3\n";
    let mut child =
        session.script(script).args(["a b", "c"]).stdin(Stdio::Piped).spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.send("from stdin\n".into()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a b|c|from stdin\n");
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn another_user_is_denied() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let error = session.command("id").user("somebody-else").output().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("somebody-else"), "{error}");
}

#[tokio::test]
async fn a_command_too_large_to_send_says_so() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let error = session.command("true").arg("x".repeat(2 << 20)).output().await.unwrap_err();
    assert!(error.to_string().contains("at most 1048576"), "{error}");
    // One word above the kernel's own limit of 128 KiB; see execve(2), MAX_ARG_STRLEN.
    let error = session.command("true").arg("x".repeat(200_000)).output().await.unwrap_err();
    let reason = NeverStarted::TooLarge;
    assert!(matches!(error.outcome(), Outcome::NeverStarted { reason: r, .. } if *r == reason));
    assert!(
        session.command("true").output().await.unwrap().status.success(),
        "the session goes on"
    );
}

#[tokio::test]
async fn pings_are_answered() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    for _ in 0..3 {
        session.ping().await.unwrap();
    }
}

/// One of two hundred has a reader that stalled; the others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_commands_on_one_connection() {
    let agent = TestAgent::with("[limits]\ncommands_per_identity = 200");
    let session = agent.session().await;
    let mut stalled = session.command("cat").arg("/dev/zero").spawn().await.unwrap();
    let commands: Vec<_> = (0..199)
        .map(|n| {
            let session = session.clone();
            let work = async move { session.shell(format!("echo {n}; cat")).output().await };
            (n, tokio::spawn(work))
        })
        .collect();
    for (n, command) in commands {
        let output = command.await.unwrap().unwrap();
        assert_eq!(output.stdout, format!("{n}\n").into_bytes());
    }
    assert_eq!(stalled.kill().await.unwrap().outcome(), &Outcome::Cancelled);
}

/// A process that starts and ends before anyone could look must not lose its output.
#[tokio::test(flavor = "multi_thread")]
async fn short_commands_lose_nothing() {
    let agent = TestAgent::start();
    let session = agent.session().await;
    let runs = size_from_environment("REXEC_TEST_SHORT_RUNS", 1_000);
    let one = |session: rexec_client::Session| async move {
        session.command("echo").arg("here").output().await.unwrap().stdout
    };
    for _ in 0..runs / 10 {
        let tasks: Vec<_> = (0..10).map(|_| tokio::spawn(one(session.clone()))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), b"here\n");
        }
    }
}
