//! The subcommands for jobs, against a real agent: what they print, and what they end with.

use crate::support::TestAgent;
use crate::support::certs::write_private;
use crate::support::cli::code;
use crate::support::proc::{eventually, running_with};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rexec_client::{JobId, TerminalSize};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A client at a terminal, and the side of it at which somebody sits.
fn at_a_terminal(mut client: Command) -> (Child, File) {
    let pty = openpty(None, None).unwrap();
    fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    client.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
    (client.spawn().unwrap(), File::from(pty.master))
}

impl TestAgent {
    /// `rexec SUBCOMMAND TARGET WORDS…`, with options before the target.
    pub(crate) fn job_command(&self, words: &[&str]) -> Command {
        let mut command = self.rexec();
        let words = words.iter().map(|word| word.replace("HOST", &self.target()));
        command.args(words);
        command
    }

    pub(crate) fn jobs(&self, words: &[&str]) -> Output {
        self.job_command(words).output().unwrap()
    }

    /// Runs `line` detached and gives its id.
    pub(crate) fn detached(&self, line: &str) -> String {
        let output = self.jobs(&["-d", "HOST", line]);
        assert_eq!(code(&output), 0, "{output:?}");
        let id = text(&output.stdout).trim_end().to_owned();
        assert!(JobId::new(&id).is_some(), "{id:?}");
        id
    }

    /// Runs `steps` to their end, each once the agent has read the bytes that the one before printed.
    pub(crate) fn in_steps(&self, steps: &[(&str, u64)]) -> String {
        let gate = |n: usize| self.path(&format!("gate{n}"));
        let wait = |n| format!("until test -e {}; do sleep 0.01; done", gate(n).display());
        let steps_and_gates =
            steps.iter().enumerate().map(|(n, (step, _))| format!("{step}; {}\n", wait(n)));
        let id = self.detached(&steps_and_gates.collect::<String>());
        let mut expected = 0;
        for (n, (_, bytes)) in steps.iter().enumerate() {
            expected += bytes;
            eventually("it was read", || {
                let listed = lines(&self.jobs(&["jobs", "--json", "HOST"]));
                let job = listed.iter().find(|job| job["id"] == id.as_str()).unwrap();
                let read = |stream: &str| job[stream]["bytes"].as_u64().unwrap();
                read("stdout") + read("stderr") == expected
            });
            fs::write(gate(n), "").unwrap();
        }
        self.jobs(&["wait", "HOST", &id]);
        id
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_detached_job_is_listed_waited_for_and_removed() {
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let id = agent.detached(&format!(
        "echo out; echo err >&2; until test -e {0}; do sleep 0.02; done; exit 7",
        gate.display()
    ));
    // A table for people …
    eventually("its output is there", || {
        let listed = agent.jobs(&["jobs", "--json", "HOST"]);
        lines(&listed).iter().any(|job| job["stdout"]["bytes"] == 4 && job["stderr"]["bytes"] == 4)
    });
    let table = agent.jobs(&["jobs", "HOST"]);
    let table = text(&table.stdout);
    let (titles, row) = table.split_once('\n').unwrap();
    assert!(titles.starts_with("ID") && titles.ends_with("COMMAND"), "{table}");
    for part in [&id, "alice", "running", " 8 ", "echo out; echo err"] {
        assert!(row.contains(part), "{part} is not in {table}");
    }
    // … and lines for programs.
    let listed = lines(&agent.jobs(&["jobs", "--json", "HOST"]));
    let [job] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((job["type"].as_str(), job["id"].as_str()), (Some("job"), Some(id.as_str())));
    assert_eq!((job["owner"].as_str(), job["state"].as_str()), (Some("alice"), Some("running")));
    assert_eq!((job["detached"].as_bool(), job["attached"].as_u64()), (Some(true), Some(0)));
    assert!(job["code"].is_null() && job["ended"].is_null() && job["started"].is_string());
    // It still runs.
    let refused = agent.jobs(&["rm", "HOST", &id]);
    assert_eq!(code(&refused), 125);
    assert!(text(&refused.stderr).contains("still runs"), "{refused:?}");
    fs::write(&gate, "").unwrap();
    // The tail of an id is enough.
    let waited = agent.jobs(&["wait", "HOST", &id[24..]]);
    assert_eq!((code(&waited), waited.stdout.len()), (7, 0), "{waited:?}");
    let waited = lines(&agent.jobs(&["wait", "--json", "HOST", &id]));
    assert_eq!(waited[0]["outcome"], "exited");
    assert_eq!(
        (waited[0]["id"].as_str(), waited[0]["stdout"]["bytes"].as_u64()),
        (Some(id.as_str()), Some(4))
    );
    let listed = lines(&agent.jobs(&["jobs", "--json", "HOST"]));
    assert_eq!(
        (listed[0]["state"].as_str(), listed[0]["code"].as_u64()),
        (Some("exited"), Some(7))
    );
    assert_eq!(code(&agent.jobs(&["rm", "HOST", &id])), 0);
    assert!(lines(&agent.jobs(&["jobs", "--json", "HOST"])).is_empty());
    let gone = agent.jobs(&["rm", "HOST", &id]);
    assert_eq!(code(&gone), 125);
    assert!(text(&gone.stderr).contains("no job"), "{gone:?}");
}

#[test]
fn a_detached_submission_says_what_it_did_to_programs() {
    let agent = TestAgent::start();
    let output = agent.jobs(&["-d", "--json", "--id", "deploy-1", "HOST", "exit 3"]);
    let said = lines(&output);
    assert_eq!(
        (said[0]["type"].as_str(), said[0]["id"].as_str()),
        (Some("detached"), Some("deploy-1"))
    );
    assert_eq!(code(&agent.jobs(&["wait", "HOST", "deploy-1"])), 3);
    // Submitted again it is the same job; another command under its id is refused.
    let again = agent.jobs(&["-d", "--id", "deploy-1", "HOST", "exit 3"]);
    assert_eq!((code(&again), text(&again.stdout)), (0, "deploy-1\n"));
    let other = agent.jobs(&["-d", "--id", "deploy-1", "HOST", "exit 4"]);
    assert_eq!(code(&other), 126);
    assert!(text(&other.stderr).contains("that of another command"), "{other:?}");
    let bad = agent.jobs(&["--id", "a b", "HOST", "true"]);
    assert_eq!(code(&bad), 125);
    assert!(text(&bad.stderr).contains("begins with a letter"), "{bad:?}");
    let missing = agent.jobs(&["-d", "--argv", "HOST", "/no/such/program"]);
    assert_eq!((code(&missing), missing.stdout.len()), (127, 0), "{missing:?}");
}

#[test]
fn the_same_id_runs_once_and_gives_the_same_end() {
    let agent = TestAgent::start();
    let marks = agent.path("marks");
    let line = format!("echo ran >>{}; echo out; exit 5", marks.display());
    for _ in 0..3 {
        let output = agent.jobs(&["--id", "once", "HOST", &line]);
        assert_eq!((code(&output), text(&output.stdout)), (5, "out\n"), "{output:?}");
    }
    assert_eq!(fs::read_to_string(&marks).unwrap(), "ran\n");
}

#[test]
fn logs_are_whole_ordered_and_can_be_verified() {
    let agent = TestAgent::start();
    let id = agent.in_steps(&[
        ("echo out 1", 6),
        ("echo err 1 >&2", 6),
        ("echo out 2", 6),
        ("echo err 2 >&2", 6),
        ("echo err 3 >&2", 6),
        (r"printf 'out 3\nend'", 9),
    ]);
    let logs = agent.jobs(&["logs", "--verify", "HOST", &id]);
    assert_eq!(code(&logs), 0, "{logs:?}");
    assert_eq!(text(&logs.stdout), "out 1\nout 2\nout 3\nend");
    assert_eq!(text(&logs.stderr), "err 1\nerr 2\nerr 3\n");
    let both = agent.jobs(&["logs", "--json", "HOST", &id]);
    let mut types: Vec<_> =
        lines(&both).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect();
    // What one command wrote may have been read in two pieces, and what two wrote in one.
    types.dedup();
    assert_eq!(types.join(" "), "start stdout stderr stdout stderr stdout exit");
    // One of them, or a part.
    let of = |words: &[&str]| {
        let words: Vec<&str> =
            ["logs"].iter().chain(words).chain(&["HOST", id.as_str()]).copied().collect();
        let output = agent.jobs(&words);
        assert_eq!(code(&output), 0, "{output:?}");
        (text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    let pair = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(of(&["--stdout"]), pair("out 1\nout 2\nout 3\nend", ""));
    assert_eq!(of(&["--stderr"]), pair("", "err 1\nerr 2\nerr 3\n"));
    assert_eq!(of(&["--since", "12"]), pair("out 3\nend", ""));
    assert_eq!(of(&["--since", "6", "--stderr"]), pair("", "err 2\nerr 3\n"));
    assert_eq!(of(&["--since", "1h", "--stdout"]).0, "out 1\nout 2\nout 3\nend");
    assert_eq!(of(&["--since", "2100-01-01T00:00:00Z"]), pair("", ""));
    assert_eq!(of(&["--verify", "--stdout"]), pair("out 1\nout 2\nout 3\nend", ""));
}

/// All identities share the ids of an agent. That one is taken is all that another may learn of it.
#[test]
fn an_id_that_another_has_taken_tells_nothing_of_the_other() {
    let agent = TestAgent::start();
    write_private(agent.dir.path(), "bob.pem", &agent.authority.issue_user("bob"));
    assert_eq!(code(&agent.jobs(&["-d", "--id", "deploy", "HOST", "sleep 60.1234"])), 0);
    let bob = |words: &[&str]| {
        agent.job_command(words).env("REXEC_IDENTITY", agent.path("bob.pem")).output().unwrap()
    };
    // Not even whether it is the same command.
    for line in ["sleep 60.1234", "true"] {
        let refused = bob(&["--id", "deploy", "HOST", line]);
        assert_eq!(code(&refused), 126, "{refused:?}");
        let said = text(&refused.stderr);
        assert!(said.contains("the id deploy is that of another command, or another's"), "{said}");
        assert!(!said.contains("alice") && !said.contains("1234"), "{said}");
    }
    for words in
        [&["logs", "HOST", "deploy"][..], &["rm", "HOST", "deploy"], &["kill", "HOST", "deploy"]]
    {
        let refused = bob(words);
        assert_eq!(code(&refused), 125, "{refused:?}");
        assert!(text(&refused.stderr).contains("no job deploy"), "{refused:?}");
    }
    assert!(bob(&["jobs", "--json", "HOST"]).stdout.is_empty());
    assert_eq!(code(&agent.jobs(&["kill", "HOST", "deploy"])), 0);
}

/// Otherwise nobody would know which job it is.
#[test]
fn a_detached_job_whose_id_nobody_can_have_is_told_on_stderr() {
    let agent = TestAgent::start();
    for (redirection, options) in [
        (">&-", &["-d"][..]),
        (">&-", &["-d", "--json"]),
        (">/dev/full", &["-d"]),
        (">/dev/full", &["-d", "--json"]),
    ] {
        let rexec = agent.job_command(&[options, &["HOST", "sleep 60"]].concat());
        let mut shell = Command::new("sh");
        let envs = rexec.get_envs().filter_map(|(name, value)| Some((name, value?)));
        shell.env_clear().envs(envs).arg("-c").arg(format!("exec \"$@\" {redirection}")).arg("sh");
        let output = shell.arg(rexec.get_program()).args(rexec.get_args()).output().unwrap();
        assert_eq!(code(&output), 125, "{options:?} {redirection}: {output:?}");
        let said = text(&output.stderr);
        let id = said.split("job ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert_eq!(code(&agent.jobs(&["kill", "HOST", id])), 0, "{said}");
    }
}

#[test]
fn what_is_forgotten_is_said_and_not_verified() {
    let agent = TestAgent::start();
    // Its client has all of it, so the agent keeps none of it; the id is kept.
    assert_eq!(code(&agent.jobs(&["--id", "forgotten", "HOST", "echo out; exit 4"])), 4);
    agent.jobs(&["rm", "HOST", "forgotten"]);
    let logs = agent.jobs(&["logs", "--verify", "HOST", "forgotten"]);
    assert_eq!(code(&logs), 254, "{logs:?}");
    assert!(text(&logs.stderr).contains("4 bytes of stdout are gone here"), "{logs:?}");
    assert!(text(&logs.stderr).contains("exited with status 4"), "{logs:?}");
    assert_eq!(code(&agent.jobs(&["wait", "HOST", "forgotten"])), 4);
    let unknown = agent.jobs(&["logs", "HOST", "never-was"]);
    assert_eq!(code(&unknown), 125);
    assert!(text(&unknown.stderr).contains("no job never-was"), "{unknown:?}");
    // Of one that runs, all that there is so far, of both.
    let running =
        agent.detached("echo out; for n in 1 2 3 4 5; do echo err >&2; sleep 0.01; done; sleep 60");
    eventually("its output is there", || {
        let listed = agent.jobs(&["jobs", "--json", "HOST"]);
        lines(&listed).iter().any(|job| job["stderr"]["bytes"] == 20)
    });
    for _ in 0..20 {
        let logs = agent.jobs(&["logs", "HOST", &running]);
        assert_eq!((code(&logs), text(&logs.stdout)), (0, "out\n"));
        assert_eq!(text(&logs.stderr), "err\n".repeat(5));
    }
    let beyond = agent.jobs(&["logs", "--since", "5", "HOST", &running]);
    assert_eq!(code(&beyond), 125);
    assert!(text(&beyond.stderr).contains("only 4 bytes of stdout"), "{beyond:?}");
    let early = agent.jobs(&["logs", "--verify", "HOST", &running]);
    assert_eq!(code(&early), 125);
    assert!(text(&early.stderr).contains("-f waits"), "{early:?}");
    assert_eq!(code(&agent.jobs(&["kill", "HOST", &running])), 0);
}

#[test]
fn logs_follow_a_job_to_its_end() {
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let id = agent.detached(&format!(
        "echo first; until test -e {}; do sleep 0.02; done; echo last",
        gate.display()
    ));
    let mut follow = agent
        .job_command(&["logs", "-f", "--verify", "--timestamps", "HOST", &id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(follow.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let (time, rest) = first.split_once(' ').unwrap();
    assert_eq!(rest, "first\n");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    fs::write(&gate, "").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with(" last\n"), "{rest}");
    assert!(follow.wait().unwrap().success());
}

/// Each output has a writer of its own, and one of them may be slow to begin.
#[test]
fn logs_in_one_file_are_in_the_order_of_arrival() {
    let agent = TestAgent::start();
    let steps: Vec<_> = (0..10).flat_map(|_| [("echo o", 2), ("echo e >&2", 2)]).collect();
    let id = agent.in_steps(&steps);
    for words in [&["logs"][..], &["logs", "--timestamps"]] {
        let file = fs::File::create(agent.path("both")).unwrap();
        let mut logs = agent.job_command(&[words, &["HOST", &id]].concat());
        let status = logs.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success());
        let text = fs::read_to_string(agent.path("both")).unwrap();
        let order: Vec<_> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(order, ["o", "e"].repeat(10), "{words:?}");
    }
}

/// A recording is a header and events of the format, its times never run back, its characters are whole.
#[test]
fn a_recording_can_be_played() {
    let agent = TestAgent::start();
    let id = agent.in_steps(&[
        (r"printf 'a\303'", 2),
        (r"printf '\251b\n'", 3),
        ("echo err >&2", 4),
        (r"printf '\377'", 1),
    ]);
    let cast = agent.jobs(&["logs", "--asciicast", "HOST", &id]);
    assert_eq!(code(&cast), 0, "{cast:?}");
    let cast = lines(&cast);
    let (header, events) = cast.split_first().unwrap();
    assert_eq!((header["version"].as_u64(), header["width"].as_u64()), (Some(2), Some(80)));
    assert!(header["timestamp"].as_u64().unwrap() > 1_700_000_000 && header["height"] == 24);
    let mut last = 0.0;
    let mut shown = String::new();
    for event in events {
        let (time, kind, data) =
            (event[0].as_f64().unwrap(), &event[1], event[2].as_str().unwrap());
        assert!(time >= last && kind == "o", "{event}");
        last = time;
        shown.push_str(data);
    }
    assert_eq!(shown, "aéb\r\nerr\r\n\u{fffd}");
}

/// Of a job that has a terminal, the recording has its size.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_as_large_as_the_terminal() {
    let agent = TestAgent::start();
    let size = TerminalSize { columns: 132, rows: 43, width: 0, height: 0 };
    let session = agent.session().await;
    let command = session.shell("echo one").terminal("xterm", size).id(JobId::new("t").unwrap());
    command.detach().await.unwrap();
    let cast = tokio::task::spawn_blocking(move || {
        agent.jobs(&["wait", "HOST", "t"]);
        agent.jobs(&["logs", "--asciicast", "HOST", "t"])
    });
    let cast = lines(&cast.await.unwrap());
    assert_eq!((cast[0]["width"].as_u64(), cast[0]["height"].as_u64()), (Some(132), Some(43)));
    assert_eq!(cast[1][2], "one\r\n");
}

#[test]
fn attach_shows_it_all_and_ends_as_the_job_does() {
    let agent = TestAgent::start();
    // One that has ended.
    let id = agent.detached("echo out; echo err >&2; exit 9");
    agent.jobs(&["wait", "HOST", &id]);
    let output = agent.jobs(&["attach", "HOST", &id]);
    assert_eq!((code(&output), text(&output.stdout), text(&output.stderr)), (9, "out\n", "err\n"));
    let output = agent.jobs(&["attach", "--json", "--read-only", "HOST", &id]);
    let last = lines(&output).pop().unwrap();
    assert_eq!((last["code"].as_u64(), last["verified"].as_bool()), (Some(9), Some(true)));
    // One that runs, from its start; Ctrl-C ends it as it ends a run.
    let mark = format!("2401.{}", agent.pid());
    let id = agent.detached(&format!("echo out; exec sleep {mark}"));
    let mut attached = agent
        .job_command(&["attach", "HOST", &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(attached.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "out\n");
    interrupt(attached.id());
    assert_eq!(attached.wait().unwrap().code(), Some(130));
    eventually("it is gone", || running_with(&mark).is_empty());
}

/// A window that is closed takes its client with it, and not what was to go on without one.
#[test]
fn what_goes_on_without_a_client_outlives_its_window() {
    let agent = TestAgent::start();
    let mark = format!("2404.{}", agent.pid());
    let id = agent.detached(&format!("echo out; exec sleep {mark}"));
    let kept = format!("echo out; exec sleep {mark}");
    let kept = ["--on-disconnect", "keep", "--id", "kept", "HOST", &kept];
    let signals = [(Signal::SIGHUP, 129), (Signal::SIGTERM, 143), (Signal::SIGQUIT, 131)];
    for (words, id) in [(&["attach", "HOST", &id][..], id.as_str()), (&kept, "kept")] {
        for (signal, status) in signals {
            let mut client = agent.job_command(words).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "out\n");
            kill(Pid::from_raw(client.id() as i32), signal).unwrap();
            assert_eq!(client.wait().unwrap().code(), Some(status), "{words:?}");
        }
        let listed = lines(&agent.jobs(&["jobs", "--json", "HOST"]));
        let job = listed.iter().find(|job| job["id"] == id).unwrap();
        assert_eq!((&job["state"], &job["attached"]), (&"running".into(), &0.into()), "{job}");
    }
    assert_eq!(running_with(&mark).len(), 2);
}

/// A terminal that is closed fails to be written, and its stdin ends, before its signal comes.
#[test]
fn what_goes_on_without_a_client_outlives_its_terminal() {
    let agent = TestAgent::start();
    let mark = format!("2405.{}", agent.pid());
    let (busy, fed) = (format!("exec yes {mark}"), format!("echo {mark}; cat; exit 3; : {mark}"));
    let detached = agent.detached(&busy);
    for words in [
        &["attach", "HOST", &detached][..],
        &["--on-disconnect", "keep", "--id", "busy", "HOST", &busy],
        &["--on-disconnect", "keep", "--id", "fed", "HOST", &fed],
        &["-t", "--on-disconnect", "keep", "--id", "terminal", "HOST", &busy],
    ] {
        let (mut client, mut master) = at_a_terminal(agent.job_command(words));
        // Something of it was shown.
        let (mut shown, mut piece) = (String::new(), [0; 4096]);
        while !shown.contains(&mark) {
            let length = master.read(&mut piece).unwrap();
            shown += &String::from_utf8_lossy(&piece[..length]);
        }
        drop(master);
        client.wait().unwrap();
    }
    let listed = lines(&agent.jobs(&["jobs", "--json", "HOST"]));
    assert_eq!(listed.len(), 4, "{listed:?}");
    for job in listed {
        assert_eq!((&job["state"], &job["attached"]), (&"running".into(), &0.into()), "{job}");
    }
}

/// A second signal, as of a shell and a kernel that both tell of a closed window, was told as a command that was lost,
/// and a Ctrl-C ended what was just said to go on.
#[test]
fn a_second_signal_leaves_as_the_first_one_did() {
    let agent = TestAgent::start();
    let mark = format!("2406.{}", agent.pid());
    let line = format!("echo out; exec sleep {mark}");
    for (n, (signals, status)) in
        [([Signal::SIGHUP, Signal::SIGTERM], 129), ([Signal::SIGUSR1, Signal::SIGINT], 138)]
            .into_iter()
            .enumerate()
    {
        let id = format!("kept-{n}");
        let words = ["--on-disconnect", "keep", "--id", &id, "HOST", &line];
        let mut client = agent.job_command(&words);
        let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut said) = (String::new(), String::new());
        BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut out).unwrap();
        let client_id = Pid::from_raw(client.id() as i32);
        // Nobody answers that it may leave.
        agent.signal(Signal::SIGSTOP);
        kill(client_id, signals[0]).unwrap();
        BufReader::new(client.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("goes on there"), "{said}");
        kill(client_id, signals[1]).unwrap();
        let ended = client.wait().unwrap().code();
        agent.signal(Signal::SIGCONT);
        assert_eq!(ended, Some(status), "{signals:?}");
    }
    assert_eq!(running_with(&mark).len(), 2);
}

#[test]
fn who_looks_on_leaves_and_ends_nothing() {
    let agent = TestAgent::start();
    let mark = format!("2402.{}", agent.pid());
    let id = agent.detached(&format!("echo out; exec sleep {mark}"));
    for words in [["attach", "--read-only", "HOST", &id], ["logs", "-f", "HOST", &id]] {
        let mut watching = agent.job_command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watching.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "out\n");
        interrupt(watching.id());
        assert_eq!(watching.wait().unwrap().code(), Some(130), "{words:?}");
    }
    assert!(!running_with(&mark).is_empty());
    // A signal is only a signal …
    let stopped = agent.jobs(&["kill", "-s", "CONT", "HOST", &id]);
    assert_eq!(code(&stopped), 0, "{stopped:?}");
    assert!(!running_with(&mark).is_empty());
    // … and without one it is ended, and that is waited for.
    assert_eq!(code(&agent.jobs(&["kill", "HOST", &id])), 0);
    assert!(running_with(&mark).is_empty());
    assert_eq!(code(&agent.jobs(&["wait", "HOST", &id])), 130);
    let late = agent.jobs(&["kill", "-s", "TERM", "HOST", &id]);
    assert_eq!(code(&late), 125);
    assert!(text(&late.stderr).contains("has ended already"), "{late:?}");
}

/// Who comes with control gets stdin, and who had it keeps looking on.
#[test]
fn stdin_is_handed_over() {
    let agent = TestAgent::start();
    let mut first = agent
        .job_command(&[
            "--id",
            "talk",
            "HOST",
            "while read line; do echo \"got $line\"; done; exit 6",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut feed = first.stdin.take().unwrap();
    let mut out = BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    feed.write_all(b"one\n").unwrap();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "got one\n");
    let mut second = agent
        .job_command(&["attach", "HOST", "talk"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut its_feed = second.stdin.take().unwrap();
    its_feed.write_all(b"two\n").unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "got two\n", "the first one looks on");
    // What the first one sends now goes nowhere; its end is not the command's.
    drop(feed);
    its_feed.write_all(b"three\n").unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "got three\n");
    drop(its_feed);
    assert_eq!(second.wait().unwrap().code(), Some(6));
    assert_eq!(first.wait().unwrap().code(), Some(6));
}

/// A job without stdin is attached to all the same, whatever this side's stdin does.
#[test]
fn a_job_without_stdin_takes_none_and_lives_on() {
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let id = agent
        .detached(&format!("until test -e {}; do sleep 0.02; done; echo alive", gate.display()));
    let mut attached = agent
        .job_command(&["attach", "HOST", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut feed = attached.stdin.take().unwrap();
    feed.write_all(b"nobody reads this\n").unwrap();
    drop(feed);
    eventually("it is attached", || {
        lines(&agent.jobs(&["jobs", "--json", "HOST"])).iter().any(|job| job["attached"] == 1)
    });
    fs::write(&gate, "").unwrap();
    let output = attached.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stdout)), (0, "alive\n"));
}

/// F33: one who looks on and does not read holds up neither the job nor others.
#[test]
fn a_slow_watcher_slows_nobody() {
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let bytes = 20_000_000;
    let line =
        format!("until test -e {}; do sleep 0.02; done; head -c {bytes} /dev/zero", gate.display());
    let mut run =
        agent.job_command(&["--id", "much", "HOST", &line]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("it runs", || {
        lines(&agent.jobs(&["jobs", "--json", "HOST"])).iter().any(|job| job["state"] == "running")
    });
    let mut slow = agent
        .job_command(&["attach", "--read-only", "HOST", "much"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is watched", || {
        lines(&agent.jobs(&["jobs", "--json", "HOST"])).iter().any(|job| job["attached"] == 2)
    });
    fs::write(&gate, "").unwrap();
    let mut count = 0;
    let mut out = run.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match out.read(&mut buffer).unwrap() {
            0 => break,
            n => count += n,
        }
    }
    assert_eq!((count, run.wait().unwrap().code()), (bytes, Some(0)));
    // What it missed it is told of, also by its end.
    let seen = {
        let mut seen = Vec::new();
        slow.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
        seen.len()
    };
    let output = slow.wait_with_output().unwrap();
    assert_eq!(code(&output), 254, "{output:?}");
    assert!(seen < bytes, "it was kept for it");
    let said = text(&output.stderr);
    let missed: usize =
        said.lines().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok()).sum();
    assert_eq!(seen + missed, bytes, "{said}");
}

/// A retry meets the agent that was not there at first; the command runs once.
#[test]
fn retry_waits_for_an_agent_that_is_down() {
    let agent = TestAgent::start();
    let marks = agent.path("marks");
    // Refuses connections until it is a way to the agent.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("echo ran >>{}; exit 5", marks.display());
    let target = format!("127.0.0.1:{port}");
    let mut rexec = agent.rexec();
    rexec
        .args(["--retry", "20", "--json", &target, &line])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = rexec.spawn().unwrap();
    let mut said = BufReader::new(running.stderr.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    assert!(first.contains("trying again in 500ms (1 of 20)"), "{first}");
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let to = agent.port;
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
            let (mut a, mut b) = (far, near);
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
        }
    });
    let output = running.wait_with_output().unwrap();
    assert_eq!(code(&output), 5, "{output:?}");
    assert_eq!(fs::read_to_string(&marks).unwrap(), "ran\n");
    // Without it the first failure is the last.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = agent.rexec().args([&refused.to_string(), "true"]).output().unwrap();
    assert_eq!(code(&output), 255);
}

/// It was taken for a host, which says little to who meant no host.
#[test]
fn a_subcommand_with_a_slip_gets_a_hint() {
    let agent = TestAgent::start();
    let said = |words: &[&str]| {
        let output = agent.rexec().args(words).output().unwrap();
        assert_eq!(code(&output), 255, "{output:?}");
        text(&output.stderr).to_owned()
    };
    assert!(said(&["jbos", "web1"]).contains("did you mean 'rexec jobs'?"));
    assert!(said(&["-q", "--json", "atach", "web1", "x"]).contains("did you mean 'rexec attach'?"));
    for host in ["backend7.invalid", "db", "ping.invalid", "host"] {
        let said = said(&[host, "true"]);
        assert!(!said.contains("did you mean"), "{said}");
    }
    // It is there, and nobody listens.
    assert!(!said(&["-p", "1", "127.0.0.1", "true"]).contains("did you mean"));
}

/// Who gives up says how to come back, in words and to programs; and that is a way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_job_can_be_come_back_to() {
    use crate::support::chaos::{Chaos, Plan};
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let target = format!("127.0.0.1:{}", chaos.port);
    let line = format!(
        "echo first; until test -e {}; do sleep 0.02; done; echo second; exit 8",
        gate.display()
    );
    let mut rexec = agent.rexec();
    rexec
        .args([
            "-v",
            "--json",
            "--reconnect-for",
            "300ms",
            "--on-disconnect",
            "keep",
            &target,
            &line,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = rexec.spawn().unwrap();
    let mut out = BufReader::new(running.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("first") {
        assert!(out.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    chaos.refuse(true);
    chaos.cut();
    let (output, rest) = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (running.wait_with_output().unwrap(), rest)
    })
    .await
    .unwrap();
    assert_eq!(code(&output), 255, "{output:?}");
    let record: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    let (id, attach) = (record["id"].as_str().unwrap(), record["attach"].as_str().unwrap());
    assert_eq!(record["outcome"], "lost");
    assert_eq!(attach, format!("rexec attach {target} {id}"));
    let said = text(&output.stderr);
    assert!(
        said.contains("connection lost (")
            && said.contains(&format!("to come back to it: {attach}")),
        "{said}"
    );
    chaos.refuse(false);
    fs::write(&gate, "").unwrap();
    let mut back = agent.rexec();
    back.args(attach.split(' ').skip(1));
    let output = tokio::task::spawn_blocking(move || back.output().unwrap()).await.unwrap();
    assert_eq!(code(&output), 8, "{output:?}");
    assert!(text(&output.stdout).ends_with("second\n"), "{output:?}");
}

/// In a pipe a connection that comes back is not worth a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_comes_back_is_not_mentioned_in_a_pipe() {
    use crate::support::chaos::{Chaos, Plan};
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let line =
        format!("echo first; until test -e {}; do sleep 0.02; done; echo second", gate.display());
    let mut rexec = agent.rexec();
    rexec
        .args([&format!("127.0.0.1:{}", chaos.port), &line])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = rexec.spawn().unwrap();
    let mut out = BufReader::new(running.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    chaos.cut();
    fs::write(&gate, "").unwrap();
    let (output, rest) = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (running.wait_with_output().unwrap(), rest)
    })
    .await
    .unwrap();
    assert_eq!((code(&output), rest.as_str(), text(&output.stderr)), (0, "second\n", ""));
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_done() {
    let agent = TestAgent::start();
    for (words, part) in [
        (&["logs", "HOST"][..], "<JOB>"),
        (&["logs", "--since", "yesterday", "HOST", "j"], "RFC"),
        (&["kill", "-s", "MAYBE", "HOST", "j"], "SIGTERM"),
        (&["rm", "HOST"], "<JOB>"),
        (&["attach", "-o", "User=bob", "HOST", "j"], "means nothing to attach"),
        (&["--on-disconnect", "stay", "HOST", "true"], "lease=DURATION"),
        (&["--on-full", "cry", "HOST", "true"], "discard-oldest"),
        (&["-q", "jobs", "HOST"], "go after it"),
        (&["-d", "HOST"], "-d needs a command"),
    ] {
        let output = agent.jobs(words);
        assert_eq!(code(&output), 125, "{words:?}: {output:?}");
        let part = if part == "RFC" { "2026-11-22T20:30:00Z" } else { part };
        assert!(text(&output.stderr).contains(part), "{words:?}: {output:?}");
    }
    let output = agent.jobs(&["wait", "HOST", "no/job"]);
    assert_eq!(code(&output), 125);
    assert!(text(&output.stderr).contains("is no job id"), "{output:?}");
}

/// Another's jobs are not there for one whom the policy does not let see them.
#[test]
fn the_jobs_of_others_are_unknown() {
    let agent = TestAgent::start();
    let id = agent.detached("sleep 60");
    write_private(agent.dir.path(), "bob.pem", &agent.authority.issue_user("bob"));
    let bob = |words: &[&str]| {
        agent.job_command(words).env("REXEC_IDENTITY", agent.path("bob.pem")).output().unwrap()
    };
    assert!(lines(&bob(&["jobs", "--json", "HOST"])).is_empty());
    for words in
        [["kill", "HOST", &id], ["attach", "HOST", &id], ["rm", "HOST", &id], ["logs", "HOST", &id]]
    {
        let output = bob(&words);
        assert_eq!(code(&output), 125, "{words:?}");
        assert!(text(&output.stderr).contains("no job"), "{output:?}");
    }
    assert_eq!(code(&agent.jobs(&["kill", "HOST", &id])), 0);
}

/// What only a terminal gets: one line, which is gone again at the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_line_is_written_and_erased() {
    use crate::support::chaos::{Chaos, Plan};
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let chaos = Chaos::start(agent.port, |_| Plan::default()).await;
    let pty = openpty(None, None).unwrap();
    let line = format!("echo first; until test -e {}; do sleep 0.02; done", gate.display());
    let mut rexec = agent.rexec();
    rexec.args([&format!("127.0.0.1:{}", chaos.port), &line]).stdout(Stdio::piped());
    rexec.stderr(Stdio::from(pty.slave.try_clone().unwrap()));
    let mut running = rexec.spawn().unwrap();
    drop((rexec, pty.slave));
    let mut first = String::new();
    BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    chaos.refuse(true);
    chaos.cut();
    let mut terminal = File::from(pty.master);
    let reading = tokio::task::spawn_blocking(move || {
        let mut shown = String::new();
        let mut buffer = [0; 4096];
        let begin = Instant::now();
        // EIO: the other end is closed.
        while let Ok(n) = terminal.read(&mut buffer) {
            if n == 0 || begin.elapsed() > Duration::from_secs(20) {
                break;
            }
            shown.push_str(str::from_utf8(&buffer[..n]).unwrap());
            if shown.contains("trying again, ") && !gate.exists() {
                fs::write(&gate, "").unwrap();
                chaos.refuse(false);
            }
        }
        shown
    });
    let status = tokio::task::spawn_blocking(move || running.wait().unwrap()).await.unwrap();
    let shown = reading.await.unwrap();
    assert!(status.success(), "{status:?}: {shown:?}");
    assert!(shown.contains("rexec: 127.0.0.1: connection lost ("), "{shown:?}");
    assert!(shown.contains("of 5m"), "{shown:?}");
    assert!(shown.ends_with("\x1b[B\r\x1b[K\x1b8"), "{shown:?}");
}

fn interrupt(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}

/// What the option says holds when the client dies; and `-d` outlives a client that says goodbye.
#[test]
fn what_becomes_of_a_job_without_its_client() {
    let agent = TestAgent::with("[limits]\nkill_grace = '200ms'");
    let mark = |what: &str| format!("25{what}.{}", agent.pid());
    for (what, then) in [("01", "kill"), ("02", "lease=200ms"), ("03", "lease=10m"), ("04", "keep")]
    {
        let line = format!("echo up; exec sleep {}", mark(what));
        let mut running = agent
            .job_command(&["--id", &format!("job-{what}"), "--on-disconnect", then, "HOST", &line])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut up).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
    }
    for ended in ["01", "02"] {
        eventually("its tree is gone", || running_with(&mark(ended)).is_empty());
    }
    for running in ["03", "04"] {
        assert!(!running_with(&mark(running)).is_empty(), "{running}");
        assert_eq!(code(&agent.jobs(&["kill", "HOST", &format!("job-{running}")])), 0);
        assert!(running_with(&mark(running)).is_empty(), "{running}");
    }
}

/// It printed the id, kept nothing, and the job ended with the client that had started it.
#[test]
fn who_detaches_a_job_that_runs_already_keeps_it() {
    let agent = TestAgent::with("[jobs]\nlease_closed = '100ms'\n[limits]\nkill_grace = '100ms'");
    let line = format!("echo up; exec sleep 2505.{}", agent.pid());
    let left_by_its_client = |id: &str| {
        let words = ["-n", "--id", id, "HOST", &line];
        let mut client = agent.job_command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut up).unwrap();
        if id == "kept" {
            let second = agent.jobs(&["-d", "--id", id, "HOST", &line]);
            assert_eq!((code(&second), text(&second.stdout)), (0, "kept\n"), "{second:?}");
        }
        client.kill().unwrap();
        client.wait().unwrap();
    };
    left_by_its_client("kept");
    // The lease of one that is left later is over later.
    left_by_its_client("other");
    assert_ne!(code(&agent.jobs(&["wait", "HOST", "other"])), 0);
    let listed = lines(&agent.jobs(&["jobs", "--json", "HOST"]));
    let kept = listed.iter().find(|job| job["id"] == "kept").unwrap();
    assert_eq!((&kept["state"], &kept["attached"]), (&"running".into(), &0.into()), "{kept}");
    assert_eq!(text(&agent.jobs(&["logs", "HOST", "kept"]).stdout), "up\n");
    assert_eq!(code(&agent.jobs(&["kill", "HOST", "kept"])), 0);
}

/// Output that was altered on the agent's disk is never taken for what the job printed.
#[test]
fn altered_output_is_not_verified() {
    let agent = TestAgent::start();
    let id = agent.detached("seq 1000");
    agent.jobs(&["wait", "HOST", &id]);
    assert_eq!(code(&agent.jobs(&["logs", "--verify", "HOST", &id])), 0);
    let file = agent.path(&format!("state/jobs/{id}/out"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    for words in [&["logs", "--verify", "HOST", &id][..], &["logs", "HOST", &id]] {
        let logs = agent.jobs(words);
        assert_eq!(code(&logs), 254, "{words:?}: {:?}", text(&logs.stderr));
    }
}

/// Nothing else would say why it does not go on, and what helps.
#[test]
fn a_job_that_waits_for_room_says_so() {
    let agent = TestAgent::with("[jobs]\nmax_output = '2MiB'");
    let id = agent.detached("seq 1000000");
    let job = || lines(&agent.jobs(&["jobs", "--json", "HOST"])).remove(0);
    eventually("it waits", || job()["state"] == "waiting");
    assert!(job()["waiting"].as_str().unwrap().contains("'jobs.max_output'"), "{}", job());
    let waits = |table: &Output| text(&table.stdout).contains(" waiting ");
    assert!(waits(&agent.jobs(&["jobs", "HOST"])) && waits(&agent.ctl(&["jobs"])));
    let there = [&["wait"][..], &["logs", "-f"], &["attach", "--read-only"]].map(|words| {
        let mut command = agent.job_command(&[words, &["HOST", &id]].concat());
        let mut there = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(there.stderr.take().unwrap());
        let mut said = String::new();
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains("waits until there is room"), "{words:?}: {said}");
        assert!(said.contains("'rexec attach'"), "{words:?}: {said}");
        (there, stderr)
    });
    let owner = agent.jobs(&["attach", "-n", "HOST", &id]);
    assert_eq!((code(&owner), text(&owner.stderr)), (0, ""), "its owner reads");
    for (mut there, mut stderr) in there {
        assert!(there.wait().unwrap().code().is_some());
        let mut more = String::new();
        stderr.read_to_string(&mut more).unwrap();
        assert!(!more.contains("waits until"), "once: {more}");
    }
    assert_eq!(job()["state"], "exited");
    assert_eq!(job()["waiting"], Value::Null);
}

/// Its output is not there to be distrusted.
#[test]
fn logs_of_a_job_that_was_removed_say_that_it_was() {
    let agent = TestAgent::start();
    let id = agent.detached("seq 10; exit 3");
    agent.jobs(&["wait", "HOST", &id]);
    assert_eq!(code(&agent.jobs(&["rm", "HOST", &id])), 0);
    for words in [&["logs"][..], &["logs", "--verify"], &["logs", "-f"]] {
        let logs = agent.jobs(&[words, &["HOST", &id]].concat());
        let said = text(&logs.stderr);
        assert_eq!(code(&logs), 254, "{said}");
        assert!(said.contains("the job was removed") && said.contains("status 3"), "{said}");
        assert!(!said.contains("trust"), "{said}");
    }
}

/// To attach to it would be refused.
#[test]
fn of_a_job_that_its_agent_does_not_know_nobody_is_sent_back_to_it() {
    let mut agent = TestAgent::start();
    let mark = format!("2505.{}", agent.pid());
    // Not in the words of the client, which are looked for, too.
    let script = agent.path("script");
    fs::write(&script, format!("#!/bin/sh\necho up; exec sleep {mark}\n")).unwrap();
    let script = script.to_str().unwrap();
    let mut running = agent
        .job_command(&["--on-disconnect", "kill", "--json", "--script", script, "HOST"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(running.stdout.take().unwrap());
    eventually("it is up", || {
        let mut event = String::new();
        stdout.read_line(&mut event).unwrap();
        event.contains("stdout")
    });
    agent.kill();
    eventually("its tree is gone", || running_with(&mark).is_empty());
    agent.start_again();
    let (mut events, mut said) = (String::new(), String::new());
    stdout.read_to_string(&mut events).unwrap();
    running.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(255), "{said}");
    let end: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&end["outcome"], &end["attach"]), (&"lost".into(), &Value::Null), "{end}");
    assert!(said.contains("nothing to come back to") && !said.contains("rexec attach"), "{said}");
}

/// It would otherwise be there for as long as it tries to connect.
#[test]
fn who_leaves_while_there_is_no_connection_is_gone_at_once() {
    let mut agent = TestAgent::start();
    let mut running = agent
        .job_command(&["-v", "--on-disconnect", "keep", "HOST", "echo up; exec sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    agent.kill();
    let mut said = String::new();
    while !said.contains("connection lost") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    kill(Pid::from_raw(running.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(128 + 15));
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("because of SIGTERM; the command goes on there"), "{said}");
    agent.start_again();
    let id = lines(&agent.jobs(&["jobs", "--json", "HOST"])).remove(0)["id"].clone();
    assert_eq!(code(&agent.jobs(&["kill", "HOST", id.as_str().unwrap()])), 0);
}
