//! Tests of the parser.

use super::parse::Line;
use super::*;
use crate::values::Since;
use clap::CommandFactory;
use rexec_client::{OnDisconnect, OnFull, Signal};
use std::os::unix::ffi::OsStringExt;

fn words(line: &[&str]) -> Vec<OsString> {
    std::iter::once("rexec").chain(line.iter().copied()).map(OsString::from).collect()
}

fn run(line: &[&str]) -> Run {
    match parse(&words(line)) {
        Ok(Request::Run(run)) => *run,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn usage(line: &[&str]) -> String {
    match parse(&words(line)) {
        Err(Usage(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
    Line::command().debug_assert();
}

#[test]
fn options_end_at_the_host() {
    let typed = run(&["-l", "bob", "-p99", "web1", "ls", "-l", "--json", "--", "-p", "x"]);
    assert_eq!(typed.target, "web1");
    assert_eq!(typed.words, ["ls", "-l", "--json", "--", "-p", "x"]);
    assert_eq!(typed.options.command.user.as_deref(), Some("bob"));
    assert_eq!(typed.options.connect.port, Some(99));
    assert!(!typed.options.output.json);
}

#[test]
fn a_double_dash_right_after_the_host_is_dropped_once() {
    assert_eq!(run(&["web1", "--", "-x", "--"]).words, ["-x", "--"]);
    assert_eq!(run(&["web1", "--", "--", "x"]).words, ["--", "x"]);
    assert_eq!(run(&["--", "web1", "x"]).target, "web1");
    assert!(usage(&["web1", "-n", "true"]).contains("before the host"));
    assert_eq!(run(&["web1", "-"]).words, ["-"]);
}

#[test]
fn the_arguments_of_a_script_may_begin_with_a_dash() {
    let words = |line: &[&str]| run(line).words;
    assert_eq!(words(&["--script", "s", "web1", "--fast", "two words"]), ["--fast", "two words"]);
    assert_eq!(words(&["--script=s", "web1", "-n"]), ["-n"]);
    assert_eq!(words(&["--script", "s", "web1", "--", "--", "x"]), ["--", "x"]);
    assert_eq!(words(&["run", "--script", "s", "web1", "-x"]), ["-x"]);
}

#[test]
fn words_are_bytes() {
    let raw = OsString::from_vec(b"a\xff\n ".to_vec());
    let mut line = words(&["web1", "printf"]);
    line.extend([raw.clone(), OsString::new()]);
    let Ok(Request::Run(run)) = parse(&line) else { panic!() };
    assert_eq!(run.words, ["printf".into(), raw, OsString::new()]);
}

#[test]
fn subcommands_and_hosts_of_their_names() {
    let ping = parse(&words(&["ping", "-c", "3", "web1"]));
    assert!(matches!(ping, Ok(Request::Named(named)) if matches!(*named, Named::Ping(_))));
    let typed = run(&["run", "-q", "ping", "true"]);
    assert_eq!((typed.target.to_str(), typed.words), (Some("ping"), vec!["true".into()]));
    assert_eq!(run(&["run", "run", "run"]).target, "run");
    assert!(usage(&["-q", "ping", "web1"]).contains("rexec run"));
}

#[test]
fn slips_in_a_subcommand_and_names_of_hosts() {
    let like = |word, name| assert_eq!(subcommand_like(word), name, "{word}");
    for (word, name) in [("jbos", "jobs"), ("lgos", "logs"), ("pign", "ping"), ("atach", "attach")]
    {
        like(word, Some(name));
    }
    for host in ["web1", "db", "host", "build", "jobs.example.org", "10.0.0.7", "localhost", ""] {
        like(host, None);
    }
}

#[test]
fn options_of_a_job_go_before_the_host() {
    let typed = run(&[
        "-d",
        "--id",
        "deploy-1",
        "--on-disconnect",
        "lease=5m",
        "--on-full=discard-oldest",
        "--retry",
        "3",
        "web1",
        "x",
        "-d",
    ]);
    let job = &typed.options.job;
    assert!(job.detach && job.retry == 3);
    assert_eq!(job.id.as_ref().map(|id| id.as_str()), Some("deploy-1"));
    assert_eq!(job.on_disconnect, Some(OnDisconnect::Lease { ms: 300_000 }));
    assert_eq!(job.on_full, Some(OnFull::DiscardOldest));
    assert_eq!(typed.words, ["x", "-d"]);
    assert!(usage(&["--id", "../x", "web1", "x"]).contains("begins with a letter"));
    assert!(usage(&["--retry", "-1", "web1", "x"]).contains("-1"));
}

#[test]
fn subcommands_of_jobs_take_a_host_and_a_job() {
    let named = |line: &[&str]| match parse(&words(line)) {
        Ok(Request::Named(named)) => *named,
        other => panic!("{line:?}: {other:?}"),
    };
    let Named::Logs(logs) =
        named(&["logs", "web1", "j", "-f", "--since", "10m", "--stderr", "-p9"])
    else {
        panic!()
    };
    assert!(logs.follow && logs.stderr && !logs.stdout && logs.connect.port == Some(9));
    assert_eq!(logs.since, Some(Since::Ago(std::time::Duration::from_secs(600))));
    let Named::Kill(kill) = named(&["kill", "-s", "hup", "web1", "j"]) else { panic!() };
    assert_eq!((kill.signal, kill.name.job.as_str()), (Some(Signal::HUP), "j"));
    let Named::Rm(rm) = named(&["rm", "web1", "a", "b"]) else { panic!() };
    assert_eq!(rm.jobs, ["a", "b"]);
    for (line, part) in [
        (&["logs", "--verify", "--since", "1", "w", "j"][..], "--since"),
        (&["logs", "--stdout", "--stderr", "w", "j"], "--stderr"),
        (&["logs", "--asciicast", "--json", "w", "j"], "--json"),
        (&["wait", "-o", "SetEnv=A=1", "w", "j"], "means nothing to wait"),
        (&["rm", "w"], "<JOB>"),
    ] {
        let text = usage(line);
        assert!(text.contains(part), "{line:?}: {text}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (line, part) in [
        (&["--help"][..], "Exit status"),
        (&["help"], "Exit status"),
        (&["-h"], "--status-fd"),
        (&["run", "--help"], "Exit status"),
        (&["ping", "--help"], "round trips"),
        (&["logs", "--help"], "asciinema"),
        (&["attach", "--help"], "--read-only"),
        (&["-q", "--version"], env!("CARGO_PKG_VERSION")),
    ] {
        match parse(&words(line)) {
            Ok(Request::Print(text)) => assert!(text.contains(part), "{line:?}: {text}"),
            other => panic!("{line:?}: {other:?}"),
        }
    }
}

#[test]
fn what_makes_no_sense_is_said() {
    for (line, part) in [
        (&[][..], "which host"),
        (&["--tiemout", "3", "web1", "x"], "--timeout"),
        (&["--timeout", "soon", "web1", "x"], "soon"),
        (&["-o", "Proxy=x", "web1", "x"], "ConnectTimeout"),
        (&["--shell", "--argv", "web1", "x"], "--argv"),
        (&["--script", "f", "--shell", "web1"], "--shell"),
        (&["--timeout", "5x", "web1", "x"], "ms, s, m, h or d"),
        (&["-e", "ab", "web1"], "one character"),
        (&["ping", "-o", "User=bob", "web1"], "-o User"),
        (&["ping", "-o", "Port=1", "-o", "SetEnv=A=1", "web1"], "-o SetEnv"),
        (&["--status-fd", "-1", "web1", "x"], "-1"),
        (&["--hash", "md5", "web1", "x"], "blake3"),
    ] {
        let text = usage(line);
        assert!(text.contains(part) && !text.starts_with("error"), "{line:?}: {text}");
    }
}

#[test]
fn where_to_report_is_found_in_a_bad_line() {
    for (line, expected) in [
        (&["--bogus", "--status-fd", "3", "--json"][..], (true, Some(3))),
        (&["--status-fd=4", "web1", "--json"], (false, Some(4))),
        (&["-p", "x", "--json", "web1"], (true, None)),
        (&["run", "--timeout", "soon", "--status-fd", "3", "web1"], (false, Some(3))),
        (&["web1", "--status-fd", "3"], (false, None)),
    ] {
        assert_eq!(reporting(&words(line)), expected, "{line:?}");
    }
}

#[test]
fn the_last_word_on_a_terminal_counts() {
    let terminal = |line: &[&str]| {
        let options = run(line).options.command;
        (options.terminal, options.no_terminal)
    };
    assert_eq!(terminal(&["web1", "x", "-t"]), (0, false));
    assert_eq!(terminal(&["-tt", "web1", "x"]), (2, false));
    assert_eq!(terminal(&["-t", "-n", "-t", "web1"]), (2, false));
    assert_eq!(terminal(&["-ttT", "-TT", "web1"]), (0, true));
    assert_eq!(terminal(&["-Tt", "web1"]), (1, false));
    let escape = |key: &str| run(&["-e", key, "web1"]).options.command.escape.unwrap().0;
    assert_eq!((escape("none"), escape("%"), escape("^]")), (None, Some(b'%'), Some(0x1d)));
}

#[test]
fn a_usage_error_is_one_sentence_for_programs() {
    for (line, expected) in [
        (
            &["ping", "--json"][..],
            "the following required arguments were not provided: <HOST[:PORT]>",
        ),
        (&["--json"], "which host? rexec [OPTIONS] [USER@]HOST[:PORT] COMMAND…"),
        (
            &["--jsn", "web1", "x"],
            "unexpected argument '--jsn' found; tip: a similar argument exists: '--json'",
        ),
        (&["jobs", "--tail", "3", "web1"], "unexpected argument '--tail' found"),
        (
            &["cp", "-r", "--exclude", "*.o", "src", "web1:"],
            "unexpected argument '--exclude' found; tip: what to leave out is rsync's business: \
             rsync -a -e rexec-ssh --exclude PATTERN …",
        ),
    ] {
        assert_eq!(Usage(usage(line)).sentence(), expected);
    }
}
