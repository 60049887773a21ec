//! The receiving end: makes files of messages.
//!
//! # When a file is in its place
//!
//! A file is written as a draft under a temporary name in its folder. Once its size and its SHA-256
//! are as the sender said, it waits in a [`batch`] with others until all of them are on the
//! disk; then they are renamed, and their folders are made durable. Only after that is a file reported
//! as stored. So at every moment, and after a crash as well, a name stands for the old file or for
//! the new one; and what was reported is there.
//!
//! | module | what it holds |
//! |---|---|
//! | [`landing`] | what the path of a destination means here |
//! | `folder` | an open folder, and what is under a name in it |
//! | `draft` | a file that is being written |
//! | [`batch`] | drafts that are complete, and folders that were left |
//! | `remove` | what was not sent, and shall go |
//! | [`scraps`] | temporary names, so that none is left behind |
//! | [`stream`] | the other destination: a pipe |

pub mod batch;
mod draft;
mod folder;
pub mod landing;
mod remove;
pub mod scraps;
pub mod stream;

use crate::error::{Error, why};
use crate::open;
use batch::{Batch, Ready};
use draft::Draft;
use folder::{Folder, Old, Slot};
use landing::Landing;
use nix::errno::Errno;
use rexec_guard::holds;
use rexec_protocol::Digest;
use rexec_protocol::files::{
    Begin, Compare, Data, Done, End, Entry, Fail, Failed, File, Finished, Leave, Link, MAX_ASKED,
    MAX_DEPTH, Meta, Skipped, Store, Stored, ToReceiver, ToSender, Update, Want, is_name,
};
use scraps::Scraps;
use serde_bytes::ByteBuf;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Takes answers and results.
pub type Out<'a> = &'a mut dyn FnMut(ToSender) -> Result<(), Error>;
/// Whether something of this name may come, at the top.
pub type Expected<'a> = &'a dyn Fn(&[u8]) -> bool;

/// What a receiver accepts, and what it does with it.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// How files are stored.
    pub store: Store,
    /// Whether folders may come.
    pub recursive: bool,
    /// What may come, at the top.
    pub expected: Expected<'a>,
}

/// Stores what comes.
pub struct Receiver<'a> {
    rules: Rules<'a>,
    landing: Landing,
    scraps: Scraps,
    out: Out<'a>,
    umask: u32,
    /// Folders that were entered and not left.
    levels: Vec<Level>,
    /// The file whose content comes.
    incoming: Option<Incoming>,
    /// Files that were asked about, and whose content or verdict is to come.
    asked: VecDeque<Asked>,
    batch: Batch,
    entries: u64,
    totals: Finished,
    done: bool,
}

/// A folder that was entered.
struct Level {
    /// `None`: it is not there, and what is in it only counts (`skip`) or is only said.
    folder: Option<Arc<Folder>>,
    /// Nothing can be stored in it, which was reported.
    skip: bool,
    /// Its path, below the destination.
    path: Vec<u8>,
    meta: Meta,
    /// What was sent of it, if the rest is to be removed.
    names: Option<HashSet<Vec<u8>>>,
}

/// A file that was asked about.
struct Asked {
    file: File,
    slot: Slot,
    /// What there is of it.
    part: Option<Draft>,
    compared: Option<Digest>,
}

struct Incoming {
    file: File,
    slot: Slot,
    /// `Err`: it cannot be stored, and what comes of it is dropped.
    draft: Result<Draft, String>,
}

impl<'a> Receiver<'a> {
    /// Stores in `landing` what [`Receiver::take`] is given.
    pub fn new(landing: Landing, rules: Rules<'a>, scraps: Scraps, out: Out<'a>) -> Self {
        Self {
            rules,
            landing,
            scraps,
            out,
            umask: folder::umask(),
            levels: Vec::new(),
            incoming: None,
            asked: VecDeque::new(),
            batch: Batch::default(),
            entries: 0,
            totals: Finished::default(),
            done: false,
        }
    }

    /// Takes the next message. True after the last one.
    pub fn take(&mut self, message: ToReceiver, body: &[u8]) -> Result<bool, Error> {
        if !body.is_empty() && !matches!(message, ToReceiver::Data(_) | ToReceiver::File(_)) {
            return Err(Error::peer("a body where none belongs"));
        }
        let is_content =
            matches!(message, ToReceiver::Data(_) | ToReceiver::End(_) | ToReceiver::Fail(_));
        if self.incoming.is_some() && !is_content {
            return Err(Error::peer("something else in the middle of a file"));
        }
        match message {
            ToReceiver::Dir(entry) => self.enter(entry)?,
            ToReceiver::Leave(leave) => self.leave(leave)?,
            ToReceiver::Link(link) => self.link(&link)?,
            ToReceiver::File(file) => self.file(file, body)?,
            ToReceiver::Begin(begin) => self.begin(begin)?,
            ToReceiver::Data(data) => self.data(data, body)?,
            ToReceiver::End(end) => self.end(end)?,
            ToReceiver::Compared(compared) => self.compared(compared.same)?,
            ToReceiver::Fail(fail) => self.fail(fail)?,
            ToReceiver::Done(done) => self.finish(done)?,
        }
        if self.batch.is_full() {
            self.settle()?;
        }
        Ok(self.done)
    }

    /// The name that something gets, and the folder that it goes into; `None`: nothing comes of it,
    /// and that was reported.
    fn slot(&mut self, name: &[u8]) -> Result<Option<Slot>, Error> {
        if !holds("files.name", is_name(name)) {
            return Err(Error::peer(format!("it offers a file named '{}'", open::shown(name))));
        }
        let Some(level) = self.levels.last_mut() else {
            if !holds("files.top_name", (self.rules.expected)(name)) {
                let name = open::shown(name);
                return Err(Error::peer(format!("it offers '{name}', which was not asked for")));
            }
            return self.landing.slot(name).map(Some).map_err(Error::Target);
        };
        if let Some(names) = &mut level.names {
            names.insert(name.to_vec());
        }
        if level.skip {
            self.totals.failed += 1;
            return Ok(None);
        }
        let path = if level.path.is_empty() {
            name.to_vec()
        } else {
            [&level.path, &b"/"[..], name].concat()
        };
        Ok(Some(Slot { folder: level.folder.clone(), name: name.to_vec(), path }))
    }

    fn enter(&mut self, Entry { name, meta }: Entry) -> Result<(), Error> {
        if !holds("files.recursive", self.rules.recursive) {
            return Err(Error::peer("it sends a folder, which was not asked for"));
        }
        if self.levels.len() >= MAX_DEPTH {
            return Err(Error::peer("folders are nested too deeply"));
        }
        let names = self.rules.store.delete.then(HashSet::new);
        // The contents of a folder, for the destination itself.
        let slot = if name.is_empty() && self.levels.is_empty() {
            if !holds("files.top_contents", (self.rules.expected)(b"")) {
                return Err(Error::peer("it sends the contents of a folder in its place"));
            }
            match self.landing.itself() {
                Ok(slot) => Some(slot),
                Err(folder) => {
                    let path = Vec::new();
                    self.levels.push(Level {
                        folder: Some(folder),
                        skip: false,
                        path,
                        meta,
                        names,
                    });
                    return Ok(());
                }
            }
        } else {
            self.slot(&name)?
        };
        let Some(slot) = slot else {
            self.levels.push(Level {
                folder: None,
                skip: true,
                path: Vec::new(),
                meta,
                names: None,
            });
            return Ok(());
        };
        let path = slot.path.clone();
        let (folder, skip) = match slot.enter(self.rules.store.dry_run) {
            Ok(folder) => (folder.map(Arc::new), false),
            Err(message) => {
                self.failed(path.clone(), message)?;
                (None, true)
            }
        };
        self.levels.push(Level { folder, skip, path, meta, names });
        Ok(())
    }

    fn leave(&mut self, leave: Leave) -> Result<(), Error> {
        let level = self.levels.pop().ok_or_else(|| Error::peer("it leaves no folder"))?;
        let Some(folder) = level.folder else { return Ok(()) };
        let store = self.rules.store;
        if let Some(names) = level.names.filter(|_| leave.complete) {
            for (path, removed) in remove::others(&folder, &level.path, &names, store.dry_run) {
                match removed {
                    Ok(()) => {
                        self.totals.removed += 1;
                        (self.out)(ToSender::Removed { path: ByteBuf::from(path) })?;
                    }
                    Err(message) => self.failed(path, message)?,
                }
            }
        }
        if !store.dry_run {
            let mode = self.mode(level.meta.mode, None);
            let mode = (folder.is_new || store.preserve).then_some(mode);
            let time = store.preserve.then_some(level.meta);
            self.batch.leave(folder, mode, time);
        }
        Ok(())
    }

    fn link(&mut self, link: &Link) -> Result<(), Error> {
        self.entries += 1;
        let Some(slot) = self.slot(&link.name)? else { return Ok(()) };
        let path = slot.path.clone();
        match slot.link(&link.target, self.rules.store.dry_run, &self.scraps) {
            Ok(None) => {
                self.totals.skipped += 1;
                let path = ByteBuf::from(path);
                (self.out)(ToSender::Skipped(Skipped { path, size: 0, sha256: None }))
            }
            Ok(Some(None)) => self.would(path, 0),
            Ok(Some(Some(scrap))) => {
                if self.rules.store.keeps_times() {
                    scrap.set_time(&link.meta);
                }
                self.batch.push(Ready {
                    scrap,
                    slot,
                    size: 0,
                    sha256: None,
                    file: None,
                    lock: None,
                });
                Ok(())
            }
            Err(message) => self.failed(path, message),
        }
    }

    fn file(&mut self, file: File, body: &[u8]) -> Result<(), Error> {
        self.entries += 1;
        if file.whole.is_none() != body.is_empty() && file.size != Some(0)
            || file.whole.is_some() && file.ask
        {
            return Err(Error::peer("a file with a body, and without its digest"));
        }
        let slot = self.slot(&file.name)?;
        if file.ask {
            return self.judge(file, slot);
        }
        if self.rules.store.asks() {
            return Err(Error::peer("it does not ask before it sends"));
        }
        let Some(slot) = slot else {
            if file.whole.is_none() {
                let slot = Slot::nowhere();
                let draft = Err(String::new());
                self.incoming = Some(Incoming { file, slot, draft });
            }
            return Ok(());
        };
        let Some(claimed) = file.whole else {
            let draft = slot.look().and_then(|old| Draft::new(&slot, old, &self.scraps));
            self.incoming = Some(Incoming { file, slot, draft });
            return Ok(());
        };
        let path = slot.path.clone();
        let stored = slot.look().and_then(|old| {
            let mut draft = Draft::new(&slot, old, &self.scraps)?;
            draft.data(0, body, file.size)?;
            let size = file.size.unwrap_or_default();
            self.complete(draft, &file, End { size, sha256: claimed })
        });
        match stored {
            Ok((draft, sha256)) => {
                let size = body.len() as u64;
                self.batch.push(draft.ready(slot, size, sha256));
                Ok(())
            }
            Err(message) => self.failed(path, message),
        }
    }

    /// Answers for a file that is asked about.
    fn judge(&mut self, file: File, slot: Option<Slot>) -> Result<(), Error> {
        if self.asked.len() >= MAX_ASKED {
            return Err(Error::peer("it asks about too many files at once"));
        }
        let Some(slot) = slot else { return (self.out)(ToSender::Skip {}) };
        let (store, size, path) = (self.rules.store, file.size, slot.path.clone());
        let old = match slot.look() {
            Ok(old) => old,
            Err(message) => {
                self.failed(path, message)?;
                return (self.out)(ToSender::Skip {});
            }
        };
        let same_size = old.as_ref().is_some_and(|old| old.is_file && Some(old.size) == size);
        let same_time =
            || old.as_ref().is_some_and(|old| old.mtime == (file.meta.mtime, file.meta.nsec));
        if same_size && store.update == Some(Update::Times) && same_time() {
            self.skipped(path, size, None)?;
            return (self.out)(ToSender::Skip {});
        }
        if same_size && store.update == Some(Update::Digest) {
            match slot.digest() {
                Ok(sha256) => {
                    let compared = Some(sha256);
                    self.asked.push_back(Asked { file, slot, part: None, compared });
                    let only = store.dry_run;
                    return (self.out)(ToSender::Compare(Compare { sha256, only }));
                }
                Err(message) if store.dry_run => {
                    self.failed(path, message)?;
                    return (self.out)(ToSender::Skip {});
                }
                // It cannot be read, but it can be replaced.
                Err(_) => {}
            }
        }
        if store.dry_run {
            self.would(path, size.unwrap_or_default())?;
            return (self.out)(ToSender::Skip {});
        }
        let part = (store.partial && size.is_some_and(|size| size >= draft::WORTH_KEEPING))
            .then(|| Draft::part(&slot, old))
            .flatten();
        let want = part.as_ref().map_or_else(Want::default, Draft::want);
        self.asked.push_back(Asked { file, slot, part, compared: None });
        (self.out)(ToSender::Want(want))
    }

    fn begin(&mut self, Begin { from }: Begin) -> Result<(), Error> {
        let next = self.asked.pop_front();
        let Asked { file, slot, part, .. } =
            next.ok_or_else(|| Error::peer("content that was not asked for"))?;
        if self.rules.store.dry_run {
            return Err(Error::peer("content where nothing is to be changed"));
        }
        let draft = match part {
            Some(mut part) if from == part.length() || from == 0 => part.begin(from).map(|()| part),
            _ if from != 0 => {
                return Err(Error::peer("content from a place that it does not know"));
            }
            _ => slot.look().and_then(|old| Draft::new(&slot, old, &self.scraps)),
        };
        self.incoming = Some(Incoming { file, slot, draft });
        Ok(())
    }

    fn data(&mut self, Data { offset }: Data, body: &[u8]) -> Result<(), Error> {
        let none = || Error::peer("content of no file");
        let incoming = self.incoming.as_mut().ok_or_else(none)?;
        if let Ok(draft) = &mut incoming.draft
            && let Err(message) = draft.data(offset, body, incoming.file.size)
        {
            let fault = Err(message);
            std::mem::replace(&mut incoming.draft, fault).map(Draft::give_up).ok();
        }
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<(), Error> {
        let none = || Error::peer("the end of no file");
        let Incoming { file, slot, draft } = self.incoming.take().ok_or_else(none)?;
        let path = slot.path.clone();
        match draft.and_then(|draft| self.complete(draft, &file, end)) {
            Ok((draft, sha256)) => {
                let ready = draft.ready(slot, end.size, sha256);
                self.batch.push(ready);
                Ok(())
            }
            Err(message) if message.is_empty() => Ok(()),
            Err(message) => self.failed(path, message),
        }
    }

    /// Checks a draft, and gives it its mode and its time.
    fn complete(&self, mut draft: Draft, file: &File, end: End) -> Result<(Draft, Digest), String> {
        let checked = draft.check(file.size, end).and_then(|()| {
            let mode = self.mode(file.meta.mode, draft.old());
            let time = self.rules.store.keeps_times().then_some(file.meta);
            draft.dress(mode, time)
        });
        match checked {
            Ok(()) => Ok((draft, end.sha256)),
            Err(message) => {
                draft.discard();
                Err(message)
            }
        }
    }

    fn compared(&mut self, same: bool) -> Result<(), Error> {
        let asked = self.asked.pop_front().filter(|asked| asked.compared.is_some());
        let asked = asked.ok_or_else(|| Error::peer("a verdict about no file"))?;
        let (path, size) = (asked.slot.path, asked.file.size);
        match (same, self.rules.store.dry_run) {
            (true, _) => self.skipped(path, size, asked.compared),
            (false, true) => self.would(path, size.unwrap_or_default()),
            (false, false) => Err(Error::peer("a file that differs, without its content")),
        }
    }

    fn fail(&mut self, fail: Fail) -> Result<(), Error> {
        let message = rexec_protocol::outcome::shorten(fail.message);
        let Some(name) = fail.name else {
            let slot = match self.incoming.take() {
                Some(Incoming { slot, draft, .. }) => {
                    // The sender knows better what is wrong with it.
                    draft.map(Draft::give_up).ok();
                    slot
                }
                None => {
                    let none = || Error::peer("a failure of no file");
                    self.asked.pop_front().ok_or_else(none)?.slot
                }
            };
            return self.failed(slot.path, message);
        };
        self.entries += 1;
        let level = self.levels.last_mut();
        let mut path = level.as_ref().map_or_else(Vec::new, |level| level.path.clone());
        if let Some(names) = level.and_then(|level| level.names.as_mut()) {
            names.insert(name.to_vec());
        }
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        self.failed(path, message)
    }

    fn finish(&mut self, done: Done) -> Result<(), Error> {
        if !self.levels.is_empty() || !self.asked.is_empty() {
            return Err(Error::peer("it is done in the middle of something"));
        }
        self.settle()?;
        if !holds("files.entries", done.entries == self.entries) {
            let here = self.entries;
            return Err(Error::peer(format!("{here} of {} files came", done.entries)));
        }
        self.done = true;
        (self.out)(ToSender::Finished(self.totals))
    }

    /// Puts everything that is complete in its place.
    fn settle(&mut self) -> Result<(), Error> {
        for (slot, size, sha256, outcome) in self.batch.settle() {
            match outcome {
                Ok(()) => {
                    self.totals.stored += 1;
                    self.totals.bytes += size;
                    let path = ByteBuf::from(slot.path);
                    (self.out)(ToSender::Stored(Stored { path, size, sha256, dry_run: false }))?;
                }
                Err(message) => self.failed(slot.path, message)?,
            }
        }
        Ok(())
    }

    /// The mode of a new file; one that was there keeps its own.
    fn mode(&self, sent: u32, old: Option<&Old>) -> u32 {
        let Store { preserve, special, .. } = self.rules.store;
        let plain = match old {
            _ if preserve => sent & 0o777,
            Some(old) => old.mode & 0o777,
            None => sent & 0o777 & !self.umask,
        };
        if holds("files.plain_modes", special) { plain | sent & 0o7000 } else { plain }
    }

    fn would(&mut self, path: Vec<u8>, size: u64) -> Result<(), Error> {
        self.totals.stored += 1;
        let path = ByteBuf::from(path);
        (self.out)(ToSender::Stored(Stored { path, size, sha256: None, dry_run: true }))
    }

    fn skipped(
        &mut self,
        path: Vec<u8>,
        size: Option<u64>,
        sha256: Option<Digest>,
    ) -> Result<(), Error> {
        self.totals.skipped += 1;
        let (path, size) = (ByteBuf::from(path), size.unwrap_or_default());
        (self.out)(ToSender::Skipped(Skipped { path, size, sha256 }))
    }

    fn failed(&mut self, path: Vec<u8>, message: String) -> Result<(), Error> {
        self.totals.failed += 1;
        (self.out)(ToSender::Failed(Failed { path: ByteBuf::from(path), message }))
    }
}

impl Drop for Receiver<'_> {
    /// What came of a file that will not come to its end is kept, if that was asked for.
    fn drop(&mut self) {
        if let Some(Incoming { draft: Ok(draft), .. }) = self.incoming.take() {
            draft.give_up();
        }
    }
}

/// What stands in the way of a file, in words.
fn cannot(what: &str, errno: Errno) -> String {
    format!("cannot {what}: {}", why(errno))
}

#[cfg(test)]
mod tests;
