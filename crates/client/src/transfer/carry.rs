//! Carrying a transfer out: one end here on a thread, the other one a job.

use super::Summary;
use super::bridge::{self, FromJob, ToJob};
use super::options::{Options, Transfer, TransferError, Work};
use super::overheard::Overheard;
use super::overlap;
use super::sources::{self, have_names_of_their_own};
use super::watched::Watched;
use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::error::Error;
use crate::session::Session;
use rexec_files::names::Names;
use rexec_files::receive::landing::Landing;
use rexec_files::receive::scraps::Scraps;
use rexec_files::receive::stream::ToStream;
use rexec_files::receive::{Receiver, Rules};
use rexec_files::send::{Choice, Sender};
use rexec_files::wire::{Reader, Writer};
use rexec_files::{Error as Fault, open};
use rexec_guard::holds;
use rexec_protocol::files::{
    Failed, FilesRequest, Finished, Get, MAX_ASKED, Put, Target, ToReceiver, ToSender,
};
use rexec_protocol::{Algorithm, Outcome};
use serde_bytes::ByteBuf;
use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How much of what a helper says on stderr is kept, in bytes.
const LAST_WORDS: u64 = 4096;
/// How long the other end may take to end once it is asked to.
const GIVE_UP: Duration = Duration::from_secs(2);

impl Transfer {
    /// Carries it out. `Ok` says that it went to its end, and how many files failed on the way.
    ///
    /// # Errors
    /// The transfer did not go to its end. What was reported as stored is stored.
    pub async fn run(self) -> Result<Summary, TransferError> {
        let Self { session, work, options, watch } = self;
        let watched = Watched::new(watch);
        let other = if let Work::Relay { other, .. } = &work { Some(other) } else { None };
        let digest = digest(&options, &session, other).await?;
        match work {
            Work::Put { files, to } => {
                have_names_of_their_own(files.iter().map(|file| file.as_os_str()))?;
                let name = match files.as_slice() {
                    [only] => name_of(only.as_os_str()),
                    _ => None,
                };
                let choice = choice(&options, digest);
                let child = start(&session, put(&to, name, &options), options.user).await?;
                send(child, choice, watched, move |sender| {
                    files.iter().try_for_each(|file| sources::send(sender, file))
                })
                .await
            }
            Work::PutStream { mut input, to } => {
                let name =
                    name_of(&to).ok_or_else(|| failed("a stream needs a name where it is put"))?;
                let mut request = put(&to, Some(name.clone()), &options);
                request.target = Target::Exact;
                let choice = choice(&options, digest);
                let child = start(&session, request, options.user).await?;
                send(child, choice, watched, move |sender| sender.stream(&mut input, &name)).await
            }
            Work::Get { files, to } => {
                check_names(&files, &options)?;
                let child =
                    start(&session, get(&files, &options, digest), options.user.clone()).await?;
                receive(child, files, to, (options, digest), watched).await
            }
            Work::GetStream { file, mut output } => {
                let child = start(&session, get(&[file], &options, digest), options.user).await?;
                take(child, move |mut reader, _| {
                    let finished = Cell::new(None);
                    let mut out = |result| watched.result(result).map(|end| finished.set(end));
                    let mut receiver = ToStream::new(&mut output, &mut out);
                    while let Some((message, body)) = reader.read::<ToReceiver>()? {
                        demand(digest, &message)?;
                        watched.came(&message);
                        watched.moved(body.len());
                        if receiver.take(message, body)? {
                            break;
                        }
                    }
                    Ok(finished.get())
                })
                .await
            }
            Work::Relay { files, other, to } => {
                check_names(&files, &options)?;
                if session.is_as_named(&other) {
                    overlap::refuse(&files, &to, &options)?;
                }
                let name = match files.as_slice() {
                    [only] if !options.glob => name_of(only),
                    _ => None,
                };
                let mut target = put(&to, name, &options);
                if target.name.is_none() {
                    // What the one agent offers is not for the other to take unasked.
                    target.sources = get(&files, &options, digest).paths;
                    target.glob = options.glob;
                }
                let from = start(&session, get(&files, &options, digest), options.user).await?;
                let to = start(&other, target, options.other_user).await?;
                relay(from, to, watched).await
            }
        }
    }
}

fn check_names(files: &[OsString], options: &Options) -> Result<(), TransferError> {
    if options.glob {
        return Ok(());
    }
    have_names_of_their_own(files.iter().map(|file| file.as_os_str()))
}

/// What proves the files.
async fn digest(
    options: &Options,
    session: &Session,
    other: Option<&Session>,
) -> Result<Algorithm, Error> {
    if options.sha256 {
        return Ok(Algorithm::Sha256);
    }
    let fastest = session.fastest_digest().await?;
    match other {
        // The slowest one is the one that every agent has.
        Some(other) if fastest != Algorithm::Sha256 => other.fastest_digest().await,
        _ => Ok(fastest),
    }
}

fn choice(options: &Options, digest: Algorithm) -> Choice {
    let Options { recursive, store, .. } = options;
    Choice { recursive: *recursive, ask: store.asks(), links: true, digest }
}

fn get(files: &[OsString], options: &Options, digest: Algorithm) -> Get {
    Get {
        paths: files.iter().map(|file| ByteBuf::from(file.as_bytes())).collect(),
        recursive: options.recursive,
        glob: options.glob,
        ask: options.store.asks(),
        digest,
        links: true,
    }
}

fn put(to: &OsStr, name: Option<ByteBuf>, options: &Options) -> Put {
    let path = match to.as_bytes() {
        b"" => ByteBuf::from("."),
        path => ByteBuf::from(path),
    };
    let Options { target, recursive, store, .. } = *options;
    let (sources, glob) = (Vec::new(), false);
    Put { path, target, name, sources, glob, recursive, links: true, store }
}

impl From<Get> for Request {
    fn from(get: Get) -> Self {
        Self(FilesRequest::Get(get))
    }
}

impl From<Put> for Request {
    fn from(put: Put) -> Self {
        Self(FilesRequest::Put(put))
    }
}

struct Request(FilesRequest);

/// Starts the other end, which ends if this one does.
async fn start(
    session: &Session,
    request: impl Into<Request>,
    user: Option<String>,
) -> Result<Child, Error> {
    let Request(request) = request.into();
    let digest = session.fastest_digest().await?;
    let mut command = Command::files(session.clone(), request).digest(digest);
    if let Some(user) = user {
        command = command.user(user);
    }
    // With a signal that it can hear, so that it leaves nothing behind.
    Ok(command.stdin(Stdio::Piped).spawn().await?.cancel_on_drop())
}

/// Sends from here.
async fn send(
    mut child: Child,
    choice: Choice,
    watched: Watched,
    work: impl FnOnce(&mut Sender<'_, ToJob>) -> Result<(), Fault> + Send + 'static,
) -> Result<Summary, TransferError> {
    let (input, read) = bridge::from_job(child.stdout.take());
    let (output, write) = bridge::to_job(child.stdin.take());
    // The other end gives an answer to each question, of which there are only so many at a time.
    let (answer, answers) = sync_channel(MAX_ASKED);
    let told = watched.clone();
    let sending = spawn_blocking(move || {
        let gone = |_| Fault::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        let mut answers = || answers.recv().map_err(gone);
        let mut watch = |sent| told.sent(sent);
        let mut sender = Sender::new(output, choice, &mut answers, &mut watch);
        work(&mut sender)?;
        sender.finish()
    });
    let hearing = spawn_blocking(move || {
        let mut reader = Reader::new(input);
        while let Some((message, _)) = reader.read::<ToSender>()? {
            match message {
                ToSender::Want(_) | ToSender::Skip {} | ToSender::Compare(_) => {
                    let unasked = |_| Fault::Peer("more answers than questions".to_owned());
                    answer.try_send(message).map_err(unasked)?;
                }
                result => {
                    if let Some(finished) = watched.result(result)? {
                        return Ok(Some(finished));
                    }
                }
            }
        }
        Ok(None)
    });
    let sent = async {
        let (heard, sent) = tokio::join!(hearing, sending);
        // What the receiving end says of a failure is nearer to its reason.
        match (joined(heard), joined(sent)) {
            (Err(fault @ (Fault::Other(_) | Fault::Peer(_))), _) => Err(fault),
            (_, Err(fault)) => Err(fault),
            (heard, Ok(())) => heard,
        }
    };
    let ((), (), sent, words) = tokio::join!(read, write, sent, last_words(&mut child));
    conclude(child, sent, words).await
}

/// What a transfer has not finished goes away with its future.
struct TidyUp(Scraps);

impl Drop for TidyUp {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Receives here.
async fn receive(
    child: Child,
    files: Vec<OsString>,
    to: PathBuf,
    (options, digest): (Options, Algorithm),
    watched: Watched,
) -> Result<Summary, TransferError> {
    let landing = Landing::find(to.as_os_str().as_bytes(), options.target, true)
        .map_err(|why| failed(format!("on this machine: {why}")))?;
    let scraps = Scraps::default();
    // The thread below may be deep in a hole of terabytes when this is dropped.
    let _tidy = TidyUp(scraps.clone());
    take(child, move |mut reader, answers| {
        let names = Names::of(files.iter().map(|file| file.as_bytes()), options.glob);
        let expected = |name: &[u8]| names.expect(name);
        let (store, recursive) = (options.store, options.recursive);
        let links = options.glob && recursive;
        let rules = Rules { store, recursive, links, expected: &expected };
        let (finished, answers) = (Cell::new(None), RefCell::new(answers));
        let mut out = |message: ToSender| match message {
            ToSender::Want(_) | ToSender::Skip {} | ToSender::Compare(_) => {
                watched.answered(&message);
                answers.borrow_mut().send(&message, &[])
            }
            result => watched.result(result).map(|end| finished.set(end)),
        };
        let mut receiver = Receiver::new(landing, rules, scraps, &mut out);
        loop {
            if reader.is_drained() {
                answers.borrow_mut().flush()?;
            }
            let Some((message, body)) = reader.read::<ToReceiver>()? else { break };
            demand(digest, &message)?;
            watched.came(&message);
            watched.moved(body.len());
            if receiver.take(message, body)? {
                break;
            }
        }
        drop(receiver);
        finished.get().map(|finished| with_missing(finished, &names, &watched)).transpose()
    })
    .await
}

/// What is shown as proven was proven by what was asked for.
fn demand(digest: Algorithm, message: &ToReceiver) -> Result<(), Fault> {
    match message {
        ToReceiver::File(file) if !holds("files.digest_asked", file.digest == digest) => {
            let message = format!("it proves a file by {}, asked was {digest}", file.digest);
            Err(Fault::Peer(message))
        }
        _ => Ok(()),
    }
}

/// An agent that says nothing of a file has not sent it.
fn with_missing(finished: Finished, names: &Names, watched: &Watched) -> Result<Finished, Fault> {
    // What it says of those that it cannot send is no offer.
    if finished.failed > 0 {
        return Ok(finished);
    }
    let mut failed = 0;
    for name in names.missing() {
        failed += 1;
        let message = "was asked for, and did not come".to_owned();
        watched.result(ToSender::Failed(Failed {
            path: ByteBuf::from(name),
            message,
            at: None,
        }))?;
    }
    Ok(Finished { failed, ..finished })
}

fn name_of(path: &OsStr) -> Option<ByteBuf> {
    open::name(path.as_bytes()).map(ByteBuf::from)
}

/// Has `work` read, on a thread, what a sending job says.
async fn take(
    mut child: Child,
    work: impl FnOnce(Reader<FromJob>, Writer<ToJob>) -> Result<Option<Finished>, Fault>
    + Send
    + 'static,
) -> Result<Summary, TransferError> {
    let (input, read) = bridge::from_job(child.stdout.take());
    let (output, write) = bridge::to_job(child.stdin.take());
    let working = spawn_blocking(move || work(Reader::new(input), Writer::new(output)));
    let taken = async { joined(working.await) };
    let ((), (), taken, words) = tokio::join!(read, write, taken, last_words(&mut child));
    conclude(child, taken, words).await
}

/// Passes on what one job sends to another that receives it.
async fn relay(mut from: Child, mut to: Child, watched: Watched) -> Result<Summary, TransferError> {
    let (input, hear) = bridge::from_job(to.stdout.take());
    let (output, answer) = bridge::to_job(from.stdin.take());
    let (source, sink) = (from.stdout.take(), to.stdin.take());
    let mut overheard = Overheard::new(watched.clone());
    // Both are closed with this.
    let pass_on = async move {
        let (Some(mut source), Some(mut sink)) = (source, sink) else { return };
        while let Ok(Some(chunk)) = bridge::next(&mut source).await {
            // Before it is answered.
            overheard.hear(&chunk);
            if sink.send(bytes::Bytes::copy_from_slice(&chunk)).await.is_err() {
                break;
            }
        }
    };
    let hearing = spawn_blocking(move || {
        let (mut reader, mut answers) = (Reader::new(input), Writer::new(output));
        loop {
            if reader.is_drained() {
                answers.flush()?;
            }
            let Some((message, _)) = reader.read::<ToSender>()? else { return Ok(None) };
            match message {
                ToSender::Want(_) | ToSender::Skip {} | ToSender::Compare(_) => {
                    watched.answered(&message);
                    answers.send(&message, &[])?;
                }
                result => {
                    if let Some(finished) = watched.result(result)? {
                        return Ok(Some(finished));
                    }
                }
            }
        }
    });
    let heard = async { joined(hearing.await) };
    let ((), (), (), heard, words, others) =
        tokio::join!(hear, answer, pass_on, heard, last_words(&mut to), last_words(&mut from));
    let sent = from.wait().await;
    let summary = conclude(to, heard, words).await?;
    match sent?.outcome() {
        outcome if outcome.success() => Ok(summary),
        outcome => Err(failed(format!("the sending side {outcome}{others}"))),
    }
}

fn joined<T>(result: Result<Result<T, Fault>, tokio::task::JoinError>) -> Result<T, Fault> {
    result.unwrap_or_else(|error| Err(Fault::Other(error.to_string())))
}

/// What the other end says beside its messages, for when it ends without a last one.
async fn last_words(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else { return String::new() };
    let mut words = Vec::new();
    let _ = stderr.take(LAST_WORDS).read_to_end(&mut words).await;
    match String::from_utf8_lossy(&words).trim() {
        "" => String::new(),
        words => format!(": {words}"),
    }
}

/// A transfer has succeeded if its last message came, and the job that it was ended well, with all of
/// its output verified.
async fn conclude(
    mut child: Child,
    end: Result<Option<Finished>, Fault>,
    words: String,
) -> Result<Summary, TransferError> {
    match end {
        Ok(Some(finished)) => match child.wait().await?.outcome() {
            outcome if outcome.success() => Ok(finished.into()),
            outcome => Err(failed(format!("the other end {outcome}{words}"))),
        },
        Err(Fault::Peer(what)) => {
            give_up(child).await;
            let message = format!(
                "the agent's end broke the rules of a transfer, which was given up: {what}"
            );
            Err(Error::from(Outcome::Incomplete { message }).into())
        }
        Err(Fault::Target(message) | Fault::Other(message)) => {
            give_up(child).await;
            Err(TransferError::Failed(message))
        }
        Ok(None) | Err(Fault::Cut(_)) => {
            // The end of the job knows the reason.
            let outcome = child.wait().await?.outcome().clone();
            Err(failed(format!("the other end {outcome} before the transfer was complete{words}")))
        }
    }
}

/// Ends the other end, and hears of that, so that its agent need not keep the job for a client that might come back.
async fn give_up(mut child: Child) {
    child.cancel().await;
    let _ = timeout(GIVE_UP, child.wait()).await;
}

fn failed(message: impl Into<String>) -> TransferError {
    TransferError::Failed(message.into())
}
