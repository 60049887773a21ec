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
use crate::jobs::meta::Meta;
use crate::jobs::{Controls, Job, Jobs};
use crate::keeper::{Adopted, Adoptions, Event as KeeperEvent, Keeper, Orphan};
use crate::ledger::{Ledger, Place};
use crate::server::Agent;
use crate::stdin::Feed;
use crate::supervisor::{Cause, Watched};
use rexec_protocol::message::{Channel, Exit};
use rexec_protocol::{JobId, Outcome, Signal};
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

/// How long to wait, at most, for the keepers of jobs that are known to run …
const KNOWN: Duration = Duration::from_secs(5);
/// … and for those that an agent may have had beside them which was killed: keepers look ten times in a second.
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
                Ok(Came::Nothing) => {}
                Ok(Came::Stranger(keeper)) => wait_with(&task, keeper).await,
                // Whoever waits for it may have gone on.
                Ok(Came::Over(job)) => drop(adopted.try_send(job)),
                Ok(Came::Job(begun)) => {
                    let _ = adopted.try_send(begun.job.id.clone());
                    begun.supervise(&task).await;
                }
                Err(error) => tracing::error!(%error, "a running job cannot be adopted"),
            }
        });
    }
}

/// The jobs whose keepers are to come. One that was killed has left no list; but what is on disk of jobs
/// that had not ended is of some of them.
pub fn missing(jobs: &Jobs, before: &Before) -> HashSet<JobId> {
    match before {
        Before::Nobody => HashSet::new(),
        Before::Killed => jobs.pending(),
        Before::Left(left) => left.running.iter().map(|running| running.job.clone()).collect(),
    }
}

/// Waits until the jobs are there that the agent before has left, those that are `missing` and perhaps
/// others, for a bounded time: a client that comes back must find its job.
pub async fn settle(
    before: &Before,
    mut missing: HashSet<JobId>,
    mut adopted: mpsc::Receiver<JobId>,
) {
    let may_be_more = match before {
        Before::Nobody => return,
        Before::Killed => true,
        Before::Left(_) => false,
    };
    let begin = Instant::now();
    while may_be_more || !missing.is_empty() {
        let until = patience(!missing.is_empty(), begin, Instant::now());
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

/// Until when to wait for the next keeper; `begin` is when the wait began.
fn patience(is_known_to_come: bool, begin: Instant, now: Instant) -> Instant {
    if is_known_to_come { begin + KNOWN } else { (begin + PERHAPS).min(now + QUIET) }
}

/// What a keeper has brought.
enum Came {
    /// This agent leaves. A keeper that is let go without a word waits for the next.
    Nothing,
    /// A job that could not go on, and was ended.
    Over(JobId),
    /// A job.
    Job(Box<Begun>),
    /// One of which too little is known to go on with it.
    Stranger(Keeper),
}

/// Takes a job over.
async fn adopt(agent: &Agent, orphan: Orphan) -> io::Result<Came> {
    let mut adopted = orphan.adopt().await?;
    if agent.is_leaving() {
        return Ok(Came::Nothing);
    }
    let memo = match Memo::read(&adopted.memo) {
        Ok(memo) => memo,
        Err(error) => {
            let (keeper, job) = (adopted.keeper_pid, job_of(&adopted.memo));
            let hint = "its command runs on until its lease is over. Start the version of the agent that \
                        began it, or end it with 'kill -KILL', first its keeper, then the command";
            tracing::error!(%error, keeper, command = adopted.pid, job, "a running job cannot be adopted; {hint}");
            return Ok(Came::Stranger(adopted.keeper));
        }
    };
    let id = memo.meta.job.clone();
    let (ledger, places, input) = match read(adopted.ledger.take()) {
        Ok(read) => read,
        Err(error) => {
            give_up(agent, &memo.meta, adopted, &error).await;
            return Ok(Came::Over(id));
        }
    };
    let (feed, is_torn) = feed(&memo, input, adopted.stdin.is_some());
    let (jobs, meta, pid) = (Arc::clone(&agent.jobs), memo.meta.clone(), adopted.pid);
    let inherit = move || jobs.adopt(meta, &places.0, &places.1, feed, pid);
    let Some((job, controls)) = spawn_blocking(inherit).await.map_err(io::Error::other)? else {
        dismiss(adopted.keeper).await;
        return Err(io::Error::other(format!("job {id} is here already, or has ended")));
    };
    let is_torn = is_torn.then_some(Cause::Torn);
    let timed_out = adopted.timed_out.then_some(Cause::TimedOut);
    let cause = is_torn.or(memo.cause).or(timed_out);
    // What was begun before the bytes were lost gives more time than there is any use for.
    adopted.ending &= cause.is_some() && cause != Some(Cause::Torn);
    Ok(Came::Job(Box::new(begin(agent, job, controls, (memo, cause), adopted, ledger).await)))
}

/// How far the agent before was with stdout and stderr, and with stdin.
fn read(ledger: Option<OwnedFd>) -> io::Result<(Ledger, (Place, Place), Place)> {
    let ledger = ledger.ok_or_else(|| io::Error::other("its keeper has none"))?;
    let ledger = Ledger::of(ledger);
    let outputs = (ledger.place(Channel::Out)?, ledger.place(Channel::Err)?);
    let input = ledger.place(Channel::In)?;
    Ok((ledger, outputs, input))
}

/// Ends a job that cannot go on here: nobody knows which bytes of its streams were delivered, so nobody could
/// be told the truth about the next ones. For its clients it is lost, like one with which nobody comes.
async fn give_up(agent: &Agent, meta: &Meta, adopted: Adopted, error: &io::Error) {
    let (job, pid) = (&meta.job, adopted.pid);
    tracing::error!(%job, pid, %error, "the ledger of a running job cannot be read; the job is ended");
    let message =
        format!("what its agent had noted of it cannot be read ({error}), so it was ended");
    let exit = Exit::of_nothing(Outcome::Lost { message }, meta.algorithm);
    dismiss(adopted.keeper).await;
    if agent.jobs.declare_lost(job) {
        let ended = Event::ended(job, &meta.owner.name, Some(pid), &exit, meta.algorithm);
        agent.audit.record(&ended);
    }
}

async fn begin(
    agent: &Agent,
    job: Arc<Job>,
    controls: Controls,
    (memo, cause): (Memo, Option<Cause>),
    adopted: Adopted,
    ledger: Ledger,
) -> Begun {
    let Adopted { pid, age, stdin, stdout, stderr, terminal, mut keeper, ending, .. } = adopted;
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
    let limited_by = terms.limited_by.as_deref();
    let places = agent.admission.running(&job.owner.name, job.is_connection, limited_by);
    let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    let stdin = stdin.zip(job.feed.clone());
    let heir = Some(heir);
    let is_ending = ending;
    let watched =
        Watched { stdin, stdout, stderr, terminal, keeper, terms, started, cause, is_ending, heir };
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

/// The job in a memo that cannot be read whole.
fn job_of(memo: &[u8]) -> Option<String> {
    let memo: serde_json::Value = serde_json::from_slice(memo).ok()?;
    Some(JobId::new(memo.get("meta")?.get("job")?.as_str()?)?.to_string())
}

/// Holds the line to a keeper that cannot be understood, for the next agent: it would come again ten times
/// in a second.
async fn wait_with(agent: &Agent, mut keeper: Keeper) {
    let gone = async { while keeper.next().await.is_some() {} };
    tokio::select! {
        () = gone => {}
        () = agent.has_left() => {}
        () = agent.stopping() => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine under load: the keeper of a job that is known from the disk takes its time.
    #[test]
    fn after_a_kill_the_jobs_on_disk_are_waited_for() {
        let begin = Instant::now();
        assert_eq!(patience(true, begin, begin + 2 * QUIET), begin + KNOWN);
        // Of others nothing is known: each that comes may be the last.
        assert_eq!(patience(false, begin, begin), begin + QUIET);
        assert_eq!(patience(false, begin, begin + PERHAPS), begin + PERHAPS);
    }

    #[test]
    fn a_memo_of_another_version_names_its_job() {
        let memo = br#"{"meta":{"job":"deploy-1","owner":7}}"#;
        assert!(Memo::read(memo).is_err());
        assert_eq!(job_of(memo).as_deref(), Some("deploy-1"));
        assert_eq!(job_of(b"what?"), None);
    }
}
