//! `rexec ca init`: a new authority.

use super::authority::{CERTIFICATE, KEY, SKEW};
use super::{CaError, Folder, store};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rexec_client::certificate::moment;
use rexec_client::{Algorithm, Digest, printable};
use std::io::Write;
use time::{Duration, OffsetDateTime};

/// Make a new authority.
#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    folder: Folder,
    /// What to call it in certificates [default: rexec authority and a few random digits]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 3650)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Replace an authority that is there already; all that it issued becomes worthless
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let folder = self.folder.path()?;
        store::private_folder(&folder)?;
        let (key_path, path) = (folder.join(KEY), folder.join(CERTIFICATE));
        for path in [&key_path, &path] {
            if !self.force && path.exists() {
                let words = format!(
                    "there is an authority in {} already; with --force it is replaced, and every certificate that it issued becomes worthless",
                    folder.display()
                );
                return Err(CaError::new(words));
            }
        }
        let key = KeyPair::generate()?;
        let name = match self.name {
            Some(name) => legal(name)?,
            None => default_name(&key),
        };
        let params = params(&name, now, Duration::days(self.days.into()))?;
        let certificate = params.self_signed(&key)?;
        store::write(&key_path, key.serialize_pem().as_bytes(), store::SECRET, self.force)?;
        store::write(&path, certificate.pem().as_bytes(), store::PUBLIC, self.force)?;
        writeln!(
            out,
            "Made the authority \"{name}\" in {}, valid until {}.\n\
             Its key is {} and belongs on no other machine.\n\n\
             Next: rexec ca issue-agent HOST   for each machine that runs an agent\n      \
             rexec ca issue-user NAME    for each user",
            folder.display(),
            moment(params.not_after.into()),
            key_path.display(),
        )?;
        Ok(())
    }
}

fn params(
    name: &str,
    now: OffsetDateTime,
    validity: Duration,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // It signs agents and users, never other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now.saturating_sub(SKEW);
    params.not_after =
        now.checked_add(validity).ok_or_else(|| CaError::new("--days is too far in the future"))?;
    Ok(params)
}

/// Random, because two authorities of the same name can't be told apart in an error.
fn default_name(key: &KeyPair) -> String {
    let digits = Digest::of(Algorithm::Sha256, key.public_key_raw()).to_string();
    format!("rexec authority {}", digits.get(..8).unwrap_or(&digits))
}

fn legal(name: String) -> Result<String, CaError> {
    // RFC 5280 allows 64 characters.
    if name.is_empty() || name.chars().count() > 64 || printable(&name) != name {
        return Err(CaError::new("--name is 1 to 64 printable characters"));
    }
    Ok(name)
}
