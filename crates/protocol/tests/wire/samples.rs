//! One frame per verb, and per form that a verb can take; each has a golden file of its name.

use bytes::Bytes;
use rexec_protocol::hello;
use rexec_protocol::message::*;
use rexec_protocol::stream::{Sender, Tally};
use rexec_protocol::{
    Algorithm, Digest, ErrorCode, Frame, JobId, NeverStarted, Outcome, Signal as Sig, StreamId,
    msgpack,
};
use serde_bytes::ByteBuf;

const FIRST: StreamId = StreamId(1);

/// The golden files, by name without `.hex`, and what each holds. The part of a name before the
/// first dash is the verb.
pub(crate) fn golden() -> Vec<(&'static str, Frame)> {
    let on = |stream, message: Message| Frame::new(StreamId(stream), message);
    let mut frames = vec![
        ("hello", on(0, Hello { software: "rexec/0.1.0".into(), ..hello::ours("") }.into())),
        ("exec", exec(1, Algorithm::Blake3, 2 << 20, &full_spec())),
        ("exec-line", exec(2, Algorithm::Sha256, 256 << 10, &line())),
        ("exec-script", exec(3, Algorithm::Sha256, 256 << 10, &script())),
        ("started", on(1, Started::new(job(), 4711, Algorithm::Sha256).into())),
        ("data", sender().0),
        ("eof", sender().1),
        ("window", on(1, Window { limit: 5_000_000_000, consumed: 4_000_000_000 }.into())),
        ("stop", on(1, Stop { channel: Channel::Err }.into())),
        ("signal", on(1, Signal { signal: Sig::HUP }.into())),
        ("cancel", on(1, Cancel { signal: Sig::TERM, grace_ms: 5000 }.into())),
        ("ping", on(0, Ping { nonce: 7 }.into())),
        ("pong", on(0, Pong { nonce: 7, time_ms: Some(1_763_764_800_123) }.into())),
        ("pong-without-time", on(0, Pong { nonce: 7, time_ms: None }.into())),
        ("error", on(4, Error { code: ErrorCode::UnknownVerb, message: unknown() }.into())),
        ("error-revoked", on(0, Error { code: ErrorCode::Revoked, message: revoked() }.into())),
        ("error-certificate-expired", on(0, expired().into())),
        ("goodbye", on(0, Goodbye { reason: "restart".into() }.into())),
    ];
    frames.extend(exits());
    frames
}

/// The sample of a verb.
pub(crate) fn of_verb(verb: &str) -> Frame {
    let (_, frame) = golden().into_iter().find(|(name, _)| *name == verb).expect(verb);
    frame
}

/// `frame` as it travels.
pub(crate) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    frame.encode_head(&mut out);
    out.extend_from_slice(&frame.body);
    out.to_vec()
}

fn exec(stream: u64, digest: Algorithm, window: u64, spec: &ExecSpec) -> Frame {
    Frame::with_body(StreamId(stream), Exec::new(window, digest).into(), msgpack::encode(spec))
}

pub(crate) fn full_spec() -> ExecSpec {
    let bytes = |text: &str| ByteBuf::from(text);
    ExecSpec {
        command: Command::Argv(vec![bytes("echo"), bytes("hi")]),
        user: Some("deploy".into()),
        env: vec![(bytes("LANG"), bytes("C")), (bytes("EMPTY"), bytes(""))],
        cwd: Some(bytes("/srv")),
        timeout_ms: Some(60_000),
        stdin: true,
        on_disconnect: Some(OnDisconnect::Lease { ms: 30_000 }),
        on_full: OnFull::DiscardOldest,
        terminal: None,
    }
}

pub(crate) fn line() -> ExecSpec {
    ExecSpec::new(Command::Line(ByteBuf::from("df -h | tail -1")))
}

pub(crate) fn script() -> ExecSpec {
    let args = vec![ByteBuf::from("one"), ByteBuf::from([0xff])];
    ExecSpec::new(Command::Script { text: ByteBuf::from("#!/bin/sh\nid\n"), args })
}

fn sender() -> (Frame, Frame) {
    let mut sender = Sender::new(Channel::Out, Algorithm::Sha256);
    (sender.data(FIRST, Bytes::from_static(b"hi\n")), sender.eof(FIRST))
}

fn exits() -> Vec<(&'static str, Frame)> {
    let ran = exit(Outcome::Exited { code: 0 }, b"hi\n");
    let not_found = Outcome::NeverStarted {
        reason: NeverStarted::NotFound,
        message: "ecoh: no such program".into(),
    };
    let killed = Outcome::Signaled { signal: Sig::KILL, out_of_memory: false };
    let denied = Outcome::Denied { message: "not as root".into() };
    let lost = Outcome::Lost { message: "its keeper died".into() };
    let not_run = |outcome| Exit { usage: Usage::default(), ..exit(outcome, b"") };
    [
        ("exit-signaled", Exit { outcome: killed, held: true, ..ran.clone() }),
        ("exit-timed-out", Exit { outcome: Outcome::TimedOut, ..ran.clone() }),
        ("exit-cancelled", Exit { outcome: Outcome::Cancelled, ..ran.clone() }),
        ("exit-lost", Exit { outcome: lost, ..ran.clone() }),
        ("exit-never-started", not_run(not_found)),
        ("exit-denied", not_run(denied)),
        ("exit", ran),
    ]
    .map(|(name, exit)| (name, Frame::new(FIRST, exit.into())))
    .to_vec()
}

fn exit(outcome: Outcome, stdout: &[u8]) -> Exit {
    let tally = |b: &[u8]| Tally { size: b.len() as u64, hash: Digest::of(Algorithm::Sha256, b) };
    Exit {
        outcome,
        stdout: tally(stdout),
        stderr: tally(b""),
        stdin: tally(b""),
        held: false,
        usage: Usage { wall_ms: 3, user_ms: 1, system_ms: 2, max_rss_kib: 1980 },
    }
}

fn job() -> JobId {
    JobId::new("0193530e-2d4c-7a60-b7a1-5f3d8a3c9e11").expect("well formed")
}

fn revoked() -> String {
    "the client's certificate was revoked".into()
}

fn expired() -> Error {
    let message = "the client's certificate has expired".into();
    Error { code: ErrorCode::CertificateExpired, message }
}

fn unknown() -> String {
    "this version does not know the verb".into()
}
