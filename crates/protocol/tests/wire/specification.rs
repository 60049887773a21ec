//! Whether `PROTOCOL.md` says what the code does.

use crate::golden::{frames_of, from_hex};
use crate::samples;
use rexec_protocol::hello::{self, negotiate};
use rexec_protocol::message::{ExecSpec, Gate, Message, Scope};
use rexec_protocol::stream::{Receiver, Tally};
use rexec_protocol::*;
use rexec_protocol::{flow, frame};
use serde::Deserialize;

const TEXT: &str = include_str!("../../PROTOCOL.md");

/// The cells of every table row whose first cell is code, with the backticks removed.
fn rows() -> impl Iterator<Item = (&'static str, Vec<String>)> {
    TEXT.lines().filter_map(|line| {
        let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (name, rest) = row.split_once("` |")?;
        Some((name, rest.split(" | ").map(|cell| cell.trim().replace('`', "")).collect()))
    })
}

/// The section under this heading, up to the next of the same depth.
fn section(heading: &str) -> &'static str {
    let start = TEXT.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let mark = heading.split(' ').next().unwrap_or_default();
    let rest = &TEXT[start + heading.len() + 1..];
    &rest[..rest.find(&format!("\n{mark} ")).unwrap_or(rest.len())]
}

#[test]
fn every_verb_has_its_row_and_its_section() {
    for verb in Message::VERBS {
        let frame = samples::of_verb(verb);
        let message = &frame.message;
        let senders = [Role::Client, Role::Agent].map(|role| message.allowed_from(role));
        let sender = match senders {
            [true, true] => "both",
            [true, false] => "client",
            [false, true] => "agent",
            [false, false] => "nobody",
        };
        let scope = match message.scope() {
            Scope::Opening => "opening",
            Scope::Connection => "connection",
            Scope::Opens => "opens",
            Scope::Stream => "stream",
            Scope::Any => "any",
        };
        let body = if frame.body.is_empty() { "no" } else { "yes" };
        let args = args_of(&frame);
        let row = rows().find(|(name, cells)| name == verb && cells.len() == 4);
        let (_, cells) = row.unwrap_or_else(|| panic!("no row for {verb}"));
        assert_eq!(cells, [sender, scope, body, &args], "{verb}");
        let heading = if matches!(*verb, "ping" | "pong") {
            "### ping and pong"
        } else {
            &format!("### {verb}")
        };
        let section = section(heading);
        for arg in args.trim_matches(['{', '}']).split(", ").filter(|arg| !arg.is_empty()) {
            assert!(section.contains(&format!("`{arg}`")), "{verb} does not explain {arg}");
        }
    }
}

/// The arguments in the frame's header, as the text names them: `{a, b}`.
fn args_of(frame: &Frame) -> String {
    #[derive(Deserialize)]
    struct Header {
        args: Keys,
    }
    struct Keys(Vec<String>);
    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> serde::de::Visitor<'de> for Visit {
                type Value = Keys;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<M: serde::de::MapAccess<'de>>(
                    self,
                    mut m: M,
                ) -> Result<Keys, M::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, serde::de::IgnoredAny)) = m.next_entry()? {
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            d.deserialize_map(Visit)
        }
    }
    let mut head = bytes::BytesMut::new();
    frame.encode_head(&mut head);
    let header: Header = msgpack::decode(&head[4..], msgpack::HEADER).expect("our own header");
    format!("{{{}}}", header.args.0.join(", "))
}

#[test]
fn every_error_code_is_listed_with_what_follows() {
    let section = section("## 11. Errors");
    for code in ErrorCode::all() {
        let row = section.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
        let row = row.unwrap_or_else(|| panic!("no row for {code}"));
        let goes_on = code == ErrorCode::UnknownVerb;
        assert!(row.ends_with(if goes_on { "| go on |" } else { "| close |" }), "{row}");
    }
    let rows = section.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, ErrorCode::all().count(), "codes that do not exist");
}

#[test]
fn limits_and_numbers_are_the_ones_in_force() {
    for (name, value) in [
        ("MAX_HEADER", u64::from(frame::MAX_HEADER)),
        ("MAX_BODY", frame::MAX_BODY),
        ("MAX_DATA", frame::MAX_DATA as u64),
        ("INITIAL_WINDOW", flow::INITIAL_WINDOW),
    ] {
        assert!(TEXT.contains(&format!("| `{name}` | {value} |")), "{name}");
    }
    let (header, body) = (msgpack::HEADER.values, msgpack::BODY.values);
    for sentence in [
        format!("A header has at most {header} values, a body at most {body}."),
        format!("more than {} words in `argv`", bounded::MAX_WORDS),
        format!("or {} variables in `env`", bounded::MAX_VARIABLES),
        format!("A map has at most {} entries.", msgpack::MAX_ENTRIES),
        format!("Containers nest at most {} deep", msgpack::MAX_DEPTH),
        format!("1 to {} characters of `A-Z a-z 0-9 . _ -`", JobId::MAX),
        format!("# The rexec protocol, version {}", hello::VERSIONS.end()),
        format!("`{}`", String::from_utf8_lossy(hello::ALPN)),
    ] {
        assert!(TEXT.contains(&sentence), "{sentence}");
    }
    for algorithm in Algorithm::ALL {
        assert!(TEXT.contains(&format!("`{algorithm}`")), "{algorithm}");
    }
}

#[test]
fn every_signal_is_named() {
    let (_, names) = section("### signal").split_once("without `SIG`: `").expect("the list");
    let (names, _) = names.split_once('`').expect("the end of the list");
    let listed: Vec<&str> = names.split(' ').collect();
    let ours: Vec<String> =
        (1..32).map(|n| Signal::from_number(n).expect("a signal").to_string()).collect();
    assert_eq!(listed, ours);
    assert!(TEXT.contains("`RT32` to `RT64`"));
}

#[test]
fn every_outcome_and_reason_is_listed() {
    let text = section("## 10. Outcomes");
    for (_, frame) in samples::golden() {
        if let Message::Exit(exit) = frame.message {
            let kind = exit.outcome.name();
            assert!(text.contains(&format!("| `{{\"kind\": \"{kind}\"")), "{kind}");
            assert!(exit.outcome.is_from_agent());
        }
    }
    use NeverStarted::*;
    for reason in [
        NotFound,
        NotExecutable,
        Cwd,
        User,
        TooLarge,
        Invalid,
        Conflict,
        Busy,
        AuditUnavailable,
        Resource,
    ] {
        let wire = rmp_serde::to_vec(&reason).expect("a string");
        let name = String::from_utf8_lossy(&wire[1..]).into_owned();
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// The hexadecimal block that starts with this comment.
fn example(who: &str) -> Vec<Frame> {
    let start = format!("```text\n# from the {who}\n");
    let (_, block) = TEXT.split_once(&start).unwrap_or_else(|| panic!("no example from the {who}"));
    let (block, _) = block.split_once("```").expect("the end of the example");
    frames_of(&from_hex(block))
}

fn verbs(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().map(|frame| frame.message.verb()).collect()
}

/// The example, read as a peer would read it.
#[test]
fn the_example_is_a_legal_conversation() {
    let (client, agent) = (example("client"), example("agent"));
    assert_eq!(verbs(&client), ["hello", "exec"]);
    assert_eq!(verbs(&agent), ["hello", "started", "data", "eof", "eof", "exit"]);
    let mut from_client = Gate::new(Role::Client);
    client.iter().for_each(|frame| from_client.check(frame).expect("legal"));
    let mut from_agent = Gate::new(Role::Agent);
    from_agent.opened(StreamId(1));
    agent.iter().for_each(|frame| from_agent.check(frame).expect("legal"));

    let (Message::Hello(ours), Message::Hello(theirs)) = (&client[0].message, &agent[0].message)
    else {
        panic!("hellos")
    };
    assert_eq!(negotiate(ours, theirs).expect("a common version").digests, [Algorithm::Sha256]);
    let body = client[1].verified_body().expect("its hash matches");
    let spec: ExecSpec = msgpack::decode(body.as_bytes(), msgpack::BODY).expect("a spec");
    assert_eq!((spec.fault(), spec.stdin), (None, false));
    let Message::Exec(exec) = &client[1].message else { panic!("exec") };
    assert!(exec.window >= frame::MAX_DATA as u64);

    let tallies =
        [("out", &agent[2..4]), ("err", &agent[4..5])].map(|(name, frames)| received(name, frames));
    let Message::Exit(exit) = &agent[5].message else { panic!("exit") };
    assert_eq!([exit.stdout, exit.stderr], tallies);
    assert!(exit.outcome.success());
}

fn received(channel: &str, frames: &[Frame]) -> Tally {
    let mut receiver = Receiver::new(Algorithm::Sha256);
    for frame in frames {
        match &frame.message {
            Message::Data(data) => {
                assert_eq!(data.channel.name(), channel);
                receiver.data(data.offset, frame.body.clone(), frame.hash).expect("verified");
            }
            Message::Eof(eof) => {
                assert_eq!(eof.channel.name(), channel);
                receiver.eof(eof.tally()).expect("the end");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(receiver.ended());
    receiver.tally().expect("no gap")
}
