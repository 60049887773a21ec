//! `rexec ca issue-user`: a certificate for a person or a program.

use super::authority::Authority;
use super::issue_agent::Target;
use super::record::{Kind, Record};
use super::{CaError, Folder};
use clap::Args;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rexec_client::names::{self, MAX_GROUPS};
use std::io::Write;
use time::{Duration, OffsetDateTime};

/// Issue a certificate for a user.
#[derive(Debug, Args)]
pub(super) struct IssueUser {
    /// The user's name, as policies and logs will show it
    #[arg(value_name = "NAME")]
    name: String,
    /// A group that the user is in
    #[arg(long, value_name = "G")]
    group: Vec<String>,
    /// How long it is valid, in hours
    #[arg(long, value_name = "N", default_value_t = 12, conflicts_with = "days")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=876_000))]
    hours: u32,
    /// How long it is valid, in days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: Option<u32>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    folder: Folder,
}

impl IssueUser {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let Self { name, group: groups, hours, days, target, folder } = self;
        if groups.len() > MAX_GROUPS {
            let words = format!("{} groups; at most {MAX_GROUPS} are allowed", groups.len());
            return Err(CaError::new(words));
        }
        let params = params(&name, &groups)?;
        let validity = match days {
            Some(days) => Duration::days(days.into()),
            None => Duration::hours(hours.into()),
        };
        let authority = Authority::open(folder.path()?)?;
        let record = Record { kind: Kind::User, name: name.clone(), more: groups };
        let issue = || authority.issue(params, validity, now, record);
        let Some((path, until)) = target.place(&name, out, issue)? else { return Ok(()) };
        let (path, authority) = (path.display(), authority.certificate());
        writeln!(
            out,
            "Issued {path} for the user {name}, valid until {until}.\n\n\
             Next, for {name}: mkdir -p ~/.config/rexec\n                  \
             install -m 600 {path} ~/.config/rexec/identity.pem\n                  \
             install -m 644 {} ~/.config/rexec/authority.crt\n                  \
             rexec HOST COMMAND",
            authority.display(),
        )?;
        Ok(())
    }
}

/// A certificate for this user, but for key and validity.
pub(super) fn params(name: &str, groups: &[String]) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let user = std::iter::once(names::user_uri(name));
    for uri in user.chain(groups.iter().map(|group| names::group_uri(group))) {
        let uri = uri.map_err(|error| CaError::new(error.to_string()))?;
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}
