//! The messages of a transfer: golden bytes, and what the text says of them.

use crate::golden::from_hex;
use rexec_protocol::files::*;
use rexec_protocol::{Algorithm, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::fmt::Debug;

const TEXT: &str = include_str!("../../PROTOCOL.md");
const META: Meta = Meta { mode: 0o644, mtime: 1_700_000_000, nsec: 5 };

fn sha256() -> Digest {
    Digest::of(Algorithm::Sha256, b"hello\n")
}

fn name() -> ByteBuf {
    ByteBuf::from("a")
}

/// One of each, in an order that makes sense, with their bodies.
fn to_receiver() -> Vec<(ToReceiver, &'static [u8])> {
    let file = File {
        name: name(),
        size: Some(6),
        meta: META,
        ask: false,
        digest: Algorithm::Sha256,
        whole: None,
    };
    let fail = Fail { name: Some(name()), message: "is a FIFO".to_owned(), at: None };
    vec![
        (ToReceiver::Dir(Entry { name: ByteBuf::from("d"), meta: META }), b""),
        (ToReceiver::File(File { whole: Some(sha256()), ..file.clone() }), b"hello\n"),
        (ToReceiver::File(File { ask: true, ..file.clone() }), b""),
        (ToReceiver::File(File { digest: Algorithm::Blake3, ..file }), b""),
        (ToReceiver::Begin(Begin { from: 2 }), b""),
        (ToReceiver::Data(Data { offset: 2 }), b"llo\n"),
        (ToReceiver::End(End { size: 6, hash: sha256() }), b""),
        (ToReceiver::Compared(Compared { same: true }), b""),
        (ToReceiver::Link(Link { name: name(), target: ByteBuf::from("../b"), meta: META }), b""),
        (ToReceiver::Fail(fail.clone()), b""),
        (ToReceiver::Fail(Fail { at: Some(ByteBuf::from("d/a")), ..fail }), b""),
        (ToReceiver::Leave(Leave { complete: true }), b""),
        (ToReceiver::Done(Done { entries: 4 }), b""),
    ]
}

fn to_sender() -> Vec<(ToSender, &'static [u8])> {
    let (path, sha) = (ByteBuf::from("d/a"), Some(sha256()));
    let (size, folder) = (6, false);
    let stored =
        Stored { path: path.clone(), size, sha256: sha, dry_run: true, resumed: 0, folder };
    let made = Stored { size: 0, sha256: None, dry_run: false, folder: true, ..stored.clone() };
    let same = Skipped { path: path.clone(), size, sha256: sha, adjusted: false, folder };
    let adjusted = Skipped { sha256: None, adjusted: true, ..same.clone() };
    let failed = Failed { path: path.clone(), message: "no".to_owned(), at: None };
    let finished = Finished {
        stored: 1,
        skipped: 2,
        failed: 3,
        removed: 4,
        bytes: 6,
        adjusted: 5,
        folders: 0,
    };
    let all: Vec<ToSender> = vec![
        ToSender::Want(Want { from: 2, hash: sha }),
        ToSender::Skip {},
        ToSender::Compare(Compare { hash: sha256(), only: true }),
        ToSender::Stored(stored.clone()),
        ToSender::Stored(Stored { dry_run: false, sha256: None, resumed: 2, ..stored }),
        ToSender::Stored(made),
        ToSender::Skipped(same),
        ToSender::Skipped(adjusted.clone()),
        ToSender::Skipped(Skipped { size: 0, folder: true, ..adjusted }),
        ToSender::Failed(failed.clone()),
        ToSender::Failed(Failed { at: Some(ByteBuf::from("to/d/a")), ..failed }),
        ToSender::Removed { path },
        ToSender::Finished(Finished { adjusted: 0, ..finished }),
        ToSender::Finished(finished),
        ToSender::Finished(Finished { folders: 7, ..finished }),
        ToSender::Broken { message: "no".to_owned() },
    ];
    all.into_iter().map(|message| (message, &b""[..])).collect()
}

/// Compares with the golden bytes, in both directions; gives the names of the messages.
fn check<M>(file: &str, text: &str, samples: Vec<(M, &'static [u8])>) -> Vec<String>
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let golden = from_hex(text);
    let ours: Vec<u8> = samples
        .iter()
        .flat_map(|(message, body)| [&encode(message, body.len()), *body].concat())
        .collect();
    assert_eq!(ours, golden, "{file} is encoded differently");
    let (mut rest, mut names) = (golden.as_slice(), Vec::new());
    for (message, body) in samples {
        let (prefix, after) = rest.split_first_chunk().unwrap();
        let (header, after) = after.split_at(header_length(*prefix).unwrap());
        let (decoded, size) = decode::<M>(header).unwrap();
        assert_eq!((&decoded, size), (&message, body.len()), "{file} is decoded differently");
        rest = &after[size..];
        let debug = format!("{message:?}");
        names.push(debug.split(['(', ' ']).next().unwrap().to_lowercase());
    }
    assert!(rest.is_empty());
    names
}

#[test]
fn every_message_has_its_golden_bytes_and_its_row() {
    let receiver = include_str!("../../testdata/files/to-receiver.hex");
    let sender = include_str!("../../testdata/files/to-sender.hex");
    let names =
        [check("to-receiver", receiver, to_receiver()), check("to-sender", sender, to_sender())];
    for name in names.concat() {
        assert!(TEXT.contains(&format!("\n| `{name}` | `{{")), "no row for {name}");
    }
}
