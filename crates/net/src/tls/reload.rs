//! Certificates are renewed while the agent runs.

use super::{Chain, server};
use crate::credentials::{CredentialError, Credentials, Files, Revocations, Stamp};
use crate::error::NetError;
use crate::explain::{RevocationList, moment, rejection};
use rexec_guard::holds;
use rexec_protocol::ErrorCode;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, ServerConfig};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// How often files that change while they are read are read again.
const ATTEMPTS: usize = 3;

/// The agent's TLS configuration, which follows its files.
///
/// A new version is taken whole or not at all: all files are read and checked together, and where
/// they don't make a consistent set, as between the two steps of replacing a certificate and its
/// key, the one in force stays. Connections keep the keys that they began with; whether their peer
/// is still trusted they ask again for each version: see [`Reloading::subscribe`] and
/// [`Reloading::recheck`].
#[derive(Debug)]
pub struct Reloading {
    files: Files,
    state: Mutex<State>,
    /// Counts what may change the answer of `recheck`.
    versions: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    current: Version,
    /// The version that was read last, good or bad.
    seen: Vec<Stamp>,
    /// Why the version that was read last is not in force, if it is not.
    refused: Option<String>,
}

#[derive(Debug, Clone)]
struct Version {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the revocation lists, if there are any, are to be replaced.
    next_update: Option<SystemTime>,
    lists: Vec<RevocationList>,
}

/// What a look at files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing new.
    Unchanged,
    /// A new version is in force.
    Changed,
    /// A new version cannot be used, for this reason; the one in force stays.
    Failed(String),
}

impl Refreshed {
    /// Whether a new version is in force.
    pub fn is_change(&self) -> bool {
        *self == Self::Changed
    }
}

impl Reloading {
    /// Reads the files for the first time.
    pub fn new(files: Files) -> Result<Self, CredentialError> {
        let (seen, loaded) = load(&files);
        let (current, _) = loaded?;
        let state = Mutex::new(State { current, seen, refused: None });
        Ok(Self { files, state, versions: watch::Sender::new(0) })
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().current.config)
    }

    /// Where it comes from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Changes whenever [`Reloading::recheck`] may have another answer than before.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// Verifies a client again that was accepted before, by the version in force now. That its
    /// certificate has expired meanwhile is not asked here, because running commands may outlast
    /// that: see [`Chain::expiry`]. And a revocation list that has become too old stops what is new
    /// ([`Reloading::stale`]), not what runs: it does not say that anybody was revoked.
    pub fn recheck(&self, chain: &Chain) -> Result<(), NetError> {
        let Version { verifier, .. } = self.state().current.clone();
        let now = SystemTime::now();
        let Some((own, others)) = chain.certificates().split_first() else { return Ok(()) };
        match verifier.verify_client_cert(own, others, chain.valid_moment(now)) {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. },
            )) => Ok(()),
            Err(_) if holds("standing.trusted", false) => Ok(()),
            Err(error) => Err(NetError::Untrusted {
                code: ErrorCode::Revoked,
                message: rejection(&error, own, &self.files, now),
            }),
        }
    }

    /// In words, if the revocation lists in force are too old to say anything: then no client is
    /// accepted, and none that is connected may begin anything new.
    pub fn stale(&self, now: SystemTime) -> Option<String> {
        let until = self.state().current.next_update.filter(|until| now >= *until)?;
        let list = self.files.revocations.as_ref()?.display();
        Some(format!(
            "the revocation list in {list} was to be replaced by {}, and this machine's clock says {}; make a new one with `rexec ca crl` and copy it there",
            moment(until),
            moment(now)
        ))
    }

    /// This machine's clock was set: what was wrong with the files by the old time may be right now,
    /// and the other way round.
    pub fn clock_was_set(&self) {
        self.state().seen.clear();
        self.versions.send_modify(|version| *version += 1);
    }

    /// Looks whether a file has changed, which costs a system call for each, and if so reads them
    /// all.
    pub fn refresh(&self) -> Refreshed {
        if stamps(&self.files) == self.state().seen {
            return Refreshed::Unchanged;
        }
        let (seen, loaded) = load(&self.files);
        let mut state = self.state();
        state.seen = seen;
        let loaded = loaded.and_then(|(version, own)| {
            let newer =
                own.revocations().map_or(Ok(()), |new| new.demand_newer(&state.current.lists));
            let place = self.files.revocations.as_deref().unwrap_or(Path::new(""));
            newer.map(|()| (version, own)).map_err(|fault| fault.of(place))
        });
        match loaded {
            Ok((current, credentials)) => {
                state.current = current;
                state.refused = None;
                drop(state);
                self.versions.send_modify(|version| *version += 1);
                let summary = credentials.summary();
                let (names, until) = (summary.names(), moment(summary.not_after));
                let revoked = credentials.revocations().map(|revocations| {
                    revocations.lists().iter().map(|list| list.entries).sum::<usize>()
                });
                let serial = &summary.serial;
                tracing::info!(names, until, serial, revoked, "certificates reloaded");
                Refreshed::Changed
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate files cannot be used; those in use stay");
                state.refused = Some(error.to_string());
                Refreshed::Failed(error.to_string())
            }
        }
    }

    /// Looks for somebody who waits for the answer: reads again what was refused, and fails as long as
    /// it is.
    pub fn refresh_now(&self) -> Refreshed {
        {
            let mut state = self.state();
            if state.refused.is_some() {
                // It may have been the disk's fault, and then the file has not changed.
                state.seen.clear();
            }
        }
        // The look that comes by itself may have been faster.
        match (self.refresh(), self.refused()) {
            (Refreshed::Unchanged, Some(reason)) => Refreshed::Failed(reason),
            (looked, _) => looked,
        }
    }

    /// Why the version on disk is not the one in force, if it was refused.
    pub fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced field by field and valid after each.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Loaded = Result<(Version, Credentials), CredentialError>;

/// Reads one version. The stamps are those from before the reading, so that what changes later is
/// a change.
fn load(files: &Files) -> (Vec<Stamp>, Loaded) {
    let read = || {
        let own = Credentials::load(files)?;
        let (config, verifier) = server(&own)?;
        let next_update = own.revocations().and_then(Revocations::next_update);
        let lists = own.revocations().map_or_else(Vec::new, |own| own.lists().to_vec());
        Ok((Version { config, verifier, next_update, lists }, own))
    };
    let mut seen = stamps(files);
    let mut loaded = read();
    for _ in 1..ATTEMPTS {
        let now = stamps(files);
        if now == seen {
            break;
        }
        (seen, loaded) = (now, read());
    }
    (seen, loaded)
}

fn stamps(files: &Files) -> Vec<Stamp> {
    files.paths().map(Stamp::of).collect()
}
