//! `rexec-ssh`: what programs call that call ssh. What the programs themselves do with it, and the same over
//! OpenSSH, is for `scripts/test-tools`.

use crate::support::agent::own_user;
use crate::support::cli::code;
use crate::support::proc::{eventually, is_running};
use crate::support::{TestAgent, program, users};
use rexec_client::Drain;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::{fs, os::unix::fs::symlink};

impl TestAgent {
    /// `rexec-ssh` as Alice would have it, without its arguments. No stdin.
    pub fn rexec_ssh(&self) -> Command {
        let native = self.rexec();
        let variables = native.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut front = Command::new(program("rexec-ssh"));
        front.env_clear().envs(variables).stdin(Stdio::null());
        front.env("REXEC_PORT", self.port.to_string());
        front
    }

    fn ssh(&self, words: &[&str]) -> Output {
        self.rexec_ssh().args(words).output().unwrap()
    }
}

/// A policy of one rule for Alice as this user, with more lines.
fn policy(lines: &str) -> String {
    let user = own_user();
    format!("[[rule]]\nname = 'one'\nusers = ['*']\nas = ['{user}']\n{lines}\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn words_are_joined_and_the_status_is_the_commands() {
    let agent = TestAgent::start();
    let output = agent.ssh(&["127.0.0.1", "echo", "a   b", "$((1 + 1))", "'c   d';", "exit 7"]);
    assert_eq!(text(&output.stdout), "a b 2 c   d\n");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (7, ""));
}

/// 255 is for everything that is not the command's own end, and stdout is the command's alone.
#[test]
fn failures_of_its_own_are_255_and_on_stderr() {
    let agent = TestAgent::start();
    for (words, part) in [
        (&["127.0.0.1", "kill -KILL $$"][..], ""),
        (&["-p", "1", "127.0.0.1", "true"], "127.0.0.1"),
        (&["-o", "NoSuchKey=1", "127.0.0.1", "true"], "Bad configuration option: NoSuchKey"),
        (&["-J", "bastion", "127.0.0.1", "true"], "-J: "),
        (&["-s", "127.0.0.1", "no-such"], "no subsystem 'no-such'"),
        (&["-O", "check", "127.0.0.1"], "not shared"),
        (&[], "which host?"),
    ] {
        let output = agent.ssh(words);
        assert_eq!((code(&output), text(&output.stdout).as_str()), (255, ""), "{words:?}");
        assert!(text(&output.stderr).contains(part), "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn probes_are_answered_without_a_connection() {
    let agent = TestAgent::start();
    let output = agent.ssh(&["-G", "-o", "SendEnv=GIT_PROTOCOL", "-p", "99", "me@nowhere.invalid"]);
    assert_eq!(code(&output), 0);
    let said = text(&output.stdout);
    for line in ["hostname nowhere.invalid", "user me", "port 99", "sendenv GIT_PROTOCOL"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    let words = ["-oHostKeyAlias=x", "-L1:[::1]:2", "-D*:3", "-R4", "-R5:h:6", "-oSetEnv=A=b"];
    let output = agent.ssh(&[&["-G"], &words[..], &["web1"]].concat());
    let said = text(&output.stdout);
    for line in [
        "hostkeyalias x",
        "localforward 1 [::1]:2",
        "dynamicforward *:3",
        "remoteforward 4",
        "remoteforward 5 h:6",
        "setenv A=b",
        "exitonforwardfailure no",
        "connectionattempts 1",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let output = agent.ssh(&["localhost:22", "true"]);
    assert_eq!(code(&output), 255);
    assert!(text(&output.stderr).contains("goes to -p"), "{output:?}");
    let output = agent.ssh(&["-V"]);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, ""));
    assert!(text(&output.stderr).contains("OpenSSH"));
}

/// What would be done is also what the settings of rexec say.
#[test]
fn a_probe_tells_the_port_of_the_environment() {
    let agent = TestAgent::start();
    let told = |front: &mut Command| text(&front.args(["-G", "web1"]).output().unwrap().stdout);
    let said = told(agent.rexec_ssh().env("REXEC_USER", "bob"));
    for line in [&format!("port {}", agent.port), "user bob"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    assert!(told(agent.rexec_ssh().args(["-p", "99"])).contains("port 99\n"));
    assert!(told(agent.rexec_ssh().env_remove("REXEC_PORT")).contains("port 8512\n"));
}

/// As over ssh: the session lasts as long as its pipes.
#[test]
fn what_a_child_writes_after_the_command_arrives_with_its_status() {
    let agent = TestAgent::with("[limits]\ndrain_quiet = '10ms'\ndrain_max = '10ms'\n");
    // The child waits for the command to be gone, and then for some more.
    let line =
        "p=$$; (while kill -0 $p; do sleep 0.01; done 2>/dev/null; sleep 0.5; echo late) & exit 3";
    let output = agent.ssh(&["127.0.0.1", line]);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (3, "late\n"));
}

#[test]
fn a_child_that_let_go_does_not_hold_the_session() {
    let agent = TestAgent::start();
    let line = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let output = agent.ssh(&["127.0.0.1", line]);
    let pid: u32 = text(&output.stdout).trim().parse().unwrap();
    assert_eq!(code(&output), 0);
    assert!(is_running(pid), "nobody asked for its end");
    let _ = agent.ssh(&["127.0.0.1", &format!("kill {pid}")]);
    eventually("the child ends", || !is_running(pid));
}

/// What a limit is for may not outlive the command, so its output is not waited for either.
#[tokio::test]
async fn a_rule_with_limits_ends_what_is_left_all_the_same() {
    let agent = TestAgent::with_policy(&policy("commands = 'any'\n[rule.limits]\ntimeout = '1h'"));
    let session = agent.session().await;
    let line = "sleep 1000 & echo $!";
    let output = session.shell(line).drain(Drain::Wait).output().await.unwrap();
    let pid: u32 = text(&output.stdout).trim().parse().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!is_running(pid));
}

#[test]
fn a_client_that_leaves_ends_the_wait() {
    let agent = TestAgent::start();
    let mut command = agent.rexec_ssh();
    command.args(["127.0.0.1", "sleep 1000 & echo $!; exit 0"]).stdout(Stdio::piped());
    let mut front = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(front.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    let front_pid = nix::unistd::Pid::from_raw(front.id().try_into().unwrap());
    nix::sys::signal::kill(front_pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    front.wait().unwrap();
    eventually("what held the output ends", || !is_running(pid));
}

/// sshd's variables are there for who asks, whatever the client sends under their names.
#[test]
fn the_addresses_are_told_as_sshd_does() {
    let agent = TestAgent::start();
    let line = "echo $SSH_CONNECTION; echo $SSH_CLIENT";
    let output = agent.ssh(&["-oSetEnv=SSH_CONNECTION=forged", "127.0.0.1", line]);
    let said = text(&output.stdout);
    let words: Vec<Vec<&str>> = said.lines().map(|line| line.split(' ').collect()).collect();
    let port = agent.port.to_string();
    assert_eq!((words[0][0], words[0][2], words[0][3]), ("127.0.0.1", "127.0.0.1", port.as_str()));
    assert_eq!(words[1], [words[0][0], words[0][1], port.as_str()]);
    let native = agent.run([line]);
    assert_eq!(text(&native.stdout), "\n\n");
}

/// Whether bash is built to look for sshd, as Debian's is.
fn bash_looks_for_sshd() -> bool {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".bashrc"), "echo read\n").unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-c", "true"]).env_clear().env("HOME", home.path()).env("SSH_CLIENT", "::1 1 22");
    let reads = bash.stdin(Stdio::null()).output().is_ok_and(|output| output.stdout == b"read\n");
    if !reads {
        eprintln!("skipped: this bash reads no ~/.bashrc for sshd");
    }
    reads
}

/// Over ssh people have their aliases and their PATH from there. Native commands start the same everywhere.
#[test]
fn debian_s_bash_reads_its_bashrc_as_over_ssh_and_not_for_rexec() {
    if !users::available() || !bash_looks_for_sshd() {
        return;
    }
    let rule = "[[rule]]\nname = 'one'\nusers = ['*']\nas = ['basher']\ncommands = 'any'\n";
    let agent = TestAgent::with_users(rule);
    fs::create_dir(agent.path("home/basher")).unwrap();
    fs::write(agent.path("home/basher/.bashrc"), "echo read; of_bashrc=set\n").unwrap();
    let line = "echo \"$BASH_VERSION $of_bashrc\" | grep -o ' .*'";
    let over_ssh = agent.ssh(&["127.0.0.1", line]);
    assert_eq!(text(&over_ssh.stdout), "read\n set\n", "{over_ssh:?}");
    let native = agent.run([line]);
    assert_eq!(text(&native.stdout), " \n", "{native:?}");
    let words = agent.run(["bash", "-c", line]);
    assert_eq!(text(&words.stdout), " \n", "{words:?}");
}

#[test]
fn a_forced_command_finds_what_was_asked_for() {
    let lines = "commands = 'any'\nforce = ['sh', '-c', 'echo \"$SSH_ORIGINAL_COMMAND\"']";
    let agent = TestAgent::with_policy(&policy(lines));
    let output = agent.ssh(&["127.0.0.1", "git-upload-pack", "'a b'"]);
    assert_eq!(text(&output.stdout), "git-upload-pack 'a b'\n", "{}", text(&output.stderr));
}

/// Policy decides about the line that a subsystem stands for, and knows its name no more.
#[test]
fn a_subsystem_is_its_line_to_policy() {
    let config = "[subsystems]\necho = 'echo subsystem; cat'\n";
    let agent = TestAgent::with(config);
    let mut command = agent.rexec_ssh();
    command.args(["127.0.0.1", "-s", "echo"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut front = command.spawn().unwrap();
    front.stdin.take().unwrap().write_all(b"typed").unwrap();
    let output = front.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "subsystem\ntyped"));
    let gone = agent.ssh(&["-s", "127.0.0.1", "sftp"]);
    assert!(text(&gone.stderr).contains("[subsystems]"), "{}", text(&gone.stderr));

    let sftp = "commands = [['$SHELL', '-c', '/usr/lib/openssh/sftp-server']]";
    let other = "commands = [['$SHELL', '-c', 'true']]";
    for (lines, is_denied) in [(sftp, false), (other, true)] {
        let agent = TestAgent::with_policy(&policy(lines));
        let output = agent.ssh(&["-s", "127.0.0.1", "sftp"]);
        assert_eq!(text(&output.stderr).contains("denied"), is_denied, "{}", text(&output.stderr));
    }
}

#[test]
fn under_the_name_of_ssh_rexec_is_this_program() {
    let agent = TestAgent::start();
    let name = agent.path("ssh");
    symlink(program("rexec"), &name).unwrap();
    let front = agent.rexec_ssh();
    let mut command = Command::new(name);
    let variables = front.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).stdin(Stdio::null());
    let output = command.args(["-x", "-a", "127.0.0.1", "echo", "-n", "x"]).output().unwrap();
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "x"));
}

#[test]
fn stdin_goes_there_unless_n_says_otherwise() {
    let agent = TestAgent::start();
    for (letters, arrived) in [("-T", "typed"), ("-nT", "")] {
        let mut command = agent.rexec_ssh();
        command.args([letters, "127.0.0.1", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut front = command.spawn().unwrap();
        // With -n nobody may be there to read it.
        let _ = front.stdin.take().unwrap().write_all(b"typed");
        let output = front.wait_with_output().unwrap();
        assert_eq!((code(&output), text(&output.stdout).as_str()), (0, arrived), "{letters}");
    }
}

/// Only where it is named: the ports in it are those of sshd.
#[test]
fn a_host_is_looked_up_where_f_or_the_settings_say() {
    let agent = TestAgent::start();
    let port = agent.port;
    let file = agent.path("ssh_config");
    fs::write(&file, format!("Host web*\n  HostName 127.0.0.1\n  Port {port}\n")).unwrap();
    let file = file.to_str().unwrap();
    let mut command = agent.rexec_ssh();
    command.env("REXEC_PORT", "1").args(["-F", file, "web1", "echo hi"]);
    let output = command.output().unwrap();
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "hi\n"));

    let settings = agent.path("config.toml");
    fs::write(&settings, format!("ssh_config = '{file}'\n")).unwrap();
    let output = agent.rexec_ssh().env("REXEC_CONFIG", settings).args(["-G", "web1"]).output();
    assert!(text(&output.unwrap().stdout).contains("hostname 127.0.0.1\n"));
    let output = agent.ssh(&["-G", "web1"]);
    assert!(text(&output.stdout).contains("hostname web1\n"));
}

/// The key that a caller names is one of ssh's, which is left alone; rexec's own is taken.
#[test]
fn an_identity_counts_if_it_is_a_certificate() {
    let agent = TestAgent::start();
    let (mine, key) = (agent.path("alice.pem"), agent.path("id_ed25519"));
    fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let (mine, key) = (mine.to_str().unwrap(), key.to_str().unwrap());
    let words = ["-i", key, "-i", "/nowhere", "127.0.0.1", "echo $REXEC_CALLER"];
    let output = agent.ssh(&words);
    assert_eq!(text(&output.stdout), "alice\n", "{}", text(&output.stderr));
    let without = agent.rexec_ssh().env_remove("REXEC_IDENTITY").args(words).output().unwrap();
    assert_eq!(code(&without), 255);
    let mine = format!("IdentityFile=\"{mine}\"");
    let words = ["-i", key, "-o", &mine, "127.0.0.1", "true"];
    let with = agent.rexec_ssh().env_remove("REXEC_IDENTITY").args(words).output().unwrap();
    assert_eq!(code(&with), 0, "{}", text(&with.stderr));
}

/// What was typed comes first, so that what comes after it may be wrong.
#[test]
fn a_port_that_was_typed_stands_in_for_that_of_the_environment() {
    let agent = TestAgent::start();
    let with = |words: &[&str]| agent.rexec_ssh().env("REXEC_PORT", "abc").args(words).output();
    let port = agent.port.to_string();
    assert_eq!(code(&with(&["-p", &port, "127.0.0.1", "exit 3"]).unwrap()), 3);
    assert!(text(&with(&["-G", "-p", "99", "127.0.0.1"]).unwrap().stdout).contains("port 99\n"));
    let without = with(&["127.0.0.1", "true"]).unwrap();
    assert_eq!(code(&without), 255);
    assert!(text(&without.stderr).contains("REXEC_PORT: "));
}

/// A file that is read in part says where that may matter.
#[test]
fn what_a_file_says_and_is_not_heeded_is_told_or_refused() {
    let agent = TestAgent::start();
    let file = agent.path("ssh_config");
    let text_of = |line: &str| format!("Host a\n  HostName 127.0.0.1 # here\n  {line}\n");
    let run = |line: &str, words: &[&str]| {
        fs::write(&file, text_of(line)).unwrap();
        let mut command = agent.rexec_ssh();
        command.arg("-F").arg(&file).args(words).args(["a", "echo hi"]).output().unwrap()
    };
    for (line, words, said) in [
        ("User nobody # c", &["-l", &own_user()][..], ""),
        ("Match exec true", &[], "warning: "),
        ("Match exec true", &["-oLogLevel=INFO"], "line 3: Match: "),
        ("Match exec true", &["-q"], ""),
        ("Include nothing", &[], ""),
        ("ProxyJump none", &[], ""),
        ("ProxyJump bastion", &["-oProxyCommand=none"], ""),
    ] {
        let output = run(line, words);
        let stderr = text(&output.stderr);
        assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "hi\n"), "{line}: {stderr}");
        assert_eq!(stderr.is_empty(), said.is_empty(), "{line}: {stderr}");
        assert!(stderr.contains(said), "{line}: {stderr}");
    }
    for line in ["ProxyJump bastion", "ProxyCommand nc %h %p"] {
        let output = run(line, &[]);
        assert_eq!((code(&output), text(&output.stdout).as_str()), (255, ""), "{line}");
        assert!(text(&output.stderr).contains("line 3: Proxy"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_host_name_that_was_typed_is_expanded_as_one_in_a_file() {
    let agent = TestAgent::start();
    let output = agent.ssh(&["-oHostName=127.0.0.%h", "1", "echo hi"]);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "hi\n"));
}

#[test]
fn a_terminal_and_a_command_may_be_options() {
    let agent = TestAgent::start();
    for (words, said, ended) in [
        (&["-oRequestTTY=force", "127.0.0.1", "tty"][..], "/dev/pts/", 0),
        (&["-oRequestTTY=yes", "127.0.0.1", "tty"], "not a tty", 1),
        (&["-tt", "-oRequestTTY=no", "127.0.0.1", "tty"], "/dev/pts/", 0),
        (&["-oRequestTTY=no", "127.0.0.1", "tty"], "not a tty", 1),
        (&["-oRemoteCommand=echo an # option", "127.0.0.1"], "an\n", 0),
        (&["-oRemoteCommand=none", "127.0.0.1", "echo typed"], "typed\n", 0),
        (&["-oRemoteCommand=true", "127.0.0.1", "true"], "", 255),
    ] {
        let output = agent.ssh(words);
        assert_eq!(code(&output), ended, "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(said), "{words:?}: {}", text(&output.stdout));
    }
}

/// Somebody who takes connections and says nothing is waited for as long as the caller wants.
#[test]
fn a_silent_host_is_given_up_after_connect_timeout() {
    let agent = TestAgent::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let output = agent.ssh(&["-oConnectTimeout=1", "-p", &port, "127.0.0.1", "true"]);
    let said = text(&output.stderr);
    assert_eq!(code(&output), 255);
    assert!(said.contains("1 s") || said.contains("1s"), "{said}");
}

#[test]
fn an_identity_that_is_not_there_is_told() {
    let agent = TestAgent::start();
    let output = agent.rexec_ssh().args(["-i", "/typo.pem", "127.0.0.1", "echo ran"]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((code(&output), output.stdout.as_slice()), (0, &b"ran\n"[..]), "{said}");
    assert!(said.contains("warning: identity file /typo.pem not accessible: "), "{said}");
}

/// It was taken in silence, and asked for with ports that lead to another machine.
#[test]
fn a_certificate_may_be_expected_for_another_name() {
    let agent = TestAgent::start();
    for (mut command, failure) in [(agent.rexec(), 255), (agent.rexec_ssh(), 255)] {
        let port = agent.port.to_string();
        command.args(["-p", &port, "-oHostKeyAlias=other.example", "127.0.0.1", "true"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), failure, "{said}");
        assert!(said.contains("not for other.example"), "{said}");
    }
    let mut command = agent.rexec();
    command.args(["-oHostKeyAlias=localhost", &agent.target(), "true"]);
    assert_eq!(code(&command.output().unwrap()), 0);
}

#[test]
fn it_is_tried_as_often_as_asked() {
    let agent = TestAgent::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let mut command = agent.rexec_ssh();
    command.args(["-oConnectionAttempts=3", "-p", &port, "127.0.0.1", "true"]);
    let mut client = command.stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        drop(silent.accept().unwrap());
    }
    let output = client.wait().unwrap();
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(output.code(), Some(255));
}

/// 45 seconds were waited for, and then ten more.
#[test]
fn a_silent_agent_is_given_up_after_the_time_that_was_asked_for() {
    let agent = TestAgent::start();
    let mut command = agent.rexec_ssh();
    command.args(["-oServerAliveInterval=1", "-oServerAliveCountMax=1"]);
    command.args(["127.0.0.1", "echo up; sleep 60"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    client.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    agent.signal(nix::sys::signal::Signal::SIGSTOP);
    let output = client.wait_with_output().unwrap();
    agent.signal(nix::sys::signal::Signal::SIGCONT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 255, "{said}");
    let after = said.split("gave up after ").nth(1).and_then(|rest| rest.split(' ').next());
    let after: u64 = after.unwrap().parse().unwrap();
    assert!(after <= 5, "{said}");
}
