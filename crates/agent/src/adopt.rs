//! The jobs of the agent before this one: their keepers come and hand them over.
//!
//! That agent ended in good order, and then it has put on disk what it had read and not delivered. Or it
//! was killed; then that is gone, and the ledger says how far it was. Whichever has come further is the
//! truth: what a client does not have of what was lost is a gap to it, and one that has everything goes on
//! as if nothing had been.

use crate::audit::Event;
use crate::exec::Begun;
use crate::heir::{Heir, Memo};
use crate::jobs::handover::Before;
use crate::jobs::{Controls, Job};
use crate::keeper::{Adopted, Adoptions, Event as KeeperEvent, Keeper, Orphan};
use crate::ledger::{Ledger, Place};
use crate::server::Agent;
use crate::stdin::Feed;
use crate::supervisor::{Cause, Watched};
use rexec_protocol::message::Channel;
use rexec_protocol::{JobId, Signal};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

/// How long to wait, at most, for the keepers of jobs that are known to run …
const KNOWN: Duration = Duration::from_secs(5);
/// … and for those that an agent may have had which was killed: keepers look ten times in a second.
const PERHAPS: Duration = Duration::from_secs(3);
/// After as long without another keeper there will be none.
const QUIET: Duration = Duration::from_millis(500);
/// How long a job that nobody knows any more has to end.
const GRACE: Duration = Duration::from_secs(5);
/// Keepers that are being heard at once.
const HEARD: usize = 64;

/// Takes in keepers for as long as the agent runs. Each job that was adopted is told to `adopted`.
pub async fn run(agent: Arc<Agent>, adoptions: Adoptions, adopted: mpsc::Sender<JobId>) {
    let limit = Arc::new(tokio::sync::Semaphore::new(HEARD));
    loop {
        let Ok(place) = Arc::clone(&limit).acquire_owned().await else { return };
        let orphan = tokio::select! {
            orphan = adoptions.next() => orphan,
            // From here on they wait for the next one.
            () = agent.has_left() => return,
        };
        let orphan = match orphan {
            Ok(orphan) => orphan,
            Err(error) => {
                tracing::error!(%error, "cannot take in the keepers of running jobs");
                tokio::time::sleep(QUIET).await;
                continue;
            }
        };
        let (task, adopted) = (Arc::clone(&agent), adopted.clone());
        agent.jobs.tasks.spawn(async move {
            let begun = adopt(&task, orphan).await;
            drop(place);
            match begun {
                Ok(None) => {}
                Ok(Some(begun)) => {
                    // Whoever waited may have gone on.
                    let _ = adopted.try_send(begun.job.id.clone());
                    begun.supervise(&task).await;
                }
                Err(error) => tracing::error!(%error, "a running job cannot be adopted"),
            }
        });
    }
}

/// Waits until the jobs are there that the agent before has left, for a bounded time: a client that comes
/// back must find its job.
pub async fn settle(before: &Before, mut adopted: mpsc::Receiver<JobId>) {
    let mut missing: HashSet<&JobId> = match before {
        Before::Nobody => return,
        Before::Killed => HashSet::new(),
        Before::Left(handover) => handover.running.iter().map(|running| &running.job).collect(),
    };
    let is_known = matches!(before, Before::Left(_));
    let end = Instant::now() + if is_known { KNOWN } else { PERHAPS };
    while !(is_known && missing.is_empty()) {
        let until = if is_known { end } else { end.min(Instant::now() + QUIET) };
        match timeout_at(until, adopted.recv()).await {
            Ok(Some(job)) => missing.remove(&job),
            // The agent leaves, and nothing is settled.
            Ok(None) => std::future::pending().await,
            Err(_) => break,
        };
    }
    if !missing.is_empty() {
        tracing::warn!(jobs = missing.len(), "nobody came with some of the jobs that were running");
    }
}

/// Takes a job over; `None` if this agent leaves. A keeper that is let go without a word waits for the next.
async fn adopt(agent: &Agent, orphan: Orphan) -> io::Result<Option<Begun>> {
    let mut adopted = orphan.adopt().await?;
    if agent.is_leaving() {
        return Ok(None);
    }
    let missing = || io::Error::other("its keeper has no ledger");
    let ledger = Ledger::of(adopted.ledger.take().ok_or_else(missing)?);
    let memo = Memo::read(&adopted.memo)?;
    let id = memo.meta.job.clone();
    let places = (ledger.place(Channel::Out)?, ledger.place(Channel::Err)?);
    let input = ledger.place(Channel::In)?;
    let (feed, is_torn) = feed(&memo, input, adopted.stdin.is_some());
    let (jobs, meta, pid) = (Arc::clone(&agent.jobs), memo.meta.clone(), adopted.pid);
    let inherit = move || jobs.adopt(meta, &places.0, &places.1, feed, pid);
    let Some((job, controls)) = spawn_blocking(inherit).await.map_err(io::Error::other)? else {
        dismiss(adopted.keeper).await;
        return Err(io::Error::other(format!("job {id} is known already, or counts as lost")));
    };
    let is_torn = is_torn.then_some(Cause::Torn);
    let timed_out = adopted.timed_out.then_some(Cause::TimedOut);
    let cause = is_torn.or(memo.cause).or(timed_out);
    Ok(Some(begin(agent, job, controls, (memo, cause), adopted, ledger).await))
}

async fn begin(
    agent: &Agent,
    job: Arc<Job>,
    controls: Controls,
    (memo, cause): (Memo, Option<Cause>),
    adopted: Adopted,
    ledger: Ledger,
) -> Begun {
    let Adopted { pid, age, stdin, stdout, stderr, terminal, mut keeper, .. } = adopted;
    tracing::info!(job = %job.id, user = job.owner.name, pid, "adopted");
    agent.audit.record(&Event::Adopted { job: &job.id, user: &job.owner.name, pid });
    let terms = memo.terms;
    let heir = Heir::new(
        &agent.config.state_dir,
        ledger,
        agent.jobs.leases(),
        agent.config.limits.kill_grace,
    );
    // From this on it is this agent's.
    if let Err(error) = keeper.amend(&heir.will(&job, &terms, cause)).await {
        tracing::debug!(%error, "the keeper is gone, or hangs");
    }
    let places = agent.admission.running(&job.owner.name, terms.limited_by.as_deref());
    let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    let stdin = stdin.zip(job.feed.clone());
    let heir = Some(heir);
    let watched = Watched { stdin, stdout, stderr, terminal, keeper, terms, started, cause, heir };
    Begun { job, controls, pid, watched, places }
}

/// The way of stdin from where it was; true if nobody knows where that is.
fn feed(memo: &Memo, place: Place, is_open: bool) -> (Option<Arc<Feed>>, bool) {
    let algorithm = memo.meta.algorithm;
    if !memo.meta.stdin {
        return (None, false);
    }
    let is_torn = is_open && !place.ended && place.under_way > 0;
    match Feed::after(place, algorithm, is_open, memo.meta.terminal) {
        Some(feed) => (Some(Arc::new(feed)), is_torn),
        // Its digest cannot go on. If all of it was there, that is no loss.
        None => (Some(Arc::new(Feed::new(algorithm, memo.meta.terminal))), is_open),
    }
}

/// Has a command ended that nobody knows any more.
async fn dismiss(mut keeper: Keeper) {
    let ending = async {
        keeper.end(Signal::HUP, GRACE).await?;
        while !matches!(keeper.next().await, None | Some(KeeperEvent::TreeGone { .. })) {}
        io::Result::Ok(())
    };
    match timeout(2 * GRACE, ending).await {
        Ok(Ok(())) => keeper.release().await,
        Ok(Err(_)) | Err(_) => keeper.kill(),
    }
}
