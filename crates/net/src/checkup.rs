//! Checks of an installation, for `doctor`: a list of findings, each one line with its remedy.

use crate::credentials::{self, Credentials, Files, Revocations};
use crate::explain::{self, RevocationList, Summary, moment};
use crate::identity::Identity;
use crate::tls;
use rustls::{CertificateError, Error};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates that are good for less than this are made anew so often that their last day is no
/// news.
const SHORT_LIVED: Duration = Duration::from_secs(3 * 86_400);

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It will not work, or not safely.
    Wrong,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in one word.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// In words; what to do, where something is to be done.
    pub message: String,
}

/// `ok`, `note` or `WRONG`, then what and why.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Wrong => "WRONG",
        };
        write!(f, "{verdict:<6}{}: {}", self.check, self.message)
    }
}

/// All findings, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(Vec<Check>);

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, check: &'static str, verdict: Verdict, message: impl Into<String>) {
        self.0.push(Check { check, verdict, message: message.into() });
    }

    /// Adds what has worked, or not.
    pub fn judge(&mut self, check: &'static str, result: Result<String, String>) {
        match result {
            Ok(message) => self.add(check, Verdict::Ok, message),
            Err(message) => self.add(check, Verdict::Wrong, message),
        }
    }

    /// The findings.
    pub fn checks(&self) -> &[Check] {
        &self.0
    }

    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|check| check.verdict != Verdict::Wrong)
    }
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An agent's.
    Agent,
    /// A user's.
    User,
}

/// Adds what there is to say about keys, certificates, authorities and revocation lists.
pub fn credentials(report: &mut Report, side: Side, files: &Files, now: SystemTime) {
    let loaded = Credentials::load(files);
    let fit = "can be read by those only who may, and fit together";
    report.judge("files", loaded.as_ref().map(|_| fit.to_owned()).map_err(ToString::to_string));
    // Even a file that is otherwise wrong may hold a certificate that can be judged.
    let Some(own) = credentials::peek(&files.identity) else { return };
    report.judge("certificate", names(side, &own, files));
    let (verdict, message) = validity(side, &own, now);
    report.add("validity", verdict, message);
    let Ok(loaded) = loaded else { return };
    if let Some((verdict, message)) = trust(side, &loaded, now) {
        report.add("authority", verdict, message);
    }
    let (verdict, message) = revocation(loaded.revocations(), now);
    report.add("revocation", verdict, message);
}

fn names(side: Side, own: &Summary, files: &Files) -> Result<String, String> {
    let file = files.identity.display();
    let (fits, whose) = match side {
        Side::Agent => (own.is_for_agents(), "agents"),
        Side::User => (own.is_for_clients(), "users"),
    };
    if !fits {
        let (purposes, command) = (own.purposes(), issue(side));
        return Err(format!(
            "{file} is not for {whose} (extended key usage {purposes}); {command}"
        ));
    }
    match side {
        Side::Agent if own.hosts.is_empty() => Err(format!(
            "{file} names no host, so no client accepts it (the common name does not count); {}",
            issue(side)
        )),
        Side::Agent => Ok(format!("{file} is for the agent at {}", own.names())),
        Side::User => Identity::check(own)
            .map(|()| format!("{file} is for the user {}", own.names()))
            .map_err(|error| format!("{file}: {error}; {}", issue(side))),
    }
}

fn validity(side: Side, own: &Summary, now: SystemTime) -> (Verdict, String) {
    let (from, to, clock) = (moment(own.not_before), moment(own.not_after), moment(now));
    if now < own.not_before {
        let words = format!(
            "not valid before {from}, and this machine's clock says {clock}; set the clock that is wrong"
        );
        return (Verdict::Wrong, words);
    }
    let Ok(left) = own.not_after.duration_since(now) else {
        let words =
            format!("expired on {to}, and this machine's clock says {clock}; {}", renew(side));
        return (Verdict::Wrong, words);
    };
    let lifetime = own.not_after.duration_since(own.not_before).unwrap_or_default();
    if is_short(left, lifetime) {
        return (Verdict::Note, format!("valid only until {to}; {}", renew(side)));
    }
    (Verdict::Ok, format!("valid from {from} to {to}"))
}

/// Under a third of its time, or a day.
fn is_short(left: Duration, lifetime: Duration) -> bool {
    left < lifetime / 3 || (lifetime >= SHORT_LIVED && left < DAY)
}

/// Whether this side itself would accept its certificate from a peer. Peers may trust other
/// authorities than it does, so that it would not is no fault unless the certificate was revoked.
fn trust(side: Side, own: &Credentials, now: SystemTime) -> Option<(Verdict, String)> {
    let authority = own.files().authority.display();
    match tls::own_certificate(own, side, now) {
        Ok(()) => {
            Some((Verdict::Ok, format!("the authority in {authority} signed the certificate")))
        }
        Err(Error::InvalidCertificate(CertificateError::Revoked)) => {
            let command = issue(side);
            Some((Verdict::Wrong, format!("it has revoked the certificate; {command}")))
        }
        Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Some((
            Verdict::Note,
            format!(
                "the certificate was signed by '{}' and not by the authority in {authority}; peers must have that one as their authority",
                own.summary().issuer
            ),
        )),
        // What else is wrong has its own line.
        Err(_) => None,
    }
}

fn revocation(revocations: Option<&Revocations>, now: SystemTime) -> (Verdict, String) {
    let Some(revocations) = revocations else {
        let words = "there is no revocation list, so no certificate counts as revoked";
        return (Verdict::Note, words.to_owned());
    };
    let short = |list: &RevocationList| {
        let left = list.next_update.duration_since(now).unwrap_or_default();
        let lifetime = list.next_update.duration_since(list.this_update).unwrap_or_default();
        is_short(left, lifetime)
    };
    let lists: Vec<_> = revocations.lists().iter().map(describe).collect();
    let lists = lists.join("; ");
    if revocations.lists().iter().any(short) {
        let remedy = "make a new one with `rexec ca crl` before nobody is trusted any more";
        return (Verdict::Note, format!("{lists}; {remedy}"));
    }
    (Verdict::Ok, lists)
}

fn describe(list: &RevocationList) -> String {
    let RevocationList { issuer, number, entries, next_update, .. } = list;
    let number = number.as_ref().map(|number| format!(" number {number}")).unwrap_or_default();
    format!("list{number} of {issuer}: {entries} revoked, good until {}", moment(*next_update))
}

fn issue(side: Side) -> &'static str {
    match side {
        Side::Agent => explain::ISSUE_AGENT,
        Side::User => explain::ISSUE_USER,
    }
}

fn renew(side: Side) -> &'static str {
    match side {
        Side::Agent => {
            "renew it with `rexec ca renew`; a running agent takes the new one by itself"
        }
        Side::User => "renew it with `rexec ca renew` or `rexec ca issue-user NAME`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(purpose: &str) -> Summary {
        let now = SystemTime::now();
        Summary {
            uris: vec!["rexec:user:alice".into()],
            hosts: vec!["web1".into()],
            subject: String::new(),
            issuer: "CN=x".into(),
            serial: "01".into(),
            purposes: vec![purpose.into()],
            authority: false,
            not_before: now - 10 * DAY,
            not_after: now + 20 * DAY,
        }
    }

    #[test]
    fn validity_is_judged_by_what_is_left() {
        let own = summary("clientAuth");
        for (days, verdict, part) in [
            (-11, Verdict::Wrong, "not valid before"),
            (0, Verdict::Ok, "valid from"),
            (11, Verdict::Note, "valid only until"),
            (21, Verdict::Wrong, "expired on"),
        ] {
            let now = SystemTime::now();
            let now = if days < 0 { now - 11 * DAY } else { now + DAY * days as u32 };
            let (found, words) = validity(Side::User, &own, now);
            assert!(found == verdict && words.contains(part), "{days}: {words}");
        }
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert!(!is_short(hours(8), hours(12)), "a certificate for a day of work");
        assert!(is_short(hours(3), hours(12)) && is_short(hours(23), hours(72)));
    }

    #[test]
    fn names_are_those_that_count() {
        let files = Files {
            identity: "me.pem".into(),
            key: None,
            authority: "ca.crt".into(),
            revocations: None,
        };
        let judge = |side, change: &dyn Fn(&mut Summary)| {
            let mut own = summary(if side == Side::Agent { "serverAuth" } else { "clientAuth" });
            change(&mut own);
            names(side, &own, &files)
        };
        assert!(judge(Side::Agent, &|_| {}).is_ok() && judge(Side::User, &|_| {}).is_ok());
        let two = judge(Side::User, &|own| own.uris.push("rexec:user:root".into())).unwrap_err();
        assert!(two.contains("me.pem") && two.contains("several users"), "{two}");
        let none = judge(Side::Agent, &|own| own.hosts.clear()).unwrap_err();
        assert!(none.contains("names no host") && none.contains("issue-agent"), "{none}");
        let other = judge(Side::User, &|own| own.purposes = vec!["serverAuth".into()]).unwrap_err();
        assert!(other.contains("not for users") && other.contains("serverAuth"), "{other}");
    }
}
