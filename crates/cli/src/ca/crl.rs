//! `rexec ca crl`: the list of what was revoked (RFC 5280, section 5).

use super::authority::Authority;
use super::{CaError, Folder, record, store};
use clap::{Args, ValueHint};
use rexec_client::certificate::{RevocationList, moment};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

/// The last list that was made, in the authority's folder.
pub(super) const LIST: &str = "ca.crl";
/// The label of a list in PEM.
const LABEL: &str = "X509 CRL";

/// Make a new revocation list.
#[derive(Debug, Args)]
pub(super) struct Crl {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    folder: Folder,
}

/// How the list is made.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How long the list is good; whoever has a list that is older trusts nobody
    #[arg(long, value_name = "N", default_value_t = 7)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Write the list to this file, too; - is the standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
}

impl Crl {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let authority = Authority::open(self.folder.path()?)?;
        let _lock = store::lock(authority.folder())?;
        self.options.make(&authority, now, out)
    }
}

impl Options {
    /// Makes the next list. The folder is locked by the caller.
    pub(super) fn make(
        self,
        authority: &Authority,
        now: OffsetDateTime,
        out: &mut dyn Write,
    ) -> Result<(), CaError> {
        let path = authority.folder().join(LIST);
        let number = next_number(&path)?;
        let revocations = record::all_revoked(authority.folder())?;
        let end = now
            .checked_add(Duration::days(self.days.into()))
            .ok_or_else(|| CaError::new("--days is too far in the future"))?;
        let pem = authority.revocation_list(&revocations, number, now, end)?.pem()?;
        store::write(&path, pem.as_bytes(), store::PUBLIC, true)?;
        let path = match self.out {
            Some(stdout) if stdout.as_os_str() == "-" => {
                return Ok(out.write_all(pem.as_bytes())?);
            }
            Some(copy) => {
                store::write(&copy, pem.as_bytes(), store::PUBLIC, true)?;
                copy
            }
            None => path,
        };
        let (path, end) = (path.display(), moment(end.into()));
        let count = revocations.len();
        writeln!(
            out,
            "Made {path}: list number {number}, {count} revoked, good until {end}.\n\n\
             Next: scp {path} root@HOST:/etc/rexec/authority.crl   for each agent, whose agent.toml says\n      \
             crl = \"/etc/rexec/authority.crl\"; and to ~/.config/rexec/authority.crl of each user.\n\
             Whoever has a list trusts nobody once it is older than that: have cron make and copy one every day."
        )?;
        Ok(())
    }
}

/// All lists of a PEM file.
pub(super) fn read_all(path: &Path) -> Result<Vec<RevocationList>, CaError> {
    let unusable = |why: &dyn std::fmt::Display| {
        CaError::new(format!("{} cannot be used: {why}", path.display()))
    };
    let file = File::open(path).map_err(|error| CaError::io("read", path, &error))?;
    let mut lists = Vec::new();
    for section in Pem::iter_from_reader(BufReader::new(file)) {
        let section = section.map_err(|error| unusable(&error))?;
        if section.label == LABEL {
            lists.push(RevocationList::of(&section.contents).map_err(|error| unusable(&error))?);
        }
    }
    Ok(lists)
}

/// Lists of one authority are counted, and no number is used twice.
fn next_number(path: &Path) -> Result<u64, CaError> {
    if !path.exists() {
        return Ok(1);
    }
    let last = read_all(path)?.pop().and_then(|list| list.number?.parse::<u64>().ok());
    let next = last.and_then(|number| number.checked_add(1));
    next.ok_or_else(|| {
        let path = path.display();
        CaError::new(format!("{path} cannot be used: it holds no numbered revocation list"))
    })
}
