//! Folders: how they are entered and left.

use super::batch::{Left, News};
use super::folder::{Entered, Folder};
use super::{Receiver, remove};
use crate::error::Error;
use rexec_guard::holds;
use rexec_protocol::files::{Entry, Leave, MAX_DEPTH, Meta, Skipped, Stored, ToSender};
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::sync::Arc;

/// A folder that was entered.
pub(super) struct Level {
    /// `None`: it is not there, and what is in it only counts (`skip`) or is only said.
    pub(super) folder: Option<Arc<Folder>>,
    /// Nothing can be stored in it, which was reported.
    pub(super) skip: bool,
    /// Its path, below the destination.
    pub(super) path: Vec<u8>,
    pub(super) meta: Meta,
    /// What was sent of it, if the rest is to be removed.
    pub(super) names: Option<HashSet<Vec<u8>>>,
    /// What is to be said of it once it is left.
    pub(super) news: Option<News>,
}

impl Receiver<'_> {
    pub(super) fn enter(&mut self, Entry { name, meta }: Entry) -> Result<(), Error> {
        if !holds("files.recursive", self.rules.recursive) {
            return Err(Error::peer("it sends a folder, which was not asked for"));
        }
        if self.levels.len() >= MAX_DEPTH {
            return Err(Error::peer("folders are nested too deeply"));
        }
        // The contents of a folder, for the destination itself.
        let slot = if name.is_empty() && self.levels.is_empty() {
            if !holds("files.top_contents", (self.rules.expected)(b"")) {
                return Err(Error::peer("it sends the contents of a folder in its place"));
            }
            match self.landing.itself() {
                Ok(slot) => Some(slot),
                Err(folder) => {
                    return self.entered(Some(folder), Vec::new(), meta);
                }
            }
        } else {
            self.slot(&name)?
        };
        let Some(slot) = slot else {
            self.shut_out(Vec::new(), meta, None);
            return Ok(());
        };
        let path = slot.path.clone();
        let mode = self.mode(meta.mode, None);
        match slot.enter(self.rules.store.dry_run, mode, &self.scraps) {
            Ok(Entered { folder, cleared }) => {
                if cleared {
                    self.removed_or_not(path.clone(), Ok(()))?;
                }
                if folder.as_ref().is_some_and(|folder| folder.is_new) {
                    self.batch.grew(slot.folder, &path);
                }
                self.entered(folder.map(Arc::new), path, meta)
            }
            Err(message) => {
                self.failed(path.clone(), message)?;
                self.shut_out(path, meta, self.rules.store.delete.then(HashSet::new));
                Ok(())
            }
        }
    }

    fn entered(
        &mut self,
        folder: Option<Arc<Folder>>,
        path: Vec<u8>,
        meta: Meta,
    ) -> Result<(), Error> {
        let names = self.rules.store.delete.then(HashSet::new);
        let mut news = match &folder {
            Some(folder) if !folder.is_new => self.changes(folder, &meta).then_some(News::Adjusted),
            _ => Some(News::Made),
        };
        if self.rules.store.dry_run
            && let Some(news) = news.take()
        {
            self.tell_of_folder(path.clone(), news)?;
        }
        self.levels.push(Level { folder, skip: false, path, meta, names, news });
        Ok(())
    }

    /// A folder that cannot be entered.
    fn shut_out(&mut self, path: Vec<u8>, meta: Meta, names: Option<HashSet<Vec<u8>>>) {
        self.levels.push(Level { folder: None, skip: true, path, meta, names, news: None });
    }

    /// Whether a folder that was there is to get another mode or time.
    fn changes(&self, folder: &Folder, sent: &Meta) -> bool {
        let is_other =
            || folder.mode != self.mode(sent.mode, None) || folder.mtime != (sent.mtime, sent.nsec);
        self.rules.store.preserve && is_other()
    }

    /// Says what became of a folder, or would.
    pub(super) fn tell_of_folder(&mut self, path: Vec<u8>, news: News) -> Result<(), Error> {
        self.totals.folders += 1;
        let (path, size, sha256, folder) = (ByteBuf::from(path), 0, None, true);
        let (dry_run, resumed) = (self.rules.store.dry_run, 0);
        (self.out)(match news {
            News::Made => ToSender::Stored(Stored { path, size, sha256, dry_run, resumed, folder }),
            News::Adjusted => {
                ToSender::Skipped(Skipped { path, size, sha256, adjusted: true, folder })
            }
        })
    }

    pub(super) fn leave(&mut self, leave: Leave) -> Result<(), Error> {
        let level = self.levels.pop().ok_or_else(|| Error::peer("it leaves no folder"))?;
        let Some(folder) = level.folder else { return Ok(()) };
        let store = self.rules.store;
        if let Some(names) = level.names.filter(|_| leave.complete) {
            let mut tell = |path, removal| self.removed_or_not(path, removal);
            remove::others(&folder, &level.path, &names, store.dry_run, &mut tell)?;
        }
        if !store.dry_run {
            let mode = self.mode(level.meta.mode, None);
            // Who owns none of it may still have found it as it is to be.
            let is_set = (folder.is_new || store.preserve) && mode != folder.mode;
            let mode = is_set.then_some(mode);
            let time = store.preserve.then_some(level.meta);
            let (path, news) = (level.path, level.news);
            self.batch.leave(Left { folder, path, mode, time, news });
        }
        Ok(())
    }
}
