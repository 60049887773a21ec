//! The folder of all spools, and what is in one.
//!
//! A job id is a safe name that begins with a letter or a digit. Names that begin with a dot are folders
//! that are being made or deleted, and are deleted when an agent starts.

use super::{Checkpoint, Content, Files, Spool};
use crate::jobs::meta::{End, Meta};
use rexec_net::trusted;
use rexec_protocol::{Algorithm, JobId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest `meta.json` or `end.json`, in bytes.
const MAX_JSON: u64 = 256 * 1024;

/// The folder of all spools.
#[derive(Debug)]
pub struct Folder(PathBuf);

/// The spool of a job that another agent process has left.
#[derive(Debug)]
pub struct Found {
    /// Which job.
    pub meta: Meta,
    /// Its files.
    pub spool: Spool,
    /// How it ended; `None` if it ran when its agent died.
    pub end: Option<End>,
    /// What the files hold.
    pub content: Content,
}

impl Folder {
    /// Opens it; it is made if it is missing. What was being made or deleted is deleted.
    ///
    /// # Errors
    /// Also if others could change it.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_dir() {
            return Err(io::Error::other(format!("{} is not a folder", path.display())));
        }
        trusted::demand_unchangeable(&path, &metadata).map_err(io::Error::other)?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self(path))
    }

    /// Makes the spool of a job, which begins at the place that `checkpoint` says.
    pub fn create(&self, meta: &Meta, checkpoint: Checkpoint) -> io::Result<Spool> {
        let new = self.0.join(format!(".new-{}", meta.job));
        // What is left of an attempt that failed.
        let _ = fs::remove_dir_all(&new);
        DirBuilder::new().mode(0o700).create(&new)?;
        let made = make(&new, meta, checkpoint).and_then(|spool| {
            let folder = self.0.join(meta.job.as_str());
            fs::rename(&new, &folder)?;
            Ok(Spool { folder, ..spool })
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    /// The jobs that have a spool.
    pub fn list(&self) -> io::Result<Vec<JobId>> {
        let mut jobs = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            jobs.extend(entry?.file_name().to_str().and_then(JobId::new));
        }
        Ok(jobs)
    }

    /// Opens the spool of a job, checks it, and finds out what it holds.
    pub fn find(&self, job: &JobId) -> io::Result<Found> {
        let folder = self.0.join(job.as_str());
        trusted::demand_unchangeable(&folder, &fs::symlink_metadata(&folder)?)
            .map_err(io::Error::other)?;
        let meta: Meta = json(&folder.join("meta.json"))?;
        if meta.job != *job {
            return Err(io::Error::other(format!("it is that of {}", meta.job)));
        }
        let end = match json(&folder.join("end.json")) {
            Ok(end) => Some(end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let files = Files::open(&folder, open)?;
        let spool = Spool::new(folder, files);
        let content = spool.recover(&meta, end.as_ref())?;
        Ok(Found { meta, spool, end, content })
    }

    /// Deletes the spool of a job, whatever it holds.
    pub fn delete(&self, job: &JobId) -> io::Result<()> {
        delete(&self.0.join(job.as_str()))
    }
}

fn make(folder: &Path, meta: &Meta, checkpoint: Checkpoint) -> io::Result<Spool> {
    let files = Files::open(folder, |path| private().create_new(true).open(path))?;
    let spool = Spool::new(folder.to_owned(), files);
    spool.skip_to(&checkpoint.kept)?;
    // Both slots, so that later ones need no room.
    spool.checkpoint(checkpoint.clone())?;
    spool.checkpoint(checkpoint)?;
    put_json(folder, "meta.json", meta)?;
    Ok(spool)
}

/// A name that begins with a dot says that it is not a job any more.
pub(super) fn delete(folder: &Path) -> io::Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let old = folder.with_file_name(format!(".old-{name}"));
    match fs::rename(folder, &old) {
        Ok(()) => fs::remove_dir_all(&old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = private().open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    trusted::demand_unchangeable(path, &metadata).map_err(io::Error::other)?;
    Ok(file)
}

fn json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    open(path)?.take(MAX_JSON).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Whole or not at all.
pub(super) fn put_json(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let new = folder.join(format!(".{name}"));
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    let mut file = private().create(true).truncate(true).open(&new)?;
    file.write_all(&text)?;
    fs::rename(&new, folder.join(name))
}

impl Checkpoint {
    /// The start of a log of which nothing is kept yet.
    pub fn start(algorithm: Algorithm) -> Self {
        let nothing = super::Prefix::of(&rexec_protocol::Hasher::new(algorithm));
        let mark = super::Mark::default();
        Self { serial: 0, kept: mark, mark, out: nothing.clone(), err: nothing }
    }
}
