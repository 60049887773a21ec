//! What a spool holds that another agent process has left, which may have died at any moment.

use super::{Checkpoint, ENTRY, Entry, Files, Mark, Prefix, Spool, boot_id, size_between};
use crate::jobs::meta::{End, Meta};
use rexec_protocol::message::{Channel, Offsets};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Digest, Hasher};
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

/// What is in a spool: records whose bytes were there, and matched their digests as far as they were
/// checked.
#[derive(Debug)]
pub struct Content {
    /// Where the oldest record begins.
    pub kept: Mark,
    /// Where the last one ends.
    pub end: Mark,
    /// When that was read, in milliseconds since 1970.
    pub last_ms: u64,
    /// Stdout up to there.
    pub out: Known,
    /// Stderr.
    pub err: Known,
}

/// How much is known of a channel.
#[derive(Debug, Clone)]
pub enum Known {
    /// Its digest can go on.
    Running(Hasher),
    /// Its digest up to here.
    Fixed(Digest),
}

impl Known {
    fn new(prefix: &Prefix, algorithm: Algorithm) -> Self {
        prefix.hasher(algorithm).map_or(Self::Fixed(prefix.hash), Self::Running)
    }

    /// To go on with, as far as that can be.
    pub fn prefix(&self) -> Prefix {
        match self {
            Self::Running(hasher) => Prefix::of(hasher),
            Self::Fixed(hash) => Prefix { hash: *hash, state: None },
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Running(hasher) => hasher.prefix(),
            Self::Fixed(digest) => *digest,
        }
    }
}

impl Content {
    /// Size and digest of a channel.
    pub fn tally(&self, channel: Channel) -> Tally {
        Tally { size: self.end.at.of(channel), hash: self.known(channel).digest() }
    }

    /// How much disk it takes, in bytes.
    pub fn size(&self) -> u64 {
        size_between(&self.kept, &self.end)
    }

    /// What is known of a channel.
    pub fn known(&self, channel: Channel) -> &Known {
        if channel == Channel::Err { &self.err } else { &self.out }
    }
}

impl Files {
    /// Whether the files reach to this place.
    fn reach(&self, mark: &Mark) -> bool {
        let reaches = |file: &File, end| file.metadata().is_ok_and(|file| file.len() >= end);
        let at = mark.at;
        let has_bytes = reaches(&self.out, at.out) && reaches(&self.err, at.err);
        has_bytes && reaches(&self.index, mark.number * ENTRY)
    }
}

impl Spool {
    /// Reads the last checkpoint and checks all that comes after it; what does not fit is cut off.
    pub(super) fn recover(&self, meta: &Meta, end: Option<&End>) -> io::Result<Content> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "no checkpoint is whole");
        let files = self.files()?;
        let checkpoints = Checkpoint::read(&files.checkpoints)?;
        let newest = checkpoints.first().ok_or_else(missing)?;
        self.serial.store(newest.serial, Ordering::Relaxed);
        let covered = checkpoints.iter().find(|checkpoint| files.reach(&checkpoint.mark));
        let mut content = begin(covered, newest, meta.algorithm, end.is_some());
        while let Ok(entry) = self.entry(content.end.number) {
            if !self.accept(&mut content, &entry) {
                break;
            }
        }
        files.index.set_len(content.end.number * ENTRY)?;
        if end.is_some() || meta.boot != boot_id() {
            files.out.set_len(content.end.at.out)?;
            files.err.set_len(content.end.at.err)?;
        }
        Ok(content)
    }

    /// Whether this is what comes next.
    fn accept(&self, content: &mut Content, entry: &Entry) -> bool {
        let (number, channel) = (content.end.number, entry.channel);
        if entry.before(number) != content.end {
            return false;
        }
        let offset = entry.at.of(channel);
        let Ok(bytes) = self.read(channel, offset, entry.length as usize) else { return false };
        let known = if channel == Channel::Err { &mut content.err } else { &mut content.out };
        match known {
            Known::Running(hasher) => {
                let mut longer = hasher.clone();
                longer.update(&bytes);
                if longer.prefix() != entry.hash {
                    return false;
                }
                *hasher = longer;
            }
            Known::Fixed(digest) => *digest = entry.hash,
        }
        content.end = entry.after(number);
        content.last_ms = entry.time_ms;
        true
    }
}

/// Where to begin: at the newest checkpoint of which all is there, if any is.
fn begin(
    covered: Option<&Checkpoint>,
    newest: &Checkpoint,
    algorithm: Algorithm,
    has_ended: bool,
) -> Content {
    let kept = newest.kept;
    let goes_on = |at: &Checkpoint| has_ended || at.out.state.is_some() && at.err.state.is_some();
    if covered.is_none_or(|at| !goes_on(at)) && kept.at == Offsets::default() {
        // All is read again, if it is all there: after a loss of power the newest bytes may be missing, and
        // of a channel that was over before the spool began only the digest is known.
        let running = || Known::Running(Hasher::new(algorithm));
        return Content { kept, end: kept, last_ms: 0, out: running(), err: running() };
    }
    let Checkpoint { mark, out, err, .. } = covered.unwrap_or(newest);
    let kept = if covered.is_some() { kept } else { *mark };
    let (out, err) = (Known::new(out, algorithm), Known::new(err, algorithm));
    Content { kept, end: *mark, last_ms: 0, out, err }
}
