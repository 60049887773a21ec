//! `rexec logs` where bytes are missing, and for programs; and readers that leave.

use crate::rooms::open_to_all;
use crate::support::TestAgent;
use crate::support::cli::code;
use crate::support::proc::eventually;
use rexec_client::{JobId, Offsets, Place};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

impl TestAgent {
    /// A detached job that has ended.
    fn ended(&self, line: &str) -> String {
        let id = self.detached(line);
        self.jobs(&["wait", "HOST", &id]);
        id
    }

    /// Cuts the end of a file of a job off, as a disk may that has lost something.
    fn cut(&self, job: &str, name: &str, length: u64) {
        let file = self.path("state/jobs").join(job).join(name);
        File::options().write(true).open(file).unwrap().set_len(length).unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn last(output: &Output) -> Value {
    let text = str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// 588,895 bytes.
const MUCH: &str = "seq 100000; echo bad >&2";

#[test]
fn logs_of_a_job_that_lost_bytes_on_disk_end_with_254() {
    let agent = TestAgent::start();
    let id = agent.ended(MUCH);
    assert_eq!(code(&agent.jobs(&["logs", "HOST", &id])), 0);
    agent.cut(&id, "out", 1000);
    // Also when the agent knows of it already.
    for _ in 0..2 {
        for words in [&["logs"][..], &["logs", "-q"], &["logs", "--stdout"], &["logs", "-f"]] {
            let logs = agent.jobs(&[words, &["HOST", &id]].concat());
            assert_eq!(code(&logs), 254, "{words:?}: {}", said(&logs));
            let gone = said(&logs);
            assert!(gone.contains(" bytes of stdout") && gone.contains(" are gone; "), "{gone}");
        }
    }
    let logs = agent.jobs(&["logs", "--json", "HOST", &id]);
    let end = last(&logs);
    assert_eq!(
        (code(&logs), &end["type"], &end["outcome"]),
        (254, &"exit".into(), &"incomplete".into())
    );
}

/// Another agent finds less than there was at the job's end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_end_of_output_on_disk_is_a_gap() {
    let mut agent = TestAgent::start();
    let id = agent.ended(MUCH);
    agent.kill();
    agent.cut(&id, "out", 300_000);
    agent.start_again();
    let logs = agent.jobs(&["logs", "HOST", &id]);
    assert_eq!(code(&logs), 254, "{}", said(&logs));
    let whole: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let shown = logs.stdout.len();
    assert!(shown <= 300_000 && whole.as_bytes().starts_with(&logs.stdout), "{shown} bytes");
    let gone = format!("{} bytes of stdout are gone here", whole.len() - shown);
    assert!(said(&logs).contains(&gone), "{gone}: {}", said(&logs));
    assert!(said(&logs).contains("exited with status 0"), "{}", said(&logs));
    // Who had all of it before misses nothing.
    let had = Place::Offsets(Offsets { out: whole.len() as u64, err: 4 });
    let session = agent.session().await;
    let mut child = session.attach(JobId::new(&id).unwrap()).from(had).join().await.unwrap();
    let status = child.wait().await.unwrap();
    assert!(status.success(), "{status:?}");
    // As who comes to it is told.
    let attach = agent.jobs(&["attach", "--read-only", "HOST", &id]);
    assert_eq!((code(&attach), &attach.stdout), (254, &logs.stdout), "{}", said(&attach));
    assert!(said(&attach).contains(&gone), "{}", said(&attach));
}

#[test]
fn logs_as_json_end_with_what_is_known_of_the_job() {
    let agent = TestAgent::start();
    let id = agent.ended("echo out; exit 7");
    let logs = agent.jobs(&["logs", "--json", "HOST", &id]);
    let end = last(&logs);
    assert_eq!((code(&logs), &end["type"], &end["outcome"]), (0, &"exit".into(), &"exited".into()));
    assert_eq!((&end["status"], &end["verified"]), (&7.into(), &true.into()));
    assert_eq!(end["stdout"]["bytes"], 4);
    // One that runs on has no end.
    let running = agent.detached("echo out; sleep 60");
    let end = last(&agent.jobs(&["logs", "--json", "HOST", &running]));
    assert_eq!((&end["type"], &end["id"]), (&"detached".into(), &running.as_str().into()));
    agent.jobs(&["kill", "HOST", &running]);
}

/// The reader has read one line, and there will be no other.
fn leaves(mut reader: Child) -> Option<i32> {
    let mut line = String::new();
    let mut out = BufReader::new(reader.stdout.take().unwrap());
    assert!(out.read_line(&mut line).unwrap() > 0);
    drop(out);
    eventually("it leaves", || reader.try_wait().unwrap().is_some());
    reader.wait().unwrap().code()
}

#[test]
fn who_looks_on_leaves_with_its_reader() {
    let agent = TestAgent::with_both("", &open_to_all());
    let id = agent.detached("echo out; sleep 60");
    for words in [
        &["logs", "-f"][..],
        &["logs", "-f", "--stdout"],
        &["logs", "-f", "--json"],
        &["logs", "-f", "--timestamps"],
        &["attach", "--read-only"],
    ] {
        let words = [words, &["HOST", &id]].concat();
        let reader = agent.job_command(&words).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(leaves(reader), Some(141), "{words:?}");
    }
    // Before there was anything to read.
    let silent = agent.detached("sleep 60");
    let mut reader =
        agent.job_command(&["logs", "-f", "HOST", &silent]).stdout(Stdio::piped()).spawn().unwrap();
    drop(reader.stdout.take());
    eventually("it leaves", || reader.try_wait().unwrap().is_some());
    let mut chat = agent.rexec();
    chat.args(["chat", "--read-only", &agent.target()]).stdout(Stdio::piped());
    leaves(chat.spawn().unwrap());
    for job in [id, silent] {
        assert_eq!(code(&agent.jobs(&["kill", "HOST", &job])), 0, "it went on");
    }
}

/// Both streams together, in the order of their arrival, however far back that is.
#[test]
fn the_tail_is_the_last_lines_of_both_streams() {
    let agent = TestAgent::start();
    let id = agent.in_steps(&[
        ("echo first >&2", 6),
        ("seq 100000", 588_895),
        ("echo bad >&2", 4),
        ("echo end; printf half", 8),
    ]);
    let tail = |words: &[&str]| {
        let logs = agent.jobs(&[&["logs", "--tail"], words, &["HOST", &id]].concat());
        assert_eq!(code(&logs), 0, "{words:?}: {}", said(&logs));
        (String::from_utf8(logs.stdout.clone()).unwrap(), said(&logs))
    };
    let pair = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(tail(&["1"]), pair("half", ""));
    assert_eq!(tail(&["3"]), pair("end\nhalf", "bad\n"));
    assert_eq!(tail(&["3", "--stdout"]), pair("100000\nend\nhalf", ""));
    assert_eq!(tail(&["2", "--stderr", "-f"]), pair("", "first\nbad\n"));
    assert_eq!(tail(&["0"]), pair("", ""));
    // More than is looked at first.
    let (out, _) = tail(&["90000"]);
    assert_eq!((out.lines().count(), out.lines().next()), (89_999, Some("10004")));
    let (out, err) = tail(&["1000000"]);
    assert_eq!((out.lines().count(), err.as_str()), (100_002, "first\nbad\n"));
    for nonsense in [&["--since", "0"][..], &["--verify"], &["--asciicast"]] {
        let logs = agent.jobs(&[&["logs", "--tail", "1"], nonsense, &["HOST", &id]].concat());
        assert_eq!(code(&logs), 125, "{nonsense:?}");
        assert!(said(&logs).contains("--tail"), "{}", said(&logs));
    }
}

/// What comes is after that, and nothing twice.
#[test]
fn a_tail_is_followed() {
    let agent = TestAgent::start();
    let gate = agent.path("gate");
    let id = agent.detached(&format!(
        "seq 5; until test -e {}; do sleep 0.01; done; echo more",
        gate.display()
    ));
    eventually("it was read", || {
        code(&agent.jobs(&["logs", "--tail", "1", "HOST", &id])) == 0
            && agent.jobs(&["logs", "HOST", &id]).stdout == b"1\n2\n3\n4\n5\n"
    });
    let mut command = agent.job_command(&["logs", "-f", "--tail", "2", "HOST", &id]);
    let mut logs = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(logs.stdout.take().unwrap());
    let mut seen = String::new();
    stdout.read_line(&mut seen).unwrap();
    stdout.read_line(&mut seen).unwrap();
    std::fs::write(gate, "").unwrap();
    stdout.read_line(&mut seen).unwrap();
    assert_eq!(seen, "4\n5\nmore\n");
    assert!(logs.wait().unwrap().success());
}
