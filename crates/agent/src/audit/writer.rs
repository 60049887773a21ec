//! The thread that owns the log: takes what waits, writes it, answers.

use super::event::Event;
use super::file::{Disk, Found, LogFile};
use super::queue::{Entry, Queue, Turn, body};
use super::record::Link;
use super::settings::{Fsync, Settings};
use super::text::Text;
use super::{Unavailable, head, rotated};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// With `fsync = "batch"`: how long a line may be in the file before it is on the disk. Also how
/// often the state file is written, and how soon a disk that failed is tried again.
const PERIOD: Duration = Duration::from_secs(1);
/// More than this is brought to the disk at once.
const MAX_UNSYNCED: usize = 8 << 20;

/// How long an agent that was killed may take to let go of the file.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Writer<D> {
    settings: Settings,
    disk: D,
    queue: Arc<Queue>,
    file: LogFile,
    /// The last record that was written.
    link: Link,
    /// Records of this module's own, to be written before others.
    own: Vec<String>,
    /// The file is rotated when it would grow beyond this.
    rotate_at: u64,
    /// When to bring the file to the disk.
    due: Option<Instant>,
    failure: Option<Failure>,
    /// The state file cannot be written, and that was said.
    is_head_stuck: bool,
}

/// Why, and since when, nothing can be written.
struct Failure {
    since: Instant,
    reason: String,
}

/// Opens the file at the start, when an agent that was killed may still be ending and hold it.
fn open_in_time(path: &Path) -> io::Result<(LogFile, Found)> {
    let until = Instant::now() + PATIENCE;
    loop {
        match LogFile::open(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                thread::sleep(PATIENCE / 100);
            }
            opened => return opened,
        }
    }
}

impl<D: Disk> Writer<D> {
    /// Opens the log where it ended.
    pub(super) fn open(settings: Settings, disk: D, queue: Arc<Queue>) -> io::Result<Self> {
        let head = head::read(&settings.file)?;
        let (file, found) = open_in_time(&settings.file)?;
        let mut own = Vec::new();
        if found.torn_bytes > 0 {
            own.push(body(&Event::Recovered { torn_bytes: found.torn_bytes }));
        }
        let is_new = found.last.is_none();
        let link = resume(found.last.unwrap_or_else(Link::start), head);
        if is_new && link.seq > 0 {
            own.push(body(&Event::Rotated { previous: None }));
        }
        let rotate_at = limit(&settings, 0);
        tracing::info!(file = %settings.file.display(), seq = link.seq, "the audit log is open");
        let (due, failure, is_head_stuck) = (None, None, false);
        Ok(Self { settings, disk, queue, file, link, own, rotate_at, due, failure, is_head_stuck })
    }

    /// Runs until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            let Turn { entries, dropped, is_more, is_closing } = self.queue.wait(self.due);
            // Nobody waits any more for these, so what they announce is not done.
            let entries = entries.into_iter().filter(|entry| !is_forgotten(entry)).collect();
            self.write(entries, dropped);
            let is_last = is_closing && (!is_more || self.failure.is_some());
            if is_last || self.due.is_some_and(|due| Instant::now() >= due) {
                self.settle();
            }
            if is_last {
                break;
            }
        }
        let Link { seq, hash } = &self.link;
        tracing::info!(seq, hash, "the audit log is closed");
        // Whoever waits for the end may open the file.
        drop(self.file);
        let lost = self.queue.end();
        if lost > 0 {
            tracing::error!(lost, "records of the audit log could not be written and are lost");
        }
    }

    /// Writes all of them, or none.
    fn write(&mut self, entries: Vec<Entry>, dropped: u64) {
        if entries.is_empty() && dropped == 0 && self.own.is_empty() {
            return;
        }
        match self.try_write(&entries, dropped) {
            Ok(()) => {
                self.own.clear();
                if self.failure.take().is_some() {
                    tracing::info!("the audit log can be written again");
                }
                self.due.get_or_insert_with(|| Instant::now() + PERIOD);
                for reply in entries.into_iter().filter_map(|entry| entry.reply) {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                let unavailable = self.fail(&error);
                for reply in self.queue.give_back(entries, dropped) {
                    let _ = reply.send(Err(unavailable.clone()));
                }
            }
        }
    }

    fn try_write(&mut self, entries: &[Entry], dropped: u64) -> io::Result<()> {
        if self.file.is_gone()? {
            tracing::warn!("the audit log was renamed or removed by somebody else");
            self.replace(None)?;
        }
        let size: usize = entries.iter().map(|entry| entry.body.len() + LINK).sum();
        // What belongs to the end of this file is written to it first.
        let may_rotate = self.file.size() > 0 && self.own.is_empty();
        if may_rotate && self.file.size() + size as u64 > self.rotate_at {
            self.rotate()?;
        }
        let (lines, link) = self.lines(entries, dropped);
        self.file.append(&mut self.disk, lines.as_bytes(), self.link.seq + 1)?;
        let must_sync = self.settings.fsync == Fsync::Always || self.file.unsynced() > MAX_UNSYNCED;
        if must_sync && let Err(error) = self.file.sync(&mut self.disk) {
            self.file.take_back(lines.as_bytes());
            return Err(error);
        }
        self.link = link;
        Ok(())
    }

    fn lines(&self, entries: &[Entry], dropped: u64) -> (String, Link) {
        let now = self.queue.now();
        let own = self.own.iter().map(|body| (now, body.as_str()));
        let resumed = self.resumed(dropped);
        let resumed = resumed.iter().map(|body| (now, body.as_str()));
        let entries = entries.iter().map(|entry| (entry.stamp, entry.body.as_str()));
        let (mut lines, mut link) = (String::new(), self.link.clone());
        for (stamp, body) in own.chain(resumed).chain(entries) {
            let (line, next) = link.next(stamp, body);
            lines.push_str(&line);
            link = next;
        }
        (lines, link)
    }

    fn resumed(&self, dropped: u64) -> Option<String> {
        let (since, reason) = match &self.failure {
            Some(Failure { since, reason }) => (since.elapsed(), reason.as_str()),
            None if dropped > 0 => (Duration::ZERO, "more records than could be written"),
            None => return None,
        };
        let unavailable_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Some(body(&Event::Resumed { unavailable_ms, dropped, reason: Text::of(reason) }))
    }

    /// A new file goes on where the full one ends. If there can be none, the full one grows.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync(&mut self.disk)?;
        match self.file.retire() {
            Ok(previous) => {
                let Link { seq, hash } = &self.link;
                tracing::info!(seq, hash, previous, "the audit log is rotated");
                self.replace(previous)?;
                if let Err(error) = rotated::prune(&self.settings.file, self.settings.keep) {
                    tracing::error!(%error, "old audit logs cannot be removed");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be rotated, and grows on");
                self.rotate_at = limit(&self.settings, self.file.size());
            }
        }
        Ok(())
    }

    fn replace(&mut self, previous: Option<String>) -> io::Result<()> {
        // The old file is the rest of the chain, wherever it is now.
        self.file.sync(&mut self.disk)?;
        (self.file, _) = LogFile::open(&self.settings.file)?;
        self.rotate_at = limit(&self.settings, 0);
        self.own.push(body(&Event::Rotated { previous }));
        Ok(())
    }

    /// Brings everything to the disk, and then says so in the state file.
    fn settle(&mut self) {
        if let Err(error) = self.file.sync(&mut self.disk) {
            drop(self.fail(&error));
            return;
        }
        let written = head::write(&self.settings.file, &self.link);
        if let Err(error) = &written
            && !self.is_head_stuck
        {
            tracing::error!(%error, "the state file of the audit log cannot be written");
        }
        self.is_head_stuck = written.is_err();
        let is_done = written.is_ok() && self.failure.is_none();
        self.due = (!is_done).then(|| Instant::now() + PERIOD);
    }

    /// Nothing can be written: said once, and tried again.
    fn fail(&mut self, error: &io::Error) -> Unavailable {
        self.due = Some(Instant::now() + PERIOD);
        let reason = format!("the audit log cannot be written: {error}");
        if self.failure.is_none() {
            tracing::error!(%error, "the audit log cannot be written; no command is started until it can");
            self.failure = Some(Failure { since: Instant::now(), reason: reason.clone() });
        }
        Unavailable(reason)
    }
}

/// What a line has beside its event, about.
const LINK: usize = 180;

fn is_forgotten(entry: &Entry) -> bool {
    entry.reply.as_ref().is_some_and(|reply| reply.is_closed())
}

fn limit(Settings { max_size, .. }: &Settings, from: u64) -> u64 {
    if max_size.0 == 0 { u64::MAX } else { from.saturating_add(max_size.0) }
}

/// Where the chain goes on: at the last record in the file, unless the state file knows of one
/// behind it. Going on behind that one leaves the gap for `verify` to see.
fn resume(last: Link, head: Option<Link>) -> Link {
    match head {
        Some(head) if head.seq > last.seq && last.seq == 0 => head,
        Some(head) if head.seq > last.seq || (head.seq == last.seq && head != last) => {
            let (known, found) = (head.seq, last.seq);
            tracing::error!(known, found, "the end of the audit log is missing, or was changed");
            head
        }
        _ => last,
    }
}
