//! A file that has the content already, and another mode or time.
//!
//! It is changed where it is, and nothing of it moves. It must be this user's own for that, and have
//! no other name: another name may be somebody else's. Otherwise the file is sent, and replaced as
//! any other.

use super::folder::{Old, Slot};
use super::{Receiver, cannot};
use crate::error::Error;
use crate::open::{SAFE, c_string};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::geteuid;
use rexec_guard::holds;
use rexec_protocol::Digest;
use rexec_protocol::files::{File, Meta, Skipped, ToSender};
use serde_bytes::ByteBuf;

/// What is to be changed.
#[derive(Debug, Clone, Copy)]
struct Change {
    mode: Option<u32>,
    time: Option<Meta>,
}

impl Receiver<'_> {
    /// Whether a file can become what was sent without its content.
    pub(super) fn can_stay(&self, sent: Meta, old: &Old) -> bool {
        self.change(sent, old).is_none() || is_own(old)
    }

    /// Settles a file that has the content.
    pub(super) fn stays(
        &mut self,
        file: &File,
        slot: Slot,
        old: &Old,
        sha256: Option<Digest>,
    ) -> Result<(), Error> {
        let change = self.change(file.meta, old);
        if let Some(change) = change
            && !self.rules.store.dry_run
            && let Err(message) = slot.adjust(old, change)
        {
            return self.failed(slot.path, message);
        }
        let adjusted = change.is_some();
        let count = if adjusted { &mut self.totals.adjusted } else { &mut self.totals.skipped };
        *count += 1;
        let (path, size) = (ByteBuf::from(slot.path), file.size.unwrap_or_default());
        (self.out)(ToSender::Skipped(Skipped { path, size, sha256, adjusted, folder: false }))
    }

    fn change(&self, sent: Meta, old: &Old) -> Option<Change> {
        let store = self.rules.store;
        let mode = self.mode(sent.mode, Some(old));
        let mode = (store.preserve && mode != old.mode).then_some(mode);
        let time = (store.keeps_times() && !old.has_time_of(&sent)).then_some(sent);
        (mode.is_some() || time.is_some()).then_some(Change { mode, time })
    }
}

/// It can be opened, too, so that what is changed is what was looked at.
fn is_own(old: &Old) -> bool {
    let user = geteuid();
    let is_users = user.is_root() || old.owner.0 == user.as_raw() && old.mode & 0o400 != 0;
    old.is_file && is_users && holds("files.adjust_own", old.links == 1)
}

impl Slot {
    /// Changes the file that was looked at, and no other.
    fn adjust(&self, old: &Old, Change { mode, time }: Change) -> Result<(), String> {
        let name = c_string(&self.name).map_err(|errno| cannot("use this name", errno))?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | SAFE;
        let file = openat(&self.folder()?.fd, name.as_c_str(), flags, Mode::empty())
            .map_err(|errno| cannot("open what is there", errno))?;
        let now = fstat(&file).map_err(|errno| cannot("look at what is there", errno))?;
        if !holds("files.adjust_same", old.is_still(&now)) {
            return Err("what is there was changed meanwhile, and was left alone".to_owned());
        }
        if let Some(mode) = mode {
            fchmod(&file, Mode::from_bits_truncate(mode))
                .map_err(|errno| cannot("set the mode", errno))?;
        }
        if let Some(Meta { mtime, nsec, .. }) = time {
            let time = TimeSpec::new(mtime, i64::from(nsec.min(999_999_999)));
            futimens(&file, &time, &time).map_err(|errno| cannot("set the time", errno))?;
        }
        Ok(())
    }
}
