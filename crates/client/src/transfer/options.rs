//! What to transfer, and how; and what came of it.

use crate::error::Error;
use crate::session::Session;
use rexec_protocol::Digest;
use rexec_protocol::files::{Finished, Store, Target, Update};
use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;

/// A transfer that has not begun. [`Transfer::run`] begins it.
#[must_use = "a transfer does nothing until it is run"]
pub struct Transfer {
    pub(super) session: Session,
    pub(super) work: Work,
    pub(super) options: Options,
    pub(super) watch: Watch,
}

pub(super) type Watch = Box<dyn FnMut(TransferEvent) + Send>;

/// From where to where.
pub(super) enum Work {
    Put { files: Vec<PathBuf>, to: OsString },
    Get { files: Vec<OsString>, to: PathBuf },
    PutStream { input: Box<dyn Read + Send>, to: OsString },
    GetStream { file: OsString, output: Box<dyn Write + Send> },
    Relay { files: Vec<OsString>, other: Session, to: OsString },
}

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) recursive: bool,
    pub(super) glob: bool,
    pub(super) target: Target,
    pub(super) store: Store,
    pub(super) sha256: bool,
    pub(super) user: Option<String>,
    /// On the other agent, of two.
    pub(super) other_user: Option<String>,
}

impl Transfer {
    pub(super) fn new(session: &Session, work: Work) -> Self {
        let (store, target, sha256) = (Store::default(), Target::default(), true);
        let (recursive, glob, user, other_user) = (false, false, None, None);
        let options = Options { recursive, glob, target, store, sha256, user, other_user };
        let session = session.clone();
        Self { session, work, options, watch: Box::new(|_| {}) }
    }

    /// Folders too, with all that is in them. Symbolic links in them stay links.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.options.recursive = recursive;
        self
    }

    /// Keeps modes and times.
    pub fn preserve(mut self, preserve: bool) -> Self {
        self.options.store.preserve = preserve;
        self
    }

    /// Keeps set-user-id, set-group-id and sticky bits too. An agent allows that to those who may run
    /// any command.
    pub fn special_modes(mut self, special: bool) -> Self {
        self.options.store.special = special;
        self
    }

    /// Moves only what differs.
    pub fn update(mut self, update: Option<Update>) -> Self {
        self.options.store.update = update;
        self
    }

    /// Keeps what came of a large file when the transfer fails, and goes on from what an earlier one
    /// has kept, once its digest matches.
    pub fn partial(mut self, partial: bool) -> Self {
        self.options.store.partial = partial;
        self
    }

    /// Removes from the folders of the destination what is not in those of the source.
    pub fn delete(mut self, delete: bool) -> Self {
        self.options.store.delete = delete;
        self
    }

    /// Changes nothing; the events say what would be done.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.options.store.dry_run = dry_run;
        self
    }

    /// What the path of the destination means. Several files need [`Target::Into`], or a folder that
    /// is there.
    pub fn target(mut self, target: Target) -> Self {
        self.options.target = target;
        self
    }

    /// The remote paths are patterns: `*`, `?`, `[…]`, `{…,…}`, and `**` for any depth.
    pub fn glob(mut self, glob: bool) -> Self {
        self.options.glob = glob;
        self
    }

    /// Files are proven by SHA-256 (the default), and events say what it is; or, with false, by the
    /// fastest digest that both ends have, which is BLAKE3, and events say none.
    pub fn sha256(mut self, sha256: bool) -> Self {
        self.options.sha256 = sha256;
        self
    }

    /// Asks to do it as this user of the remote machine.
    pub fn user(mut self, user: Option<String>) -> Self {
        self.options.user = user;
        self
    }

    /// The same on the other agent of [`Session::copy_to`].
    pub fn other_user(mut self, user: Option<String>) -> Self {
        self.options.other_user = user;
        self
    }

    /// Is called with what happens, from other threads, and should be quick. Paths and messages come
    /// from another machine: pass them through [`crate::printable`] before a terminal shows them.
    pub fn watch(mut self, watch: impl FnMut(TransferEvent) + Send + 'static) -> Self {
        self.watch = Box::new(watch);
        self
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What happens in a transfer. Paths are below the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferEvent {
    /// A file of so many bytes is among what is to be transferred.
    Found(u64),
    /// So many bytes of content have moved.
    Moved(u64),
    /// So many bytes are there already, and need not move.
    Spared(u64),
    /// So many bytes of a file were left by an earlier transfer, and what follows them moves.
    Resumed(u64),
    /// In its place, and proven: size and digest were checked at the destination.
    Stored {
        /// Which.
        path: Vec<u8>,
        /// In bytes.
        size: u64,
        /// If that is what proved it, see [`Transfer::sha256`]; a link has none.
        sha256: Option<Digest>,
        /// How many bytes of it were left by an earlier transfer, and did not move.
        resumed: u64,
        /// It only would be stored.
        dry_run: bool,
    },
    /// Its content is the same, and did not move; its mode or its time was another, and is now the one
    /// that was sent, or would be.
    Adjusted {
        /// Which.
        path: Vec<u8>,
        /// In bytes.
        size: u64,
        /// If that was compared.
        sha256: Option<Digest>,
    },
    /// Left alone, because it is the same.
    Skipped {
        /// Which.
        path: Vec<u8>,
        /// In bytes.
        size: u64,
        /// If that is what was compared.
        sha256: Option<Digest>,
    },
    /// A folder was not as it was sent, and now is; or it would be.
    Folder {
        /// Which; empty for the destination itself, of what is in a folder.
        path: Vec<u8>,
        /// It was not there. Otherwise it got another mode or time.
        made: bool,
    },
    /// Not stored; what was there is still there.
    Failed {
        /// Which.
        path: Vec<u8>,
        /// Its whole path at the end where it failed, from what was asked for on.
        at: Vec<u8>,
        /// Why.
        message: String,
    },
    /// Removed, because it was not sent; or it would be. What is in a folder comes before that.
    Removed {
        /// Which.
        path: Vec<u8>,
    },
}

/// What came of a transfer that went to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files and links stored.
    pub stored: u64,
    /// Files and links that were the same.
    pub skipped: u64,
    /// Files of which only mode or time was another, and was changed.
    pub adjusted: u64,
    /// What failed.
    pub failed: u64,
    /// What was removed: each file, link and folder.
    pub removed: u64,
    /// Bytes of content of what was stored.
    pub bytes: u64,
    /// Folders that were made, or got another mode or time. They are in none of the other numbers.
    pub folders: u64,
}

impl Summary {
    /// Whether every file is where it belongs, and proven.
    pub fn is_proven(&self) -> bool {
        self.failed == 0
    }
}

impl From<Finished> for Summary {
    fn from(finished: Finished) -> Self {
        let Finished { stored, skipped, failed, removed, bytes, adjusted, folders } = finished;
        Self { stored, skipped, adjusted, failed, removed, bytes, folders }
    }
}

/// Why a transfer did not go to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// As for any command: unreachable, denied, lost, or what came is not what was sent.
    #[error(transparent)]
    Session(#[from] Error),
    /// There is no such destination, say.
    #[error("{0}")]
    Failed(String),
}
