//! From a request to a permit: which local user it is for, who that is, and what policy says.

use crate::account::{Account, AccountError};
use crate::policy::{self, Denied, Permit, Policy};
use crate::server::Agent;
use rexec_guard::holds;
use rexec_net::Identity;
use rexec_protocol::message::{Command, ExecSpec};
use rexec_protocol::outcome::{printable, shorten};
use rexec_protocol::{JobId, NeverStarted, Outcome};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Why there is no permit.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Policy said no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Policy might say yes, but there is no such account to run commands as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// There is no job of the caller's that could have a connection for this.
    #[error("no job {0} of this caller listens here as this local user, or it has ended")]
    NoPort(JobId),
}

impl Refused {
    /// What the client is told.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Denied(denied) => Outcome::Denied { message: shorten(denied.message.clone()) },
            Self::Account(error) => error.outcome(),
            Self::NoPort(_) => {
                let (reason, message) = (NeverStarted::NotFound, self.to_string());
                Outcome::NeverStarted { reason, message }
            }
        }
    }
}

/// Decides on a request of `identity` at `from`, under one version of the policy.
pub async fn authorize(
    agent: &Agent,
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    spec: &ExecSpec,
) -> Result<Permit, Refused> {
    let spec = resolved(spec, &agent.config.subsystems);
    let account = account(agent, policy, identity, from, &spec).await?;
    let port = match &spec.command {
        Command::Accept { job, .. } => {
            let port = agent.jobs.port(job, identity.name(), &account.name);
            Some(port.ok_or_else(|| Refused::NoPort(job.clone()))?)
        }
        _ => None,
    };
    Ok(policy::decide(policy, identity, from, &account, spec, port.as_ref())?)
}

/// The spec with the line that its subsystem stands for, so that policy decides on what is run.
fn resolved(spec: &ExecSpec, subsystems: &BTreeMap<String, String>) -> ExecSpec {
    let mut spec = spec.clone();
    if let Command::Subsystem(name) = &spec.command
        && let Some(line) = subsystems.get(name)
    {
        spec.command = Command::Line(ByteBuf::from(line.as_bytes()));
    }
    spec
}

async fn account(
    agent: &Agent,
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    spec: &ExecSpec,
) -> Result<Arc<Account>, Refused> {
    let (accounts, own) = (&agent.accounts, agent.accounts.own());
    let Some(user) = policy::local_user(policy, identity, from, spec) else {
        // There is no rule about this caller, and policy will say so, whatever the account.
        return Ok(Arc::clone(own));
    };
    // Asked before the user database is, so that who may not be a user does not learn whether it
    // exists.
    policy::may_be(policy, identity, from, &user, spec)?;
    if !holds("account.can_become", accounts.can_become(&user)) {
        let (user, own) = (printable(&user), &own.name);
        let message = format!(
            "nothing can be run as '{user}': this agent is not root, and runs everything as '{own}'"
        );
        return Err(Denied { message, rule: None }.into());
    }
    Ok(accounts.resolve(&user).await?)
}
