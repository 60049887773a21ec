//! The messages of a transfer.
//!
//! Names are those of one file in the folder that was entered last. So no message holds a path that a
//! receiver would have to follow.

use super::is_default;
use crate::digest::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What a sender says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToReceiver {
    /// A folder; what follows, up to its `leave`, is in it.
    Dir(Entry),
    /// The end of the folder that was entered last.
    Leave(Leave),
    /// A symbolic link.
    Link(Link),
    /// A file. Its content follows, or is the body, or the sender waits until it is wanted.
    File(File),
    /// The content of a wanted file follows.
    Begin(Begin),
    /// A piece of content, in the body.
    Data(Data),
    /// The end of the content.
    End(End),
    /// Whether what the receiver has is the same.
    Compared(Compared),
    /// Something cannot be sent.
    Fail(Fail),
    /// The last message.
    Done(Done),
}

/// What a receiver says. There is one answer to each `file` that asks, in their order, and between
/// them the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSender {
    /// Answer: send it.
    Want(Want),
    /// Answer: it is here already, as far as can be told.
    Skip {},
    /// Answer: one of this size is here; is it the same?
    Compare(Compare),
    /// Result: stored, and proven.
    Stored(Stored),
    /// Result: its content is the same, and was not sent.
    Skipped(Skipped),
    /// Result: not stored.
    Failed(Failed),
    /// Result: removed, because it was not sent.
    Removed {
        /// Which.
        path: ByteBuf,
    },
    /// The last message: all is on disk, or was reported as failed.
    Finished(Finished),
    /// The last message: nothing more can be done.
    Broken {
        /// Why.
        message: String,
    },
}

/// Mode and time of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The twelve bits of chmod(2).
    pub mode: u32,
    /// The time of its last change, in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds after that.
    #[serde(default)]
    pub nsec: u32,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name. Empty, once and at first: the destination itself.
    pub name: ByteBuf,
    /// Mode and time.
    pub meta: Meta,
}

/// The end of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// All that is in it was named.
    pub complete: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: ByteBuf,
    /// Where it leads.
    pub target: ByteBuf,
    /// Mode and time.
    pub meta: Meta,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name.
    pub name: ByteBuf,
    /// Its size in bytes, if that is known before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Mode and time.
    pub meta: Meta,
    /// The receiver shall say whether it is wanted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ask: bool,
    /// The function of all digests that are about this file, in both directions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Algorithm,
    /// The body is all of its content, and this is the digest of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Digest>,
}

/// Content of a wanted file follows. Wanted files come in the order in which they were asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// At which byte: 0, or where the receiver's part ends.
    pub from: u64,
}

/// A piece of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Where the body belongs. What is left out before it is zeros.
    pub offset: u64,
}

/// The end of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The size of the file. What is left out before it is zeros.
    pub size: u64,
    /// The digest of all of it, zeros and what the receiver had included.
    pub hash: Digest,
}

/// The answer to `compare`, unless content follows: then that is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The receiver's file is the same. If not, the content was not asked for.
    pub same: bool,
}

/// Something cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fail {
    /// Its name, if it was not announced; otherwise it is the file whose turn it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ByteBuf>,
    /// Why.
    pub message: String,
    /// Its whole path, as far as that was said when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<ByteBuf>,
}

/// The last message of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How many files and links it has announced, or failed to.
    pub entries: u64,
}

/// The answer to a `file` that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Want {
    /// How many bytes of it are here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: u64,
    /// The digest of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Digest>,
}

/// A file of the same size is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Its digest.
    pub hash: Digest,
    /// Even if it differs, the content is not wanted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only: bool,
}

/// A file, link or folder that is in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its path, below the destination.
    pub path: ByteBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, if that is what proved it; a link has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Only said, not done.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// How many bytes of it were here before, from an earlier transfer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resumed: u64,
    /// It is a folder, which was made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub folder: bool,
}

/// What has the content already that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path, below the destination.
    pub path: ByteBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, if that is what was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Mode or time were others, and are now those that were sent; or they would be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adjusted: bool,
    /// It is a folder, which was adjusted: of one that is the same nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub folder: bool,
}

/// What was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its path, below the destination.
    pub path: ByteBuf,
    /// Why.
    pub message: String,
    /// Its whole path at the end where it failed, as far as that was said when it was asked for. For
    /// people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<ByteBuf>,
}

/// The last message of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finished {
    /// Files and links stored.
    pub stored: u64,
    /// Files and links left alone.
    pub skipped: u64,
    /// Files, links and folders that failed.
    pub failed: u64,
    /// What was removed: each file, link and folder.
    pub removed: u64,
    /// Bytes of content of what was stored.
    pub bytes: u64,
    /// Files and links of which only mode or time were changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adjusted: u64,
    /// Folders that were made, or got another mode or time. They are in none of the others.
    #[serde(default, skip_serializing_if = "is_default")]
    pub folders: u64,
}
