//! Events, made of what the two ends of a transfer do and say.

use super::options::{TransferEvent, Watch};
use rexec_files::Error as Fault;
use rexec_files::send::Sent;
use rexec_protocol::files::{Finished, ToReceiver, ToSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Whoever watches, from several threads.
#[derive(Clone)]
pub(super) struct Watched(Arc<Mutex<Watch>>);

impl Watched {
    pub(super) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(watch)))
    }

    pub(super) fn tell(&self, event: TransferEvent) {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(event);
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

    /// Takes what comes from a sender on the other side.
    pub(super) fn came(&self, message: &ToReceiver, body: &[u8]) {
        match message {
            ToReceiver::File(file) => {
                self.tell(TransferEvent::Found(file.size.unwrap_or_default()));
                self.tell(TransferEvent::Moved(body.len() as u64));
            }
            ToReceiver::Data(_) => self.tell(TransferEvent::Moved(body.len() as u64)),
            ToReceiver::Begin(begin) if begin.from > 0 => {
                self.tell(TransferEvent::Resumed(begin.from));
            }
            _ => {}
        }
    }

    /// Takes a result. `Some` is the end.
    pub(super) fn result(&self, result: ToSender) -> Result<Option<Finished>, Fault> {
        let event = match result {
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
