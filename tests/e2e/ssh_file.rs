//! What a file that `-F` names does: its keys are those of `-o`, and come after what was typed.

use crate::support::TestAgent;
use crate::support::agent::own_user;
use crate::support::cli::code;
use nix::pty::openpty;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

/// `rexec-ssh -F FILE WORDS…`, where the file says this of the host `a`, which is the agent, and then that of all.
fn front(agent: &TestAgent, [of_a, of_all]: [&str; 2], words: &[&str]) -> Command {
    let file = agent.path("ssh_config");
    let agent_is = format!("Host a\n  HostName 127.0.0.1\n  Port {}\n", agent.port);
    fs::write(&file, format!("{agent_is}{of_a}\nHost *\n{of_all}\n")).unwrap();
    let mut command = agent.rexec_ssh();
    // The file's port counts, and not this one.
    command.env("REXEC_PORT", "1").arg("-F").arg(file).args(words);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it with this typed into a pipe.
fn typed(mut command: Command, typed: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Nobody may be there to read it.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    child.wait_with_output().unwrap()
}

/// Runs it as somebody at a terminal does, who types this and sees what is returned.
fn at_a_terminal(mut command: Command, typed: &str) -> (Option<i32>, String) {
    let pty = openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
    let mut child = command.spawn().unwrap();
    // Those who still have the other side are the command's.
    drop((command, pty.slave));
    let mut master = File::from(pty.master);
    master.write_all(typed.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // Its end is an error: nobody has the other side any more.
    let _ = master.read_to_end(&mut shown);
    (child.wait().unwrap().code(), text(&shown))
}

#[test]
fn a_terminal_is_asked_for_without_one_here() {
    let agent = TestAgent::start();
    for (file, words, said, ended) in [
        (["RequestTTY force", ""], &["a", "tty"][..], "/dev/pts/", 0),
        (["RequestTTY yes", ""], &["a", "tty"], "not a tty", 1),
        (["RequestTTY no", ""], &["a", "tty"], "not a tty", 1),
        (["RequestTTY auto", ""], &["a", "tty"], "not a tty", 1),
        (["", "RequestTTY force"], &["a", "tty"], "/dev/pts/", 0),
        // The first one counts: what was typed, then the first block.
        (["RequestTTY no", "RequestTTY force"], &["a", "tty"], "not a tty", 1),
        (["RequestTTY force", ""], &["-T", "a", "tty"], "not a tty", 1),
        (["RequestTTY force", ""], &["-oRequestTTY=no", "a", "tty"], "not a tty", 1),
        (["RequestTTY no", ""], &["-tt", "a", "tty"], "/dev/pts/", 0),
    ] {
        let output = front(&agent, file, words).output().unwrap();
        assert!(text(&output.stdout).contains(said), "{file:?} {words:?}: {output:?}");
        assert_eq!(code(&output), ended, "{file:?} {words:?}: {output:?}");
    }
}

#[test]
fn a_terminal_is_asked_for_with_one_here() {
    let agent = TestAgent::start();
    let tty = &["a", "tty"][..];
    for (file, words, has_one) in [
        (["RequestTTY force", ""], tty, true),
        (["RequestTTY yes", ""], tty, true),
        (["RequestTTY auto", ""], tty, false),
        (["RequestTTY no", ""], tty, false),
        // As ssh sees it, nobody sits there who is not to be heard.
        (["RequestTTY yes", "StdinNull yes"], tty, false),
        (["RequestTTY force", "StdinNull yes"], tty, true),
        (["RequestTTY yes", "StdinNull yes"], &["-oStdinNull=no", "a", "tty"], true),
    ] {
        let (ended, shown) = at_a_terminal(front(&agent, file, words), "");
        assert_eq!(shown.contains("/dev/pts/"), has_one, "{file:?}: {shown}");
        assert_eq!(ended, Some(if has_one { 0 } else { 1 }), "{file:?}: {shown}");
    }
    // Without a command it is a login shell, on a terminal unless the file says no.
    for (file, code) in [("RequestTTY auto", 7), ("RequestTTY no", 8)] {
        let front = front(&agent, [file, ""], &["a"]);
        let (ended, shown) = at_a_terminal(front, "test -t 1 && exit 7; exit 8\n");
        assert_eq!(ended, Some(code), "{file}: {shown}");
    }
}

#[test]
fn a_command_is_in_the_file() {
    let agent = TestAgent::start();
    let port = agent.port;
    for (file, words, said, ended) in [
        (["RemoteCommand echo in the file # 1", ""], &["a"][..], "in the file\n".to_owned(), 0),
        (["RemoteCommand exit 3", "RemoteCommand exit 4"], &["a"], String::new(), 3),
        (["RemoteCommand echo %h %n %p %%", ""], &["a"], format!("127.0.0.1 a {port} %\n"), 0),
        (["RemoteCommand none", "RemoteCommand exit 4"], &["a", "echo x"], "x\n".to_owned(), 0),
        // As scp and sftp say it.
        (
            ["RemoteCommand exit 3", ""],
            &["-oRemoteCommand=none", "a", "echo x"],
            "x\n".to_owned(),
            0,
        ),
    ] {
        let output = front(&agent, file, words).output().unwrap();
        assert_eq!((code(&output), text(&output.stdout)), (ended, said), "{file:?}: {output:?}");
    }
    for (file, words, said) in [
        ("RemoteCommand true", &["a", "true"][..], "RemoteCommand is another one"),
        ("RemoteCommand date +%s", &["a"], "RemoteCommand date +%s: of percents it takes"),
        ("RemoteCommand", &["a"], "line 4: RemoteCommand: it has no value"),
    ] {
        let output = front(&agent, [file, ""], words).output().unwrap();
        assert_eq!((code(&output), text(&output.stdout).as_str()), (255, ""), "{file}");
        assert!(text(&output.stderr).contains(said), "{file}: {output:?}");
    }
}

#[test]
fn stdin_stays_here_if_the_file_says_so() {
    let agent = TestAgent::start();
    for (file, words, arrived) in [
        (["StdinNull yes", ""], &["a", "cat"][..], ""),
        (["StdinNull no", "StdinNull yes"], &["a", "cat"], "typed"),
        (["StdinNull yes", ""], &["-oStdinNull=no", "a", "cat"], "typed"),
        (["StdinNull no", ""], &["-n", "a", "cat"], ""),
    ] {
        let output = typed(front(&agent, file, words), "typed");
        assert_eq!(
            (code(&output), text(&output.stdout).as_str()),
            (0, arrived),
            "{file:?} {words:?}"
        );
    }
}

#[test]
fn a_session_is_a_subsystem_if_the_file_says_so() {
    let agent = TestAgent::with("[subsystems]\necho = 'echo subsystem; cat'\n");
    let subsystem = ["SessionType subsystem", ""];
    let output = typed(front(&agent, subsystem, &["a", "echo"]), "typed");
    assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "subsystem\ntyped"));
    let output =
        front(&agent, subsystem, &["-oSessionType=default", "a", "echo", "command"]).output();
    assert_eq!(text(&output.unwrap().stdout), "command\n");
    let output = front(&agent, subsystem, &["a"]).output().unwrap();
    assert_eq!(code(&output), 255);
    assert!(text(&output.stderr).contains("the subsystem has no name"), "{output:?}");
}

/// It runs nothing, and its ports are there; the command that was typed is one word too many, as for ssh.
#[test]
fn a_session_is_for_ports_alone_if_the_file_says_so() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = server.local_addr().unwrap().port();
    let near = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = own_user();
    let agent = TestAgent::with_policy(&format!(
        "[[rule]]\nname = 'all'\nusers = ['*']\nas = ['{user}']\ncommands = 'any'\nforward = ['127.0.0.1:{far}']\n"
    ));
    let mark = agent.path("ran").display().to_string();
    let file = format!("SessionType none\nLocalForward {near} 127.0.0.1:{far}");
    let touch = ["a", "touch", &mark];
    let mut command = front(&agent, [&file, ""], &touch);
    let mut ports = command.spawn().unwrap();
    let mut to = None;
    crate::support::proc::eventually("the port is served", || {
        to = TcpStream::connect(("127.0.0.1", near)).ok();
        to.is_some()
    });
    let (mut there, mut here) = (server.accept().unwrap().0, to.unwrap());
    here.write_all(b"through").unwrap();
    let mut through = [0; 7];
    there.read_exact(&mut through).unwrap();
    assert_eq!(&through, b"through");
    assert!(ports.try_wait().unwrap().is_none(), "it stays");
    ports.kill().unwrap();
    ports.wait().unwrap();
    assert!(!agent.path("ran").exists());
    let output =
        front(&agent, [&file, ""], &["-oSessionType=default", "a", "touch", &mark]).output();
    assert_eq!(code(&output.unwrap()), 0);
    assert!(agent.path("ran").exists());
}

/// It was started without a port that the file wants, whatever `ExitOnForwardFailure` said.
#[test]
fn a_port_that_is_left_out_ends_it_if_all_are_wanted() {
    let agent = TestAgent::start();
    let file = "LocalForward 1 /run/socket";
    for (all, words, ended, said) in [
        ("ExitOnForwardFailure no", &["a", "echo", "ran"][..], 0, "it is left out"),
        ("ExitOnForwardFailure yes", &["a", "echo", "ran"], 255, "ExitOnForwardFailure"),
        (
            "",
            &["-q", "-oExitOnForwardFailure=yes", "a", "echo", "ran"],
            255,
            "line 4: LocalForward",
        ),
        ("ExitOnForwardFailure yes", &["-oClearAllForwardings=yes", "a", "echo", "ran"], 0, ""),
    ] {
        let output = front(&agent, [file, all], words).output().unwrap();
        let ran = if ended == 0 { "ran\n" } else { "" };
        assert_eq!((code(&output), text(&output.stdout).as_str()), (ended, ran), "{words:?}");
        assert!(text(&output.stderr).contains(said), "{all} {words:?}: {output:?}");
    }
}

/// Somebody who takes connections and says nothing is waited for as long as the file says.
#[test]
fn a_silent_host_is_given_up_after_the_time_in_the_file() {
    let agent = TestAgent::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    for (file, words) in [
        (["ConnectTimeout 1", "ConnectTimeout 600"], &["-p", &port, "a", "true"][..]),
        (["ConnectTimeout none", "ConnectTimeout 1"], &["-p", &port, "a", "true"]),
        (["ConnectTimeout 600", ""], &["-oConnectTimeout=1", "-p", &port, "a", "true"]),
    ] {
        let output = front(&agent, file, words).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(code(&output), 255, "{said}");
        assert!(said.contains("1 s") || said.contains("1s"), "{file:?}: {said}");
    }
}

#[test]
fn a_value_that_is_none_is_named_with_its_line() {
    let agent = TestAgent::start();
    for (line, said) in [
        ("RequestTTY perhaps", "line 4: RequestTTY: it is yes, no, force or auto"),
        ("SessionType x", "line 4: SessionType: it is default, subsystem or none"),
        ("StdinNull x", "line 4: StdinNull: it is yes or no"),
        ("ConnectTimeout soon", "line 4: ConnectTimeout: "),
    ] {
        let output = front(&agent, [line, ""], &["a", "true"]).output().unwrap();
        assert_eq!((code(&output), text(&output.stdout).as_str()), (255, ""), "{line}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains("ssh_config: ") && stderr.contains(said), "{line}: {stderr}");
    }
    // Of another host nothing is looked at.
    let output = front(&agent, ["", "Host b\nRequestTTY perhaps"], &["a", "echo", "hi"]).output();
    assert_eq!(text(&output.unwrap().stdout), "hi\n");
}

/// What a file says for servers that leave out what they do not want: an agent would refuse the command.
#[test]
fn variables_of_a_file_are_sent_if_it_sets_them() {
    let user = own_user();
    let agent = TestAgent::with_policy(&format!(
        "[[rule]]\nname = 'all'\nusers = ['*']\nas = ['{user}']\ncommands = 'any'\nenv = ['SET']\n"
    ));
    let file = ["SendEnv LANG LC_*\nSetEnv SET=\"a b\"", "SetEnv SET=later"];
    let mut command = front(&agent, file, &["a", "echo \"$SET $LC_ALL\""]);
    let output = command.env("LC_ALL", "C").output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("a b \n", ""));
}
