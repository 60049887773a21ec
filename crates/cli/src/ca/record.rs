//! What the authority has done: `issued.jsonl` and `revoked.jsonl`, one JSON object a line.

use super::certificate::Certificate;
use super::{CaError, store};
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::SystemTime;

/// What was issued.
const ISSUED: &str = "issued.jsonl";
/// What of it was revoked.
const REVOKED: &str = "revoked.jsonl";

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Agent,
    User,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
        }
    }
}

/// What a certificate was issued for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// By which it was asked for.
    pub(super) name: String,
    /// The further names of an agent, or the groups of a user.
    pub(super) more: Vec<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issue {
    #[serde(flatten)]
    pub(super) record: Record,
    /// In hexadecimal, as in [`rexec_client::certificate::Summary`].
    pub(super) serial: String,
    fingerprint: String,
    #[serde(with = "rfc3339")]
    pub(super) not_before: SystemTime,
    #[serde(with = "rfc3339")]
    pub(super) not_after: SystemTime,
}

impl Issue {
    pub(super) fn new(record: Record, issued: &Certificate) -> Self {
        let summary = &issued.summary;
        Self {
            record,
            serial: summary.serial.clone(),
            fingerprint: issued.fingerprint().to_string(),
            not_before: summary.not_before,
            not_after: summary.not_after,
        }
    }

    /// Whether this is about that certificate.
    pub(super) fn is_of(&self, certificate: &Certificate) -> bool {
        self.fingerprint == certificate.fingerprint().to_string()
    }
}

/// One certificate that is not to be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revocation {
    pub(super) serial: String,
    kind: Kind,
    name: String,
    pub(super) reason: Reason,
    #[serde(with = "rfc3339")]
    pub(super) time: SystemTime,
}

impl Revocation {
    pub(super) fn new(issue: &Issue, reason: Reason, time: SystemTime) -> Self {
        let Record { kind, name, .. } = issue.record.clone();
        Self { serial: issue.serial.clone(), kind, name, reason, time }
    }
}

/// Why a certificate was revoked: those of RFC 5280, section 5.3.1, that can happen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// None is given
    Unspecified,
    /// Somebody else has, or may have, the private key
    KeyCompromise,
    /// The names or groups in it are no longer right
    AffiliationChanged,
    /// Another certificate has taken its place
    Superseded,
    /// The machine or the user is gone
    CessationOfOperation,
    /// The rights that it gave were withdrawn
    PrivilegeWithdrawn,
}

/// Adds a certificate; it is on disk when this returns.
pub(super) fn issued(folder: &Path, issue: &Issue) -> Result<(), CaError> {
    append(folder, ISSUED, issue)
}

/// Adds a revocation; it is on disk when this returns.
pub(super) fn revoked(folder: &Path, revocation: &Revocation) -> Result<(), CaError> {
    append(folder, REVOKED, revocation)
}

/// Everything that was issued, the oldest first.
pub(super) fn all_issued(folder: &Path) -> Result<Vec<Issue>, CaError> {
    read(folder, ISSUED)
}

/// Everything that was revoked, the oldest first.
pub(super) fn all_revoked(folder: &Path) -> Result<Vec<Revocation>, CaError> {
    read(folder, REVOKED)
}

fn append(folder: &Path, file: &str, value: &impl Serialize) -> Result<(), CaError> {
    let line = serde_json::to_string(value)
        .map_err(|error| CaError::new(format!("cannot record the certificate: {error}")))?;
    store::append(&folder.join(file), &line)
}

fn read<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Vec<T>, CaError> {
    let path = folder.join(file);
    let text = store::read_if_there(&path)?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| CaError::new(format!("{}:{}: {error}", path.display(), number + 1)))
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// Moments as `2026-11-22T19:04:00Z`.
mod rfc3339 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_rfc3339_seconds(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}
