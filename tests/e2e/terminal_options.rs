//! `-t`, `-tt`, `-T` and no command at all, where stdin is no terminal.

use crate::support::TestAgent;
use crate::support::cli::code;
use std::io::Write;
use std::process::{Output, Stdio};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `rexec OPTIONS TARGET WORDS…` with this on its stdin.
fn run(agent: &TestAgent, options: &[&str], words: &[&str], stdin: &str) -> Output {
    let mut rexec = agent.rexec();
    rexec.args(options).arg(agent.target()).args(words).env("TERM", "vt100");
    rexec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = rexec.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_login_shell_reads_commands_from_a_pipe() {
    let agent = TestAgent::start();
    let output = run(&agent, &[], &[], "echo $0\ntest -t 0 || echo no terminal\nexit 9\n");
    let said = text(&output.stdout);
    assert!(said.starts_with('-') && said.ends_with("\nno terminal\n"), "{said}");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (9, ""));
}

#[test]
fn a_terminal_needs_one_here_or_two_letters() {
    let agent = TestAgent::start();
    let output = run(&agent, &["-t"], &["tty"], "");
    assert_eq!((code(&output), text(&output.stdout).as_str()), (1, "not a tty\n"));
    assert!(text(&output.stderr).contains("no terminal, because stdin is not one"), "{output:?}");

    let output = run(&agent, &["-tt"], &["tty; echo $TERM; exit 6"], "");
    let said = text(&output.stdout);
    assert!(said.starts_with("/dev/pts/") && said.ends_with("\r\nvt100\r\n"), "{said}");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (6, ""));

    // What is piped in is typed there, tildes too.
    let output = run(&agent, &["-tt"], &["read -r line; echo got $line"], "~.\n");
    assert!(text(&output.stdout).ends_with("got ~.\r\n"), "{output:?}");

    let output = run(&agent, &["-ttT"], &["tty"], "");
    assert_eq!((code(&output), text(&output.stdout).as_str()), (1, "not a tty\n"));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn what_reads_a_terminal_may_leave() {
    let agent = TestAgent::start();
    let mut rexec = agent.rexec();
    rexec.args(["-tt", &agent.target(), "yes"]).stdin(Stdio::null());
    rexec.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = rexec.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr).as_str()), (130, ""));
}

#[test]
fn a_terminal_is_not_for_programs() {
    let agent = TestAgent::start();
    let output = run(&agent, &["-tt", "--json"], &["true"], "");
    assert_eq!(code(&output), 125);
    assert!(text(&output.stderr).contains("leave -t out"), "{output:?}");
}

/// A rule that allows the words, but not the terminal, allows neither.
#[test]
fn a_terminal_needs_a_rule() {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let agent = TestAgent::with_policy(&format!(
        "[[rule]]\nname = 'all'\nusers = ['alice']\nas = ['{user}']\ncommands = 'any'\n"
    ));
    let output = run(&agent, &["-tt"], &["true"], "");
    assert_eq!(code(&output), 125);
    assert!(text(&output.stderr).contains("only without a terminal"), "{output:?}");
    assert!(run(&agent, &[], &["true"], "").status.success());
}
