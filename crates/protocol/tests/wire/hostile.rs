//! Headers that are not what they should be, kind by kind.

use crate::decoder::framed;
use rexec_protocol::message::{Hello, Message, Ping};
use rexec_protocol::{Algorithm, Decoder, ErrorCode, Frame, ProtocolError, StreamId};

/// What the decoder makes of one frame of `header`, followed by `body`.
fn decode(header: &[u8], body: &[u8]) -> Result<Frame, ProtocolError> {
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&framed(header));
    decoder.buffer().extend_from_slice(body);
    decoder.next().map(|frame| frame.expect("a whole frame"))
}

/// `{verb: "ping", stream: 0, args: <args>}` with `more` entries in front.
fn ping(entries: u8, more: &[u8], args: &[u8]) -> Vec<u8> {
    let start = [&[0x83 + entries], more, b"\xa4verb\xa4ping\xa6stream\0\xa4args"].concat();
    [&start, args].concat()
}

#[test]
fn malformed_headers_are_refused() {
    let long = |n: usize| b"\x91".repeat(n);
    let nested =
        |n: usize| ping(1, &[b"\xa1x", &long(n)[..], b"\0"].concat(), b"\x81\xa5nonce\x07");
    let args = |args: &[u8]| ping(0, b"", args);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing but nil", b"\xc0".to_vec()),
        ("an integer", b"\x01".to_vec()),
        ("an array of the fields", b"\x95\xa4ping\0\0\xc0\x81\xa5nonce\x07".to_vec()),
        ("an empty map", b"\x80".to_vec()),
        ("reserved byte", b"\xc1".to_vec()),
        ("integer keys", b"\x83\x00\xa4ping\x01\0\x04\x81\xa5nonce\x07".to_vec()),
        ("a bin key", b"\x83\xc4\x04verb\xa4ping\xa6stream\0\xa4args\x81\xa5nonce\x07".to_vec()),
        ("verb as bin", b"\x83\xa4verb\xc4\x04ping\xa6stream\0\xa4args\x81\xa5nonce\x07".to_vec()),
        ("verb as integer", b"\x83\xa4verb\x01\xa6stream\0\xa4args\x80".to_vec()),
        ("no verb", b"\x82\xa6stream\0\xa4args\x80".to_vec()),
        ("no stream", b"\x82\xa4verb\xa4ping\xa4args\x81\xa5nonce\x07".to_vec()),
        ("no args", b"\x82\xa4verb\xa4ping\xa6stream\0".to_vec()),
        ("stream -1", b"\x83\xa4verb\xa4ping\xa6stream\xff\xa4args\x81\xa5nonce\x07".to_vec()),
        (
            "stream 1.0",
            [
                b"\x83\xa4verb\xa4ping\xa6stream\xcb\x3f\xf0\0\0\0\0\0\0".as_slice(),
                b"\xa4args\x81\xa5nonce\x07",
            ]
            .concat(),
        ),
        ("args as array", args(b"\x91\x07")),
        ("args as nil", args(b"\xc0")),
        ("args as integer", args(b"\x07")),
        ("args with integer keys", args(b"\x81\x00\x07")),
        ("args without a needed key", args(b"\x80")),
        ("a key twice in args", args(b"\x82\xa5nonce\x07\xa5nonce\x08")),
        ("a key twice in args, spelt differently", args(b"\x82\xa5nonce\x07\xd9\x05nonce\x08")),
        ("a foreign key twice in args", args(b"\x83\xa5nonce\x07\xa1x\x01\xa1x\x01")),
        (
            "a foreign key twice, spelt differently",
            args(b"\x83\xa5nonce\x07\xa1x\x01\xd9\x01x\x01"),
        ),
        ("a key twice", ping(1, b"\xa6stream\x01", b"\x81\xa5nonce\x07")),
        ("nonce as text", args(b"\x81\xa5nonce\xa17")),
        ("nonce -1", args(b"\x81\xa5nonce\xff")),
        ("bytes after the header", [&args(b"\x81\xa5nonce\x07")[..], b"\0"].concat()),
        ("text that is not UTF-8", ping(1, b"\xa1x\xa1\xff", b"\x81\xa5nonce\x07")),
        ("an extension", ping(1, b"\xa1x\xd6\xff\0\0\0\0", b"\x81\xa5nonce\x07")),
        ("depth 17", nested(17)),
        ("depth 1025", nested(1_025)),
        ("depth 65000", nested(65_000)),
        ("array of 4 Gi", ping(1, b"\xa1x\xdd\xff\xff\xff\xff", b"\x80")),
        ("map of 4 Gi", ping(1, b"\xa1x\xdf\xff\xff\xff\xff", b"\x80")),
        ("text of 4 Gi", ping(1, b"\xa1x\xdb\xff\xff\xff\xff", b"\x80")),
        ("bytes of 4 Gi", ping(1, b"\xa1x\xc6\xff\xff\xff\xff", b"\x80")),
        ("extension of 4 Gi", ping(1, b"\xa1x\xc9\xff\xff\xff\xff\0", b"\x80")),
        ("cut", args(b"\x81\xa5nonc")),
        ("an entry too few", ping(1, b"", b"\x81\xa5nonce\x07")),
    ];
    for (what, header) in cases {
        let error = decode(&header, b"").expect_err(what);
        assert!(matches!(error, ProtocolError::Malformed(_)), "{what}: {error:?}");
        assert_eq!(error.code(), ErrorCode::Malformed);
    }
}

#[test]
fn a_map_has_at_most_64_entries() {
    let args = |n: u8| {
        let more = (1..n).flat_map(|key| [0xa2, b'a' + key / 16, b'a' + key % 16, 0]);
        [&[0xde, 0, n], &b"\xa5nonce\x07"[..], &more.collect::<Vec<u8>>()[..]].concat()
    };
    assert!(decode(&ping(0, b"", &args(64)), b"").is_ok());
    let error = decode(&ping(0, b"", &args(65)), b"").expect_err("one too many");
    assert_eq!(error.code(), ErrorCode::Malformed);
}

#[test]
fn arguments_out_of_range_are_refused() {
    let on_one = |verb: &[u8], args: &[u8]| {
        [b"\x83\xa4verb", verb, b"\xa6stream\x01\xa4args", args].concat()
    };
    for (what, header) in [
        ("signal 0", on_one(b"\xa6signal", b"\x81\xa6signal\xa10")),
        ("signal 65", on_one(b"\xa6signal", b"\x81\xa6signal\xa265")),
        ("signal -1", on_one(b"\xa6signal", b"\x81\xa6signal\xa2-1")),
        ("signal as number", on_one(b"\xa6signal", b"\x81\xa6signal\x09")),
        ("an unknown channel", on_one(b"\xa4stop", b"\x81\xa7channel\xa3aux")),
        (
            "a short digest",
            on_one(b"\xa3eof", b"\x83\xa7channel\xa2in\xa4size\0\xa4hash\xc4\x01\0"),
        ),
        ("an unknown algorithm", on_one(b"\xa4exec", b"\x82\xa6window\x01\xa6digest\xa3md5")),
        ("a job that is a path", on_one(b"\xa7started", b"\x82\xa3job\xa4../x\xa3pid\x01")),
        (
            "a pid of 64 bits",
            on_one(b"\xa7started", b"\x82\xa3job\xa1x\xa3pid\xcf\0\0\0\x01\0\0\0\0"),
        ),
    ] {
        assert!(matches!(decode(&header, b""), Err(ProtocolError::Malformed(_))), "{what}");
    }
}

#[test]
fn an_unknown_verb_is_skipped_with_its_body() {
    let header = b"\x85\xa4verb\xa5frobn\xa6stream\x09\xa4size\x03\xa4hash\xc0\xa4args\x91\x01";
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&framed(header));
    decoder.buffer().extend_from_slice(b"xyz");
    decoder.buffer().extend_from_slice(&framed(&ping(0, b"", b"\x81\xa5nonce\x07")));
    let unknown = decoder.next().expect("legal").expect("whole");
    assert_eq!((unknown.stream, unknown.message), (StreamId(9), Message::Unknown));
    let next = decoder.next().expect("legal").expect("whole");
    assert_eq!(next, Frame::new(StreamId::CONNECTION, Ping { nonce: 7 }.into()));
    assert!(decoder.is_between_frames());
}

#[test]
fn unknown_keys_are_ignored_whatever_they_hold() {
    let expected = Frame::new(StreamId::CONNECTION, Ping { nonce: 7 }.into());
    for value in
        [&b"\xc0"[..], b"\x93\x01\xa1x\xc4\x01\xff", b"\x81\xa1k\x91\x80", b"\xcb\0\0\0\0\0\0\0\0"]
    {
        let outside = ping(1, &[b"\xa6future", value].concat(), b"\x81\xa5nonce\x07");
        assert_eq!(decode(&outside, b""), Ok(expected.clone()), "{value:x?}");
        let inside = ping(0, b"", &[b"\x82\xa6future", value, b"\xa5nonce\x07"].concat());
        assert_eq!(decode(&inside, b""), Ok(expected.clone()), "{value:x?}");
    }
}

#[test]
fn optional_keys_may_be_absent_and_unknown_names_are_ignored() {
    let hello = |args: &[u8]| [b"\x83\xa4verb\xa5hello\xa6stream\0\xa4args", args].concat();
    let bare = decode(&hello(b"\x83\xa3min\x01\xa3max\x02\xa8software\xa1x"), b"");
    let expected = Hello { min: 1, max: 2, software: "x".into(), digests: vec![], notices: false };
    assert_eq!(bare.map(|frame| frame.message), Ok(expected.clone().into()));
    let args = b"\x84\xa3min\x01\xa3max\x02\xa8software\xa1x\xa7digests\x93\xa3md5\xa6blake3\xa0";
    let expected = Hello { digests: vec![Algorithm::Blake3], ..expected };
    assert_eq!(decode(&hello(args), b"").map(|frame| frame.message), Ok(expected.into()));
    let error = b"\x83\xa4verb\xa5error\xa6stream\0\xa4args\x82\xa4code\xa4new!\xa7message\xa0";
    let Ok(Frame { message: Message::Error(error), .. }) = decode(error, b"") else {
        panic!("an unknown code is still an error")
    };
    assert_eq!(error.code, ErrorCode::Other);
}

#[test]
fn a_body_where_none_belongs_is_refused() {
    let header = ping(1, b"\xa4size\x01", b"\x81\xa5nonce\x07");
    let error = decode(&header, b"x").expect_err("a ping has no body");
    assert_eq!(error, ProtocolError::WrongState { verb: "ping", when: "with a body" });
}

#[test]
fn a_body_is_not_used_without_its_hash() {
    let exec = b"\x84\xa4verb\xa4exec\xa6stream\x01\xa4size\x01\xa4args\x82\xa6window\x01\xa6digest\xa6sha256";
    let frame = decode(exec, b"\x80").expect("legal so far");
    assert_eq!(frame.verified_body(), Err(ProtocolError::HashMissing));
    let wrong = Frame { hash: Some([0; 32].into()), ..frame };
    assert_eq!(wrong.verified_body(), Err(ProtocolError::HashMismatch));
}
