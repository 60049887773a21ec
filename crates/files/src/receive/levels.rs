//! Folders: how they are entered and left.

use super::folder::{Entered, Folder};
use super::{Receiver, remove};
use crate::error::Error;
use rexec_guard::holds;
use rexec_protocol::files::{Entry, Leave, MAX_DEPTH, Meta};
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
}

impl Receiver<'_> {
    pub(super) fn enter(&mut self, Entry { name, meta }: Entry) -> Result<(), Error> {
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
        let (folder, skip) = match slot.enter(self.rules.store.dry_run, &self.scraps) {
            Ok(Entered { folder, cleared }) => {
                if cleared {
                    self.removed(path.clone())?;
                }
                if folder.as_ref().is_some_and(|folder| folder.is_new) {
                    self.batch.grew(slot.folder, &path);
                }
                (folder.map(Arc::new), false)
            }
            Err(message) => {
                self.failed(path.clone(), message)?;
                (None, true)
            }
        };
        self.levels.push(Level { folder, skip, path, meta, names });
        Ok(())
    }

    pub(super) fn leave(&mut self, leave: Leave) -> Result<(), Error> {
        let level = self.levels.pop().ok_or_else(|| Error::peer("it leaves no folder"))?;
        let Some(folder) = level.folder else { return Ok(()) };
        let store = self.rules.store;
        if let Some(names) = level.names.filter(|_| leave.complete) {
            for (path, removed) in remove::others(&folder, &level.path, &names, store.dry_run) {
                match removed {
                    Ok(()) => self.removed(path)?,
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
}
