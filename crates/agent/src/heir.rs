//! What an agent leaves of a running job to the agent after it.
//!
//! The keeper holds it (see [`crate::keeper::Will`]): a [`Memo`], and the [`Ledger`], which says how
//! far this agent is with the pipes. Both are renewed whenever something changes that they say.

use crate::jobs::meta::Meta;
use crate::jobs::{Job, Leases};
use crate::keeper::Will;
use crate::ledger::Ledger;
use crate::supervisor::{Cause, Leftovers};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where keepers find the next agent, in the state folder.
pub const SOCKET: &str = "adopt.sock";

/// All that has to be known of a running job. JSON, of which unknown keys are skipped and new ones are
/// optional: who reads it may be older or newer than who wrote it. Only the ledger beside it has one layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// Who submitted what.
    pub meta: Meta,
    /// On what terms it runs.
    #[serde(flatten)]
    pub terms: Terms,
    /// Why it is being ended, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The layout of the ledger; see [`Ledger::LAYOUT`].
    #[serde(default)]
    ledger: u32,
}

/// The terms on which a command runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How long it may run, from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What becomes of what the command leaves behind.
    #[serde(default)]
    pub leftovers: Leftovers,
    /// The policy's rule among whose commands it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
}

impl Terms {
    /// How long it may run.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

impl Memo {
    /// What is to be known of `job` now.
    fn of(job: &Job, terms: &Terms, cause: Option<Cause>) -> Self {
        Self { meta: job.meta(), terms: terms.clone(), cause, ledger: Ledger::LAYOUT }
    }

    /// Reads one. One with a ledger of another layout is an error: it is not for this agent.
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let memo: Self = serde_json::from_slice(bytes)?;
        let (here, there) = (Ledger::LAYOUT, memo.ledger);
        if here != there {
            let message = format!("its ledger has layout {there}, and this agent knows {here}");
            return Err(io::Error::other(message));
        }
        Ok(memo)
    }
}

/// Makes the wills of one job.
#[derive(Debug)]
pub struct Heir {
    /// How far this agent is.
    pub ledger: Arc<Ledger>,
    socket: PathBuf,
    leases: Leases,
    grace: Duration,
}

impl Heir {
    /// For a job that began with `ledger`.
    pub fn new(state: &Path, ledger: Ledger, leases: Leases, grace: Duration) -> Self {
        Self { ledger: Arc::new(ledger), socket: state.join(SOCKET), leases, grace }
    }

    /// The will of `job` as it is now.
    pub fn will(&self, job: &Job, terms: &Terms, cause: Option<Cause>) -> Will {
        let memo = Memo::of(job, terms, cause);
        Will {
            memo: serde_json::to_vec(&memo).unwrap_or_default(),
            socket: self.socket.clone(),
            lease: job.lease_without_agent(self.leases),
            timeout: terms.timeout(),
            grace: self.grace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::meta::Owner;
    use rexec_protocol::message::OnFull;
    use rexec_protocol::{Algorithm, Digest, JobId};

    /// Its numbers would be read from the wrong places, and its job be ended.
    #[test]
    fn a_ledger_of_another_layout_is_not_for_this_agent() {
        let meta = Meta {
            job: JobId::new("j").unwrap(),
            owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
            user: "alice".to_owned(),
            body: Digest::of(Algorithm::Sha256, b""),
            algorithm: Algorithm::Sha256,
            command: "true".to_owned(),
            begun_ms: 1,
            durable: false,
            resumable: true,
            kept: true,
            on_disconnect: None,
            on_full: OnFull::Block,
            stdin: false,
            terminal: false,
            terminal_size: None,
            connection: false,
            listens: None,
            listening: None,
            boot: String::new(),
        };
        let ledger = Ledger::LAYOUT;
        let memo = Memo { meta, terms: Terms::default(), cause: None, ledger };
        let mut text = serde_json::to_value(&memo).unwrap();
        assert_eq!(Memo::read(text.to_string().as_bytes()).unwrap(), memo);
        text["ledger"] = (ledger + 1).into();
        assert!(Memo::read(text.to_string().as_bytes()).is_err());
        // As an agent wrote it that had another one, and no word for it.
        text.as_object_mut().unwrap().remove("ledger");
        assert!(Memo::read(text.to_string().as_bytes()).is_err());
    }
}
