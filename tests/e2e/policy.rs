//! What policy decides reaches the command, or the one who asked for it.

use crate::support::agent::own_user;
use crate::support::certs::write_private;
use crate::support::proc::eventually;
use crate::support::{TestAgent, cli, program};
use rexec_client::{Error, JobId, NeverStarted, Outcome, Session, Signal};
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

/// Stdout of a line; or, where this machine cannot enforce the rule's limit, nothing, and it says so.
async fn said(session: &Session, line: &str) -> Option<String> {
    match session.shell(line).output().await {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("this machine cannot enforce that"), "{message}");
            eprintln!("skipped: {message}");
            None
        }
    }
}

#[tokio::test]
async fn a_rule_sets_umask_and_descriptors() {
    let more = "commands = 'any'\numask = '027'\nlimits = { open_files = 77 }";
    let agent = TestAgent::with_policy(&alice(more));
    let session = agent.session().await;
    let told = said(&session, "umask; ulimit -Sn; ulimit -Hn").await.unwrap();
    assert_eq!(told, "0027\n77\n77\n");
}

#[tokio::test]
async fn a_command_that_wants_too_much_memory_is_killed_and_the_user_is_told_why() {
    let more = "commands = 'any'\nlimits = { memory = '48MiB' }";
    let agent = TestAgent::with_policy(&alice(more));
    let session = agent.session().await;
    if said(&session, "echo small").await.is_none() {
        return;
    }
    // It waits for the end of the first line, and keeps all of it. Others are not touched.
    let output = agent.run(["tail", "-n", "1", "/dev/zero"]);
    assert_eq!(cli::code(&output), 137);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("out of memory"), "{words}");
    assert_eq!(said(&session, "echo there").await.unwrap(), "there\n");
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_rule() {
    let agent = TestAgent::with_policy(&alice("commands = 'any'\nlimits = { processes = 20 }"));
    let session = agent.session().await;
    if said(&session, "echo").await.is_none() {
        return;
    }
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 600";
    let mut bomb = session.shell(bomb).timeout(Duration::from_secs(2)).spawn().await.unwrap();
    // Meanwhile, and after it.
    assert_eq!(said(&session, "echo meanwhile").await.unwrap(), "meanwhile\n");
    let outcome = bomb.wait().await.unwrap().outcome().clone();
    // The shell may give up by itself.
    assert!(matches!(outcome, Outcome::TimedOut | Outcome::Exited { .. }), "{outcome:?}");
    assert_eq!(said(&session, "echo after").await.unwrap(), "after\n");
}

/// A client that asks for the end so gently that nothing ends buys no time with it.
#[tokio::test]
async fn a_gentle_cancel_does_not_outlast_the_timeout_of_a_rule() {
    let more = "commands = 'any'\nlimits = { timeout = '300ms' }";
    let agent = TestAgent::with_policy(&alice(more));
    let session = agent.session().await;
    let mut child = session.command("sleep").arg("600").spawn().await.unwrap();
    let start = Instant::now();
    child.cancel_with(Signal::from_number(28).unwrap(), Duration::from_secs(60)).await;
    let status = child.wait().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(25), "{status:?} after {:?}", start.elapsed());
}

/// What is left in the background would be free of the limits that its command had.
#[tokio::test]
async fn a_limited_command_leaves_nothing_behind() {
    let agent = TestAgent::with_policy(&alice("commands = 'any'\nlimits = { timeout = '1h' }"));
    let session = agent.session().await;
    let line = "sleep 600 >/dev/null 2>&1 & echo $!";
    let output = session.shell(line).output().await.unwrap();
    let pid = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    eventually("it is ended", || !Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn a_forced_command_runs_at_home_whatever_directory_was_asked_for() {
    let agent = TestAgent::with_policy(&alice("commands = 'any'\nforce = ['pwd']"));
    let session = agent.session().await;
    let home = nix::unistd::User::from_name(&own_user()).unwrap().unwrap().dir;
    let output = session.command("x").current_dir("/tmp").output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), home.to_str().unwrap());
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

/// Who may not come to jobs comes to none by sending again what it has sent before, and hears nothing of
/// one that has ended; nor is it told that nothing ran.
#[tokio::test]
async fn who_may_not_attach_joins_nothing_either() {
    let agent = TestAgent::with_policy(&alice("commands = 'any'"));
    let file = agent.path("policy.toml");
    let session = agent.session().await;
    let running = || session.shell("sleep 1000").id(JobId::new("running").unwrap());
    let mut child = running().spawn().await.unwrap();
    let ended = || session.shell("exit 7").id(JobId::new("ended").unwrap());
    assert_eq!(ended().status().await.unwrap().code(), Some(7));
    session.remove(&JobId::new("ended").unwrap()).await.unwrap();
    let deny = "[[rule]]\nname = 'none'\neffect = 'deny'\nusers = ['alice']\nattach = ['own']\n";
    replace(&file, &(deny.to_owned() + &alice("commands = 'any'")));
    eventually("the agent takes it", || agent.log().matches("policy loaded").count() == 2);
    let error = running().spawn().await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains("none"), "{error}");
    let past = session.attach(JobId::new("ended").unwrap()).join().await.unwrap_err();
    assert!(matches!(past.outcome(), Outcome::Denied { .. }), "{past:?}");
    child.signal(Signal::KILL).await;
    assert!(child.wait().await.is_ok());
}

/// A hundred versions a second, every other one broken: each decision is made by a whole version.
#[tokio::test]
async fn a_storm_of_versions_is_never_mixed() {
    // Either echo, or printf and LANG; a mixture would deny what is asked in both ways.
    let versions = [
        alice("commands = [['echo', 'x']]"),
        "[[rule]]\nname = 'broken'\n".to_owned(),
        alice("commands = [['echo', 'x'], ['printf', 'x']]\nenv = ['LANG']"),
    ];
    let agent = TestAgent::with_policy(&versions[0]);
    let session = agent.session().await;
    let (file, storm) = (agent.path("policy.toml"), versions.clone());
    let storm = tokio::task::spawn_blocking(move || {
        for n in 0..300 {
            replace(&file, &storm[n % 3]);
            std::thread::sleep(Duration::from_millis(10));
        }
        replace(&file, &storm[2]);
    });
    let mut asked = 0;
    while !storm.is_finished() {
        let output = session.command("echo").arg("x").output().await.unwrap();
        assert_eq!(output.stdout, b"x\n");
        asked += 1;
    }
    storm.await.unwrap();
    assert!(asked > 10, "{asked}");
    let taken = || agent.log().matches("policy loaded").count() > 1;
    eventually("the last version is taken", taken);
    assert!(session.command("printf").arg("x").env("LANG", "C").output().await.is_ok());
}

fn tool(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program("rexec-agent"));
    command.env("REXEC_AGENT_CONFIG", dir.join("agent.toml")).args(words).output().unwrap()
}

#[test]
fn policy_test_explains_and_its_exit_code_tells() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        format!("policy = '{0}/policy.toml'\npolicy_folder = '{0}/d'", dir.path().display());
    write_private(dir.path(), "agent.toml", &config);
    let text = format!(
        "[[rule]]\nname = 'others'\nusers = ['bob']\nattach = ['own']\n{}umask = '027'\n",
        alice("commands = [['id']]")
    );
    write_private(dir.path(), "policy.toml", &text);
    let ask = |words: &[&str]| {
        let output = tool(dir.path(), &[&["policy", "test", "--user", "alice"], words].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    // What the agent refuses before it asks the policy.
    for place in ["0.0.0.0:80", "127.1:80", "db.internal.:80"] {
        let (code, said) = ask(&["--forward", place]);
        assert!(code == 1 && said.starts_with("refused before the policy is asked"), "{said}");
    }
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
    // A denial by a policy that is not there would look like an answer.
    let wrong = tool(
        dir.path(),
        &["policy", "test", "--policy", "polcy.toml", "--user", "alice", "--", "id"],
    );
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && said.contains("no such file"), "{said}");
    // Of the console, as the console decides.
    let at_console = |user: &str, action: &str| {
        let output = tool(dir.path(), &["policy", "test", "--user", user, "--ctl", action]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let (code, said) = at_console("local:root", "status");
    let both =
        said.contains("allowed: local:root may use 'status'") && said.contains("needs no rule");
    assert!(code == 0 && both, "{said}");
    let (code, said) = at_console("alice", "status");
    assert!(code == 1 && said.contains("who are local:NAME there"), "{said}");
    let (code, said) = at_console("local:root", "bogus");
    assert!(code == 2 && said.contains("'bogus' is nothing that `rexec-agent ctl` does"), "{said}");
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
    assert!(fit && said.contains("# policy: ok: 1 rule in 1 file; 1 test, none fails"), "{said}");
    let (fit, said) = check(&alice(&format!("commands = [['id']]\n{test}")));
    assert!(!fit && said.contains("expected deny, decided allow by rule 'alice'"), "{said}");
    let (fit, said) = check("nonsense");
    assert!(!fit && said.contains("policy.toml:1:"), "{said}");
    fs::remove_file(agent.path("policy.toml")).unwrap();
    let words =
        ["--policy", agent.path("policy.toml").to_str().unwrap(), "doctor"].map(str::to_owned);
    let output = tool(agent.dir.path(), &words.each_ref().map(String::as_str));
    let said = String::from_utf8(output.stdout).unwrap();
    let is_told = said.contains("WRONG policy: 'policy' names ") && said.contains("no such file");
    assert!(!output.status.success() && is_told, "{said}");
}
