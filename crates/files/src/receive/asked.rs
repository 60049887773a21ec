//! Files that the sender asks about before it sends them: what there is already, and what is wanted.

use super::Receiver;
use super::draft::{self, Draft};
use super::folder::Slot;
use crate::error::Error;
use rexec_protocol::Digest;
use rexec_protocol::files::{Compare, File, MAX_ASKED, ToSender, Update, Want};

/// A file that was asked about.
pub(super) struct Asked {
    pub(super) file: File,
    pub(super) slot: Slot,
    /// What there is of it.
    pub(super) part: Option<Draft>,
    pub(super) compared: Option<Digest>,
}

impl Receiver<'_> {
    /// Answers for a file that is asked about.
    pub(super) fn judge(&mut self, file: File, slot: Option<Slot>) -> Result<(), Error> {
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

    pub(super) fn compared(&mut self, same: bool) -> Result<(), Error> {
        let asked = self.asked.pop_front().filter(|asked| asked.compared.is_some());
        let asked = asked.ok_or_else(|| Error::peer("a verdict about no file"))?;
        let (path, size) = (asked.slot.path, asked.file.size);
        match (same, self.rules.store.dry_run) {
            (true, _) => self.skipped(path, size, asked.compared),
            (false, true) => self.would(path, size.unwrap_or_default()),
            (false, false) => Err(Error::peer("a file that differs, without its content")),
        }
    }
}
