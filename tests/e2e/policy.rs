//! What policy decides reaches the command, or the one who asked for it.

use crate::support::agent::own_user;
use crate::support::certs::write_private;
use crate::support::proc::eventually;
use crate::support::{TestAgent, cli, program};
use rexec_client::{Error, NeverStarted, Outcome};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A rule about Alice, as the user that the tests run as.
fn alice(more: &str) -> String {
    let user = own_user();
    format!("[[rule]]\nname = 'alice'\nusers = ['alice']\nas = ['{user}']\n{more}\n")
}

fn denial(result: Result<impl std::fmt::Debug, Error>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Denied { .. }), "{error:?}");
    error.to_string()
}

/// A new version, as an administrator's tools write it.
fn replace(path: &Path, text: &str) {
    let dir = path.parent().unwrap();
    fs::rename(write_private(dir, "policy.new", text), path).unwrap();
}

#[tokio::test]
async fn only_what_a_rule_names_runs() {
    let agent = TestAgent::with_policy(&alice("commands = [['echo', 'a*']]\nenv = ['LC_*']"));
    let session = agent.session().await;
    let output = session.command("echo").arg("a b").output().await.unwrap();
    assert_eq!(output.stdout, b"a b\n");
    let denied = denial(session.command("echo").args(["a", "b"]).output().await);
    assert!(denied.contains("alice may not run 'echo a b'"), "{denied}");
    let denied = denial(session.command("echo").arg("a").env("LANG", "C").output().await);
    assert!(denied.contains("may not set the variable LANG"), "{denied}");
    assert!(session.command("echo").arg("a").env("LC_ALL", "C").output().await.is_ok());
    // A line is for the shell, whatever its words are.
    let output = agent.run(["echo 'a'"]);
    assert_eq!(cli::code(&output), 125, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("-c echo 'a'"), "{output:?}");
}

#[tokio::test]
async fn without_a_policy_everything_is_denied_and_it_says_how_to_begin() {
    let agent = TestAgent::with_policy("");
    let session = agent.session().await;
    let denied = denial(session.command("true").output().await);
    assert!(denied.contains("no policy") && denied.contains("policy.toml: rule = [{"), "{denied}");
}

#[tokio::test]
async fn an_address_that_no_rule_names_is_denied() {
    let agent = TestAgent::with_policy(&alice("commands = 'any'\nfrom = ['192.0.2.0/24']"));
    let session = agent.session().await;
    let denied = denial(session.command("true").output().await);
    assert!(denied.contains("alice may do nothing from 127.0.0.1"), "{denied}");
}

#[tokio::test]
async fn a_forced_command_runs_instead_and_knows_what_was_asked() {
    let force = "force = ['sh', '-c', 'echo \"$REXEC_ORIGINAL_COMMAND\"']";
    let agent = TestAgent::with_policy(&alice(&format!("commands = 'any'\n{force}")));
    let session = agent.session().await;
    let output = session.command("rm").args(["-rf", "a b"]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rm -rf 'a b'\n");
    // Nobody but the agent says what was asked.
    let denied = denial(session.command("x").env("REXEC_ORIGINAL_COMMAND", "lie").output().await);
    assert!(denied.contains("REXEC_ORIGINAL_COMMAND"), "{denied}");
}

#[tokio::test]
async fn the_timeout_of_a_rule_holds_whatever_was_asked() {
    let limits = "commands = 'any'\n[rule.limits]\ntimeout = '200ms'";
    let agent = TestAgent::with_policy(&alice(limits));
    let session = agent.session().await;
    let start = Instant::now();
    for command in [
        session.command("sleep").arg("600"),
        session.command("sleep").arg("600").timeout(Duration::from_secs(500)),
    ] {
        let output = command.output().await.unwrap();
        assert_eq!(output.status.outcome(), &Outcome::TimedOut);
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn the_commands_of_a_rule_are_counted() {
    let limits = "commands = 'any'\n[rule.limits]\ncommands = 1";
    let agent = TestAgent::with_policy(&alice(limits));
    let (session, other) = (agent.session().await, agent.session().await);
    let mut running = session.command("sleep").arg("600").spawn().await.unwrap();
    let error = other.command("true").status().await.unwrap_err();
    let Outcome::NeverStarted { reason: NeverStarted::Busy, message } = error.outcome() else {
        panic!("{error:?}")
    };
    assert!(message.contains("'limits.commands' of the policy's rule 'alice'"), "{message}");
    running.kill().await.unwrap();
    assert!(other.command("true").status().await.unwrap().success());
}

#[tokio::test]
async fn a_new_policy_decides_on_connections_that_are_there() {
    let agent = TestAgent::with_policy(&alice("commands = [['true']]"));
    let file = agent.path("policy.toml");
    let session = agent.session().await;
    assert!(session.command("true").output().await.is_ok());
    replace(&file, "[[rule]]\nname = 'broken'");
    eventually("the agent says that it is broken", || agent.log().contains("the one in use stays"));
    assert!(session.command("true").output().await.is_ok());
    replace(&file, &alice("commands = [['false']]"));
    eventually("the agent takes it", || agent.log().matches("policy loaded").count() == 2);
    denial(session.command("true").output().await);
    fs::remove_file(&file).unwrap();
    eventually("the agent notices", || agent.log().contains("there is no policy"));
    assert!(denial(session.command("false").output().await).contains("no policy"));
}

fn tool(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program("rexec-agent"));
    command.env("REXEC_AGENT_CONFIG", dir.join("agent.toml")).args(words).output().unwrap()
}

#[test]
fn policy_test_explains_and_its_exit_code_tells() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let config =
        format!("policy = '{0}/policy.toml'\npolicy_folder = '{0}/d'", dir.path().display());
    fs::write(path("agent.toml"), config).unwrap();
    let text = format!(
        "[[rule]]\nname = 'others'\nusers = ['bob']\nattach = ['own']\n{}umask = '027'\n",
        alice("commands = [['id']]")
    );
    write_private(dir.path(), "policy.toml", &text);
    let ask = |words: &[&str]| {
        let output = tool(dir.path(), &[&["policy", "test", "--user", "alice"], words].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = ask(&["--", "id"]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "allowed: alice may run 'id'",
        "rule 'alice'",
        "policy.toml:5",
        "umask: 027",
        "rule 'others'",
        "it is about others",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    let (code, said) = ask(&["--line", "id"]);
    assert!(
        code == 1 && said.contains("rule 'alice'") && said.contains("not on its list"),
        "{said}"
    );
    let (code, said) = ask(&["--as", "root-of-all", "--", "id"]);
    assert!(code == 1 && said.contains("for other local users"), "{said}");
    assert_eq!(ask(&["--read", "/x"]).0, 1);
    assert_eq!(ask(&[]).0, 2);
    write_private(dir.path(), "policy.toml", "[[rule");
    let (code, said) = ask(&["--", "id"]);
    assert!(code == 2 && said.contains("policy.toml:1:"), "{said}");
}

#[test]
fn check_runs_the_tests_of_the_policy() {
    let test = "[[test]]\nuser = 'alice'\nrun = ['id']\nexpect = 'deny'\n";
    let agent = TestAgent::start();
    let check = |text: &str| {
        write_private(agent.dir.path(), "policy.toml", text);
        let file = |name: &str| agent.path(name).to_str().unwrap().to_owned();
        let (identity, authority, policy) =
            (file("agent.pem"), file("authority.crt"), file("policy.toml"));
        let words =
            ["--check", "--identity", &identity, "--authority", &authority, "--policy", &policy];
        let output = tool(agent.dir.path(), &words);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (fit, said) = check(&alice(&format!("commands = [['ls']]\n{test}")));
    assert!(fit && said.contains("# policy: ok: 1 rules in 1 files; 1 tests"), "{said}");
    let (fit, said) = check(&alice(&format!("commands = [['id']]\n{test}")));
    assert!(!fit && said.contains("expected deny, decided allow by rule 'alice'"), "{said}");
    let (fit, said) = check("nonsense");
    assert!(!fit && said.contains("policy.toml:1:"), "{said}");
}
