//! One frame per verb, and per form that a verb can take; each has a golden file of its name.

use crate::samples_of_rooms as rooms;
use bytes::Bytes;
use rexec_protocol::files::{FilesRequest, Get, Put, Store, Target, Update};
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
        ("exec", exec(1, full_exec(), &full_spec())),
        ("exec-first-sent", exec(1, Exec::new(2 << 20, Algorithm::Blake3), &first_spec())),
        ("exec-any-digest", exec(8, Exec::new(256 << 10, None), &line())),
        ("exec-line", exec(2, Exec::new(256 << 10, Algorithm::Sha256), &line())),
        ("exec-script", exec(3, Exec::new(256 << 10, Algorithm::Sha256), &script())),
        ("exec-files-get", exec(4, Exec::new(256 << 10, Algorithm::Sha256), &get())),
        ("exec-files-put", exec(5, Exec::new(256 << 10, Algorithm::Sha256), &put())),
        ("exec-terminal", exec(4, Exec::new(256 << 10, Algorithm::Sha256), &terminal())),
        ("exec-subsystem", exec(6, Exec::new(256 << 10, Algorithm::Sha256), &subsystem())),
        ("exec-connect", exec(7, Exec::new(256 << 10, Algorithm::Sha256), &connect())),
        ("exec-listen", exec(9, Exec::new(256 << 10, Algorithm::Sha256), &listen())),
        ("exec-accept", exec(10, Exec::new(256 << 10, Algorithm::Sha256), &accept())),
        ("exec-login", exec(5, Exec::new(256 << 10, Algorithm::Sha256), &login())),
        ("attach", on(5, attach(From::Offsets(Offsets { out: 70_000, err: 3 })).into())),
        ("attach-start", on(5, attach(From::Start {}).into())),
        ("attach-live", on(5, attach(From::Live {}).into())),
        ("attach-time", on(5, attach(From::Time { ms: 1_763_764_800_123 }).into())),
        ("jobs", on(6, Jobs {}.into())),
        ("remove", on(7, Remove { job: job() }.into())),
        ("started", on(1, joined().into())),
        ("started-new", on(1, Started::new(job(), 4711, Algorithm::Sha256).into())),
        ("data", sender().0),
        ("data-with-time", timed()),
        ("eof", sender().1),
        ("gap", on(1, Gap { channel: Channel::Err, to: 5_000_000_000 }.into())),
        ("window", on(1, Window { limit: 5_000_000_000, consumed: 4_000_000_000 }.into())),
        ("window-nothing-consumed", on(1, Window { limit: 5_000_000_000, consumed: 0 }.into())),
        ("stop", on(1, Stop { channel: Channel::Err }.into())),
        ("signal", on(1, Signal { signal: Sig::HUP }.into())),
        ("cancel", on(1, Cancel { signal: Sig::TERM, grace_ms: 5000 }.into())),
        ("resize", on(1, Resize { size: size() }.into())),
        ("detach", on(1, Detach {}.into())),
        ("refused", on(5, Refused { reason: Refusal::UnknownJob, message: no_job() }.into())),
        ("listing", listing()),
        ("listing-terminal", listing_of_a_terminal()),
        ("listing-waiting", listing_of_a_waiting_job()),
        ("removed", on(7, Removed {}.into())),
        ("ping", on(0, Ping { nonce: 7 }.into())),
        ("pong", on(0, Pong { nonce: 7, time_ms: Some(1_763_764_800_123) }.into())),
        ("pong-without-time", on(0, Pong { nonce: 7, time_ms: None }.into())),
        ("error", on(4, Error { code: ErrorCode::UnknownVerb, message: unknown() }.into())),
        ("error-revoked", on(0, Error { code: ErrorCode::Revoked, message: revoked() }.into())),
        ("error-certificate-expired", on(0, expired().into())),
        ("goodbye", on(0, Goodbye { reason: "restart".into() }.into())),
    ];
    frames.extend(exits());
    frames.extend(rooms::golden());
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

fn exec(stream: u64, exec: Exec, spec: &ExecSpec) -> Frame {
    Frame::with_body(StreamId(stream), exec.into(), msgpack::encode(spec))
}

/// One that is sent again, with every optional key.
fn full_exec() -> Exec {
    Exec {
        job: Some(job()),
        durable: true,
        age_ms: Some(1_500),
        detach: true,
        have: Offsets { out: 70_000, err: 3 },
        ..Exec::new(2 << 20, Algorithm::Blake3)
    }
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
        drain: Drain::Bounded,
        ssh_env: false,
    }
}

/// The same without what is about a client that leaves.
pub(crate) fn first_spec() -> ExecSpec {
    ExecSpec { on_disconnect: None, on_full: OnFull::Block, ..full_spec() }
}

pub(crate) fn terminal() -> ExecSpec {
    let terminal = Terminal { term: ByteBuf::from("xterm-256color"), size: size(), locale: vec![] };
    ExecSpec {
        terminal: Some(terminal),
        stdin: true,
        on_disconnect: Some(OnDisconnect::Keep {}),
        ..ExecSpec::new(Command::Argv(vec![ByteBuf::from("top")]))
    }
}

/// What a program that calls ssh asks for.
pub(crate) fn subsystem() -> ExecSpec {
    let command = Command::Subsystem("sftp".into());
    ExecSpec { stdin: true, drain: Drain::Wait, ssh_env: true, ..ExecSpec::new(command) }
}

pub(crate) fn connect() -> ExecSpec {
    let command = Command::Connect { host: "db.internal".into(), port: 5432 };
    ExecSpec { stdin: true, on_disconnect: Some(OnDisconnect::Kill {}), ..ExecSpec::new(command) }
}

pub(crate) fn listen() -> ExecSpec {
    let command = Command::Listen { host: "localhost".into(), port: 0 };
    ExecSpec { stdin: true, ..ExecSpec::new(command) }
}

pub(crate) fn accept() -> ExecSpec {
    let command = Command::Accept { job: job(), number: 70_000 };
    ExecSpec { stdin: true, on_disconnect: Some(OnDisconnect::Kill {}), ..ExecSpec::new(command) }
}

pub(crate) fn login() -> ExecSpec {
    let pair = |name, value| (ByteBuf::from(name), ByteBuf::from(value));
    let locale = vec![pair("LANG", "de_DE.UTF-8")];
    let terminal = Terminal { term: ByteBuf::from("xterm"), size: size(), locale };
    let on_full = OnFull::DiscardOldest;
    let login = ExecSpec::new(Command::Login {});
    ExecSpec { terminal: Some(terminal), stdin: true, on_full, ..login }
}

fn size() -> TerminalSize {
    TerminalSize { columns: 200, rows: 50, width: 1600, height: 800 }
}

fn attach(from: From) -> Attach {
    Attach {
        window: 2 << 20,
        job: job(),
        from,
        output: true,
        follow: true,
        control: false,
        times: matches!(from, From::Offsets(_)),
    }
}

fn joined() -> Started {
    let (attached, terminal) = (true, true);
    Started { attached, stdin: 4096, terminal, ..Started::new(job(), 4711, Algorithm::Blake3) }
}

fn timed() -> Frame {
    let (mut frame, _) = sender();
    let time_ms = Some(1_763_764_800_123);
    frame.message = Data { channel: Channel::Out, offset: 0, time_ms }.into();
    frame
}

fn no_job() -> String {
    "this agent has no such job".into()
}

fn running() -> JobInfo {
    JobInfo {
        job: job(),
        owner: "alice".into(),
        user: "deploy".into(),
        command: "make test".into(),
        outcome: None,
        pid: 4711,
        started_ms: 1_763_764_800_123,
        ended_ms: None,
        size: Offsets { out: 70_000, err: 3 },
        kept_from: Offsets::default(),
        attached: 1,
        detached: false,
        waiting: None,
        terminal: false,
        terminal_size: None,
    }
}

fn listing() -> Frame {
    let running = running();
    let ended = JobInfo {
        outcome: Some(Outcome::Exited { code: 7 }),
        ended_ms: Some(1_763_764_801_000),
        kept_from: Offsets { out: 65_536, err: 0 },
        attached: 0,
        detached: true,
        terminal: true,
        ..running.clone()
    };
    let list = JobList { jobs: vec![running, ended] };
    Frame::with_body(StreamId(6), Listing { more: true }.into(), msgpack::encode(&list))
}

fn listing_of_a_terminal() -> Frame {
    let job = JobInfo {
        command: "(login shell)".into(),
        size: Offsets { out: 70_000, err: 0 },
        terminal: true,
        terminal_size: Some(TerminalSize { columns: 132, rows: 43, width: 0, height: 0 }),
        ..running()
    };
    let list = JobList { jobs: vec![job] };
    Frame::with_body(StreamId(6), Listing { more: false }.into(), msgpack::encode(&list))
}

pub(crate) fn line() -> ExecSpec {
    ExecSpec::new(Command::Line(ByteBuf::from("df -h | tail -1")))
}

fn transfer(request: FilesRequest) -> ExecSpec {
    ExecSpec { stdin: true, ..ExecSpec::new(Command::Files(request)) }
}

pub(crate) fn get() -> ExecSpec {
    let paths = vec![ByteBuf::from("/var/log/*.log"), ByteBuf::from(&b"\xff"[..])];
    let digest = Algorithm::Sha256;
    let get = Get { paths, recursive: true, glob: true, ask: true, digest, links: true };
    transfer(FilesRequest::Get(get))
}

pub(crate) fn put() -> ExecSpec {
    let store = Store {
        preserve: true,
        special: true,
        update: Some(Update::Digest),
        partial: true,
        delete: true,
        dry_run: true,
    };
    let (path, name) = (ByteBuf::from("/srv/www"), Some(ByteBuf::from("site")));
    let put = Put {
        path,
        target: Target::Exact,
        name,
        sources: Vec::new(),
        glob: false,
        recursive: true,
        links: true,
        store,
    };
    transfer(FilesRequest::Put(put))
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
    let unknown = Outcome::Lost { message: "no such job".into() };
    let not_run = |outcome| Exit { usage: Usage::default(), ..exit(outcome, b"") };
    [
        ("exit-signaled", Exit { outcome: killed, held: true, ..ran.clone() }),
        ("exit-timed-out", Exit { outcome: Outcome::TimedOut, ..ran.clone() }),
        ("exit-cancelled", Exit { outcome: Outcome::Cancelled, ..ran.clone() }),
        ("exit-lost", Exit { outcome: lost, ..ran.clone() }),
        ("exit-unknown", Exit { unknown: true, ..not_run(unknown) }),
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
        unknown: false,
        usage: Usage { wall_ms: 3, user_ms: 1, system_ms: 2, max_rss_kib: 1980 },
    }
}

pub(crate) fn job() -> JobId {
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

fn listing_of_a_waiting_job() -> Frame {
    let job = JobInfo {
        size: Offsets { out: 70_000, err: 0 },
        attached: 0,
        detached: true,
        waiting: Some("there is no room".into()),
        ..running()
    };
    let list = JobList { jobs: vec![job] };
    Frame::with_body(StreamId(6), Listing { more: false }.into(), msgpack::encode(&list))
}
