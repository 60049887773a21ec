//! An agent that is root, and the users its policy lets people be.

use crate::support::cli::code;
use crate::support::{TestAgent, users};
use rexec_client::{NeverStarted, Outcome, Session};
use std::process::Command;
use std::time::{Duration, Instant};

const POLICY: &str = "\
[[rule]]
name = 'anything'
users = ['alice']
as = ['deploy', '*', 'root', 'toor']
commands = 'any'
env = ['*']

[[rule]]
name = 'bob'
users = ['bob']
as = ['*']
commands = 'any'
";

fn agent() -> Option<TestAgent> {
    users::available().then(|| TestAgent::with_users(POLICY))
}

/// Stdout of a line run as a user.
async fn said(agent: &TestAgent, user: &str, line: &str) -> String {
    let session = agent.session().await;
    let output = session.shell(line).user(user).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Why nothing runs as this user.
async fn refusal(session: &Session, user: &str) -> Outcome {
    let ran = session.command("true").user(user).output().await;
    ran.expect_err(user).outcome().clone()
}

#[tokio::test]
async fn a_command_runs_as_the_user_that_was_asked_for_or_as_the_first_of_its_rule() {
    let Some(agent) = agent() else { return };
    let ask = "id -u; id -g; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL $PATH; umask; tty";
    let home = agent.path("home/deploy");
    let home = home.to_str().unwrap();
    let expected = format!(
        "61001\n61001\n61001 61010\n{home}\n{home} deploy deploy /bin/sh /usr/local/bin:/usr/bin:/bin\n0022\nnot a tty\n"
    );
    let session = agent.session().await;
    let output = session.shell(format!("{ask}; true")).output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(said(&agent, "deploy", &format!("{ask}; true")).await, expected);
    assert_eq!(said(&agent, "root", "id -u; echo $PATH").await.lines().next(), Some("0"));
    assert_eq!(said(&agent, "many", "id -G | wc -w").await.trim(), "71");
    assert_eq!(said(&agent, "homeless", "pwd").await, "/\n");
    assert_eq!(said(&agent, "default", "echo $SHELL").await, "/bin/sh\n");
}

/// The environment is exactly the documented one.
#[tokio::test]
async fn nothing_of_the_agent_s_environment_is_left() {
    let Some(agent) = agent() else { return };
    let names =
        said(&agent, "deploy", "env | cut -d= -f1 | sort | grep -vx -e _ -e PWD -e SHLVL").await;
    assert_eq!(names, "HOME\nLOGNAME\nPATH\nREXEC_CALLER\nREXEC_JOB\nSHELL\nUSER\n");
}

#[tokio::test]
async fn who_is_not_for_running_commands_is_refused() {
    let Some(agent) = agent() else { return };
    let session = agent.session().await;
    for (user, says) in [
        ("locked", "locked"),
        ("expired", "expired"),
        ("refused", "nologin"),
        ("minus", "out of range"),
        ("wrapped", "out of range"),
        ("high", "out of range"),
        ("nobody-here", "there is no user"),
        ("61001", "not a legal user name"),
        ("-1", "not a legal user name"),
        ("+0", "not a legal user name"),
        ("root\n", "not a legal user name"),
        ("-f root", "not a legal user name"),
    ] {
        match refusal(&session, user).await {
            Outcome::NeverStarted { reason: NeverStarted::User, message } => {
                assert!(message.contains(says), "{user}: {message}");
            }
            other => panic!("{user}: {other:?}"),
        }
    }
}

/// `*` stands for every user but root, under whatever name.
#[tokio::test]
async fn root_must_be_named() {
    let Some(agent) = agent() else { return };
    let session = agent.session_as("bob").await;
    for user in ["root", "toor"] {
        let refusal = refusal(&session, user).await;
        assert!(matches!(refusal, Outcome::Denied { .. }), "{user}: {refusal:?}");
    }
    let output = session.command("id").arg("-u").user("deploy").output().await.unwrap();
    assert_eq!(output.stdout, b"61001\n");
    assert_eq!(said(&agent, "toor", "id -u").await, "0\n");
}

/// A user who asks for one it may not be learns nothing about who exists.
#[tokio::test]
async fn who_may_not_be_a_user_is_not_told_whether_there_is_one() {
    if !users::available() {
        return;
    }
    let agent = TestAgent::with_users(&POLICY.replace("as = ['*']", "as = ['deploy']"));
    let session = agent.session_as("bob").await;
    let mut words = Vec::new();
    for user in ["many", "nobody-here", "locked"] {
        match refusal(&session, user).await {
            Outcome::Denied { message } => words.push(message.replace(user, "USER")),
            other => panic!("{user}: {other:?}"),
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
}

#[tokio::test]
async fn an_agent_that_is_not_root_runs_everything_as_itself() {
    if !users::available() {
        return;
    }
    let agent = TestAgent::not_root(POLICY);
    assert_eq!(said(&agent, "deploy", "id -u; id -G").await, "61001\n61001 61010\n");
    let session = agent.session().await;
    for user in ["many", "root"] {
        match refusal(&session, user).await {
            Outcome::Denied { message } => {
                let says = "this agent is not root, and runs everything as 'deploy'";
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{user}: {other:?}"),
        }
    }
}

/// The user database of a network that is gone: the command is refused in time, everybody else is
/// served, and when the database is back, so is its user.
#[tokio::test]
async fn a_user_database_that_hangs_holds_nobody_else_up() {
    let Some(agent) = agent() else { return };
    let session = agent.session().await;
    let in_namespace = |words: &[&str]| {
        let mut enter = Command::new("nsenter");
        enter.args(["--mount", "--target", &agent.pid().to_string()]).args(words);
        assert!(enter.status().unwrap().success(), "{words:?}");
    };
    let fifo = agent.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    in_namespace(&["mount", "--bind", fifo.to_str().unwrap(), "/etc/passwd"]);

    let asked = Instant::now();
    let hanging = session.command("true").user("deploy").output();
    let others = async {
        for _ in 0..20 {
            agent.session().await.ping().await.unwrap();
        }
        asked.elapsed()
    };
    let (hanging, others) = tokio::join!(hanging, others);
    match hanging.unwrap_err().outcome() {
        Outcome::NeverStarted { reason: NeverStarted::Resource, message } => {
            assert!(message.contains("did not say within 5 seconds"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(others < Duration::from_secs(4), "others waited: {others:?}");

    // The lookup that hangs still holds it.
    in_namespace(&["umount", "--lazy", "/etc/passwd"]);
    // Lets the lookup that still hangs see an empty file.
    let end = fifo.clone();
    tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(end).unwrap());
    assert_eq!(said(&agent, "deploy", "id -u").await, "61001\n");
}

/// fork(2) fails with EAGAIN: what cannot be started says so, and what runs does not notice.
#[tokio::test]
async fn a_machine_without_processes_refuses_and_recovers() {
    if !users::available() {
        return;
    }
    let agent = TestAgent::not_root(POLICY);
    let session = agent.session().await;
    assert!(session.command("true").status().await.unwrap().success());
    let zygote = children(agent.pid()).into_iter().next().unwrap();
    let limit_one = |pid: u32, processes: &str| {
        // Without CAP_SYS_RESOURCE, only who is that user may.
        let mut prlimit = Command::new("setpriv");
        prlimit.args(["--reuid", "61001", "--regid", "61001", "--clear-groups", "prlimit"]);
        prlimit.args(["--pid", &pid.to_string(), &format!("--nproc={processes}:")]);
        prlimit.status().unwrap().success()
    };
    let limit = |processes: &str| {
        assert!(limit_one(zygote, processes));
        // And its keepers, of which one may start another command without it. They may have ended.
        for keeper in children(zygote) {
            let _ = limit_one(keeper, processes);
        }
    };
    limit("1");
    // Those that were made ready before still start.
    let mut refusals = 0;
    for _ in 0..20 {
        match session.command("true").status().await {
            Ok(status) => assert!(status.success() && refusals == 0, "{status:?}"),
            Err(error) => {
                let Outcome::NeverStarted { reason, message } = error.outcome() else {
                    panic!("{error:?}")
                };
                assert_eq!(*reason, NeverStarted::Resource, "{message}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 0);
    session.ping().await.unwrap();
    limit("1000");
    let recovered = async { while session.command("true").status().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), recovered).await.unwrap();
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_program_says_who_was_refused_and_why() {
    let Some(agent) = agent() else { return };
    let ran = agent.rexec().args(["-l", "locked", &agent.target(), "true"]).output().unwrap();
    assert_eq!(code(&ran), 126);
    let words = String::from_utf8_lossy(&ran.stderr);
    assert!(words.contains("user 'locked' may not log in"), "{words}");
}
