//! The table of hostile frames from a client, and what an agent does about each in each state.

use super::agent_side::Verdict::{self, Answered, Closed, Ignored, Told};
use crate::support::raw::wire::*;
use rexec_protocol::ErrorCode::*;
use rexec_protocol::frame::{MAX_BODY, MAX_DATA};

/// Bytes to send, and the verdict in each state: TLS, greeted, running, half-closed.
pub struct Kind {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub verdicts: [Verdict; 4],
}

/// Wrong whenever it comes.
const fn ever(verdict: Verdict) -> [Verdict; 4] {
    [verdict, verdict, verdict, verdict]
}

/// Like any frame, wrong before the hello; then this.
const fn greeted(verdict: Verdict) -> [Verdict; 4] {
    [Told(WrongState), verdict, verdict, verdict]
}

/// For stream 1, which is open in the last two states.
const fn open(verdict: Verdict) -> [Verdict; 4] {
    [Told(WrongState), Told(BadStream), verdict, verdict]
}

/// For the stdin of stream 1, which is open in the third state and at its end in the last.
const fn stdin(verdict: Verdict) -> [Verdict; 4] {
    [Told(WrongState), Told(BadStream), verdict, Told(WrongState)]
}

/// All of them. The commands that they start have `mark` among their words.
pub fn all(mark: &str) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut add = |name, bytes, verdicts| kinds.push(Kind { name, bytes, verdicts });
    lengths(&mut add);
    messagepack(&mut add);
    headers(&mut add);
    connection(&mut add);
    requests(&mut add, mark);
    streams(&mut add, mark);
    bytes_of_stdin(&mut add, mark);
    kinds
}

type Add<'a> = &'a mut dyn FnMut(&'static str, Vec<u8>, [Verdict; 4]);

fn lengths(add: Add<'_>) {
    for (name, length) in [
        ("header of 0 bytes", 0),
        ("header of one byte too many", 65_537),
        ("header of 2 GiB", 0x7fff_ffff),
        ("header of 4 GiB", u32::MAX),
    ] {
        add(name, length.to_be_bytes().into(), ever(Told(TooLarge)));
    }
    let sized = |verb: &str, stream, size| {
        extended(
            verb,
            stream,
            &[("nonce", uint(1)), ("channel", text("in")), ("offset", uint(0))],
            &[("size", uint(size))],
        )
    };
    add("body of one byte too many", sized("data", 1, MAX_BODY + 1), ever(Told(TooLarge)));
    add("body of 2^64-1 bytes", sized("data", 1, u64::MAX), ever(Told(TooLarge)));
    add("body of an unknown verb, too large", sized("dance", 0, u64::MAX), ever(Told(TooLarge)));
    add(
        "body where none belongs",
        [sized("ping", 0, 1), b"x".to_vec()].concat(),
        ever(Told(WrongState)),
    );
    let long = data(1, "in", 0, b"a", b"a");
    add("body longer than declared", [long, vec![0xff; 64]].concat(), stdin(Told(TooLarge)));
    let most = vec![b'x'; MAX_DATA + 1];
    add("data of one byte too many", data(1, "in", 0, &most, &most), stdin(Told(TooLarge)));
}

fn messagepack(add: Add<'_>) {
    let bad = ever(Told(Malformed));
    let with = |value: &[u8]| extended("ping", 0, &[("nonce", uint(1))], &[("x", value.to_vec())]);
    for (name, value) in [
        ("array of 2^32-1", &b"\xdd\xff\xff\xff\xff"[..]),
        ("map of 2^32-1", b"\xdf\xff\xff\xff\xff"),
        ("string of 2^32-1", b"\xdb\xff\xff\xff\xff"),
        ("bytes of 2^32-1", b"\xc6\xff\xff\xff\xff"),
        ("extension of 2^32-1", b"\xc9\xff\xff\xff\xff\0"),
        ("timestamp", b"\xd6\xff\0\0\0\0"),
        ("reserved c1", b"\xc1"),
        ("invalid UTF-8", b"\xa2\xff\xfe"),
        ("map with an integer key", b"\x81\x01\x01"),
        ("map with a key of bytes", b"\x81\xc4\x01a\x01"),
        ("map with a key twice", b"\x82\xa1a\x01\xa1a\x02"),
        ("map with a key twice, spelt differently", b"\x82\xa1a\x01\xd9\x01a\x02"),
        ("two values", b"\x01\x01"),
    ] {
        add(name, with(value), bad);
    }
    for (name, depth) in [("depth 17", 17), ("depth 1,025", 1_025), ("depth 60,000", 60_000)] {
        add(name, with(&[&b"\x91".repeat(depth)[..], b"\x01"].concat()), bad);
    }
    add("600 values", with(&array(&vec![vec![1]; 600])), bad);
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), vec![1])).collect();
    add("map of 65 entries", with(&map(&many)), bad);
    add("not a map", with_header(&array(&[text("ping"), uint(0)])), bad);
    add("one byte, c1", with_header(b"\xc1"), bad);
    add("random bytes", with_header(&[0x9d, 0x31, 0xc4, 0xff, 0x80, 0x00, 0x7f]), bad);
}

fn headers(add: Add<'_>) {
    let bad = ever(Told(Malformed));
    let header = |entries: &[(&str, Vec<u8>)]| with_header(&map(entries));
    let (verb, stream, args) =
        (("verb", text("ping")), ("stream", uint(0)), ("args", map(&[("nonce", uint(1))])));
    let (verb, stream, args) = (|| verb.clone(), || stream.clone(), || args.clone());
    add("no verb", header(&[stream(), args()]), bad);
    add("no stream", header(&[verb(), args()]), bad);
    add("no args", header(&[verb(), stream()]), bad);
    add("verb of bytes", header(&[("verb", bin(b"ping")), stream(), args()]), bad);
    add("verb of a number", header(&[("verb", uint(1)), stream(), args()]), bad);
    add("stream -1", header(&[verb(), ("stream", vec![0xff]), args()]), bad);
    add("stream 0.0", header(&[verb(), ("stream", b"\xcb\0\0\0\0\0\0\0\0".into()), args()]), bad);
    add("args in an array", header(&[verb(), stream(), ("args", array(&[uint(1)]))]), bad);
    add("args nil", header(&[verb(), stream(), ("args", vec![0xc0])]), bad);
    add("nonce missing", frame("ping", 0, &[]), bad);
    add("nonce -1", frame("ping", 0, &[("nonce", vec![0xff])]), bad);
    add("size -1", extended("dance", 0, &[], &[("size", vec![0xff])]), bad);
    add(
        "hash of 31 bytes",
        extended("ping", 0, &[("nonce", uint(1))], &[("hash", bin(&[0; 31]))]),
        bad,
    );
    let more = extended(
        "ping",
        0,
        &[("nonce", uint(1)), ("new", map(&[("a", uint(1))]))],
        &[("newer", array(&[uint(1)]))],
    );
    add("keys that nobody knows", more, greeted(Ignored));
}

fn connection(add: Add<'_>) {
    let other = |name, bytes, first| {
        (name, bytes, [first, Told(WrongState), Told(WrongState), Told(WrongState)])
    };
    for (name, bytes, verdicts) in [
        other("hello of versions 2 to 3", hello_of(2, 3, "new/9"), Told(VersionMismatch)),
        other("hello of versions 3 to 1", hello_of(3, 1, "odd/1"), Told(VersionMismatch)),
        other("hello of version 65,536", hello_of(65_536, 65_536, "x"), Told(Malformed)),
        other("hello of many versions", hello_of(0, 65_535, "x"), Ignored),
        other("hello with escapes", hello_of(1, 1, "\x1b[2J\x07\r\n"), Ignored),
        other(
            "a hello after an error about a verb",
            [error(0, "unknown_verb", "x"), hello()].concat(),
            Ignored,
        ),
        other("two hellos", [hello(), hello()].concat(), Told(WrongState)),
        other(
            "hello on stream 1",
            frame("hello", 1, &[("min", uint(1)), ("max", uint(1)), ("software", text("x"))]),
            Told(WrongState),
        ),
    ] {
        // A header that is malformed is so in every state.
        let verdicts =
            if verdicts[0] == Told(Malformed) { ever(Told(Malformed)) } else { verdicts };
        add(name, bytes, verdicts);
    }
    add("unknown verb", frame("dance", 0, &[]), greeted(Answered(UnknownVerb)));
    let steps = with_body("dance", 77, &[("steps", uint(3))], b"body", sha256(b"other"));
    add("unknown verb with a body, on a new stream", steps, greeted(Answered(UnknownVerb)));
    add("verb of 200 bytes", frame(&"v".repeat(200), 0, &[]), greeted(Answered(UnknownVerb)));
    add("ping on a stream", frame("ping", 1, &[("nonce", uint(1))]), greeted(Told(WrongState)));
    add("pong for nothing", frame("pong", 0, &[("nonce", uint(9))]), greeted(Ignored));
    add(
        "goodbye, and then more",
        frame("goodbye", 0, &[("reason", text("\x1b[2Jbye"))]),
        greeted(Ignored),
    );
    add("error on the connection", error(0, "internal", "\x1b[2J\nERROR forged"), ever(Closed));
    add("error with an unknown code", error(0, "whatever", "x"), ever(Closed));
    add("error on a stream never opened", error(99, "internal", "x"), greeted(Told(BadStream)));
    let done = map(&[("kind", text("exited")), ("code", uint(0))]);
    let tally = || map(&[("size", uint(0)), ("hash", bin(sha256(b"").as_bytes()))]);
    let exit = frame(
        "exit",
        1,
        &[("outcome", done), ("stdout", tally()), ("stderr", tally()), ("stdin", tally())],
    );
    add("exit from a client", exit, ever(Told(WrongState)));
    add(
        "started from a client",
        frame("started", 1, &[("job", text("j")), ("pid", uint(1))]),
        ever(Told(WrongState)),
    );
}

fn requests(add: Add<'_>, mark: &str) {
    let sleep = ["sleep", mark];
    add("exec on stream 0", exec(0, &sleep, false), greeted(Told(WrongState)));
    let twice = |second| [exec(5, &sleep, false), exec(second, &sleep, false)].concat();
    add("exec on a stream that is open", twice(5), greeted(Told(BadStream)));
    add("exec below the last stream", twice(4), greeted(Told(BadStream)));
    add("exec on stream 2^64-1", exec(u64::MAX, &sleep, false), greeted(Ignored));
    let body = map(&[("command", argv(&sleep))]);
    let args = |window: u64, digest: &str| [("window", uint(window)), ("digest", text(digest))];
    let with = |window, digest, hash| with_body("exec", 5, &args(window, digest), &body, hash);
    add(
        "exec with a window too small",
        with(MAX_DATA as u64 - 1, "sha256", sha256(&body)),
        greeted(Told(Malformed)),
    );
    add("exec with another digest", with(1 << 20, "md5", sha256(&body)), ever(Told(Malformed)));
    add(
        "exec with the wrong hash",
        with(1 << 20, "sha256", sha256(b"")),
        greeted(Told(HashMismatch)),
    );
    let bare = extended("exec", 5, &args(1 << 20, "sha256"), &[("size", uint(body.len() as u64))]);
    add("exec without a hash", [bare, body.clone()].concat(), greeted(Told(HashMismatch)));
    add(
        "exec without a body",
        frame("exec", 5, &args(1 << 20, "sha256")),
        greeted(Told(HashMismatch)),
    );
    let command = |command: Vec<u8>| exec_spec(5, &map(&[("command", command)]));
    let both = map(&[("argv", array(&[bin(b"true")])), ("line", bin(b"true"))]);
    for (name, bytes) in [
        ("exec with a body of nonsense", exec_spec(5, b"\xc1\xc1")),
        ("exec with a body in an array", exec_spec(5, &array(&[argv(&sleep)]))),
        ("exec with an unknown kind of command", command(map(&[("pty", bin(b"x"))]))),
        ("exec with two kinds of command", command(both)),
        ("exec with words as strings in a map", command(map(&[("argv", map(&[]))]))),
        ("exec with 300,000 words", command(map(&[("argv", array(&vec![vec![0]; 300_000]))]))),
        (
            "exec with timeout -1",
            exec_spec(5, &map(&[("command", argv(&sleep)), ("timeout_ms", vec![0xff])])),
        ),
    ] {
        add(name, bytes, greeted(Told(Malformed)));
    }
    for (name, bytes) in [
        ("exec with no word", command(argv(&[]))),
        ("exec with a NUL", command(argv(&["sleep", "1\0"]))),
        ("exec of what is not there", command(argv(&["/no/such\x1b[2J", mark]))),
        (
            "exec as another user",
            exec_spec(5, &map(&[("command", argv(&sleep)), ("user", text("\x1b[2J"))])),
        ),
        (
            "exec with timeout 2^64-1",
            exec_spec(5, &map(&[("command", argv(&sleep)), ("timeout_ms", uint(u64::MAX))])),
        ),
        (
            "exec in a relative directory",
            exec_spec(5, &map(&[("command", argv(&sleep)), ("cwd", bin(b"../.."))])),
        ),
    ] {
        add(name, bytes, greeted(Ignored));
    }
}

fn streams(add: Add<'_>, mark: &str) {
    for (verb, args) in [
        ("window", vec![("limit", uint(1))]),
        ("data", vec![("channel", text("in")), ("offset", uint(0))]),
        ("signal", vec![("signal", text("TERM"))]),
        ("stop", vec![("channel", text("out"))]),
    ] {
        add("a stream's verb on stream 0", frame(verb, 0, &args), greeted(Told(WrongState)));
        add(
            "a stream's verb on a stream never opened",
            frame(verb, 99, &args),
            greeted(Told(BadStream)),
        );
        let skipped = [exec(5, &["sleep", mark], true), frame(verb, 3, &args)].concat();
        add("a stream's verb after the end", skipped, greeted(Ignored));
    }
    add("window of 2^64-1", window(1, u64::MAX), open(Ignored));
    add("window that shrinks", [window(1, 1 << 40), window(1, 0)].concat(), open(Ignored));
    add("window of -1", frame("window", 1, &[("limit", vec![0xff])]), ever(Told(Malformed)));
    for (name, signal) in [
        ("signal 0", text("0")),
        ("signal NOPE", text("NOPE")),
        ("signal RT65", text("RT65")),
        ("signal as the number 9", uint(9)),
        ("signal -1", vec![0xff]),
    ] {
        add(name, frame("signal", 1, &[("signal", signal)]), ever(Told(Malformed)));
    }
    add("signal WINCH, three times", signal(1, "WINCH").repeat(3), open(Ignored));
    let cancel = |grace| frame("cancel", 1, &[("signal", text("CONT")), ("grace_ms", uint(grace))]);
    add("cancel twice, with endless grace", [cancel(u64::MAX), cancel(0)].concat(), open(Ignored));
    add(
        "stop for the client's own channel",
        frame("stop", 1, &[("channel", text("in"))]),
        open(Told(WrongState)),
    );
    add("stop twice", frame("stop", 1, &[("channel", text("out"))]).repeat(2), open(Ignored));
    add(
        "stop for no channel",
        frame("stop", 1, &[("channel", text("ctl"))]),
        ever(Told(Malformed)),
    );
}

fn bytes_of_stdin(add: Add<'_>, mark: &str) {
    let (data, one) =
        (|offset, body: &[u8], prefix: &[u8]| data(1, "in", offset, body, prefix), b"abc");
    add("offset with a gap", data(1, one, one), stdin(Told(BadOffset)));
    add("offset of 2^64-1", data(u64::MAX, one, one), stdin(Told(BadOffset)));
    add(
        "offset that overlaps",
        [data(0, one, one), data(2, one, b"abcabc")].concat(),
        stdin(Told(BadOffset)),
    );
    add("hash that is wrong", data(0, one, b"abd"), stdin(Told(HashMismatch)));
    add(
        "hash over the body alone",
        [data(0, one, one), data(3, one, one)].concat(),
        stdin(Told(HashMismatch)),
    );
    let args = [("channel", text("in")), ("offset", uint(0))];
    let bare = [extended("data", 1, &args, &[("size", uint(3))]), one.to_vec()].concat();
    add("hash that is absent", bare, stdin(Told(HashMismatch)));
    add("data without bytes", frame("data", 1, &args), stdin(Told(Malformed)));
    let wrong = |channel| crate::support::raw::wire::data(1, channel, 0, one, one);
    add("data for stdout", wrong("out"), open(Told(WrongState)));
    add("data for no channel", wrong("ctl"), ever(Told(Malformed)));
    add("eof for stdout", eof(1, "out", b""), open(Told(WrongState)));
    let end = |size, whole: &[u8]| {
        frame(
            "eof",
            1,
            &[
                ("channel", text("in")),
                ("size", uint(size)),
                ("hash", bin(sha256(whole).as_bytes())),
            ],
        )
    };
    add("eof at another size", end(1, b""), stdin(Told(BadOffset)));
    add("eof with another hash", end(0, b"x"), stdin(Told(HashMismatch)));
    add("eof twice", [end(0, b""), end(0, b"")].concat(), stdin(Told(WrongState)));
    add("data after eof", [end(0, b""), data(0, one, one)].concat(), stdin(Told(WrongState)));
    let unasked = |bytes: Vec<u8>| [exec(5, &["sleep", mark], false), bytes].concat();
    add("eof where stdin is null", unasked(eof(5, "in", b"")), greeted(Told(WrongState)));
    // The command reads nothing, so that no credit comes back but for what its pipe holds.
    let whole = vec![b'x'; 12 * MAX_DATA];
    let over: Vec<u8> = (0..12)
        .flat_map(|n| data((n * MAX_DATA) as u64, &whole[..MAX_DATA], &whole[..(n + 1) * MAX_DATA]))
        .collect();
    add("more than the window", over, stdin(Told(FlowControl)));
}
