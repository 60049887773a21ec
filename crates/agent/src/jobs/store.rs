//! The output of jobs that are kept, on disk.

use super::job::Job;
use super::meta::{End, Ending, Meta};
use super::settings::Settings;
use crate::log::Log;
use crate::log::disk::{Disk, Full};
use crate::log::quota::Quota;
use crate::spool::{Checkpoint, Folder, Found};
use rexec_protocol::message::{Channel, Exit};
use rexec_protocol::{JobId, Outcome};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// All spools, and how much they may take.
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    limit: u64,
    quota: Arc<Quota>,
}

/// A job that another agent process has left on disk.
#[derive(Debug)]
pub struct Left {
    /// Which job.
    pub meta: Meta,
    /// Its output.
    pub log: Arc<Log>,
    /// How it ended; `None` if it ran when its agent ended.
    pub end: Option<End>,
    /// When the last of its output was read, in milliseconds since 1970.
    pub last_ms: u64,
}

impl Left {
    /// The end of a job that nobody has adopted, and `why`. What it has printed until then is kept. Blocks.
    pub fn lost(&self, why: &str) -> End {
        if let Err(full) = self.log.claim_all() {
            tracing::error!(job = %self.meta.job, %full, "some of its last output is not to be read");
        }
        self.log.eof(Channel::Out);
        self.log.eof(Channel::Err);
        let outcome = Outcome::Lost { message: why.to_owned() };
        let (stdout, stderr) = (self.log.tally(Channel::Out), self.log.tally(Channel::Err));
        let nothing = Exit::of_nothing(outcome, self.meta.algorithm);
        let exit = Exit { stdout, stderr, ..nothing };
        let end = End { pid: 0, ended_ms: self.last_ms, exit: Ending::from(&exit) };
        if let Err(full) = self.log.finish(&end) {
            tracing::error!(job = %self.meta.job, %full, "cannot record that it was lost");
        }
        if let Err(error) = self.log.shelve() {
            tracing::warn!(job = %self.meta.job, %error, "its output may not survive a loss of power");
        }
        end
    }
}

impl Store {
    /// Opens the folder `jobs` in the agent's state folder.
    pub fn open(state: &Path, settings: &Settings) -> io::Result<Self> {
        let folder = Folder::open(state.join("jobs"))?;
        let (one, all) = (settings.max_output.0, settings.max_output_total.0);
        // One job may have what one job may have.
        let quota = Quota::new(all, (all / 2).max(one));
        Ok(Self { folder, limit: settings.max_output.0, quota })
    }

    /// Puts a log on disk, with what is in memory. Blocks; the caller is the one who writes to it.
    pub fn keep(&self, meta: &Meta, log: &Log) -> Result<(), Full> {
        log.spool(|checkpoint| {
            let spool = self.folder.create(meta, checkpoint.clone())?;
            Ok(Disk::new(
                spool,
                self.quota.share(&meta.owner.name),
                self.limit,
                meta.on_full,
                checkpoint,
            ))
        })
    }

    /// The output of a job that has ended may go when others need the room.
    pub fn ended(&self, job: &Job) {
        if job.log.disk().is_some() {
            self.quota.ended(&job.owner.name, &job.id, &job.log);
        }
    }

    /// How many jobs had to go.
    pub fn dropped(&self) -> u64 {
        self.quota.dropped()
    }

    /// What other agent processes have left, the oldest first. What cannot be used stays where it is.
    pub fn left(&self) -> io::Result<Vec<Left>> {
        let mut all = Vec::new();
        for job in self.folder.list()? {
            match self.folder.find(&job) {
                Ok(found) => all.push(self.resume(found)),
                Err(error) => {
                    tracing::error!(%error, %job, "the output of a job on disk cannot be used");
                }
            }
        }
        all.sort_by_key(|left| left.end.as_ref().map_or(u64::MAX, |end| end.ended_ms));
        Ok(all)
    }

    fn resume(&self, found: Found) -> Left {
        let Found { meta, spool, end, content } = found;
        if end.is_some() {
            spool.close();
        }
        let share = self.quota.share(&meta.owner.name);
        share.force(content.size());
        let last = Checkpoint {
            serial: 0,
            kept: content.kept,
            mark: content.end,
            out: content.out.prefix(),
            err: content.err.prefix(),
        };
        let disk = Disk::new(spool, share, self.limit, meta.on_full, last);
        let last_ms = content.last_ms.max(meta.begun_ms);
        let log = Arc::new(Log::resumed(meta.algorithm, &content, disk));
        Left { meta, log, end, last_ms }
    }

    /// Forgets what is on disk of a job that is not in use.
    pub fn delete(&self, job: &JobId) -> io::Result<()> {
        self.folder.delete(job)
    }
}
