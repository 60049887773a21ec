//! Certificates are renewed while the agent runs.

use super::server_config;
use crate::credentials::{CredentialError, Credentials, Files, Stamp};
use crate::explain::moment;
use rustls::ServerConfig;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often files that change while they are read are read again.
const ATTEMPTS: usize = 3;

/// The agent's TLS configuration, which follows its files.
///
/// A new version is taken whole or not at all: all files are read and checked together, and where
/// they don't make a consistent set, as between the two steps of replacing a certificate and its
/// key, the one in force stays. Connections keep the configuration that they began with.
#[derive(Debug)]
pub struct Reloading {
    files: Files,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<ServerConfig>,
    /// The version that was read last, good or bad.
    seen: Vec<Stamp>,
}

impl Reloading {
    /// Reads the files for the first time.
    pub fn new(files: Files) -> Result<Self, CredentialError> {
        let (seen, loaded) = load(&files);
        let (current, _) = loaded?;
        Ok(Self { files, state: Mutex::new(State { current, seen }) })
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.state().current.clone()
    }

    /// Where it comes from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Looks whether a file has changed, which costs a system call for each, and if so reads them
    /// all. True if there is a new configuration.
    pub fn refresh(&self) -> bool {
        if stamps(&self.files) == self.state().seen {
            return false;
        }
        let (seen, loaded) = load(&self.files);
        let mut state = self.state();
        state.seen = seen;
        match loaded {
            Ok((current, credentials)) => {
                state.current = current;
                let summary = credentials.summary();
                let (names, until) = (summary.names(), moment(summary.not_after));
                tracing::info!(names, until, serial = summary.serial, "certificates reloaded");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the new certificates cannot be used; those in use stay");
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced field by field and valid after each.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Loaded = Result<(Arc<ServerConfig>, Credentials), CredentialError>;

/// Reads one version. The stamps are those from before the reading, so that what changes later is
/// a change.
fn load(files: &Files) -> (Vec<Stamp>, Loaded) {
    let read = || Credentials::load(files).and_then(|own| Ok((server_config(&own)?, own)));
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
