//! The audit log: who did what, when, from where and as whom, one JSON object per line.
//!
//! # Theory of operation
//!
//! One thread owns the file (`writer`); everyone else has an [`Audit`] and puts events into its
//! queue. [`Audit::record`] does not wait. [`Audit::commit`] returns once the event is in the file,
//! and a command is started only after that: no record, no command. The thread takes all that
//! waits, writes it with one write(2), with `fsync = "always"` calls one fdatasync(2), and then
//! answers all, so a thousand commands at once cost little more than one.
//!
//! Each line holds the SHA-256 of the line before ([`record`]), across files ([`rotated`]), so a line
//! that is changed, removed or moved later does not fit any more ([`verify`]). The state file
//! ([`head`]) knows how far the chain had come, so that a missing end is noticed too.
//!
//! Where the disk is full or broken, commits fail and records wait, in bounded memory, until it
//! works again; what had to be dropped is counted, and the count is on record.

pub mod event;
pub mod file;
pub mod head;
mod queue;
pub mod record;
pub mod rotated;
pub mod settings;
pub mod text;
pub mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use event::{Caller, Event};
pub use settings::Settings;

use file::{Disk, Kernel};
use queue::Queue;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use writer::Writer;

/// How long a command waits for its record: a disk that takes longer does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handle of the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// `None`: it is switched off.
    queue: Option<Arc<Queue>>,
}

/// The record could not be written, so what it announces must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit_unavailable: {0}; commands run again as soon as the audit log can be written")]
pub struct Unavailable(pub(crate) String);

impl Audit {
    /// Opens the log, continues its chain, and starts its thread.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        if !settings.enabled {
            tracing::warn!("the audit log is switched off: nothing is on record");
            return Ok(Self { queue: None });
        }
        Self::on(settings, Kernel).map_err(|error| with_advice(&settings.file, &error))
    }

    fn on(settings: &Settings, disk: impl Disk) -> io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let writer = Writer::open(settings.clone(), disk, Arc::clone(&queue))?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { queue: Some(queue) })
    }

    /// Puts an event on record, soon, without waiting for it.
    pub fn record(&self, event: &Event<'_>) {
        if let Some(queue) = &self.queue {
            // What there is no room for is counted.
            let _ = queue.push(event, None);
        }
    }

    /// Puts an event on record; returns once it is there. After an error it may still get there, if
    /// the disk did not answer in time.
    pub async fn commit(&self, event: &Event<'_>) -> Result<(), Unavailable> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        queue.push(event, Some(reply))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Unavailable("the audit log is closed".to_owned())),
            Err(_) => Err(Unavailable("the disk of the audit log does not answer".to_owned())),
        }
    }

    /// Writes what waits, to the disk, and ends the log.
    pub async fn close(&self) {
        let Some(queue) = &self.queue else { return };
        if timeout(PATIENCE, queue.close()).await.is_err() {
            tracing::error!("the disk of the audit log does not answer; leaving it");
        }
    }
}

/// Whether the log could be written, for `--check`; an agent may be running.
pub fn check(settings: &Settings) -> Result<String, String> {
    let Settings { enabled, file, fsync, max_size, .. } = settings;
    if !enabled {
        return Ok("switched off: nothing is on record".to_owned());
    }
    match OpenOptions::new().append(true).open(file) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_folder(file).map_err(|error| with_advice(file, &error).to_string())?
        }
        Err(error) => return Err(with_advice(file, &error).to_string()),
    }
    Ok(format!("{}, fsync {fsync}, rotated at {max_size}", file.display()))
}

/// Whether the nearest folder that exists may be written.
fn check_folder(file: &Path) -> io::Result<()> {
    let folder = file.ancestors().skip(1).find(|folder| folder.exists());
    let folder = folder.unwrap_or(Path::new("."));
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).map_err(Into::into)
}

fn with_advice(file: &Path, error: &io::Error) -> io::Error {
    let file = file.display();
    io::Error::new(
        error.kind(),
        format!(
            "cannot write the audit log {file}: {error}; name another with 'file = …' under [audit] \
             in the agent's configuration, or for an agent that is only tried out 'enabled = false'"
        ),
    )
}
