//! Follows the files that may change while the agent runs: certificates, revocation lists, policy.

use crate::audit::Event;
use crate::audit::text::Text;
use crate::clock::WallClock;
use crate::server::Agent;
use rexec_net::tls::Refreshed;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes new versions as they appear, and watches the clock by which certificates are judged. Goes on
/// while the agent is stopping: a certificate can be revoked then, too.
pub async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = WallClock::start();
    let mut was_stale = false;
    loop {
        ticks.tick().await;
        if clock.was_set() {
            tracing::warn!("this machine's clock was set; certificates are judged by the new time");
            agent.tls.clock_was_set();
        }
        let (tls, policy) = (Arc::clone(&agent.tls), Arc::clone(&agent.policy));
        // A long revocation list takes a moment.
        let looked = tokio::task::spawn_blocking(move || (tls.refresh(), policy.refresh())).await;
        match looked {
            Ok((certificates, policy)) => {
                record(&agent, "certificates", certificates);
                record(&agent, "policy", policy);
            }
            Err(error) => tracing::error!(%error, "the task that looks at the files failed"),
        }
        let stale = agent.tls.stale(SystemTime::now());
        match &stale {
            Some(words) if !was_stale => tracing::error!("every client is refused: {words}"),
            None if was_stale => tracing::info!("the revocation lists are current again"),
            _ => {}
        }
        was_stale = stale.is_some();
    }
}

fn record(agent: &Agent, what: &str, refreshed: Refreshed) {
    match refreshed {
        Refreshed::Unchanged => {}
        Refreshed::Changed => agent.audit.record(&Event::Reloaded { what }),
        Refreshed::Failed(reason) => {
            agent.audit.record(&Event::ReloadFailed { what, reason: Text::of(reason) });
        }
    }
}
