//! All jobs: what was submitted under which id, running, ended, or only remembered.
//!
//! # Theory of operation
//!
//! A submission is looked up and recorded in one step, so an id runs at most once however often and
//! over however many connections it is sent. A [`Job`] does not belong to a connection: clients attach
//! to it and leave, and its supervisor runs in a task of its own. What becomes of it when its client is
//! gone is decided in [`Job::leave`].
//!
//! After its end a job is held until its client has said that it has everything, or its lease is over;
//! one that is kept, until it is removed or [`Settings::keep_output`] is over. After that only its id,
//! what was asked and how it ended are remembered, so that a late repetition still runs nothing. Ids
//! that callers chose are remembered on disk too, in the [`journal`].

mod generated;
pub mod handover;
mod inherit;
pub mod job;
pub mod journal;
pub mod meta;
pub mod orders;
pub mod settings;
pub mod store;
mod unread;

pub use job::{Attachment, Attendance, Controls, Job, Leases, Leave, Stage, Submission};
pub use settings::Settings;

use crate::log::Log;
use generated::Generated;
use handover::Before;
use journal::{Journal, Past};
use meta::Port;
use rexec_guard::holds;
use rexec_protocol::message::{Command, ExecSpec, Exit, JobInfo};
use rexec_protocol::{JobId, Outcome};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use store::{Left, Store};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use unread::Unread;

/// What an ended job takes in the tables here, in bytes.
const ENDED: usize = 1024;

/// The table of jobs.
#[derive(Debug)]
pub struct Jobs {
    settings: Settings,
    table: Mutex<Table>,
    journal: Arc<Journal>,
    store: Arc<Store>,
    /// The tasks that launch and supervise.
    pub tasks: TaskTracker,
}

#[derive(Debug)]
struct Table {
    jobs: HashMap<JobId, Held>,
    /// Those that have ended.
    unread: Unread,
    /// How many the store had dropped when it was last asked.
    dropped: u64,
    past: HashMap<JobId, Past>,
    /// What is on disk of jobs that ran when the agent before ended, until their keepers come.
    pending: HashMap<JobId, Left>,
    /// Jobs that the agent before has left running, and whose keepers have not come yet; and when the lease of
    /// each is over, if it has one.
    expected: HashMap<JobId, Option<Instant>>,
    /// Jobs whose loss is on record.
    declared_lost: HashSet<JobId>,
    /// The agent before was killed, and its keepers may still come.
    after_kill: bool,
    /// Logs of jobs that are over, to be deleted.
    gone: Vec<Arc<Log>>,
    /// The generated ids in `past`.
    generated: Generated,
    /// How many ids that callers chose are remembered of each identity, those of running jobs too.
    chosen: HashMap<String, usize>,
}

#[derive(Debug)]
struct Held {
    job: Arc<Job>,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// When it is forgotten.
    until: Instant,
    /// The memory that it holds at most, in bytes.
    memory: usize,
}

/// When a submission was sent for the first time.
#[derive(Debug, Clone, Copy)]
pub enum Sent {
    /// Now.
    First,
    /// Then; `None`: before this machine began.
    Again(Option<Instant>),
    /// Before, and its client has heard that it started.
    Started,
}

/// What a submission comes to.
pub enum Submitted {
    /// It is new: launch it.
    New(Arc<Job>, Controls),
    /// It was submitted before.
    Known(Arc<Job>),
    /// It ended, and of its output nothing is left.
    Past(Box<Past>),
    /// The id is that of another command, or another's.
    Conflict,
    /// Whether it ever ran cannot be known.
    Unknown,
    /// Its owner has chosen so many ids that no more are remembered; it did not run.
    Full(usize),
}

impl Jobs {
    /// Reads what is remembered in the folder `state`, which is made if it is missing.
    pub fn open(state: &Path, settings: Settings) -> io::Result<(Self, Before)> {
        // Its lock says that no other agent uses the folder.
        let (journal, past) = Journal::open(state, settings.keep_ids)?;
        let before = handover::read(state)?;
        let store = Store::open(state, &settings)?;
        let left = store.left()?;
        let mut chosen = HashMap::new();
        past.values().for_each(|past| *chosen.entry(past.owner.clone()).or_default() += 1);
        let table = Mutex::new(Table {
            chosen,
            jobs: HashMap::new(),
            unread: Unread::default(),
            dropped: 0,
            past,
            pending: HashMap::new(),
            expected: HashMap::new(),
            declared_lost: HashSet::new(),
            after_kill: matches!(before, Before::Killed),
            generated: Generated::new(Instant::now()),
            gone: Vec::new(),
        });
        let (journal, store) = (Arc::new(journal), Arc::new(store));
        let jobs = Self { settings, table, journal, store, tasks: TaskTracker::new() };
        for left in left {
            match left.end.clone() {
                Some(end) => jobs.take_over(left, &end),
                None => {
                    jobs.lock().pending.insert(left.meta.job.clone(), left);
                }
            }
        }
        if let Before::Left(handover) = &before {
            jobs.lock().remember(handover, handover::uptime()?);
        }
        Ok((jobs, before))
    }

    /// How long jobs wait for their clients.
    pub fn leases(&self) -> Leases {
        Leases { closed: self.settings.lease_closed, silent: self.settings.lease_silent }
    }

    /// Takes a submission. One that was sent before may have run although it is not known here, unless
    /// nothing is forgotten since.
    pub fn submit(&self, submission: Submission, spec: &ExecSpec, sent: Sent) -> Submitted {
        self.sweep();
        let mut table = self.lock();
        let (id, body) = (submission.id.clone(), submission.body);
        let owner = submission.owner.name.clone();
        let replaced = if matches!(sent, Sent::First) { table.free(&id) } else { None };
        if let Some(held) = table.jobs.get(&id) {
            let job = &held.job;
            let is_same = job.body == body && job.owner.name == owner;
            return if is_same { Submitted::Known(Arc::clone(job)) } else { Submitted::Conflict };
        }
        if let Some(past) = table.past.get(&id) {
            let is_same = past.body == body && past.owner == owner;
            return if is_same {
                Submitted::Past(Box::new(past.clone()))
            } else {
                Submitted::Conflict
            };
        }
        let never_ran = match sent {
            Sent::First => true,
            // A durable id that is not on disk was never started.
            Sent::Again(_) if submission.durable => true,
            Sent::Again(then) => {
                then.is_some_and(|then| then > table.generated.complete_since(&owner))
            }
            Sent::Started => false,
        };
        if !holds("jobs.once", never_ran) {
            return Submitted::Unknown;
        }
        let then = job::then(spec, self.settings.lease_silent);
        let most = self.settings.ids_per_identity;
        let chosen = table.chosen.get(&owner).copied().unwrap_or_default();
        if submission.durable && !holds("jobs.ids_per_identity", chosen < most) {
            table.gone.extend(replaced);
            return Submitted::Full(most);
        }
        let (job, controls) = Job::new(submission, spec, then, Arc::clone(&self.store));
        job.replaces(replaced);
        table.jobs.insert(id, Held { job: Arc::clone(&job), ended: None });
        Submitted::New(job, controls)
    }

    /// Puts a job with an id of the caller's own on disk, and makes the place there for output that is
    /// to be kept; it may be started once this has returned.
    pub async fn commit(&self, job: &Arc<Job>) -> io::Result<()> {
        let is_kept = job.is_kept();
        if !job.durable && !is_kept {
            return Ok(());
        }
        let (journal, begun) = (Arc::clone(&self.journal), Arc::clone(job));
        let commit = move || {
            // Its place has the same name.
            if let Some(replaced) = begun.take_replaced() {
                replaced.remove();
            }
            if is_kept {
                begun.spool().map_err(io::Error::other)?;
            }
            if begun.durable { journal.begun(&begun) } else { Ok(()) }
        };
        spawn_blocking(commit).await.map_err(io::Error::other)??;
        job.committed(true);
        if job.durable {
            *self.lock().chosen.entry(job.owner.name.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// A job has ended, or did not start: its `exit` is known.
    pub async fn ended(&self, job: &Arc<Job>, exit: &Exit) {
        job.drop_rest();
        let is_free = never_ran(exit);
        if job.durable && job.is_committed() {
            let (journal, ended, exit) = (Arc::clone(&self.journal), Arc::clone(job), exit.clone());
            // It waits while the journal is tidied.
            let recorded = spawn_blocking(move || journal.ended(&ended, &exit)).await;
            if let Err(error) = recorded.map_err(io::Error::other).flatten() {
                tracing::error!(%error, job = %job.id, "cannot record the end of a job");
            }
            if is_free {
                // From now on it is as one that never came to the disk.
                job.committed(false);
                self.lock().forget_chosen(&job.owner.name);
            }
        }
        let now = Instant::now();
        let lifetime = match job.lease() {
            _ if never_ran(exit) => self.settings.lease_silent,
            _ if job.is_kept() => self.settings.keep_output,
            // The client may be away for as long as it said, and no longer than others' output is kept.
            Some(lease) => lease.min(self.settings.keep_output).max(self.settings.lease_silent),
            None => self.settings.lease_silent,
        };
        self.store.ended(job);
        let mut table = self.lock();
        table.gone.extend(job.take_replaced());
        table.end(job, exit.clone(), now.checked_add(lifetime).unwrap_or(now));
        drop(table);
        self.sweep();
    }

    /// Forgets what is over.
    pub fn sweep(&self) {
        let mut table = self.lock();
        table.forget(Instant::now(), self.store.dropped());
        let gone = std::mem::take(&mut table.gone);
        drop(table);
        if !gone.is_empty() {
            // Files may be large, and nobody waits for their end.
            spawn_blocking(move || gone.iter().for_each(|log| log.remove()));
        }
    }

    /// Forgets ids that callers chose, once they are remembered for long enough. Blocks.
    pub fn prune(&self) {
        let (keep, now) = (self.settings.keep_ids.max(2 * generated::LONGEST), SystemTime::now());
        self.lock().prune(keep, now);
        if let Err(error) = self.journal.tidy() {
            tracing::warn!(%error, "cannot write the journal anew; it goes on growing");
        }
    }

    /// The client has all there is of an ended job.
    pub fn acknowledged(&self, job: &Job) {
        if job.has_ended() && !job.is_kept() && !job.durable {
            self.lock().retire(&job.id, Instant::now());
            self.sweep();
        }
    }

    /// Forgets an ended job's output; false if there is none or it still runs.
    pub fn remove(&self, id: &JobId) -> bool {
        let mut table = self.lock();
        let has_ended = table.jobs.get(id).is_some_and(|held| held.ended.is_some());
        if has_ended {
            table.retire(id, Instant::now());
        }
        drop(table);
        self.sweep();
        has_ended
    }

    /// The job of this id, if it is still held.
    pub fn find(&self, id: &JobId) -> Option<Arc<Job>> {
        self.lock().jobs.get(id).map(|held| Arc::clone(&held.job))
    }

    /// The port of a job that listens, if `owner` may take connections of it as the local user `user`: it
    /// is the owner's own, and runs as that user.
    pub fn port(&self, id: &JobId, owner: &str, user: &str) -> Option<Port> {
        let table = self.lock();
        let running = table.jobs.get(id).filter(|held| held.ended.is_none());
        let job = running.map(|held| &held.job)?;
        let is_own = holds("accept.owner", job.owner.name == owner);
        let port = job.listens().filter(|_| is_own)?;
        holds("accept.user", job.runs_as(user)).then_some(port)
    }

    /// Where the connection comes from that a command is about to take; `None` if it takes none, or if an agent
    /// before this one has heard of it.
    pub fn arrival(&self, command: &Command) -> Option<SocketAddr> {
        let Command::Accept { job, number } = command else { return None };
        self.find(job)?.heard()?.peer(*number)
    }

    /// How a job of this owner ended that is only remembered.
    pub fn past(&self, id: &JobId) -> Option<Past> {
        self.lock().past.get(id).cloned()
    }

    /// The jobs that run, and those whose end waits for somebody: the oldest first. `may_see` is asked
    /// about each, while nobody waits for the table.
    pub fn list(&self, mut may_see: impl FnMut(&Job) -> bool) -> Vec<JobInfo> {
        self.sweep();
        let outcome = |held: &Held| held.ended.as_ref().map(|ended| ended.exit.outcome.clone());
        let copy = |held: &Held| (Arc::clone(&held.job), outcome(held));
        let copied: Vec<_> = self.lock().jobs.values().map(copy).collect();
        let seen = copied.into_iter().filter(|(job, _)| may_see(job));
        let mut all: Vec<JobInfo> = seen.map(|(job, outcome)| job.info(outcome)).collect();
        all.sort_by(|a, b| (a.started_ms, a.job.as_str()).cmp(&(b.started_ms, b.job.as_str())));
        all
    }

    /// Those that have not ended.
    pub fn running(&self) -> Vec<Arc<Job>> {
        let table = self.lock();
        let running = table.jobs.values().filter(|held| held.ended.is_none());
        running.map(|held| Arc::clone(&held.job)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an outcome says that nothing ran.
pub(crate) fn never_ran(exit: &Exit) -> bool {
    matches!(exit.outcome, Outcome::NeverStarted { .. } | Outcome::Denied { .. })
}

/// Bytes of memory that the words in it take.
fn words_of(exit: &Exit) -> usize {
    match &exit.outcome {
        Outcome::NeverStarted { message, .. }
        | Outcome::Denied { message }
        | Outcome::Lost { message } => message.capacity(),
        _ => 0,
    }
}

impl Table {
    /// An id under which nothing ever ran is not taken: what stood in the way may be gone. Who asks again
    /// for the answer to a submission still gets it. Returns what that has left, to be removed.
    fn free(&mut self, id: &JobId) -> Option<Arc<Log>> {
        let ended = self.jobs.get(id).and_then(|held| held.ended.as_ref());
        let mut left = None;
        if ended.is_some_and(|ended| never_ran(&ended.exit)) {
            self.retire(id, Instant::now());
            left = self.gone.pop();
        }
        if let Some(past) = self.past.get(id).filter(|past| never_ran(&past.exit)) {
            self.generated.remove(&past.owner, id);
            self.past.remove(id);
        }
        left
    }

    /// Retires what is over, and the oldest of what takes too much memory.
    fn forget(&mut self, now: Instant, dropped: u64) {
        if dropped > self.dropped {
            self.dropped = dropped;
            let is_removed = |held: &&Held| held.job.log.is_removed();
            let removed = self.jobs.values().filter(is_removed).map(|held| held.job.id.clone());
            removed.collect::<Vec<_>>().iter().for_each(|id| self.retire(id, now));
        }
        while let Some(id) = self.unread.over(now) {
            self.retire(&id, now);
        }
        for id in self.generated.forget(now) {
            self.past.remove(&id);
        }
    }

    /// Forgets what ended longer ago than `keep`. Generated ids are forgotten in their own time.
    fn prune(&mut self, keep: Duration, now: SystemTime) {
        let generated: HashSet<_> = self.generated.all().into_iter().map(|(_, id)| id).collect();
        let old = |(id, past): &(&JobId, &Past)| {
            !generated.contains(id) && !past.is_remembered(keep, now)
        };
        let old: Vec<JobId> = self.past.iter().filter(old).map(|(id, _)| id.clone()).collect();
        for past in old.iter().filter_map(|id| self.past.remove(id)).collect::<Vec<_>>() {
            self.forget_chosen(&past.owner);
        }
    }

    /// One of this identity's ids is not remembered any more.
    fn forget_chosen(&mut self, owner: &str) {
        match self.chosen.get_mut(owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.chosen.remove(owner)),
        }
    }

    /// A job has ended, and is forgotten then.
    fn end(&mut self, job: &Job, exit: Exit, until: Instant) {
        let Some(held) = self.jobs.get_mut(&job.id) else { return };
        // Here, with the job, and on its way.
        let memory = job.memory() + 3 * words_of(&exit) + ENDED;
        held.ended = Some(Ended { exit, until, memory });
        self.unread.insert(&job.owner.name, until, job.id.clone(), memory);
    }

    /// An ended job becomes a memory.
    fn retire(&mut self, id: &JobId, now: Instant) {
        if self.jobs.get(id).is_none_or(|held| held.ended.is_none()) {
            // It was taken for lost, and runs again.
            return;
        }
        let Some(Held { job, ended: Some(ended) }) = self.jobs.remove(id) else { return };
        let Ended { exit, until, memory } = ended;
        self.unread.remove(&job.owner.name, until, id, memory);
        // Who still reads gets a gap; nobody new comes.
        self.gone.push(Arc::clone(&job.log));
        let ended = SystemTime::now();
        let owner = job.owner.name.clone();
        // The journal holds none but durable ones, and of those none that never came to the disk: it
        // never ran, and who may run nothing must not fill the memory.
        if !(job.durable && job.is_committed()) {
            self.generated.push(&owner, now, id.clone());
        }
        let past = Past { body: job.body, algorithm: job.algorithm, owner, exit, ended };
        self.past.insert(id.clone(), past);
    }
}

#[cfg(test)]
mod tests {
    use super::meta::Owner;
    use super::*;
    use rexec_protocol::message::OnDisconnect;
    use rexec_protocol::{Algorithm, Digest, NeverStarted};

    fn jobs() -> (tempfile::TempDir, Jobs) {
        let state = tempfile::tempdir().unwrap();
        let (jobs, _) = Jobs::open(state.path(), Settings::default()).unwrap();
        (state, jobs)
    }

    fn submission(name: &str) -> Submission {
        Submission {
            id: JobId::new(name).unwrap(),
            body: Digest::of(Algorithm::Sha256, b"request"),
            owner: Owner { name: "alice".to_owned(), groups: Vec::new() },
            algorithm: Algorithm::Sha256,
            durable: true,
            resumable: true,
            detach: false,
        }
    }

    fn submit(jobs: &Jobs, name: &str, detach: bool, then: Option<OnDisconnect>) -> Arc<Job> {
        let submission = Submission { detach, ..submission(name) };
        let command = Command::Argv(vec![b"true".to_vec().into()]);
        let spec = ExecSpec { on_disconnect: then, ..ExecSpec::new(command) };
        match jobs.submit(submission, &spec, Sent::First) {
            Submitted::New(job, _) => job,
            _ => panic!("{name} is not new"),
        }
    }

    fn is_held_after(jobs: &Jobs, job: &Job, wait: Duration) -> bool {
        let mut table = jobs.lock();
        table.forget(Instant::now() + wait, 0);
        table.jobs.contains_key(&job.id)
    }

    const EXITED: Outcome = Outcome::Exited { code: 0 };

    async fn end(jobs: &Jobs, job: &Arc<Job>, outcome: Outcome) {
        jobs.ended(job, &Exit::of_nothing(outcome, Algorithm::Sha256)).await;
    }

    /// It was sent when another agent was here, or longer ago than anything is remembered.
    #[test]
    fn what_may_have_run_does_not_run_again() {
        let (_state, jobs) = jobs();
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let runs = |name, durable, sent| {
            let submission = Submission { durable, ..submission(name) };
            matches!(jobs.submit(submission, &spec, sent), Submitted::New(..))
        };
        let before = Instant::now().checked_sub(Duration::from_secs(60));
        assert!(!runs("before-this-agent", false, Sent::Again(before)));
        assert!(!runs("before-this-machine", false, Sent::Again(None)));
        assert!(runs("since", false, Sent::Again(Some(Instant::now()))));
        assert!(runs("first", false, Sent::First));
        assert!(runs("durable", true, Sent::Again(None)), "it would be in the journal");
        for durable in [false, true] {
            assert!(!runs("started", durable, Sent::Started));
        }
    }

    /// Another's connections are none of one's business, and a job as another user would give them to
    /// somebody else.
    #[tokio::test]
    async fn connections_are_for_who_listens_for_them() {
        let (_state, jobs) = jobs();
        let listen = Command::Listen { host: "localhost".to_owned(), port: 8080 };
        let spec = ExecSpec { stdin: true, ..ExecSpec::new(listen) };
        let Submitted::New(job, _) = jobs.submit(submission("listens"), &spec, Sent::First) else {
            panic!()
        };
        let port = |id: &JobId, owner, user| jobs.port(id, owner, user).map(|at| at.port);
        job.permitted("deploy", &spec.command);
        assert_eq!(port(&job.id, "alice", "deploy"), None, "it does not run yet");
        job.started(7);
        assert_eq!(port(&job.id, "alice", "deploy"), Some(8080));
        assert_eq!(port(&job.id, "bob", "deploy"), None);
        assert_eq!(port(&job.id, "alice", "root"), None);
        let other = submit(&jobs, "other", false, None);
        other.permitted("deploy", &Command::Login {});
        other.started(8);
        assert_eq!(port(&other.id, "alice", "deploy"), None, "it has no port");
        end(&jobs, &job, EXITED).await;
        assert_eq!(port(&job.id, "alice", "deploy"), None, "it has ended");
    }

    /// Who may run nothing must not fill the agent's memory with what it asks for.
    #[tokio::test]
    async fn what_was_not_permitted_is_kept_as_a_few_words() {
        let (_state, jobs) = jobs();
        let long = "h".repeat(1 << 20);
        let listen = Command::Listen { host: long.clone(), port: 8080 };
        let connect = Command::Connect { host: long.clone(), port: 8080 };
        let script = Command::Script { text: long.clone().into_bytes().into(), args: Vec::new() };
        let words = Command::Argv(vec![long.clone().into_bytes().into()]);
        let subsystem = Command::Subsystem(long.clone());
        for (n, command) in [listen, connect, script, words, subsystem].into_iter().enumerate() {
            let spec = ExecSpec { stdin: true, user: Some(long.clone()), ..ExecSpec::new(command) };
            let submission = submission(&format!("job-{n}"));
            let Submitted::New(job, _) = jobs.submit(submission, &spec, Sent::First) else {
                panic!()
            };
            let message = rexec_protocol::outcome::shorten(long.clone());
            let before = jobs.lock().unread.bytes();
            end(&jobs, &job, Outcome::Denied { message }).await;
            let counted = jobs.lock().unread.bytes() - before;
            assert!(counted < 64 * 1024, "{counted}");
            assert_eq!(job.meta().listens, None);
        }
    }

    /// What is kept of it for a while is counted, whatever it is.
    #[tokio::test]
    async fn an_ended_job_counts_as_what_it_holds() {
        let (_state, jobs) = jobs();
        let count = |owner: Owner, name: &str, command: &[u8]| {
            let submission = Submission { owner, ..submission(name) };
            let spec = ExecSpec::new(Command::Argv(vec![command.to_vec().into()]));
            let Submitted::New(job, _) = jobs.submit(submission, &spec, Sent::First) else {
                panic!()
            };
            job
        };
        let owner = |groups: Vec<String>| Owner { name: "alice".to_owned(), groups };
        let mut counted = Vec::new();
        for job in [
            count(owner(Vec::new()), "small", b"true"),
            count(owner(vec!["g".repeat(128); 64]), "groups", b"true"),
            count(owner(Vec::new()), "words", &[0x7f; 2000]),
        ] {
            let before = jobs.lock().unread.bytes();
            end(&jobs, &job, EXITED).await;
            counted.push(jobs.lock().unread.bytes() - before);
        }
        assert!(counted[1] >= counted[0] + 64 * 128, "{counted:?}");
        assert!(counted[2] >= counted[0] + 2000, "{counted:?}");
    }

    /// Policy and certificate are asked about no more once nobody is there for it.
    #[tokio::test]
    async fn a_connection_waits_for_its_client_no_longer_than_by_default() {
        let (_state, jobs) = jobs();
        let silent = jobs.leases().silent;
        let connect = Command::Connect { host: "db".to_owned(), port: 1 };
        let program = Command::Argv(vec![b"true".to_vec().into()]);
        for (name, command, ms, longest) in [
            ("long", connect.clone(), u64::MAX, silent),
            ("short", connect, 1000, Duration::from_secs(1)),
            ("program", program, 600_000, Duration::from_secs(600)),
        ] {
            let then = Some(OnDisconnect::Lease { ms });
            let spec = ExecSpec { on_disconnect: then, ..ExecSpec::new(command) };
            let Submitted::New(job, _) = jobs.submit(submission(name), &spec, Sent::First) else {
                panic!()
            };
            assert_eq!(job.lease_without_agent(jobs.leases()), Some(longest), "{name}");
        }
    }

    /// Who asks for a list in a loop holds nobody up but itself.
    #[tokio::test]
    async fn a_list_is_judged_while_nobody_waits() {
        let (_state, jobs) = jobs();
        submit(&jobs, "one", false, None);
        let other = submit(&jobs, "other", false, None);
        end(&jobs, &other, EXITED).await;
        let mut is_free = Vec::new();
        let listed = jobs.list(|job| {
            is_free.push(jobs.table.try_lock().is_ok());
            job.id == other.id
        });
        assert_eq!(is_free, [true, true]);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].outcome, Some(EXITED));
    }

    /// Its end comes first, and its time last.
    #[tokio::test]
    async fn a_kept_job_keeps_no_other() {
        let (_state, jobs) = jobs();
        let kept = submit(&jobs, "kept", true, None);
        let other = submit(&jobs, "other", false, None);
        end(&jobs, &kept, EXITED).await;
        end(&jobs, &other, EXITED).await;
        assert!(!is_held_after(&jobs, &other, Duration::from_secs(61)));
        assert!(is_held_after(&jobs, &kept, Duration::from_secs(61)));
    }

    #[tokio::test]
    async fn output_waits_as_long_as_the_lease() {
        let (_state, jobs) = jobs();
        let then = Some(OnDisconnect::Lease { ms: 600_000 });
        let job = submit(&jobs, "leased", false, then);
        end(&jobs, &job, EXITED).await;
        assert!(is_held_after(&jobs, &job, Duration::from_secs(599)));
        assert!(!is_held_after(&jobs, &job, Duration::from_secs(601)));
    }

    /// No journal has it, so what hands generated ids on to the next agent must have it.
    #[tokio::test]
    async fn a_kept_job_with_a_generated_id_is_remembered_as_one() {
        let (_state, jobs) = jobs();
        let submission = Submission { durable: false, detach: true, ..submission("generated") };
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let Submitted::New(job, _) = jobs.submit(submission, &spec, Sent::First) else { panic!() };
        jobs.commit(&job).await.unwrap();
        end(&jobs, &job, EXITED).await;
        assert!(jobs.remove(&job.id));
        assert_eq!(jobs.lock().generated.len(), 1);
    }

    /// A deployment that met a busy agent would otherwise never run under its id.
    #[tokio::test]
    async fn an_id_under_which_nothing_ran_is_free() {
        let (state, jobs) = jobs();
        let busy = || Outcome::NeverStarted { reason: NeverStarted::Busy, message: String::new() };
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let again = |jobs: &Jobs, sent| jobs.submit(submission("deploy"), &spec, sent);
        // Also one that is kept, whose place on disk is taken by the first.
        for detach in [false, true, true, false] {
            let job = submit(&jobs, "deploy", detach, None);
            jobs.commit(&job).await.unwrap();
            end(&jobs, &job, busy()).await;
            // Whoever has lost the answer gets it.
            assert!(matches!(again(&jobs, Sent::Again(None)), Submitted::Known(..)));
        }
        drop(jobs);
        let (jobs, _) = Jobs::open(state.path(), Settings::default()).unwrap();
        assert!(!jobs.lock().past.contains_key(&JobId::new("deploy").unwrap()), "it is forgotten");
        let job = submit(&jobs, "deploy", false, None);
        jobs.commit(&job).await.unwrap();
        end(&jobs, &job, EXITED).await;
        assert!(matches!(again(&jobs, Sent::First), Submitted::Known(..)), "it ran");
        jobs.lock().forget(Instant::now() + 2 * generated::LONGEST, 0);
        assert!(matches!(again(&jobs, Sent::First), Submitted::Past(..)), "it is remembered");
        drop(jobs);
        let (jobs, _) = Jobs::open(state.path(), Settings::default()).unwrap();
        assert!(matches!(again(&jobs, Sent::First), Submitted::Past(..)), "it is on disk");
    }

    /// They are remembered for a week, in memory too, and by the next agent.
    #[tokio::test]
    async fn one_identity_chooses_so_many_ids_and_no_more() {
        let state = tempfile::tempdir().unwrap();
        let settings = Settings { ids_per_identity: 2, ..Settings::default() };
        let open = || Jobs::open(state.path(), settings.clone()).unwrap().0;
        let spec = ExecSpec::new(Command::Argv(vec![b"true".to_vec().into()]));
        let try_as = |jobs: &Jobs, owner: &str, name: &str, durable| {
            let owner = Owner { name: owner.to_owned(), groups: Vec::new() };
            let submission = Submission { owner, durable, ..submission(name) };
            match jobs.submit(submission, &spec, Sent::First) {
                Submitted::New(job, _) => Some(job),
                Submitted::Full(2) => None,
                _ => panic!("{name} is known"),
            }
        };
        let run = async |jobs: &Jobs, owner: &str, name: &str, outcome| {
            let Some(job) = try_as(jobs, owner, name, true) else { return false };
            jobs.commit(&job).await.unwrap();
            end(jobs, &job, outcome).await;
            true
        };
        let busy = || Outcome::NeverStarted { reason: NeverStarted::Busy, message: String::new() };
        let jobs = open();
        for n in 0..5 {
            assert!(
                run(&jobs, "mallory", &format!("never-{n}"), busy()).await,
                "it takes no place"
            );
        }
        assert!(run(&jobs, "mallory", "one", EXITED).await);
        assert!(run(&jobs, "mallory", "two", EXITED).await);
        assert!(!run(&jobs, "mallory", "three", EXITED).await);
        assert!(run(&jobs, "alice", "hers", EXITED).await);
        assert!(try_as(&jobs, "mallory", "generated", false).is_some());
        drop(jobs);
        let jobs = open();
        assert!(!run(&jobs, "mallory", "three", EXITED).await, "the next agent counts them too");
        jobs.lock().prune(Duration::ZERO, SystemTime::now() + Duration::from_secs(1));
        assert!(run(&jobs, "mallory", "three", EXITED).await, "those before are forgotten");
    }

    /// Who may run nothing must not fill the agent's memory or disk with ids.
    #[tokio::test]
    async fn what_never_ran_is_soon_forgotten() {
        let (state, jobs) = jobs();
        let job = submit(&jobs, "never", true, None);
        let (reason, message) = (NeverStarted::Busy, String::new());
        end(&jobs, &job, Outcome::NeverStarted { reason, message }).await;
        assert!(!is_held_after(&jobs, &job, Duration::from_secs(61)));
        assert_eq!(jobs.lock().generated.len(), 1, "it is not remembered as one that ran");
        assert_eq!(std::fs::read_to_string(state.path().join("journal")).unwrap(), "");
    }
}
