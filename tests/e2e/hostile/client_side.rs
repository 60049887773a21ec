//! A hostile agent against the client: its library, and its program.

use crate::support::raw::wire::*;
use crate::support::raw::{FakeAgent, Raw};
use rexec_client::{Connector, Outcome, Session};
use rexec_protocol::ErrorCode;
use rexec_protocol::ErrorCode::*;
use rexec_protocol::frame::{MAX_BODY, MAX_DATA};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// No case may take longer.
const LIMIT: Duration = Duration::from_secs(2);

/// What the fake agent does once it has sent its bytes.
#[derive(Clone, Copy)]
enum Then {
    /// Reads, and says no more.
    Read,
    /// Does not even read until the client is gone.
    Stall,
    /// Ends TLS.
    Close,
    /// Ends TCP alone.
    Cut,
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    then: Then,
    /// The outcome's kind.
    outcome: &'static str,
    /// What must be in the message.
    says: &'static str,
    /// What the agent is told.
    told: Option<ErrorCode>,
    /// The program's exit code; `None` if it would wait longer than the test can.
    code: Option<i32>,
}

fn script(mut raw: Raw, bytes: &[u8], then: Then) -> Option<ErrorCode> {
    raw.wait_for("exec");
    // The client may refuse what comes before all of it was sent.
    let _ = raw.send(bytes);
    match then {
        Then::Read => raw.errors().pop(),
        Then::Stall => {
            std::thread::sleep(LIMIT);
            raw.errors().pop()
        }
        Then::Close => {
            let _ = raw.close();
            raw.errors().pop()
        }
        Then::Cut => None,
    }
}

async fn connect(fake: &FakeAgent) -> Session {
    let connector = Connector::new(&fake.files("alice")).unwrap();
    let connector =
        connector.connect_timeout(Duration::from_millis(700)).keepalive(Duration::from_millis(250));
    let connector = connector.reconnect_for(Duration::ZERO);
    connector.connect("127.0.0.1", fake.port).await.unwrap()
}

async fn run(session: &Session) -> Outcome {
    // Its output is not read, so no credit is given.
    let mut child = match session.command("x").spawn().await {
        Ok(child) => child,
        Err(error) => return error.outcome().clone(),
    };
    match child.wait().await {
        Ok(status) => status.outcome().clone(),
        Err(error) => error.outcome().clone(),
    }
}

fn kind_of(outcome: &Outcome) -> String {
    serde_json::to_value(outcome).unwrap()["kind"].as_str().unwrap().to_owned()
}

fn is_plain(text: &str) -> bool {
    !text.contains("panicked") && text.chars().all(|c| !c.is_control() || c == '\n')
}

async fn check(fake: &FakeAgent, case: &Case) -> Result<(), String> {
    let serve = || {
        let (bytes, then) = (case.bytes.clone(), case.then);
        fake.serve(fake.config(), move |raw| script(raw, &bytes, then))
    };
    let start = Instant::now();
    let serving = serve();
    let session = connect(fake).await;
    let outcome = timeout(LIMIT, run(&session)).await.map_err(|_| "the library hangs")?;
    let took = start.elapsed();
    // Where the client is to blame the agent, it does so without being asked to leave.
    let kept = (case.told.is_some() && case.outcome != "exited").then(|| session.clone());
    drop(session);
    let told = spawn_blocking(move || serving.join())
        .await
        .unwrap()
        .unwrap()
        .map_err(|error| error.to_string())?;
    drop(kept);
    let text = outcome.to_string();
    if kind_of(&outcome) != case.outcome || !text.contains(case.says) || !is_plain(&text) {
        return Err(format!("{outcome:?}, not {} with {:?}", case.outcome, case.says));
    }
    if told != case.told {
        return Err(format!("the agent was told {told:?}, not {:?}", case.told));
    }
    let Some(code) = case.code else { return Ok(()) };
    let start = Instant::now();
    let serving = serve();
    let mut rexec = fake.rexec(&["--connect-timeout", "700ms", "--reconnect-for", "0"]);
    let output = spawn_blocking(move || rexec.arg("x").output().unwrap()).await.unwrap();
    let slower = start.elapsed();
    spawn_blocking(move || serving.join())
        .await
        .unwrap()
        .unwrap()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8(output.stderr).map_err(|error| error.to_string())?;
    if output.status.code() != Some(code) || !is_plain(&said) || !said.contains(case.says) {
        return Err(format!("the program ends with {:?}, not {code}: {said:?}", output.status));
    }
    if took > LIMIT || slower > LIMIT {
        return Err(format!("the library took {took:?}, the program {slower:?}"));
    }
    Ok(())
}

async fn check_all(cases: Vec<Case>) {
    let fake = FakeAgent::new();
    let mut failures = Vec::new();
    for case in cases {
        if let Err(failure) = check(&fake, &case).await {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn case(name: &'static str, bytes: &[Vec<u8>], outcome: &'static str) -> Case {
    let code = match outcome {
        "exited" => 0,
        "incomplete" => 254,
        "never_started" => 127,
        "denied" => 125,
        _ => 255,
    };
    Case {
        name,
        bytes: bytes.concat(),
        then: Then::Read,
        outcome,
        says: "",
        told: None,
        code: Some(code),
    }
}

/// The client is at a loss, and tells the agent why.
fn lost(name: &'static str, bytes: &[Vec<u8>], told: ErrorCode) -> Case {
    Case { told: Some(told), ..case(name, bytes, "lost") }
}

/// So it is with output that is not what was sent.
fn altered(name: &'static str, bytes: &[Vec<u8>], told: ErrorCode) -> Case {
    Case { told: Some(told), ..case(name, bytes, "incomplete") }
}

fn started() -> Vec<u8> {
    frame("started", 1, &[("job", text("job-1")), ("pid", uint(7))])
}

fn tally(whole: &[u8]) -> Vec<u8> {
    tally_of(whole.len(), whole)
}

fn tally_of(size: usize, whole: &[u8]) -> Vec<u8> {
    map(&[("size", uint(size as u64)), ("hash", bin(sha256(whole).as_bytes()))])
}

fn exit_of(outcome: &[(&str, Vec<u8>)], stdout: Vec<u8>) -> Vec<u8> {
    let (stderr, stdin) = (tally(b""), tally(b""));
    frame(
        "exit",
        1,
        &[("outcome", map(outcome)), ("stdout", stdout), ("stderr", stderr), ("stdin", stdin)],
    )
}

fn exit(stdout: Vec<u8>) -> Vec<u8> {
    exit_of(&[("kind", text("exited")), ("code", uint(0))], stdout)
}

fn exit_with_message(kind: &str, message: &str) -> Vec<u8> {
    let reason = ("reason", text("not_found"));
    exit_of(&[("kind", text(kind)), reason, ("message", text(message))], tally(b""))
}

/// hello, started, and then these.
fn after_start(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    [&[hello(), started()], frames].concat()
}

/// Only what a terminal shows may have gaps.
fn gap_on_a_terminal() -> Vec<Vec<u8>> {
    let yes = vec![0xc3];
    let args = [("job", text("job-1")), ("pid", uint(7)), ("terminal", yes)];
    let gap = frame("gap", 1, &[("channel", text("out")), ("to", uint(3))]);
    let [_, end_out, end_err, end] = whole();
    vec![hello(), frame("started", 1, &args), gap, end_out, end_err, end]
}

/// A command that wrote `abc`, to its end.
fn whole() -> [Vec<u8>; 4] {
    [
        data(1, "out", 0, b"abc", b"abc"),
        eof(1, "out", b"abc"),
        eof(1, "err", b""),
        exit(tally(b"abc")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_sent() {
    let abc = || data(1, "out", 0, b"abc", b"abc");
    let [_, end_out, end_err, end] = whole();
    let ends = |frames: &[Vec<u8>]| after_start(&[&[abc()], frames].concat());
    let large = vec![b'x'; 9 * MAX_DATA];
    let over: Vec<_> = (0..9)
        .map(|n| {
            data(1, "out", (n * MAX_DATA) as u64, &large[..MAX_DATA], &large[..(n + 1) * MAX_DATA])
        })
        .collect();
    let bare = [
        extended("data", 1, &[("channel", text("out")), ("offset", uint(0))], &[("size", uint(3))]),
        b"abc".into(),
    ]
    .concat();
    check_all(vec![
        case("all is well", &after_start(&whole()), "exited"),
        altered("wrong hash", &after_start(&[data(1, "out", 0, b"abc", b"abd")]), HashMismatch),
        lost("no hash", &after_start(&[bare]), HashMismatch),
        altered(
            "hash of the body alone",
            &after_start(&[abc(), data(1, "out", 3, b"abc", b"abc")]),
            HashMismatch,
        ),
        altered("gap", &after_start(&[data(1, "out", 1, b"abc", b"abc")]), BadOffset),
        altered("overlap", &after_start(&[abc(), data(1, "out", 2, b"cd", b"abccd")]), BadOffset),
        altered(
            "offset of 2^64-1",
            &after_start(&[data(1, "out", u64::MAX, b"abc", b"abc")]),
            BadOffset,
        ),
        lost(
            "no bytes",
            &after_start(&[frame("data", 1, &[("channel", text("out")), ("offset", uint(0))])]),
            Malformed,
        ),
        lost(
            "too many bytes",
            &after_start(&[data(1, "out", 0, &large[..=MAX_DATA], &large[..=MAX_DATA])]),
            TooLarge,
        ),
        Case { code: None, ..lost("more than the window", &after_start(&over), FlowControl) },
        lost("data for stdin", &after_start(&[data(1, "in", 0, b"abc", b"abc")]), WrongState),
        lost("data before started", &[hello(), abc()], WrongState),
        lost("eof before started", &[hello(), end_err.clone()], WrongState),
        lost(
            "data after eof",
            &ends(&[end_out.clone(), data(1, "out", 3, b"d", b"abcd")]),
            WrongState,
        ),
        lost("eof twice", &ends(&[end_out.clone(), end_out.clone()]), WrongState),
        altered("eof at another size", &ends(&[eof(1, "out", b"ab")]), BadOffset),
        altered("eof with another hash", &ends(&[eof(1, "out", b"abd")]), HashMismatch),
        case(
            "exit with another size",
            &ends(&[end_out.clone(), end_err.clone(), exit(tally_of(4, b"abc"))]),
            "incomplete",
        ),
        case(
            "exit with another hash",
            &ends(&[end_out.clone(), end_err.clone(), exit(tally(b"abd"))]),
            "incomplete",
        ),
        case(
            "exit with no tally to speak of",
            &ends(&[end_out.clone(), end_err.clone(), exit(tally(b""))]),
            "incomplete",
        ),
        case("a gap, on a terminal that nobody asked for", &gap_on_a_terminal(), "incomplete"),
        case("exit without eof of stdout", &ends(&[end_err.clone(), end.clone()]), "incomplete"),
        case("exit without eof of stderr", &ends(&[end_out.clone(), end.clone()]), "incomplete"),
        case(
            "exit twice, and more",
            &after_start(&[&whole()[..], &[end.clone(), abc()]].concat()),
            "exited",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_do_not_belong() {
    let at_start = |frames: &[Vec<u8>]| after_start(frames);
    let bad_job = frame("started", 1, &[("job", text("../\x1b[2J")), ("pid", uint(7))]);
    let args = [("job", text("job-1")), ("pid", uint(7)), ("digest", text("blake3"))];
    let other_digest = frame("started", 1, &args);
    let exited = |code: Vec<u8>| exit_of(&[("kind", text("exited")), ("code", code)], tally(b""));
    let told = |name, bytes: Vec<u8>, code| lost(name, &at_start(&[bytes]), code);
    let long = [frame("ping", 0, &[]), vec![0; 70_000]].concat();
    check_all(vec![
        told("header of 0 bytes", vec![0; 4], TooLarge),
        told(
            "header above 64 KiB",
            [&65_537_u32.to_be_bytes()[..], &vec![0x80; 65_537]].concat(),
            TooLarge,
        ),
        told("header of 4 GiB", u32::MAX.to_be_bytes().into(), TooLarge),
        told(
            "body above 1 MiB",
            extended(
                "data",
                1,
                &[("channel", text("out")), ("offset", uint(0))],
                &[("size", uint(MAX_BODY + 1))],
            ),
            TooLarge,
        ),
        told("nonsense", with_header(b"\xc1\xc1\xc1"), Malformed),
        told("deep nonsense", with_header(&b"\x91".repeat(60_000)), Malformed),
        told("no nonce", long, Malformed),
        Case {
            // The program leaves the choice to the agent; the library's default does not.
            code: None,
            ..lost("started with another digest", &[hello(), other_digest], WrongState)
        },
        told("second started", started(), WrongState),
        told("second hello", hello(), WrongState),
        told("exec from an agent", exec(2, &["true"], false), WrongState),
        told("signal from an agent", signal(1, "TERM"), WrongState),
        told(
            "stop for stdout from an agent",
            frame("stop", 1, &[("channel", text("out"))]),
            WrongState,
        ),
        told("a stream never opened", window(99, 1), BadStream),
        told("data for a stream never opened", data(99, "out", 0, b"abc", b"abc"), BadStream),
        told("exit with code 256", exited(uint(256)), Malformed),
        told(
            "exit with an unknown kind",
            exit_of(&[("kind", text("melted"))], tally(b"")),
            Malformed,
        ),
        Case {
            says: "the agent has ended the stream of a job that goes on",
            ..case("a detach that nobody asked for", &at_start(&[frame("detach", 1, &[])]), "lost")
        },
        told("exit: incomplete", exit_with_message("incomplete", "x"), WrongState),
        told("exit: unreachable", exit_with_message("unreachable", "x"), WrongState),
        told("exit: local", exit_with_message("local", "x"), WrongState),
        lost("exit: exited, before started", &[hello(), exit(tally(b""))], WrongState),
        lost(
            "exit: exited, never started, with output",
            &[hello(), exit(tally(b"abc"))],
            WrongState,
        ),
        lost("a job that is no name", &[hello(), bad_job], Malformed),
        Case {
            told: Some(UnknownVerb),
            ..case(
                "unknown verb",
                &[
                    &[
                        hello(),
                        started(),
                        frame("dance", 0, &[]),
                        with_body("dance", 1, &[], b"x", sha256(b"x")),
                    ],
                    &whole()[..],
                ]
                .concat(),
                "exited",
            )
        },
        case(
            "100,000 pings",
            &[&[hello(), started(), ping(1).repeat(100_000)], &whole()[..]].concat(),
            "exited",
        ),
        case(
            "100,000 windows",
            &[&[hello(), started(), window(1, 1).repeat(100_000)], &whole()[..]].concat(),
            "exited",
        ),
        Case {
            told: Some(Flood),
            ..case(
                "100,000 unknown verbs",
                &[hello(), started(), frame("dance", 0, &[]).repeat(100_000)],
                "lost",
            )
        },
    ])
    .await;
}

/// The agent is told also by a program that ends as soon as it knows the outcome.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_told_even_if_the_session_is_dropped_at_once() {
    let fake = FakeAgent::new();
    let mut told = Vec::new();
    for _ in 0..300 {
        let serving = fake.serve(fake.config(), |raw| {
            script(raw, &[hello(), started(), vec![0; 4]].concat(), Then::Read)
        });
        let session = connect(&fake).await;
        run(&session).await;
        drop(session);
        told.push(spawn_blocking(move || serving.join()).await.unwrap().unwrap().unwrap());
    }
    let missed = told.iter().filter(|told| **told != Some(TooLarge)).count();
    assert_eq!(missed, 0, "of {}", told.len());
}

/// Nobody gives credit for an answer that is no stream of a command, so it has a bound of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_ends_is_given_up() {
    // A client that has given up still takes what comes, or its last words would be lost.
    const PARTS: usize = 200;
    for (verb, asked) in [("listing", "jobs"), ("present", "who"), ("directory", "rooms")] {
        let fake = FakeAgent::new();
        let serving = fake.serve(fake.config(), move |mut raw| {
            let body = vec![0; MAX_BODY as usize];
            let part = with_body(verb, 1, &[("more", vec![0xc3])], &body, sha256(&body));
            raw.wait_for(asked);
            raw.send(&hello()).unwrap();
            (0..PARTS).for_each(|_| raw.send(&part).unwrap());
            raw.errors().pop()
        });
        let session = connect(&fake).await;
        let error = match asked {
            "jobs" => session.jobs().await.map(|jobs| jobs.len()),
            "rooms" => session.rooms().await.map(|all| all.len()),
            _ => session.who().await.map(|all| all.len()),
        };
        let error = error.unwrap_err().to_string();
        let told = spawn_blocking(move || serving.join()).await.unwrap().unwrap().unwrap();
        assert_eq!(
            (told, error.contains("too many bytes in one answer")),
            (Some(Flood), true),
            "{error}"
        );
    }
}

/// It was told as a failure of this side, and the connection went on.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_altered_ends_the_connection() {
    for (verb, asked) in [("listing", "jobs"), ("present", "who")] {
        let fake = FakeAgent::new();
        let serving = fake.serve(fake.config(), move |mut raw| {
            let part = with_body(verb, 1, &[], b"altered", sha256(b"sent"));
            raw.wait_for(asked);
            raw.send(&[hello(), part].concat()).unwrap();
            raw.errors().pop()
        });
        let session = connect(&fake).await;
        let error = match asked {
            "jobs" => session.jobs().await.map(|jobs| jobs.len()),
            _ => session.who().await.map(|all| all.len()),
        };
        let outcome = error.unwrap_err().outcome().clone();
        assert!(!matches!(outcome, Outcome::Local { .. }), "{outcome:?}");
        let told = spawn_blocking(move || serving.join()).await.unwrap().unwrap().unwrap();
        assert_eq!(told, Some(HashMismatch), "{outcome:?}");
    }
}

/// What an agent says is shown, but drives no terminal.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_an_agent_are_escaped() {
    let evil = "shown\x1b]0;x\x07\x1b[2J\u{9b}31m\r\n\u{202e}rexec: all is well";
    let says = |case: Case| Case { says: "shown", ..case };
    check_all(vec![
        says(case("error on the connection", &[hello(), error(0, "internal", evil)], "lost")),
        says(case("error while it runs", &[hello(), started(), error(0, "busy", evil)], "lost")),
        says(case(
            "error on the stream",
            &[hello(), started(), error(1, "internal", evil)],
            "lost",
        )),
        says(case("busy after the hello", &[hello(), error(0, "busy", evil)], "unreachable")),
        says(case("error instead of a hello", &[error(0, "busy", evil)], "unreachable")),
        says(case(
            "not found",
            &[hello(), exit_with_message("never_started", evil)],
            "never_started",
        )),
        says(case("denied", &[hello(), exit_with_message("denied", evil)], "denied")),
        says(Case {
            then: Then::Read,
            ..case(
                "lost",
                &after_start(&[
                    eof(1, "out", b""),
                    eof(1, "err", b""),
                    exit_with_message("lost", evil),
                ]),
                "lost",
            )
        }),
        says(Case {
            told: Some(VersionMismatch),
            ..case("software", &[hello_of(2, 3, evil)], "unreachable")
        }),
        Case {
            then: Then::Close,
            ..case("goodbye", &[hello(), frame("goodbye", 0, &[("reason", text(evil))])], "lost")
        },
    ])
    .await;
}

/// Openings and ends. Where the request was sent and no answer came, PROTOCOL.md, section 10, allows
/// no other outcome than `lost`.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_begin_or_end_badly() {
    let part = data(1, "out", 0, b"abc", b"abc");
    let part = &part[..part.len() - 1];
    let then = |then, case: Case| Case { then, ..case };
    check_all(vec![
        Case {
            told: Some(VersionMismatch),
            says: "version 1 (",
            ..case("versions 2 to 3", &[hello_of(2, 3, "new/9")], "unreachable")
        },
        Case {
            told: Some(VersionMismatch),
            says: "versions 2 to 3 (new/9)",
            ..case("and the other", &[hello_of(2, 3, "new/9")], "unreachable")
        },
        lost("a ping before the hello", &[ping(1)], WrongState),
        lost("no hello", &[], Timeout),
        then(
            Then::Stall,
            Case { told: Some(Timeout), ..case("neither a hello nor an ear", &[], "lost") },
        ),
        then(Then::Close, case("closed before the hello", &[], "lost")),
        then(Then::Cut, case("cut before the hello", &[], "lost")),
        then(Then::Cut, case("cut in the hello", &[hello()[..9].into()], "lost")),
        then(Then::Close, case("closed after the hello", &[hello()], "lost")),
        then(Then::Cut, case("cut after the hello", &[hello()], "lost")),
        then(Then::Close, case("closed after started", &after_start(&[]), "lost")),
        then(Then::Close, case("closed in a frame", &after_start(&[part.into()]), "lost")),
        then(Then::Cut, case("cut in a frame", &after_start(&[part.into()]), "lost")),
        then(Then::Close, case("closed before the exit", &after_start(&whole()[..3]), "lost")),
        Case { code: None, ..lost("silence", &after_start(&[]), Timeout) },
        Case {
            code: None,
            ..then(Then::Stall, lost("silence, and no ear", &after_start(&[]), Timeout))
        },
    ])
    .await;
}
