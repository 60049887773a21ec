//! `rexec ca renew`: the same certificate again, with a new key and a new end.

use super::authority::{Authority, SKEW};
use super::issue_agent;
use super::issue_user;
use super::record::{Issue, Kind};
use super::revoke::Books;
use super::{CaError, Folder, store};
use clap::{Args, ValueHint};
use std::io::Write;
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};

/// Issue the same certificate again, with a new key.
#[derive(Debug, Args)]
pub(super) struct Renew {
    /// The certificate, with or without its key; it is replaced by the new one
    #[arg(value_name = "FILE.pem", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Write key and certificate to this file instead; - is the standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[command(flatten)]
    folder: Folder,
}

impl Renew {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let Self { file, out: target, folder } = self;
        let authority = Authority::open(folder.path()?)?;
        let books = Books::open(authority.folder())?;
        let Issue { record, not_before, not_after, .. } = books.of_file(&file)?.clone();
        let params = match record.kind {
            Kind::Agent => issue_agent::params(&record.name, &record.more)?,
            Kind::User => issue_user::params(&record.name, &record.more)?,
        };
        let validity = OffsetDateTime::from(not_after) - OffsetDateTime::from(not_before) - SKEW;
        let (kind, name) = (record.kind.word(), record.name.clone());
        let issued = authority.issue(params, validity.max(Duration::HOUR), now, record)?;
        let path = target.unwrap_or(file);
        if path.as_os_str() == "-" {
            return Ok(out.write_all(issued.pem.as_bytes())?);
        }
        store::write(&path, issued.pem.as_bytes(), store::SECRET, true)?;
        writeln!(
            out,
            "Renewed {} for the {kind} {name}, with a new key, valid until {}.\n\
             Copy it to where the old one was; a running agent takes it by itself. The old one stays \
             valid until its own end.",
            path.display(),
            issued.until
        )?;
        Ok(())
    }
}
