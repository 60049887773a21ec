//! What the agent's own program does when it is told to transfer files: one request, which policy has
//! allowed, over stdin and stdout, as the target user.

use crate::error::Error;
use crate::names::Names;
use crate::receive::landing::Landing;
use crate::receive::scraps::Scraps;
use crate::receive::{Receiver, Rules};
use crate::send::{Choice, Sender};
use crate::wire::{Reader, Writer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::getpid;
use rexec_protocol::files::{FilesRequest, Get, Put, ToReceiver, ToSender};
use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};

/// Carries out `request`. `Err` has been told to the other end, as far as it hears.
pub fn run(request: &FilesRequest, input: impl Read, output: impl Write) -> Result<(), Error> {
    make_room();
    match request {
        FilesRequest::Get(get) => send(get, input, output),
        FilesRequest::Put(put) => receive(put, input, output),
    }
}

fn send(get: &Get, input: impl Read, output: impl Write) -> Result<(), Error> {
    let mut reader = Reader::new(input);
    let mut answers = || match reader.read::<ToSender>()? {
        Some((answer, _)) => Ok(answer),
        None => Err(Error::from(io::Error::from(io::ErrorKind::UnexpectedEof))),
    };
    let choice =
        Choice { recursive: get.recursive, ask: get.ask, links: get.links, digest: get.digest };
    let mut watch = |_| {};
    let mut sender = Sender::new(output, choice, &mut answers, &mut watch);
    if get.glob {
        sender.patterns(&get.paths)?;
    } else {
        get.paths.iter().try_for_each(|path| sender.remote_path(path))?;
    }
    sender.finish()
}

fn receive(put: &Put, input: impl Read, output: impl Write) -> Result<(), Error> {
    let scraps = Scraps::default();
    tidy_up_when_told_to_end(&scraps);
    let mut writer = Writer::new(output);
    let received = store(put, input, &mut writer, &scraps);
    if let Err(error) = &received {
        let message = error.to_string();
        // If it cannot be told, the end of the stream says enough.
        let _ = writer.send(&ToSender::Broken { message }, &[]);
    }
    // A sender that is gone is not waited for.
    let _ = writer.flush();
    scraps.clear();
    received
}

fn store(
    put: &Put,
    input: impl Read,
    writer: &mut Writer<impl Write>,
    scraps: &Scraps,
) -> Result<(), Error> {
    let landing = Landing::find(&put.path, put.target, put.links).map_err(Error::Target)?;
    let writer = RefCell::new(writer);
    let mut out = |message: ToSender| writer.borrow_mut().send(&message, &[]);
    // What comes may be from a third machine.
    let sources = Names::of(put.sources.iter().map(|path| path.as_slice()), put.glob);
    let came = Cell::new(false);
    let expected = |name: &[u8]| match &put.name {
        // Policy has decided on this one.
        Some(only) => only == name && !came.replace(true),
        None => put.sources.is_empty() || sources.expect(name),
    };
    let Put { store, recursive, .. } = *put;
    let rules = Rules { store, recursive, links: put.glob && recursive, expected: &expected };
    let mut receiver = Receiver::new(landing, rules, scraps.clone(), &mut out);
    let mut reader = Reader::new(input);
    loop {
        if reader.is_drained() {
            writer.borrow_mut().flush()?;
        }
        match reader.read::<ToReceiver>()? {
            Some((message, body)) => {
                if receiver.take(message, body)? {
                    return Ok(());
                }
            }
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// A job that is cancelled is asked to end first. Then what it has not finished goes away.
fn tidy_up_when_told_to_end(scraps: &Scraps) {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    let scraps = scraps.clone();
    // Without the thread, or the mask, a signal ends the process as it always does.
    if signals.thread_block().is_ok() {
        let wait = move || {
            let signal = signals.wait();
            scraps.clear();
            // Now it ends the process, as it always does.
            if let Ok(signal) = signal
                && signals.thread_unblock().is_ok()
            {
                let _ = kill(getpid(), signal);
            }
        };
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    }
}

/// Each open folder is a descriptor, and deep trees have many.
fn make_room() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(16 * 1024);
        if soft < wanted {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}
