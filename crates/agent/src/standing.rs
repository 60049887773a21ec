//! Whether a client that was accepted is still welcome.
//!
//! A connection can last for weeks, its certificate may not. So each session asks again whenever
//! the certificate files change, or the clock was set, and when its client's certificate expires:
//!
//! - revoked, or of an authority that is trusted no more: the connection ends at once, and its
//!   commands with it;
//! - expired: nothing new is begun, an idle connection ends, and what runs may go on for
//!   [`crate::config::Limits::expired_grace`]: to cut a backup in two because of a date helps nobody;
//! - the revocation list is too old: nothing new is begun.

use crate::server::Agent;
use rexec_guard::holds;
use rexec_net::NetError;
use rexec_net::explain::moment;
use rexec_net::tls::Chain;
use rexec_protocol::ErrorCode;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::sleep;

/// Until when a client's certificate is good.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// What the agent goes by.
    end: SystemTime,
    /// What the certificate says.
    not_after: SystemTime,
}

/// One client's certificate, and what may change about it.
#[derive(Debug)]
pub struct Standing {
    chain: Chain,
    versions: watch::Receiver<u64>,
}

impl Standing {
    /// For a client that was just accepted. `versions` are those from before its handshake, so that
    /// what changed during it is a change.
    pub fn new(chain: Chain, versions: watch::Receiver<u64>) -> Self {
        Self { chain, versions }
    }

    /// Whether the client may begin something new; otherwise why not, and what to do.
    pub fn permits(&self, agent: &Agent, now: SystemTime) -> Result<(), String> {
        self.validity().lasts(now)?;
        match agent.tls.stale(now) {
            Some(words) if !holds("standing.list_current", false) => {
                Err(format!("whether your certificate was revoked is not known: {words}"))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the connection must end, and says why. Safe to cancel.
    pub async fn lost(&mut self, agent: &Agent, is_busy: bool) -> NetError {
        let grace = if is_busy { agent.config.limits.expired_grace } else { Duration::ZERO };
        loop {
            let now = SystemTime::now();
            let end = self.chain.expiry().checked_add(grace);
            let left = end.map_or(Duration::MAX, |end| end.duration_since(now).unwrap_or_default());
            if left.is_zero() {
                let code = ErrorCode::CertificateExpired;
                return NetError::Untrusted { code, message: self.validity().expired(now) };
            }
            tokio::select! {
                // The clock decides when this is over: it may have been set meanwhile.
                () = sleep(left) => {}
                changed = self.versions.changed() => {
                    if changed.is_ok() && let Err(end) = agent.tls.recheck(&self.chain) {
                        return end;
                    }
                }
            }
        }
    }

    /// Until when its certificate is good.
    pub fn validity(&self) -> Validity {
        Validity { end: self.chain.expiry(), not_after: self.chain.not_after() }
    }
}

impl Validity {
    /// Whether it is good now; otherwise why not, and what to do.
    pub fn lasts(self, now: SystemTime) -> Result<(), String> {
        if holds("standing.unexpired", now < self.end) { Ok(()) } else { Err(self.expired(now)) }
    }

    fn expired(self, now: SystemTime) -> String {
        format!(
            "your certificate expired on {}, and this machine's clock says {}; renew it with `rexec ca renew`, or `rexec ca issue-user NAME`, and connect again",
            moment(self.not_after),
            moment(now)
        )
    }
}
