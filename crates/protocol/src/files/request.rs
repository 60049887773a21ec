//! What is asked of an agent: fetch these, or put something there.

use super::is_default;
use crate::bounded::{MAX_WORDS, up_to};
use crate::digest::Algorithm;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::borrow::Cow;

/// A transfer. Paths are bytes; relative ones begin in the home of the target user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesRequest {
    /// Send these files to the client.
    Get(Get),
    /// Store what the client sends.
    Put(Put),
}

/// Files that the agent's side is to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// What to send; at least one.
    #[serde(deserialize_with = "up_to::<_, _, MAX_WORDS>")]
    pub paths: Vec<ByteBuf>,
    /// Folders too, with all that is in them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recursive: bool,
    /// The paths are patterns: `*`, `?`, `[…]` and `{…,…}` within a part, `**` for any depth.
    #[serde(default, skip_serializing_if = "is_default")]
    pub glob: bool,
    /// Ask before each file whether, and from where on, it is wanted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ask: bool,
    /// The function that shall prove the files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Algorithm,
    /// Symbolic links in the paths themselves may be followed; never those below them. An agent
    /// whose policy does not allow everything takes this back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub links: bool,
}

/// Where the agent's side is to store what is sent, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Where to.
    pub path: ByteBuf,
    /// What `path` means.
    #[serde(default)]
    pub target: Target,
    /// The name of the one file or folder that will be sent. Without it there may be several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ByteBuf>,
    /// Without `name`: the paths, on another machine, of what will be sent. Nothing with another name may
    /// come. Empty: anything may.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "up_to::<_, _, MAX_WORDS>"
    )]
    pub sources: Vec<ByteBuf>,
    /// They are patterns.
    #[serde(default, skip_serializing_if = "is_default")]
    pub glob: bool,
    /// Folders too, with all that is in them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recursive: bool,
    /// As in [`Get`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub links: bool,
    /// How.
    #[serde(default)]
    pub store: Store,
}

/// What the path of a destination means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// If it is a folder, what is sent goes into it; otherwise it is the new name of what is sent.
    #[default]
    Either,
    /// A folder that must be there.
    Into,
    /// The new name of what is sent, whatever is there.
    Exact,
}

/// How a receiver stores what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// Keep modes and times.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve: bool,
    /// Keep the bits for set-user-id, set-group-id and sticky, too.
    #[serde(skip_serializing_if = "is_default")]
    pub special: bool,
    /// Leave alone what is the same already. The sender has to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Keep what came of a large file when its transfer fails, and go on from there the next time.
    /// The sender has to ask.
    #[serde(skip_serializing_if = "is_default")]
    pub partial: bool,
    /// Remove from folders that are sent what was not sent.
    #[serde(skip_serializing_if = "is_default")]
    pub delete: bool,
    /// Change nothing; only say what would be done. The sender has to ask.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
}

/// When a file counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// Its size and its time of change are the same. Times are kept then, as with `preserve`.
    Times,
    /// Its size and its digest are the same.
    Digest,
}

impl Store {
    /// Whether the sender has to ask before it sends a file.
    pub fn asks(&self) -> bool {
        self.update.is_some() || self.partial || self.dry_run
    }

    /// Whether times are kept.
    pub fn keeps_times(&self) -> bool {
        self.preserve || self.update == Some(Update::Times)
    }
}

impl FilesRequest {
    /// The paths.
    pub fn paths(&self) -> &[ByteBuf] {
        match self {
            Self::Get(get) => &get.paths,
            Self::Put(put) => std::slice::from_ref(&put.path),
        }
    }

    /// Its first fault, in words for who made it.
    pub fn fault(&self) -> Option<&'static str> {
        let has_nul = |path: &ByteBuf| path.contains(&0);
        if self.paths().is_empty() {
            return Some("no file is named");
        }
        let sources = if let Self::Put(put) = self { put.sources.len() } else { 0 };
        if self.paths().len().max(sources) > MAX_WORDS {
            return Some("there are more than 32768 paths, which is the limit");
        }
        if self.paths().iter().any(has_nul) {
            return Some("a path holds a NUL byte");
        }
        match self {
            Self::Put(Put { name: Some(name), .. }) if !super::is_name(name) => {
                Some("what is to be put has no legal name")
            }
            Self::Put(put) if put.store.delete && !put.recursive => {
                Some("to remove what was not sent is for folders")
            }
            _ => None,
        }
    }

    /// For logs and records: the request as words, which are not meant to be run.
    pub fn words(&self) -> Vec<Cow<'_, [u8]>> {
        let (verb, flags): (&str, &[(bool, &'static str)]) = match self {
            Self::Get(get) => ("get", &[(get.recursive, "--recursive"), (get.glob, "--glob")]),
            Self::Put(Put { recursive, store, .. }) => (
                "put",
                &[
                    (*recursive, "--recursive"),
                    (store.preserve, "--preserve"),
                    (store.special, "--special-modes"),
                    (store.update == Some(Update::Times), "--update"),
                    (store.update == Some(Update::Digest), "--checksum"),
                    (store.delete, "--delete"),
                    (store.dry_run, "--dry-run"),
                ],
            ),
        };
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag);
        let words = ["files", verb].into_iter().chain(flags).map(|word| word.as_bytes().into());
        words.chain(self.paths().iter().map(|path| path.as_slice().into())).collect()
    }
}
