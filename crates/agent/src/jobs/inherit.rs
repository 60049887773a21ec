//! What the table of jobs gets from the agent before this one, and leaves to the next.

use super::handover::{self, Handover, Remembered};
use super::journal::{DIED, Past, UNATTENDED};
use super::meta::{End, Ending, Meta};
use super::store::Left;
use super::{Controls, Held, Job, Jobs, Table};
use crate::ledger::Place;
use crate::log::Log;
use crate::spool::boot_id;
use crate::stdin::Feed;
use rexec_protocol::message::{Channel, Exit};
use rexec_protocol::{JobId, Outcome};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

impl Jobs {
    /// A job that another agent process has begun and that runs. `out` and `err` say how far that agent
    /// was; what it left on disk holds if that is as far. One that was declared lost, because its keeper
    /// did not come, was not; what it had printed by then is given up. `None`: it is here already, or
    /// has ended. Blocks.
    pub fn adopt(
        &self,
        meta: Meta,
        out: &Place,
        err: &Place,
        feed: Option<Arc<Feed>>,
        pid: u32,
    ) -> Option<(Arc<Job>, Controls)> {
        let id = meta.job.clone();
        let mut table = self.lock();
        if table.is_settled(&id) {
            return None;
        }
        let left = table.pending.remove(&id);
        // It stays in the table until there is another: the id must not be free meanwhile.
        let mistaken = table.jobs.get(&id).map(|held| Arc::clone(&held.job));
        drop(table);
        if let Some(mistaken) = mistaken {
            tracing::warn!(job = %id, "its keeper has come after all; it was not lost");
            mistaken.log.remove();
        }
        let is_as_far = |log: &Log| {
            let at = |channel, place: &Place| {
                log.place(channel).offset >= place.offset + u64::from(place.under_way)
            };
            at(Channel::Out, out) && at(Channel::Err, err)
        };
        let is_on_disk =
            left.as_ref().is_some_and(|left| left.log.claim_all().is_ok() && is_as_far(&left.log));
        tracing::debug!(job = %id, out = out.offset, err = err.offset, is_on_disk, "where it goes on");
        let log = match left {
            Some(left) if is_on_disk => {
                if !meta.kept
                    && let Err(error) = left.log.to_memory()
                {
                    tracing::error!(%error, job = %id, "its output stays on disk");
                }
                left.log
            }
            left => {
                if left.is_some()
                    && let Err(error) = self.store.delete(&id)
                {
                    tracing::error!(%error, job = %id, "cannot delete what is on disk of a job");
                }
                Arc::new(Log::after(out, err, meta.algorithm))
            }
        };
        let (store, leases) = (Arc::clone(&self.store), self.leases());
        let mut table = self.lock();
        if table.is_settled(&id) {
            return None;
        }
        table.forget_loss(&id);
        let (job, controls) = Job::adopted(meta, log, feed, pid, store, leases);
        table.jobs.insert(id, Held { job: Arc::clone(&job), ended: None });
        Some((job, controls))
    }

    /// The jobs that the agent before has left on disk and whose keepers may be alive: they are of this
    /// boot of the system.
    pub fn pending(&self) -> HashSet<JobId> {
        let (table, boot) = (self.lock(), boot_id());
        let here = table.pending.values().filter(|left| left.meta.boot == boot);
        here.map(|left| left.meta.job.clone()).collect()
    }

    /// A job is lost although its keeper came: true if its end has to be put on record for that, as it is not
    /// where the job ended otherwise, or is declared lost by [`Jobs::give_up_pending`].
    pub fn declare_lost(&self, id: &JobId) -> bool {
        let mut table = self.lock();
        let is_waited_for = table.pending.contains_key(id) || table.expected.contains_key(id);
        // Of one that had a begin and no end the journal knows as well, and nobody has put that on record.
        let has_end = table.past.get(id).is_some_and(|past| !is_loss(&past.exit));
        let is_on_record = has_end || table.jobs.contains_key(id);
        !(is_waited_for || is_on_record) && table.declared_lost.insert(id.clone())
    }

    /// Nobody will come any more with jobs that the agent before has left: they count as lost, and are given
    /// back, for the record. Blocks.
    pub fn give_up_pending(&self) -> Vec<(JobId, Past)> {
        let mut table = self.lock();
        let expected = std::mem::take(&mut table.expected);
        table.after_kill = false;
        let pending = std::mem::take(&mut table.pending);
        table.declared_lost.extend(expected.keys().chain(pending.keys()).cloned());
        let now = Instant::now();
        let is_over = |id: &JobId| expected.get(id).copied().flatten().is_some_and(|at| at <= now);
        let mut lost = Vec::new();
        for id in expected.keys().filter(|id| !pending.contains_key(*id)) {
            let Some(past) = table.past.get_mut(id) else { continue };
            if is_over(id) && is_loss(&past.exit) {
                let outcome = Outcome::Lost { message: UNATTENDED.to_owned() };
                past.exit = Exit::of_nothing(outcome, past.algorithm);
            }
            lost.push((id.clone(), past.clone()));
        }
        drop(table);
        for left in pending.into_values() {
            let why = if is_over(&left.meta.job) { UNATTENDED } else { DIED };
            let end = left.lost(why);
            let (id, meta) = (left.meta.job.clone(), &left.meta);
            let ended = UNIX_EPOCH + Duration::from_millis(end.ended_ms);
            let (body, algorithm, owner) = (meta.body, meta.algorithm, meta.owner.name.clone());
            lost.push((id, Past { body, algorithm, owner, exit: end.exit.clone().into(), ended }));
            self.take_over(left, &end);
        }
        lost
    }

    /// A submission that came too late to be begun: it is as if it had never come.
    pub fn withdraw(&self, id: &JobId) {
        self.lock().jobs.remove(id);
    }

    /// Puts on disk, for the next agent, what only this one knows: ended jobs whose clients do not have
    /// everything, which jobs run, and which ids are remembered. Blocks.
    pub fn hand_over(&self, state: &Path) -> io::Result<()> {
        let mut ended = Vec::new();
        for held in self.lock().jobs.values() {
            ended.extend(
                held.ended.as_ref().map(|ended| (Arc::clone(&held.job), ended.exit.clone())),
            );
        }
        // In this order: what is between the two makes nothing earlier than it was.
        let at = Instant::now();
        let uptime = handover::uptime()?;
        let now_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        let mut remembered = self.lock().remembered((at, uptime));
        for (job, exit) in ended {
            match job.end() {
                // It never ran: there is nothing but the answer.
                None => {
                    remembered.push(Remembered::new(job.id.clone(), &past(&job, exit), now_ms));
                }
                Some(_) if job.log.disk().is_some() => {}
                Some((pid, ended_ms)) => {
                    let end = End { pid, ended_ms, exit: Ending::from(&exit) };
                    if let Err(full) = job.spool().and_then(|()| job.log.finish(&end)) {
                        tracing::error!(job = %job.id, %full, "the output of an ended job is lost");
                        remembered.push(Remembered::new(job.id.clone(), &past(&job, exit), now_ms));
                    }
                }
            }
        }
        if self.lock().after_kill {
            // This one has not learned yet what there is, so that it is to the next as if this one had
            // been killed, too.
            return Ok(());
        }
        let lost = |job: &Job| {
            let outcome = Outcome::Lost { message: DIED.to_owned() };
            past(job, Exit::of_nothing(outcome, job.algorithm))
        };
        let running = self.running();
        let leases = self.leases();
        let running = running.iter().map(|job| {
            let remembered = Remembered::new(job.id.clone(), &lost(job), now_ms);
            remembered.with_lease(job.lease_without_agent(leases))
        });
        let mut running: Vec<_> = running.collect();
        let table = self.lock();
        for (id, until) in &table.expected {
            // Its keeper waits already.
            let lease = until.map(|until| until.saturating_duration_since(at));
            let past = table.past.get(id);
            running.extend(
                past.map(|past| Remembered::new(id.clone(), past, now_ms).with_lease(lease)),
            );
        }
        let (since, dropped) = table.generated.complete();
        let since_ms = since_boot((at, uptime), since);
        let dropped =
            dropped.map(|(owner, since)| (owner.to_owned(), since_boot((at, uptime), since)));
        let dropped: HashMap<String, u64> = dropped.collect();
        drop(table);
        let complete_since_ms = dropped.values().copied().fold(since_ms, u64::max);
        let (boot, since_ms) = (boot_id(), Some(since_ms));
        let left = Handover { boot, running, complete_since_ms, since_ms, dropped, remembered };
        handover::put(state, Some(&left))
    }

    /// A job that another agent process has left, and that has ended.
    pub(super) fn take_over(&self, left: Left, end: &End) {
        let keep =
            if left.meta.kept { self.settings.keep_output } else { self.settings.lease_silent };
        let age = UNIX_EPOCH + Duration::from_millis(end.ended_ms);
        let age = SystemTime::now().duration_since(age).unwrap_or_default();
        let now = Instant::now();
        let until = now.checked_add(keep.saturating_sub(age)).unwrap_or(now);
        let job = Job::left(left, end, Arc::clone(&self.store));
        self.store.ended(&job);
        let mut table = self.lock();
        // It is more than a memory.
        table.past.remove(&job.id);
        table.jobs.insert(job.id.clone(), Held { job: Arc::clone(&job), ended: None });
        table.end(&job, end.exit.clone().into(), until);
    }
}

impl Table {
    /// Whether a job runs, or it is known how it ended.
    fn is_settled(&self, id: &JobId) -> bool {
        let is_lost = |held: &Held| held.ended.as_ref().is_some_and(|ended| is_loss(&ended.exit));
        let is_over = |past: &Past| !matches!(past.exit.outcome, Outcome::Lost { .. });
        self.jobs.get(id).is_some_and(|held| !is_lost(held))
            || self.past.get(id).is_some_and(is_over)
    }

    /// A job that was declared lost is not.
    fn forget_loss(&mut self, id: &JobId) {
        if let Some(Held { job, ended: Some(ended) }) = self.jobs.remove(id) {
            self.unread.remove(&job.owner.name, ended.until, id, ended.memory);
        }
        self.past.remove(id);
        self.expected.remove(id);
        self.declared_lost.remove(id);
    }

    /// What the agent before this one knew.
    pub(super) fn remember(&mut self, handover: &Handover, uptime: Duration) {
        let since = handover.since_ms.unwrap_or(handover.complete_since_ms);
        let dropped = handover.dropped.iter();
        let dropped = dropped.map(|(owner, since)| (owner.clone(), instant_of(uptime, *since)));
        self.generated.inherit(instant_of(uptime, since), dropped.collect());
        let lease_of = |running: &Remembered| {
            let since = instant_of(uptime, running.since_ms);
            running.lease().and_then(|lease| since.checked_add(lease))
        };
        let expected = handover.running.iter();
        self.expected = expected.map(|running| (running.job.clone(), lease_of(running))).collect();
        for remembered in handover.remembered.iter().chain(&handover.running) {
            if self.past.contains_key(&remembered.job) {
                // On disk for longer.
                continue;
            }
            let since = instant_of(uptime, remembered.since_ms);
            let (id, past) = (remembered.job.clone(), remembered.past(SystemTime::now()));
            self.generated.push(&past.owner, since, id.clone());
            self.past.insert(id, past);
        }
    }

    fn remembered(&self, uptime: (Instant, Duration)) -> Vec<Remembered> {
        let known = self.generated.all().into_iter();
        known
            .filter_map(|(since, id)| {
                let since_ms = since_boot(uptime, since);
                Some(Remembered::new(id.clone(), self.past.get(id)?, since_ms))
            })
            .collect()
    }
}

/// Whether nobody knows how it ended, so that its keeper may still come with it.
fn is_loss(exit: &Exit) -> bool {
    // By its keeper's clock, which stands still while the system sleeps, the lease may not be over.
    matches!(&exit.outcome, Outcome::Lost { message } if [DIED, UNATTENDED].contains(&&**message))
}

fn past(job: &Job, exit: Exit) -> Past {
    let (body, algorithm, owner) = (job.body, job.algorithm, job.owner.name.clone());
    Past { body, algorithm, owner, exit, ended: SystemTime::now() }
}

/// When `then` was, in milliseconds since the system started; not too early. At an instant, or after it, the
/// system ran for so long.
fn since_boot((at, uptime): (Instant, Duration), then: Instant) -> u64 {
    let (before, after) = (at.saturating_duration_since(then), then.saturating_duration_since(at));
    let then = uptime.saturating_sub(before).saturating_add(after);
    // In /proc/uptime, to a hundredth of a second.
    let then = then.saturating_add(Duration::from_millis(11));
    u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
}

/// The inverse; not too early.
fn instant_of(uptime: Duration, ms: u64) -> Instant {
    let ago = uptime.saturating_sub(Duration::from_millis(ms));
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::super::meta::Owner;
    use super::super::{Sent, Settings, Submission, Submitted};
    use super::*;
    use crate::ledger::Ledger;
    use rexec_protocol::message::{Command, ExecSpec, OnDisconnect};
    use rexec_protocol::{Algorithm, Digest};

    const ALGORITHM: Algorithm = Algorithm::Sha256;

    /// Detached, and with an id that the agent has made.
    fn submission(name: &str) -> Submission {
        Submission {
            id: JobId::new(name).unwrap(),
            body: Digest::of(ALGORITHM, b"request"),
            owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
            algorithm: ALGORITHM,
            durable: false,
            resumable: true,
            detach: true,
        }
    }

    fn submit(jobs: &Jobs, name: &str) -> Arc<Job> {
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        match jobs.submit(submission(name), &spec, Sent::First) {
            Submitted::New(job, _) => job,
            _ => panic!("{name} is not new"),
        }
    }

    fn open(state: &Path) -> Jobs {
        Jobs::open(state, Settings::default()).unwrap().0
    }

    /// Its keeper was stopped, say, while the agent was started.
    #[tokio::test]
    async fn a_keeper_that_comes_late_keeps_its_command() {
        let state = tempfile::tempdir().unwrap();
        let before = open(state.path());
        let job = submit(&before, "late");
        job.started(7);
        job.spool().unwrap();
        let (meta, id) = (job.meta(), job.id.clone());
        drop((job, before));
        let jobs = open(state.path());
        assert!(jobs.pending().contains(&id));
        jobs.give_up_pending();
        assert!(jobs.find(&id).unwrap().has_ended() && jobs.running().is_empty());
        let place = Ledger::new(ALGORITHM).unwrap().place(Channel::Out).unwrap();
        let adopt = || jobs.adopt(meta.clone(), &place, &place, None, 7);
        let (job, _controls) = adopt().unwrap();
        assert!(!job.has_ended() && jobs.running().len() == 1);
        assert!(adopt().is_none(), "a second one has no business here");
        // There is room for what it prints now.
        job.spool().unwrap();
        let exit = Exit::of_nothing(Outcome::Exited { code: 0 }, ALGORITHM);
        job.ended(1);
        jobs.ended(&job, &exit).await;
        assert!(adopt().is_none(), "it has ended");
    }

    /// It was no agent's death that ended it.
    #[tokio::test]
    async fn a_job_whose_lease_ended_without_an_agent_is_said_to_have_ended_so() {
        let state = tempfile::tempdir().unwrap();
        let before = open(state.path());
        let leases = [("over", 0), ("lasts", 600_000), ("unwritten", 0)].map(|(name, ms)| {
            let submission = Submission { detach: false, ..submission(name) };
            let then = Some(OnDisconnect::Lease { ms });
            let command = Command::Argv(vec![b"true".to_vec().into()]);
            let spec = ExecSpec { on_disconnect: then, ..ExecSpec::new(command) };
            let Submitted::New(job, controls) = before.submit(submission, &spec, Sent::First)
            else {
                panic!("it is not new")
            };
            job.started(7);
            (job, controls)
        });
        leases[0].0.rest().unwrap();
        leases[1].0.rest().unwrap();
        before.hand_over(state.path()).unwrap();
        drop((leases, before));
        let jobs = open(state.path());
        let lost = jobs.give_up_pending();
        let why = |name: &str| {
            let (_, past) = lost.iter().find(|(id, _)| id.as_str() == name).unwrap();
            past.exit.outcome.to_string()
        };
        assert!(why("over").contains("lease was over"), "{}", why("over"));
        assert!(why("unwritten").contains("lease was over"), "{}", why("unwritten"));
        assert!(why("lasts").contains("the agent died"), "{}", why("lasts"));
    }

    /// After a kill nothing is on disk of a job whose output was not kept, but the journal has its id.
    #[tokio::test]
    async fn a_durable_job_that_is_given_up_has_one_end_on_record() {
        let state = tempfile::tempdir().unwrap();
        let before = open(state.path());
        let submission = Submission { durable: true, detach: false, ..submission("durable") };
        let id = submission.id.clone();
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let Submitted::New(job, _controls) = before.submit(submission, &spec, Sent::First) else {
            panic!("it is not new")
        };
        before.commit(&job).await.unwrap();
        job.started(7);
        drop((job, before));
        let jobs = open(state.path());
        assert!(jobs.past(&id).is_some(), "the journal knows of it");
        assert!(jobs.give_up_pending().is_empty(), "and nothing else does");
        assert!(jobs.declare_lost(&id));
        assert!(!jobs.declare_lost(&id), "once");
    }

    /// Those of one identity were too many; what is not known of another has not run, for the next agent too.
    #[tokio::test]
    async fn the_next_agent_knows_of_whom_something_was_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let before = open(state.path());
        let dropped = Instant::now();
        let of_mallory = HashMap::from([("mallory".to_owned(), dropped)]);
        let since = dropped.checked_sub(Duration::from_secs(60)).unwrap();
        before.lock().generated.inherit(since, of_mallory);
        before.hand_over(state.path()).unwrap();
        drop(before);
        let next = open(state.path());
        let next = |owner: &str| next.lock().generated.complete_since(owner);
        assert!(next("alice") < dropped && next("mallory") >= dropped);
        // It may be an agent that knows nothing of owners.
        let handover::Before::Left(left) = handover::read(state.path()).unwrap() else { panic!() };
        assert_eq!(left.complete_since_ms, left.dropped["mallory"]);
    }

    /// A hand-over that takes its time made what was known look older than it was, and a job that was dropped
    /// as one that had never come.
    #[test]
    fn no_time_is_handed_over_as_an_earlier_one() {
        let at = Instant::now();
        let uptime = Duration::from_secs(1000);
        let then = |then: Instant| instant_of(uptime, since_boot((at, uptime), then));
        let minute_ago = at.checked_sub(Duration::from_secs(60)).unwrap();
        assert!(then(minute_ago) >= minute_ago && then(at) >= at);
        assert_eq!(since_boot((at, uptime), minute_ago), 1000 * 1000 - 60_000 + 11);
        assert_eq!(since_boot((at, uptime), at + Duration::from_secs(1)), 1000 * 1000 + 1000 + 11);
    }

    /// Stopped again before it was known what an agent that was killed had left.
    #[tokio::test]
    async fn an_agent_that_knows_little_leaves_what_it_has() {
        let state = tempfile::tempdir().unwrap();
        let jobs = open(state.path());
        let job = submit(&jobs, "ended");
        job.started(7);
        let exit = Exit::of_nothing(Outcome::Exited { code: 3 }, ALGORITHM);
        job.ended(1);
        jobs.ended(&job, &exit).await;
        jobs.lock().after_kill = true;
        jobs.hand_over(state.path()).unwrap();
        let id = job.id.clone();
        drop((job, jobs));
        let next = open(state.path());
        assert!(next.find(&id).is_some_and(|job| job.has_ended()));
    }
}
