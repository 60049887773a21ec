//! `rexec ca revoke`: a certificate that is not to be trusted any more.

use super::authority::Authority;
use super::certificate::Certificate;
use super::record::{self, Issue, Reason, Revocation};
use super::{CaError, Folder, crl, store};
use clap::{Args, ValueHint};
use rexec_client::certificate::moment;
use rexec_client::printable;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;
use time::OffsetDateTime;

/// Revoke certificates, and make a new revocation list.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Whose, which, or the certificate itself
    #[arg(value_name = "NAME|SERIAL|FILE.pem", value_hint = ValueHint::FilePath)]
    what: String,
    /// Revoke every valid certificate of that name
    #[arg(long)]
    all: bool,
    /// Why, as the list will say
    #[arg(long, value_name = "REASON", value_enum, default_value_t = Reason::Unspecified)]
    reason: Reason,
    #[command(flatten)]
    list: crl::Options,
    #[command(flatten)]
    folder: Folder,
}

impl Revoke {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let Self { what, all, reason, list, folder } = self;
        let authority = Authority::open(folder.path()?)?;
        let _lock = store::lock(authority.folder())?;
        let books = Books::open(authority.folder())?;
        for issue in books.select(&what, all, now.into())? {
            record::revoked(authority.folder(), &Revocation::new(issue, reason, now.into()))?;
            writeln!(out, "Revoked {}.", describe(issue))?;
        }
        list.make(&authority, now, out)
    }
}

/// What was issued, and what of it is revoked already.
pub(super) struct Books {
    issued: Vec<Issue>,
    revoked: HashSet<String>,
}

impl Books {
    pub(super) fn open(folder: &Path) -> Result<Self, CaError> {
        let revoked = record::all_revoked(folder)?.into_iter().map(|entry| entry.serial);
        Ok(Self { issued: record::all_issued(folder)?, revoked: revoked.collect() })
    }

    /// The record of a certificate that is still good, as far as this authority knows.
    pub(super) fn of_file(&self, path: &Path) -> Result<&Issue, CaError> {
        let certificates = Certificate::read_all(path)?;
        let is_ours = |issue: &&Issue| certificates.first().is_some_and(|own| issue.is_of(own));
        let issue = self.issued.iter().find(is_ours).ok_or_else(|| {
            CaError::new(format!(
                "{} was not issued by this authority, or its record is lost",
                path.display()
            ))
        })?;
        self.not_revoked(issue)
    }

    fn not_revoked<'a>(&self, issue: &'a Issue) -> Result<&'a Issue, CaError> {
        if self.revoked.contains(&issue.serial) {
            return Err(CaError::new(format!("{} was revoked already", describe(issue))));
        }
        Ok(issue)
    }

    /// By serial number, by name, or by the certificate itself, in this order.
    fn select(&self, what: &str, all: bool, now: SystemTime) -> Result<Vec<&Issue>, CaError> {
        let serial = what.replace(':', "").to_ascii_lowercase();
        if let Some(issue) = self.issued.iter().find(|issue| issue.serial == serial) {
            return Ok(vec![self.not_revoked(issue)?]);
        }
        let named = self.issued.iter().filter(|issue| issue.record.name == what);
        let named: Vec<_> = named.collect();
        if named.is_empty() && Path::new(what).exists() {
            return Ok(vec![self.of_file(what.as_ref())?]);
        }
        if named.is_empty() {
            return Err(CaError::new(format!(
                "nothing was issued for '{}', and it is neither a serial number nor a file; issued.jsonl in the authority's folder lists what was issued",
                printable(what)
            )));
        }
        let good = |issue: &&Issue| issue.not_after >= now && !self.revoked.contains(&issue.serial);
        let good: Vec<_> = named.into_iter().filter(good).collect();
        match good.len() {
            0 => {
                Err(CaError::new(format!("all certificates of {what} have expired or are revoked")))
            }
            1 => Ok(good),
            _ if all => Ok(good),
            count => {
                let lines: Vec<_> = good.into_iter().map(describe).collect();
                Err(CaError::new(format!(
                    "{what} has {count} valid certificates; name one by its serial number, or revoke them all with --all: {}",
                    lines.join("; ")
                )))
            }
        }
    }
}

fn describe(issue: &Issue) -> String {
    let Issue { record, serial, not_after, .. } = issue;
    let (kind, name) = (record.kind.word(), &record.name);
    format!("serial {serial}, for the {kind} {name}, valid until {}", moment(*not_after))
}
