//! The receiving end: makes files of messages.
//!
//! # When a file is in its place
//!
//! A file is written as a draft under a temporary name in its folder. Once its size and its digest
//! are as the sender said, it waits in a [`batch`] with others until all of them are on the
//! disk; then they are renamed, and their folders are made durable. Only after that is a file reported
//! as stored. So at every moment, and after a crash as well, a name stands for the old file or for
//! the new one; and what was reported is there.
//!
//! | module | what it holds |
//! |---|---|
//! | [`landing`] | what the path of a destination means here |
//! | `folder` | an open folder, and what is under a name in it |
//! | `levels` | folders, entered and left |
//! | `asked` | files that the sender asks about first |
//! | `adjust` | files of which only mode or time is another |
//! | `draft` | a file that is being written |
//! | [`batch`] | drafts that are complete, and folders that were left |
//! | `rename` | the names of a whole batch |
//! | `remove` | what was not sent, and shall go |
//! | [`scraps`] | temporary names, so that none is left behind |
//! | [`stream`] | the other destination: a pipe |

mod adjust;
mod asked;
pub mod batch;
mod draft;
mod folder;
pub mod landing;
mod levels;
mod remove;
mod rename;
pub mod scraps;
pub mod stream;

use crate::error::{Error, why};
use crate::open::{self, c_string};
use asked::Asked;
use batch::{Batch, Ready, Settled, Settlement};
use draft::Draft;
use folder::{Folder, Old, Slot, Yields};
use landing::Landing;
use levels::Level;
use nix::errno::Errno;
use rexec_guard::holds;
use rexec_protocol::Digest;
use rexec_protocol::files::{
    Begin, Data, Done, End, Fail, Failed, File, Finished, Link, Skipped, Store, Stored, ToReceiver,
    ToSender, is_name,
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
    /// Whether links may come at the top, as a pattern can match them. In folders they may.
    pub links: bool,
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

struct Incoming {
    file: File,
    slot: Slot,
    /// From which byte on it comes.
    from: u64,
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
                let message =
                    format!("it offers '{name}', which was not asked for, or came before");
                return Err(Error::peer(message));
            }
            return self.landing.slot(name).map(Some).map_err(Error::Target);
        };
        let is_first = level.names.as_mut().is_none_or(|names| names.insert(name.to_vec()));
        if level.skip {
            self.totals.failed += 1;
            return Ok(None);
        }
        let path = if level.path.is_empty() {
            name.to_vec()
        } else {
            [&level.path, &b"/"[..], name].concat()
        };
        let yields = if level.names.is_some() { Yields::Anything } else { Yields::OnDelete };
        let folder = level.folder.clone();
        if !holds("files.once", is_first) {
            self.failed(path, TWICE.to_owned())?;
            return Ok(None);
        }
        Ok(Some(Slot { folder, name: name.to_vec(), path, yields }))
    }

    fn link(&mut self, link: &Link) -> Result<(), Error> {
        self.entries += 1;
        // A link that is named as a source is followed.
        let may_come = self.rules.links || !self.levels.is_empty();
        if !holds("files.no_link_at_top", may_come) {
            return Err(Error::peer("it sends a link in the place of a file"));
        }
        let Some(slot) = self.slot(&link.name)? else { return Ok(()) };
        let path = slot.path.clone();
        let store = self.rules.store;
        let time = store.keeps_times().then_some(&link.meta);
        match slot.link(&link.target, time, store.dry_run, &self.scraps) {
            Ok(None) => {
                self.totals.skipped += 1;
                let (path, adjusted, folder) = (ByteBuf::from(path), false, false);
                let same = Skipped { path, size: 0, sha256: None, adjusted, folder };
                (self.out)(ToSender::Skipped(same))
            }
            Ok(Some(None)) => {
                let is_folder = slot.look().is_ok_and(|old| old.is_some_and(|old| old.is_folder));
                self.would(&slot, 0, is_folder)
            }
            Ok(Some(Some(scrap))) => {
                if let Some(time) = time {
                    scrap.set_time(time);
                }
                self.batch.push(Ready {
                    scrap,
                    slot,
                    size: 0,
                    sha256: None,
                    file: None,
                    resumed: 0,
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
                self.incoming = Some(Incoming { file, slot, from: 0, draft });
            }
            return Ok(());
        };
        let Some(claimed) = file.whole else {
            let draft =
                slot.look().and_then(|old| Draft::new(&slot, old, file.digest, &self.scraps));
            self.incoming = Some(Incoming { file, slot, from: 0, draft });
            return Ok(());
        };
        let path = slot.path.clone();
        let stored = slot.look().and_then(|old| {
            let mut draft = Draft::new(&slot, old, file.digest, &self.scraps)?;
            draft.data(0, body, file.size)?;
            let size = file.size.unwrap_or_default();
            self.complete(draft, &file, End { size, hash: claimed })
        });
        match stored {
            Ok((draft, hash)) => {
                let size = body.len() as u64;
                self.batch.push(draft.ready(slot, size, hash));
                Ok(())
            }
            Err(message) => self.failed(path, message),
        }
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
            _ => slot.look().and_then(|old| Draft::new(&slot, old, file.digest, &self.scraps)),
        };
        self.incoming = Some(Incoming { file, slot, from, draft });
        Ok(())
    }

    fn data(&mut self, Data { offset }: Data, body: &[u8]) -> Result<(), Error> {
        let none = || Error::peer("content of no file");
        let incoming = self.incoming.as_mut().ok_or_else(none)?;
        if let Ok(draft) = &mut incoming.draft
            && let Err(message) = draft.data(offset, body, incoming.file.size)
        {
            incoming.draft = Err(message);
        }
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<(), Error> {
        let none = || Error::peer("the end of no file");
        let Incoming { file, slot, from, draft } = self.incoming.take().ok_or_else(none)?;
        let path = slot.path.clone();
        match draft.and_then(|draft| self.complete(draft, &file, end)) {
            Ok((draft, hash)) => {
                let ready = draft.ready(slot, end.size, hash);
                self.batch.push(Ready { resumed: from, ..ready });
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
            Ok(()) => Ok((draft, end.hash)),
            Err(message) => {
                draft.discard();
                Err(message)
            }
        }
    }

    fn fail(&mut self, fail: Fail) -> Result<(), Error> {
        let message = rexec_protocol::outcome::shorten(fail.message);
        let Some(name) = fail.name else {
            let slot = match self.incoming.take() {
                // The sender knows better what is wrong with it.
                Some(Incoming { slot, .. }) => slot,
                None => {
                    let none = || Error::peer("a failure of no file");
                    self.asked.pop_front().ok_or_else(none)?.slot
                }
            };
            return self.failed_at(slot.path, fail.at, message);
        };
        if !holds("files.fail_name", name.is_empty() || is_name(&name)) {
            return Err(Error::peer(format!("it speaks of a file named '{}'", open::shown(&name))));
        }
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
        self.failed_at(path, fail.at, message)
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
        let Self { batch, out, totals, asked, incoming, landing, .. } = self;
        let mut tell = |path, removal| told(totals, out, landing, path, removal);
        let to_come =
            asked.iter().map(|asked| &asked.slot).chain(incoming.iter().map(|it| &it.slot));
        let pending: HashSet<_> =
            to_come.filter_map(|slot| slot.folder.as_ref()).map(Arc::as_ptr).collect();
        let is_pending = |folder: &Arc<Folder>| pending.contains(&Arc::as_ptr(folder));
        let Settlement { files, folders } = batch.settle(is_pending, &mut tell)?;
        for Settled { slot, size, sha256, resumed, outcome } in files {
            match outcome {
                Ok(cleared) => {
                    if cleared {
                        self.removed_or_not(slot.path.clone(), Ok(()))?;
                    }
                    self.totals.stored += 1;
                    self.totals.bytes += size;
                    let path = ByteBuf::from(slot.path);
                    let (dry_run, folder) = (false, false);
                    let stored = Stored { path, size, sha256, dry_run, resumed, folder };
                    (self.out)(ToSender::Stored(stored))?;
                }
                Err(message) => self.failed(slot.path, message)?,
            }
        }
        for (path, outcome) in folders {
            match outcome {
                Ok(news) => self.tell_of_folder(path, news)?,
                Err(message) => self.failed(path, message)?,
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

    /// Says what would be done; if `clears`, in the place of a folder.
    fn would(&mut self, slot: &Slot, size: u64, clears: bool) -> Result<(), Error> {
        if clears && let Err(why) = self.would_clear(slot)? {
            return self.failed(slot.path.clone(), why);
        }
        self.totals.stored += 1;
        let path = ByteBuf::from(slot.path.as_slice());
        let (dry_run, resumed, folder) = (true, 0, false);
        let stored = Stored { path, size, sha256: None, dry_run, resumed, folder };
        (self.out)(ToSender::Stored(stored))
    }

    /// Says what would go with a folder; or why it would not.
    fn would_clear(&mut self, slot: &Slot) -> Result<Result<(), String>, Error> {
        if let (Some(folder), Ok(name)) = (&slot.folder, c_string(&slot.name)) {
            let mut tell = |path, removal| self.removed_or_not(path, removal);
            if let Err(why) = remove::contents(folder, &name, &slot.path, true, &mut tell)? {
                return Ok(Err(why));
            }
        }
        self.removed_or_not(slot.path.clone(), Ok(())).map(Ok)
    }

    /// Says that this is gone, or why it is not.
    fn removed_or_not(&mut self, path: Vec<u8>, removal: Result<(), String>) -> Result<(), Error> {
        told(&mut self.totals, self.out, &self.landing, path, removal)
    }

    /// Something failed at this end.
    fn failed(&mut self, path: Vec<u8>, message: String) -> Result<(), Error> {
        let at = open::in_message(self.landing.path_of(&path));
        self.failed_at(path, at, message)
    }

    fn failed_at(
        &mut self,
        path: Vec<u8>,
        at: Option<ByteBuf>,
        message: String,
    ) -> Result<(), Error> {
        self.totals.failed += 1;
        (self.out)(ToSender::Failed(Failed { path: ByteBuf::from(path), message, at }))
    }
}

/// Says of what was to be removed that it is gone, or why it is not.
fn told(
    totals: &mut Finished,
    out: Out<'_>,
    landing: &Landing,
    path: Vec<u8>,
    removal: Result<(), String>,
) -> Result<(), Error> {
    out(match removal {
        Ok(()) => {
            totals.removed += 1;
            ToSender::Removed { path: ByteBuf::from(path) }
        }
        Err(message) => {
            totals.failed += 1;
            let at = open::in_message(landing.path_of(&path));
            ToSender::Failed(Failed { path: ByteBuf::from(path), message, at })
        }
    })
}

/// Of what has the name of something that came before. Names are known only where the rest is to be
/// removed, and at the top: to hold those of every folder would take memory by the number of files.
const TWICE: &str = "the source named it twice; what came first was taken, and this was not";

/// What stands in the way of a file, in words.
fn cannot(what: &str, errno: Errno) -> String {
    format!("cannot {what}: {}", why(errno))
}

#[cfg(test)]
mod tests;
