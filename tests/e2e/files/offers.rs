//! Names that lead elsewhere, offered to a real agent by a hostile client, and to a client by a hostile agent:
//! refused in words, nothing is written elsewhere, and what else goes on over the connection goes on.

use super::hostile::{META, dir, done, exit, file, message};
use super::*;
use crate::support::raw::wire::{data, eof, exec, exec_spec, frame, hello, text, uint};
use crate::support::raw::{FakeAgent, Raw};
use rexec_client::{Connector, Outcome, Session, TransferError};
use rexec_net::credentials::Credentials;
use rexec_net::tls;
use rexec_protocol::files::{
    Fail, FilesRequest, Get, Leave, Link, Put, Store, Target, ToReceiver, ToSender, decode,
    header_length,
};
use rexec_protocol::message::Channel;
use rexec_protocol::{Algorithm, Message, StreamId, msgpack};
use serde::Serialize;
use serde_bytes::ByteBuf;
use std::os::unix::fs::symlink;

/// A connection on which a `cat` runs meanwhile, on stream 1.
struct Hostile {
    raw: Raw,
    /// What the `cat` was told so far.
    told: Vec<u8>,
    stream: u64,
}

/// A request, as a client that checks nothing sends it.
#[derive(Serialize)]
struct Spec<'a> {
    command: Command<'a>,
    stdin: bool,
}

#[derive(Serialize)]
enum Command<'a> {
    #[serde(rename = "files")]
    Files(&'a FilesRequest),
}

impl Hostile {
    fn beside_a_cat(agent: &TestAgent) -> Self {
        let config = tls::client_config(&Credentials::load(&agent.files()).unwrap()).unwrap();
        let mut raw = Raw::connect(agent.port, &config).unwrap();
        raw.send(&[hello(), exec(1, &["cat"], true)].concat()).unwrap();
        // And the window of its stdin is open.
        raw.wait_for_all(&["hello", "started", "window"]);
        Self { raw, told: Vec::new(), stream: 1 }
    }

    /// Asks for this and sends that. What came back: how it ended, and what it said itself.
    fn asks(&mut self, request: &FilesRequest, sent: &[u8]) -> (Outcome, Vec<ToSender>) {
        self.stream += 2;
        let spec = Spec { command: Command::Files(request), stdin: true };
        let stream = self.stream;
        self.raw.send(&exec_spec(stream, &msgpack::encode(&spec))).unwrap();
        let (mut said, mut is_sent) = (Vec::new(), false);
        loop {
            let frame = self.raw.next().unwrap().expect("the connection goes on");
            assert!(!matches!(frame.message, Message::Error(_)), "{frame:?}");
            if frame.stream != StreamId(stream) {
                continue;
            }
            match frame.message {
                Message::Window(_) if !std::mem::replace(&mut is_sent, true) => {
                    let end = eof(stream, "in", sent);
                    self.raw.send(&[data(stream, "in", 0, sent, sent), end].concat()).unwrap();
                }
                Message::Data(data) if data.channel == Channel::Out => said.extend(&*frame.body),
                Message::Exit(exit) => return (exit.outcome, messages(&said)),
                _ => {}
            }
        }
    }

    /// The neighbour answers as before.
    fn the_cat_is_undisturbed(&mut self) {
        let line = format!("line after {}\n", self.stream).into_bytes();
        let offset = self.told.len() as u64;
        self.told.extend(&line);
        self.raw.send(&data(1, "in", offset, &line, &self.told)).unwrap();
        let mut heard: Vec<u8> = Vec::new();
        while heard != line {
            let frame = self.raw.next().unwrap().expect("the connection goes on");
            if frame.stream == StreamId(1) && matches!(frame.message, Message::Data(_)) {
                heard.extend(&*frame.body);
            }
        }
    }
}

/// What a receiver has said.
fn messages(mut bytes: &[u8]) -> Vec<ToSender> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk() {
        let (header, rest) = rest.split_at(header_length(*prefix).unwrap());
        let (message, body) = decode(header).unwrap();
        assert_eq!(body, 0);
        messages.push(message);
        bytes = rest;
    }
    messages
}

fn put(path: &Path) -> Put {
    Put {
        path: ByteBuf::from(path.as_os_str().as_bytes()),
        target: Target::Into,
        name: None,
        sources: Vec::new(),
        glob: false,
        recursive: true,
        links: true,
        store: Store::default(),
    }
}

fn link(name: &[u8], target: &Path) -> Vec<u8> {
    let (name, target) = (ByteBuf::from(name), ByteBuf::from(target.as_os_str().as_bytes()));
    message(ToReceiver::Link(Link { name, target, meta: META }))
}

fn fail(name: &[u8]) -> Vec<u8> {
    let name = Some(ByteBuf::from(name));
    message(ToReceiver::Fail(Fail { name, message: "x".to_owned(), at: None }))
}

fn leave() -> Vec<u8> {
    message(ToReceiver::Leave(Leave { complete: true }))
}

/// A folder `to`, beside which there is one file, in a folder of its own.
fn to_and_outside(dir: &Path) {
    for name in ["to", "outside"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("outside/file"), "as it was").unwrap();
}

#[track_caller]
fn outside_is_as_it_was(dir: &Path, what: &str) {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["outside", "to"], "{what}");
    assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 1, "{what}");
    assert_eq!(fs::read(dir.join("outside/file")).unwrap(), b"as it was", "{what}");
}

/// What leads elsewhere, and the word for it; all of it ends the transfer.
fn names_that_lead_elsewhere(outside: &Path) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let absolute = outside.join("evil");
    let absolute = absolute.as_os_str().as_bytes();
    let (file, in_x) =
        (|name: &[u8]| file(name, b"evil"), |rest: Vec<u8>| [dir(b"x"), rest].concat());
    let offers = "it offers a file named '";
    vec![
        ("a path", file(b"../outside/evil"), offers),
        ("a path of a folder", dir(b"../outside"), offers),
        ("a path of a link", in_x(link(b"../../outside/evil", outside)), offers),
        ("an absolute path", file(absolute), offers),
        ("an absolute path of a folder", dir(outside.as_os_str().as_bytes()), offers),
        ("an absolute path of a link", in_x(link(absolute, outside)), offers),
        ("the folder above", dir(b".."), "it offers a file named '..'"),
        ("the folder above, within", in_x(dir(b"..")), "it offers a file named '..'"),
        ("a file of that name", in_x(file(b"..")), "it offers a file named '..'"),
        ("the folder itself, within", in_x(dir(b".")), "it offers a file named '.'"),
        ("a path within", in_x(file(b"../../outside/evil")), offers),
        ("a slash at the end", in_x(file(b"a/")), "it offers a file named 'a/'"),
        ("a NUL", file(b"x\0/../../outside/evil"), offers),
        ("a NUL at the end", in_x(link(b"l\0", outside)), offers),
        ("no name within", in_x(file(b"")), offers),
        ("256 bytes", file(&[b'n'; 256]), offers),
        ("a failure of a path", in_x(fail(b"../outside/file")), "it speaks of a file named '"),
        (
            "more folders left than entered",
            in_x([leave(), leave(), file(b"evil")].concat()),
            "it leaves no folder",
        ),
    ]
}

#[test]
fn a_client_cannot_choose_names_that_lead_elsewhere() {
    let agent = TestAgent::start();
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    to_and_outside(at);
    let mut hostile = Hostile::beside_a_cat(&agent);
    for (what, bytes, says) in names_that_lead_elsewhere(&at.join("outside")) {
        let (outcome, said) = hostile.asks(&FilesRequest::Put(put(&at.join("to"))), &bytes);
        let Some(ToSender::Broken { message }) = said.last() else { panic!("{what}: {said:?}") };
        assert!(message.contains(says), "{what}: {message}");
        assert!(
            message.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '),
            "{what}: {message}"
        );
        assert_eq!(outcome, Outcome::Exited { code: 1 }, "{what}");
        outside_is_as_it_was(at, what);
        hostile.the_cat_is_undisturbed();
    }
    assert_eq!(debris(&at.join("to")), [] as [std::path::PathBuf; 0]);
}

/// A link that it sends, or that is there, is a name like any other: it is replaced, and leads nowhere.
#[test]
fn a_client_cannot_go_through_a_link() {
    let agent = TestAgent::start();
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    to_and_outside(at);
    let (to, outside) = (at.join("to"), at.join("outside"));
    symlink(&outside, to.join("there")).unwrap();
    let mut hostile = Hostile::beside_a_cat(&agent);
    let evil = || file(b"evil", b"evil");
    let through_its_own = [dir(b"x"), link(b"l", &outside), dir(b"l"), evil(), leave(), done(2)];
    let through_another = [dir(b"there"), evil(), done(1)];
    for (what, bytes, says) in [
        // The folder comes before the link has its name, which is taken then.
        ("its own", through_its_own.concat(), "is a directory"),
        ("one that is there", through_another.concat(), "symbolic link"),
    ] {
        let (_, said) = hostile.asks(&FilesRequest::Put(put(&to)), &bytes);
        let failed = said.iter().find_map(|said| match said {
            ToSender::Failed(failed) => Some(failed.message.as_str()),
            _ => None,
        });
        assert!(failed.is_some_and(|why| why.contains(says)), "{what}: {said:?}");
        outside_is_as_it_was(at, what);
        hostile.the_cat_is_undisturbed();
    }
    let twice = [dir(b"y"), link(b"l", &outside.join("file")), file(b"l", b"evil"), done(2)];
    hostile.asks(&FilesRequest::Put(put(&to)), &twice.concat());
    outside_is_as_it_was(at, "a file of a link's name");
    assert_eq!(fs::read(to.join("y/l")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(to.join("y/l")).unwrap().is_file());
}

/// What is asked for is looked at before anything is started.
#[test]
fn a_client_cannot_ask_for_names_that_lead_elsewhere() {
    let agent = TestAgent::start();
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    to_and_outside(at);
    let to = at.join("to");
    let below = |name: &[u8]| [to.as_os_str().as_bytes(), b"/", name].concat();
    let named = |name: &[u8]| {
        let name = Some(ByteBuf::from(name));
        FilesRequest::Put(Put { name, ..put(&to) })
    };
    let into = |path: Vec<u8>| FilesRequest::Put(Put { path: ByteBuf::from(path), ..put(&to) });
    let get = |path: Vec<u8>| {
        let (paths, digest) = (vec![ByteBuf::from(path)], Algorithm::Sha256);
        FilesRequest::Get(Get {
            paths,
            recursive: true,
            glob: false,
            ask: false,
            digest,
            links: true,
        })
    };
    let mut hostile = Hostile::beside_a_cat(&agent);
    for (what, request, says) in [
        ("a name that is a path", named(b"../outside/evil"), "no legal name"),
        ("an absolute name", named(b"/tmp/evil"), "no legal name"),
        ("a name with a slash", named(b"a/b"), "no legal name"),
        ("the folder above as a name", named(b".."), "no legal name"),
        ("no name", named(b""), "no legal name"),
        ("a name with a NUL", named(b"a\0b"), "no legal name"),
        ("a path with a NUL", into(below(b"\0/../outside")), "NUL"),
        ("a way up", into(below(b"../outside")), "'..'"),
        ("to get a path with a NUL", get(below(b"\0")), "NUL"),
        ("to get by a way up", get(below(b"../outside")), "'..'"),
    ] {
        let (outcome, said) = hostile.asks(&request, b"");
        assert!(outcome.to_string().contains(says), "{what}: {outcome}");
        assert!(
            matches!(outcome, Outcome::NeverStarted { .. } | Outcome::Denied { .. }),
            "{what}: {outcome:?}"
        );
        assert_eq!(said, [], "{what}");
        outside_is_as_it_was(at, what);
        hostile.the_cat_is_undisturbed();
    }
    // What is asked for by name is all that may come.
    let (outcome, said) = hostile.asks(&named(b"x"), &[file(b"y", b"evil"), done(1)].concat());
    assert!(
        matches!(&said[..], [ToSender::Broken { message }] if message.contains("'y', which was not asked for")),
        "{said:?}"
    );
    assert_eq!(outcome, Outcome::Exited { code: 1 });
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    hostile.the_cat_is_undisturbed();
}

/// An agent that runs `cat` on one stream and then sends this, as what was asked for, on another.
fn serve(fake: &FakeAgent, sent: Vec<u8>) -> std::thread::JoinHandle<std::io::Result<()>> {
    fake.serve(fake.config(), move |mut raw| {
        let started = |stream| {
            let id = format!("01890a5d-ac96-774b-bcce-b3020{stream:07}");
            frame(
                "started",
                stream,
                &[("job", text(&id)), ("pid", uint(1)), ("digest", text("sha256"))],
            )
        };
        raw.send(&hello()).unwrap();
        let mut streams = Vec::new();
        while streams.len() < 2 {
            let frame = raw.next().unwrap().unwrap();
            if frame.message.verb() == "exec" {
                streams.push(frame.stream.0);
                raw.send(&started(frame.stream.0)).unwrap();
            }
        }
        let [cat, get] = streams[..] else { panic!() };
        let ends = |stream, bytes: &[u8]| {
            [
                data(stream, "out", 0, bytes, bytes),
                eof(stream, "out", bytes),
                eof(stream, "err", b""),
                exit(stream, bytes),
            ]
            .concat()
        };
        // All of the one comes after all of the other.
        raw.send(&ends(get, &sent)).unwrap();
        raw.send(&ends(cat, b"undisturbed")).unwrap();
        raw.errors();
    })
}

async fn connect(fake: &FakeAgent) -> Session {
    let connector = Connector::new(&fake.files("alice")).unwrap();
    connector.connect("127.0.0.1", fake.port).await.unwrap()
}

/// Gets `x` of the hostile agent, beside another command.
async fn gets(session: &Session, to: &Path) -> TransferError {
    let other = session.command("cat").spawn().await.unwrap();
    let get = session.get(["dir/x"], to).recursive(true).run().await;
    let output = other.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"undisturbed");
    get.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_offers_them_disturbs_nothing_else() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    to_and_outside(at);
    let fake = FakeAgent::new();
    for (what, bytes, says) in names_that_lead_elsewhere(&at.join("outside")) {
        let serving = serve(&fake, bytes);
        let session = connect(&fake).await;
        let error = gets(&session, &at.join("to")).await;
        let TransferError::Session(error) = error else { panic!("{what}: {error:?}") };
        let Outcome::Incomplete { message } = error.outcome() else { panic!("{what}: {error:?}") };
        assert!(message.contains(says), "{what}: {message}");
        drop(session);
        tokio::task::spawn_blocking(move || serving.join()).await.unwrap().unwrap().unwrap();
        outside_is_as_it_was(at, what);
    }
    assert_eq!(debris(&at.join("to")), [] as [std::path::PathBuf; 0]);
}

/// From a hostile agent to a good one, through this process: the good one sees to itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_offers_them_to_another_one_is_refused_there() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    to_and_outside(at);
    let (good, fake) = (TestAgent::start(), FakeAgent::new());
    let there = good.session().await;
    let mut cases = names_that_lead_elsewhere(&at.join("outside"));
    cases.push(("what was not asked for", file(b"y", b"evil"), "'y', which was not asked for"));
    for (what, bytes, says) in cases {
        let serving = serve(&fake, bytes);
        let session = connect(&fake).await;
        let other = session.command("cat").spawn().await.unwrap();
        let copy = session.copy_to(["dir/x"], &there, at.join("to")).recursive(true).run().await;
        let output = other.wait_with_output().await.unwrap();
        assert_eq!(output.stdout, b"undisturbed", "{what}");
        let error = copy.unwrap_err().to_string();
        assert!(error.contains(says), "{what}: {error}");
        drop(session);
        tokio::task::spawn_blocking(move || serving.join()).await.unwrap().unwrap().unwrap();
        outside_is_as_it_was(at, what);
        assert!(there.command("true").status().await.unwrap().success());
    }
    assert_eq!(debris(&at.join("to")), [] as [std::path::PathBuf; 0]);
}
