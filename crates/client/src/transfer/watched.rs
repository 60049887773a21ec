//! Events, made of what the two ends of a transfer do and say.

use super::options::{TransferEvent, Watch};
use rexec_files::Error as Fault;
use rexec_files::send::Sent;
use rexec_protocol::files::{Fail, Finished, MAX_ASKED, ToReceiver, ToSender};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whoever watches, from several threads.
#[derive(Clone)]
pub(super) struct Watched(Arc<Mutex<State>>);

struct State {
    watch: Watch,
    questions: Questions,
}

impl Watched {
    pub(super) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(State { watch, questions: Questions::default() })))
    }

    pub(super) fn tell(&self, event: TransferEvent) {
        (self.lock().watch)(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a sender on this side does.
    pub(super) fn sent(&self, sent: Sent) {
        self.tell(match sent {
            Sent::Found(n) => TransferEvent::Found(n),
            Sent::Bytes(n) => TransferEvent::Moved(n),
            Sent::Spared(n) => TransferEvent::Spared(n),
            Sent::Resumed(n) => TransferEvent::Resumed(n),
        });
    }

    /// Takes what comes from a sender on the other side, without its body.
    pub(super) fn came(&self, message: &ToReceiver) {
        let mut state = self.lock();
        let spared = state.questions.came(message);
        let event = match message {
            ToReceiver::File(file) => TransferEvent::Found(file.size.unwrap_or_default()),
            ToReceiver::Begin(begin) if begin.from > 0 => TransferEvent::Resumed(begin.from),
            ToReceiver::Compared(_) => match spared {
                Some(size) => TransferEvent::Spared(size),
                None => return,
            },
            _ => return,
        };
        (state.watch)(event);
    }

    /// Takes a piece of what follows: all bodies are content.
    pub(super) fn moved(&self, bytes: usize) {
        if bytes > 0 {
            self.tell(TransferEvent::Moved(bytes as u64));
        }
    }

    /// Takes what a receiver answers such a sender.
    pub(super) fn answered(&self, answer: &ToSender) {
        let mut state = self.lock();
        if let Some(size) = state.questions.answered(answer) {
            (state.watch)(TransferEvent::Spared(size));
        }
    }

    /// Takes a result. `Some` is the end.
    pub(super) fn result(&self, result: ToSender) -> Result<Option<Finished>, Fault> {
        let event = match result {
            ToSender::Stored(made) if made.folder => {
                TransferEvent::Folder { path: made.path.into_vec(), made: true }
            }
            ToSender::Skipped(adjusted) if adjusted.folder => {
                TransferEvent::Folder { path: adjusted.path.into_vec(), made: false }
            }
            ToSender::Stored(stored) => TransferEvent::Stored {
                path: stored.path.into_vec(),
                size: stored.size,
                sha256: stored.sha256,
                resumed: stored.resumed,
                dry_run: stored.dry_run,
            },
            ToSender::Skipped(same) if same.adjusted => TransferEvent::Adjusted {
                path: same.path.into_vec(),
                size: same.size,
                sha256: same.sha256,
            },
            ToSender::Skipped(skipped) => TransferEvent::Skipped {
                path: skipped.path.into_vec(),
                size: skipped.size,
                sha256: skipped.sha256,
            },
            ToSender::Failed(failed) => {
                let at = failed.at.unwrap_or_else(|| failed.path.clone()).into_vec();
                let (path, message) = (failed.path.into_vec(), failed.message);
                TransferEvent::Failed { path, at, message }
            }
            ToSender::Removed { path } => TransferEvent::Removed { path: path.into_vec() },
            ToSender::Finished(finished) => return Ok(Some(finished)),
            ToSender::Broken { message } => return Err(Fault::Other(message)),
            ToSender::Want(_) | ToSender::Skip {} | ToSender::Compare(_) => {
                return Err(Fault::Peer("an answer to nothing".to_owned()));
            }
        };
        self.tell(event);
        Ok(None)
    }
}

/// Files that a sender on another machine has asked about: what of them need not move is said by the answers,
/// in their order, and not by name.
#[derive(Default)]
struct Questions {
    /// The sizes of those without an answer.
    open: VecDeque<u64>,
    /// The sizes of those whose content or verdict is to come.
    due: VecDeque<u64>,
    /// Content comes.
    is_in_file: bool,
}

impl Questions {
    /// How many bytes need not move after this; `Some` only if it says something of one of them.
    fn came(&mut self, message: &ToReceiver) -> Option<u64> {
        match message {
            ToReceiver::File(file) if file.ask => {
                add(&mut self.open, file.size.unwrap_or_default());
                None
            }
            ToReceiver::File(file) => {
                self.is_in_file = file.whole.is_none();
                None
            }
            ToReceiver::Begin(_) => {
                self.is_in_file = true;
                self.due.pop_front().and(None)
            }
            ToReceiver::Compared(_) => self.due.pop_front(),
            ToReceiver::End(_) => {
                self.is_in_file = false;
                None
            }
            // Of the file whose turn it is.
            ToReceiver::Fail(Fail { name: None, .. }) => {
                let was_in_file = std::mem::take(&mut self.is_in_file);
                if was_in_file { None } else { self.due.pop_front().and(None) }
            }
            _ => None,
        }
    }

    fn answered(&mut self, answer: &ToSender) -> Option<u64> {
        let size = self.open.pop_front()?;
        if matches!(answer, ToSender::Skip {}) {
            return Some(size);
        }
        add(&mut self.due, size);
        None
    }
}

/// Who breaks the rules has another picture of its progress, and no more of our memory.
fn add(sizes: &mut VecDeque<u64>, size: u64) {
    if sizes.len() < MAX_ASKED {
        sizes.push_back(size);
    }
}
