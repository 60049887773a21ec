//! What becomes of a command when `rexec-ssh` is asked to end, by a person or by the program that called it.

use crate::support::TestAgent;
use crate::support::proc::{eventually, is_running, running_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A front whose command has printed its first line.
struct Front {
    child: Child,
    first: String,
    rest: BufReader<ChildStdout>,
}

impl Front {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        rest.read_line(&mut first).unwrap();
        Self { child, first: first.trim().to_owned(), rest }
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// What its command prints from here on, and its status; `None` if a signal ended it.
    fn end(mut self) -> (String, Option<i32>) {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.rest.read_to_string(&mut text).unwrap();
        (text, self.child.wait().unwrap().code())
    }
}

/// Without a goodbye the command would go on for as long as its lease, ten seconds.
#[test]
fn every_signal_that_ends_a_process_ends_the_command_before_it() {
    let agent = TestAgent::start();
    let signals = [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGXCPU,
    ];
    let fronts = signals.map(|signal| {
        let mut command = agent.rexec_ssh();
        command.args(["127.0.0.1", "ulimit -c 0; echo $$; exec sleep 1000"]);
        (signal, Front::start(command))
    });
    fronts.iter().for_each(|(signal, front)| front.send(*signal));
    for (signal, front) in fronts {
        let pid = front.first.parse().unwrap();
        assert_eq!(front.end(), (String::new(), Some(255)), "{signal}");
        assert!(!is_running(pid), "{signal}");
    }
}

/// rsync ends its ssh by SIGUSR1, and then itself: the rsync there sees the end of its stdin and keeps the
/// part that it has at once, where a signal would make it wait.
#[test]
fn a_caller_that_ends_itself_leaves_the_command_a_moment_to_do_so_too() {
    let agent = TestAgent::start();
    let line = "trap 'echo signal; exit' TERM USR1; echo ready; cat >/dev/null; echo end of stdin";
    let mut command = agent.rexec_ssh();
    command.args(["127.0.0.1", line]);
    let front = Front::start(command);
    front.send(Signal::SIGUSR1);
    assert_eq!(front.end(), ("end of stdin\n".to_owned(), Some(0)));
}

/// The second one counted as a request to leave at once, and the command was left to itself: it ran on.
#[test]
fn a_request_to_end_after_a_signal_that_is_none_cancels_the_command() {
    let agent = TestAgent::start();
    let mut command = agent.rexec();
    let line = "echo $$; exec sleep 1000";
    command.args(["--on-disconnect", "lease=1h", &agent.target(), line]).stderr(Stdio::piped());
    let mut front = Front::start(command);
    let pid = front.first.parse().unwrap();
    let mut said = BufReader::new(front.child.stderr.take().unwrap());
    let mut first = String::new();
    front.send(Signal::SIGUSR1);
    said.read_line(&mut first).unwrap();
    assert!(first.contains("because of SIGUSR1"), "{first}");
    front.send(Signal::SIGTERM);
    assert_eq!(front.end(), (String::new(), Some(130)));
    assert!(!is_running(pid));
}

/// As nohup does it, and a shell for its background jobs.
#[test]
fn a_signal_that_was_ignored_from_the_start_stays_so() {
    let agent = TestAgent::start();
    let front = agent.rexec_ssh();
    let mut command = Command::new("sh");
    let variables = front.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).args(["-c", "trap '' USR1 HUP; exec \"$@\"", "sh"]);
    command.arg(front.get_program()).args(["127.0.0.1", "echo ready; cat"]);
    let mut front = Front::start(command);
    front.send(Signal::SIGUSR1);
    front.send(Signal::SIGHUP);
    front.child.stdin.as_mut().unwrap().write_all(b"typed").unwrap();
    assert_eq!(front.end(), ("typed".to_owned(), Some(0)));
}

/// Its agent was killed, and with it what nobody had yet. Who talks to a program there gets no other bytes in their
/// place, and no wait for what will never come: the connection is over, as ssh's would be.
#[test]
fn output_ends_where_bytes_are_missing() {
    let mut agent = TestAgent::start();
    let numbers: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    for round in 1.. {
        let mark = format!("mark-{}-{round}", agent.pid());
        let mut ssh = agent.rexec_ssh();
        ssh.args(["127.0.0.1", &format!("seq 1 2000000; : {mark}; read -r forever")]);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut got = vec![0; 1 << 20];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut got).unwrap();
        agent.kill();
        agent.start_again();
        let mut all = Vec::new();
        let (mut block, mut rest) = (vec![0; 1 << 16], numbers.len() - got.len());
        // The command waits after its last number, if all of them come.
        while rest > 0 {
            let n = stdout.read(&mut block).unwrap();
            if n == 0 {
                break;
            }
            all.extend_from_slice(&block[..n]);
            rest -= n.min(rest);
        }
        got.append(&mut all);
        assert!(numbers.as_bytes().starts_with(&got), "what came is no beginning");
        let is_whole = got.len() == numbers.len();
        drop(child.stdin.take());
        let end = child.wait_with_output().unwrap();
        if !is_whole {
            let said = String::from_utf8(end.stderr).unwrap();
            assert_eq!(end.status.code(), Some(255), "{said}");
            assert!(said.contains("are gone, so it ends"), "{said}");
            eventually("the command is ended", || running_with(&mark).is_empty());
            break;
        }
        assert!(round < 20, "an agent that was killed had lost nothing");
    }
}
