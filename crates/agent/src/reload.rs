//! Follows the files that may change while the agent runs: certificates, revocation lists, policy.

use crate::audit::Event;
use crate::audit::text::Text;
use crate::clock::WallClock;
use crate::server::Agent;
use rexec_net::tls::Refreshed;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// What is looked at.
const CERTIFICATES: &str = "certificates";
const POLICY: &str = "policy";
/// A look that takes longer is worth a word.
const LONG: Duration = Duration::from_secs(5);

/// Takes new versions as they appear, and watches the clock by which certificates are judged. Goes on
/// while the agent is stopping: a certificate can be revoked then, too.
///
/// Certificates and policy are looked at apart: a disk that hangs under the one does not keep the
/// other from changing.
pub async fn run(agent: Arc<Agent>) {
    tokio::join!(follow_certificates(&agent), follow_policy(&agent));
}

/// Looks at all files now, and takes what is new without waiting until it has stood still; what came
/// of it. What is on disk and cannot be used is told each time.
pub async fn now(agent: &Arc<Agent>) -> Vec<(&'static str, Refreshed)> {
    let tls = Arc::clone(&agent.tls);
    let certificates = look(CERTIFICATES, move || tls.refresh_now()).await;
    let policy = Arc::clone(&agent.policy);
    let rules = look(POLICY, move || policy.refresh_now()).await;
    record(agent, CERTIFICATES, &certificates);
    record(agent, POLICY, &rules);
    vec![(CERTIFICATES, certificates), (POLICY, rules)]
}

/// What is on disk and not in force, because it cannot be used: what, and why.
pub fn refused(agent: &Agent) -> Vec<(&'static str, String)> {
    let all = [(CERTIFICATES, agent.tls.refused()), (POLICY, agent.policy.refused())];
    all.into_iter().filter_map(|(what, refused)| Some((what, refused?))).collect()
}

async fn follow_certificates(agent: &Arc<Agent>) {
    let mut ticks = ticks();
    let mut clock = WallClock::start();
    let mut was_stale = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = agent.reload.notified() => {}
        }
        if clock.was_set() {
            tracing::warn!("this machine's clock was set; certificates are judged by the new time");
            agent.tls.clock_was_set();
        }
        let tls = Arc::clone(&agent.tls);
        // A long revocation list takes a moment.
        record(agent, CERTIFICATES, &look(CERTIFICATES, move || tls.refresh()).await);
        let stale = agent.tls.stale(SystemTime::now());
        match &stale {
            Some(words) if !was_stale => tracing::error!("every client is refused: {words}"),
            None if was_stale => tracing::info!("the revocation lists are current again"),
            _ => {}
        }
        was_stale = stale.is_some();
    }
}

async fn follow_policy(agent: &Arc<Agent>) {
    let mut ticks = ticks();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = agent.reload.notified() => {}
        }
        let policy = Arc::clone(&agent.policy);
        record(agent, POLICY, &look(POLICY, move || policy.refresh()).await);
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Looks at files, which may take as long as their disk does; says so if that is long.
async fn look(what: &str, refresh: impl FnOnce() -> Refreshed + Send + 'static) -> Refreshed {
    let mut looking = tokio::task::spawn_blocking(refresh);
    let looked = match timeout(LONG, &mut looking).await {
        Ok(looked) => looked,
        Err(_) => {
            tracing::error!(what, "the files cannot be looked at; changes to them are not seen");
            looking.await
        }
    };
    looked.unwrap_or_else(|error| Refreshed::Failed(format!("the task failed: {error}")))
}

fn record(agent: &Agent, what: &str, refreshed: &Refreshed) {
    match refreshed {
        Refreshed::Unchanged => {}
        Refreshed::Changed => agent.audit.record(&Event::Reloaded { what }),
        Refreshed::Failed(reason) => {
            agent.audit.record(&Event::ReloadFailed { what, reason: Text::of(reason) });
        }
    }
}
