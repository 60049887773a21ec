//! Files that the sender asks about before it sends them: what there is already, and what is wanted.

use super::Receiver;
use super::draft::{self, Draft};
use super::folder::{Old, Slot};
use crate::error::Error;
use rexec_protocol::files::{Compare, File, MAX_ASKED, ToSender, Update, Want};
use rexec_protocol::{Algorithm, Digest};

/// A file that was asked about.
pub(super) struct Asked {
    pub(super) file: File,
    pub(super) slot: Slot,
    /// What was there.
    pub(super) old: Option<Old>,
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
        let candidate = old
            .filter(|old| old.is_file && Some(old.size) == size && self.can_stay(file.meta, old));
        if let Some(old) = candidate
            && store.update == Some(Update::Times)
            && old.has_time_of(&file.meta)
        {
            self.stays(&file, slot, &old, None)?;
            return (self.out)(ToSender::Skip {});
        }
        if candidate.is_some() && store.update == Some(Update::Digest) {
            match slot.digest(file.digest) {
                Ok(hash) => {
                    let compared = Some(hash);
                    self.asked.push_back(Asked { file, slot, old, part: None, compared });
                    let only = store.dry_run;
                    return (self.out)(ToSender::Compare(Compare { hash, only }));
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
            let clears = old.is_some_and(|old| old.is_folder);
            self.would(&slot, size.unwrap_or_default(), clears)?;
            return (self.out)(ToSender::Skip {});
        }
        let part = (store.partial && size.is_some_and(|size| size >= draft::WORTH_KEEPING))
            .then(|| Draft::part(&slot, old, file.digest, &self.scraps))
            .flatten();
        let want = part.as_ref().map_or_else(Want::default, Draft::want);
        self.asked.push_back(Asked { file, slot, old, part, compared: None });
        (self.out)(ToSender::Want(want))
    }

    pub(super) fn compared(&mut self, same: bool) -> Result<(), Error> {
        let asked = self.asked.pop_front().filter(|asked| asked.compared.is_some());
        let asked = asked.ok_or_else(|| Error::peer("a verdict about no file"))?;
        let Asked { file, slot, old, compared, .. } = asked;
        match (same, old) {
            (true, Some(old)) => {
                let sha256 = compared.filter(|_| file.digest == Algorithm::Sha256);
                self.stays(&file, slot, &old, sha256)
            }
            _ if self.rules.store.dry_run => {
                self.would(&slot, file.size.unwrap_or_default(), false)
            }
            _ => Err(Error::peer("a file that differs, without its content")),
        }
    }
}
