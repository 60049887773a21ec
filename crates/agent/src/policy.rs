//! Who may run what, as whom: one function decides, and its yes is a value.
//!
//! [`decide`] is the only maker of a [`Permit`], and starting a command consumes one, so there is
//! no way to a process that does not pass here.

use crate::account::Account;
use rexec_net::Identity;
use rexec_protocol::message::ExecSpec;
use std::sync::Arc;

/// Proof that policy allowed one command, once, as one local account.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    spec: ExecSpec,
}

impl Permit {
    /// The account that the command runs as.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What was allowed: the value that was decided on is the value that is run.
    pub fn spec(&self) -> &ExecSpec {
        &self.spec
    }
}

/// Policy said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Decides on the decoded request, the same value that is then run.
///
/// Every identity of the authority may run commands as the account that the agent itself runs as.
pub fn decide(identity: &Identity, own: &Arc<Account>, spec: ExecSpec) -> Result<Permit, Denied> {
    match &spec.user {
        Some(user) if *user != own.name => Err(Denied(format!(
            "{} may not run commands as '{user}': this agent runs everything as '{}'; leave the user out",
            identity.name(),
            own.name,
        ))),
        _ => Ok(Permit { account: Arc::clone(own), spec }),
    }
}
