//! `issued.jsonl`: what the authority has signed.

use super::certificate::Certificate;
use super::{CaError, store};
use serde::Serialize;
use std::path::Path;

/// The file in the authority's folder.
pub(super) const FILE: &str = "issued.jsonl";

/// What a certificate was issued for.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    /// "agent" or "user".
    pub(super) kind: &'static str,
    /// By which it was asked for.
    pub(super) name: String,
    /// The further names of an agent, or the groups of a user.
    pub(super) more: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    serial: &'a str,
    fingerprint: String,
    not_before: String,
    not_after: String,
}

/// Adds one line; it is on disk when this returns.
pub(super) fn append(folder: &Path, record: &Record, issued: &Certificate) -> Result<(), CaError> {
    let summary = &issued.summary;
    let line = Line {
        record,
        serial: &summary.serial,
        fingerprint: issued.fingerprint().to_string(),
        not_before: humantime::format_rfc3339_seconds(summary.not_before).to_string(),
        not_after: humantime::format_rfc3339_seconds(summary.not_after).to_string(),
    };
    let line = serde_json::to_string(&line)
        .map_err(|error| CaError::new(format!("cannot record the certificate: {error}")))?;
    store::append(&folder.join(FILE), &line)
}
