//! `rexec ca issue-agent`: a certificate for a machine.

use super::authority::{Authority, Issued};
use super::record::{Kind, Record};
use super::{CaError, Folder, store};
use clap::{Args, ValueHint};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};

/// Issue a certificate for an agent.
#[derive(Debug, Args)]
pub(super) struct IssueAgent {
    /// The DNS name or address by which clients will dial the machine
    #[arg(value_name = "NAME", value_hint = ValueHint::Hostname)]
    name: String,
    /// A further DNS name or address
    #[arg(long, value_name = "DNS|IP", value_hint = ValueHint::Hostname)]
    san: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    folder: Folder,
}

/// Where key and certificate go.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Where to write key and certificate; - is the standard output [default: NAME.pem here]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Target {
    /// Writes the file, or the text itself to `out`, and then has nothing to add.
    pub(super) fn place(
        self,
        name: &str,
        out: &mut dyn Write,
        issue: impl FnOnce() -> Result<Issued, CaError>,
    ) -> Result<Option<(PathBuf, String)>, CaError> {
        let path = self.out.unwrap_or_else(|| PathBuf::from(format!("{name}.pem")));
        if path.as_os_str() == "-" {
            out.write_all(issue()?.pem.as_bytes())?;
            return Ok(None);
        }
        // Asked before, so that nothing is issued and recorded in vain.
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(store::exists(&path));
        }
        let issued = issue()?;
        store::write(&path, issued.pem.as_bytes(), store::SECRET, self.force)?;
        Ok(Some((path, issued.until)))
    }
}

impl IssueAgent {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let Self { name, mut san, days, target, folder } = self;
        san.retain(|other| *other != name);
        let params = params(&name, &san)?;
        let authority = Authority::open(folder.path()?)?;
        let record = Record { kind: Kind::Agent, name: name.clone(), more: san };
        let issue = || authority.issue(params, Duration::days(days.into()), now, record);
        let Some((path, until)) = target.place(&name, out, issue)? else { return Ok(()) };
        let path = path.display();
        writeln!(
            out,
            "Issued {path} for the agent {name}, valid until {until}.\n\n\
             Next: scp {path} root@{name}:/etc/rexec/agent.pem\n      \
             scp {} root@{name}:/etc/rexec/authority.crt\n\
             and there: rexec-agent. One that is running already takes a renewed certificate by itself.",
            authority.certificate().display(),
        )?;
        Ok(())
    }
}

/// A certificate for the agent of this machine, but for key and validity.
pub(super) fn params(name: &str, more: &[String]) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for host in std::iter::once(name).chain(more.iter().map(String::as_str)) {
        params.subject_alt_names.push(host_name(host)?);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A name as it may stand in a certificate: exact, because a wildcard would let one machine pass
/// for another.
fn host_name(text: &str) -> Result<SanType, CaError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let legal_byte = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let legal_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(legal_byte)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits only is an address that was mistyped.
    let top = text.rsplit('.').next().unwrap_or_default();
    let is_number = top.bytes().all(|c| c.is_ascii_digit());
    if text.len() > 253 || is_number || !text.split('.').all(legal_label) {
        return Err(CaError::new(format!(
            "{text:?} is neither a DNS name nor an address (without user, port or wildcard)"
        )));
    }
    text.try_into().map(SanType::DnsName).map_err(|error: rcgen::Error| error.into())
}
