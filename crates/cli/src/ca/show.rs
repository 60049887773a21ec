//! `rexec ca show`: what certificates and revocation lists say.

use super::authority::CERTIFICATE;
use super::certificate::Certificate;
use super::{CaError, Folder, crl};
use clap::{Args, ValueHint};
use rexec_client::certificate::{RevocationList, moment};
use rexec_client::printable;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// Show what certificates and revocation lists say.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// A PEM file with certificates or revocation lists [default: the authority's]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Serialize)]
struct Line<'a> {
    file: String,
    uris: &'a [String],
    hosts: &'a [String],
    purposes: &'a [String],
    authority: bool,
    subject: &'a str,
    issuer: &'a str,
    serial: &'a str,
    fingerprint: String,
    not_before: String,
    not_after: String,
    valid: bool,
}

impl Show {
    pub(super) fn run(self, now: OffsetDateTime, out: &mut dyn Write) -> Result<(), CaError> {
        let Self { file, json, folder } = self;
        let file = match file {
            Some(file) => file,
            None => folder.path()?.join(CERTIFICATE),
        };
        let lists = crl::read_all(&file)?;
        for list in &lists {
            if json {
                list_line(&file, list, now.into(), out)?;
            } else {
                list_text(&file, list, now.into(), out)?;
            }
        }
        if !lists.is_empty() {
            return Ok(());
        }
        for certificate in Certificate::read_all(&file)? {
            if json {
                line(&file, &certificate, now.into(), out)?;
            } else {
                text(&file, &certificate, now.into(), out)?;
            }
        }
        Ok(())
    }
}

fn line(
    file: &Path,
    certificate: &Certificate,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), CaError> {
    let summary = &certificate.summary;
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let line = Line {
        file: file.display().to_string(),
        uris: &summary.uris,
        hosts: &summary.hosts,
        purposes: &summary.purposes,
        authority: summary.authority,
        subject: &summary.subject,
        issuer: &summary.issuer,
        serial: &summary.serial,
        fingerprint: certificate.fingerprint().to_string(),
        not_before: time(summary.not_before),
        not_after: time(summary.not_after),
        valid: (summary.not_before..=summary.not_after).contains(&now),
    };
    let line = serde_json::to_string(&line).map_err(|error| CaError::new(error.to_string()))?;
    Ok(writeln!(out, "{line}")?)
}

fn text(
    file: &Path,
    certificate: &Certificate,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), CaError> {
    let summary = &certificate.summary;
    let role = match (summary.is_for_agents(), summary.is_for_clients(), summary.authority) {
        (.., true) => "signing agents and users",
        (true, true, _) => "agents and users",
        (true, false, _) => "agents",
        (false, true, _) => "users",
        (false, false, _) => "neither agents nor users",
    };
    let rows = [
        ("names", [summary.uris.as_slice(), summary.hosts.as_slice()].concat().join(", ")),
        ("subject", summary.subject.clone()),
        ("for", format!("{role} ({})", purposes(&summary.purposes))),
        ("valid", format!("{} to {}", moment(summary.not_before), moment(summary.not_after))),
        ("", state(summary.not_before, summary.not_after, now)),
        ("issuer", summary.issuer.clone()),
        ("serial", summary.serial.clone()),
        ("sha256", certificate.fingerprint().to_string()),
    ];
    writeln!(out, "{}", file.display())?;
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "  {name:<8} {}", printable(value))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ListLine<'a> {
    file: String,
    issuer: &'a str,
    number: Option<&'a str>,
    revoked: usize,
    this_update: String,
    next_update: String,
    valid: bool,
}

fn list_line(
    file: &Path,
    list: &RevocationList,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), CaError> {
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let line = ListLine {
        file: file.display().to_string(),
        issuer: &list.issuer,
        number: list.number.as_deref(),
        revoked: list.entries,
        this_update: time(list.this_update),
        next_update: time(list.next_update),
        valid: now < list.next_update,
    };
    let line = serde_json::to_string(&line).map_err(|error| CaError::new(error.to_string()))?;
    Ok(writeln!(out, "{line}")?)
}

fn list_text(
    file: &Path,
    list: &RevocationList,
    now: SystemTime,
    out: &mut dyn Write,
) -> Result<(), CaError> {
    let RevocationList { issuer, number, this_update, next_update, entries } = list;
    writeln!(out, "{}", file.display())?;
    let number = number.as_deref().unwrap_or("without number");
    writeln!(out, "  {:<8} revocation list {}, {entries} revoked", "what", printable(number))?;
    writeln!(out, "  {:<8} {issuer}", "issuer")?;
    writeln!(out, "  {:<8} {} to {}", "valid", moment(*this_update), moment(*next_update))?;
    writeln!(out, "  {:<8} {}", "", state(*this_update, *next_update, now))?;
    Ok(())
}

fn purposes(purposes: &[String]) -> String {
    if purposes.is_empty() { "no extended key usage".to_owned() } else { purposes.join(", ") }
}

fn state(from: SystemTime, to: SystemTime, now: SystemTime) -> String {
    if let Ok(ahead) = from.duration_since(now) {
        return format!("not valid for another {}", rough(ahead));
    }
    match to.duration_since(now) {
        Ok(left) => format!("{} left", rough(left)),
        Err(past) => format!("expired {} ago", rough(past.duration())),
    }
}

/// The largest unit is enough.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..=119 => (seconds, "seconds"),
        120..=7199 => (seconds / 60, "minutes"),
        7200..=172_799 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}
