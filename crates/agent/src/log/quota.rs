//! How much disk all jobs may take together, and those of one identity.
//!
//! Whoever has the most loses the oldest output of a job that has ended, when there is no more room; and one whose
//! jobs still run waits, alone. So nobody takes away what others keep. Nothing is dropped unless that makes the room
//! that is wanted.

use super::Log;
use rexec_guard::holds;
use rexec_protocol::JobId;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The room for all jobs.
#[derive(Debug)]
pub struct Quota {
    total: u64,
    each: u64,
    used: Mutex<Used>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Used {
    all: u64,
    by_owner: HashMap<String, Own>,
}

/// What the jobs of one identity take.
#[derive(Debug, Default)]
struct Own {
    bytes: u64,
    /// Those that have ended, the oldest end first.
    ended: VecDeque<Ended>,
}

/// The output of a job that has ended.
#[derive(Debug, Clone)]
struct Ended {
    job: JobId,
    log: Weak<Log>,
    bytes: u64,
}

/// What goes, and whose it is.
type Going = Vec<(String, Ended)>;

/// One job's part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    owner: String,
    bytes: Mutex<u64>,
}

/// Why there is no room, and for how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// The identity has all that one may have.
    Own(u64),
    /// There is no more.
    All(u64),
}

impl Quota {
    /// Room for `total` bytes, of which one identity may have `each`.
    pub fn new(total: u64, each: u64) -> Arc<Self> {
        let (used, dropped) = Default::default();
        Arc::new(Self { total, each, used, dropped })
    }

    /// A part of no bytes yet, of this identity.
    pub fn share(self: &Arc<Self>, owner: &str) -> Share {
        Share { quota: Arc::clone(self), owner: owner.to_owned(), bytes: Mutex::new(0) }
    }

    /// How many logs had to go.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// A job of this identity has ended: its output is the next to go, after that of those before it.
    pub fn ended(&self, owner: &str, job: &JobId, log: &Arc<Log>) {
        let ended = Ended { job: job.clone(), log: Arc::downgrade(log), bytes: log.kept() };
        let held = {
            let mut used = lock(&self.used);
            // What keeps nothing could go for nobody.
            let Some(own) = used.by_owner.get_mut(owner).filter(|_| ended.bytes > 0) else {
                return;
            };
            let held = own.forget_removed();
            own.ended.push_back(ended);
            held
        };
        // Not under the lock: to let go of a log may give back its part.
        drop(held);
    }

    /// Deletes outputs of jobs that have ended, to make the room that `owner` is short of; false, and none is
    /// deleted, if those that may go for that are not enough. Blocks.
    fn make_room(&self, owner: &str, short: Short) -> bool {
        self.forget_removed(owner, short);
        let Some(going) = lock(&self.used).take_enough(owner, short) else { return false };
        self.drop_all(short.limit(), going);
        true
    }

    /// A job of `owner` that keeps so many bytes has ended. While it ran, a little of it was kept whatever the
    /// limits are, and that must not add up: where it is beyond one now, that is as when there is no room, for no
    /// more bytes than this job keeps. So nobody pays for what others have. Blocks.
    fn settle(&self, owner: &str, bytes: u64) {
        let own = lock(&self.used).by_owner.get(owner).map_or(0, |own| own.bytes);
        if own > self.each {
            self.make_room(owner, Short::Own(bytes.min(own - self.each)));
        }
        let all = lock(&self.used).all;
        if all > self.total {
            self.make_room(owner, Short::All(bytes.min(all - self.total)));
        }
    }

    /// Leaves out what is gone already of whoever may have to lose something.
    fn forget_removed(&self, owner: &str, short: Short) {
        let mut used = lock(&self.used);
        let losers = used.by_owner.iter_mut().filter(|(name, _)| short.concerns(owner, name));
        let held: Vec<_> = losers.flat_map(|(_, own)| own.forget_removed()).collect();
        drop(used);
        // Not under the lock: to let go of a log may give back its part.
        drop(held);
    }

    /// No lock is held while files are deleted.
    fn drop_all(&self, limit: &'static str, going: Going) {
        for (owner, Ended { job, log, .. }) in going {
            let Some(log) = log.upgrade() else { continue };
            tracing::warn!(%job, owner, limit, "the limit of kept output is reached; dropping the output of this job");
            log.remove();
            self.dropped.fetch_add(1, Ordering::Release);
        }
    }
}

impl Short {
    /// How much is missing.
    fn bytes(self) -> u64 {
        match self {
            Self::Own(bytes) | Self::All(bytes) => bytes,
        }
    }

    /// Whether an identity of this name may have to lose something, where `owner` is short.
    fn concerns(self, owner: &str, name: &str) -> bool {
        matches!(self, Self::All(_)) || name == owner
    }

    /// Which limit it is, for the agent's log.
    fn limit(self) -> &'static str {
        match self {
            Self::Own(_) => "one identity's part of 'jobs.max_output_total'",
            Self::All(_) => "'jobs.max_output_total'",
        }
    }
}

impl Own {
    /// Leaves out what is gone already. The logs that it has looked at.
    fn forget_removed(&mut self) -> Vec<Arc<Log>> {
        let mut held = Vec::new();
        self.ended.retain(|ended| {
            let log = ended.log.upgrade();
            let is_there = log.as_ref().is_some_and(|log| !log.is_removed());
            held.extend(log);
            is_there
        });
        held
    }
}

impl Used {
    /// The ended jobs that have to go for what is missing: the first ones of this identity; or, if nobody has room,
    /// each time of the one that has the most of those that have no less than this one.
    fn take_enough(&mut self, owner: &str, short: Short) -> Option<Going> {
        let missing = short.bytes();
        // Of each: what is left of it, and how many of its jobs go.
        let all = self.by_owner.iter().filter(|(name, _)| short.concerns(owner, name));
        let mut left: HashMap<&str, (u64, usize)> =
            all.map(|(name, own)| (name.as_str(), (own.bytes, 0))).collect();
        let mut sum = 0;
        while sum < missing {
            let own = left.get(owner).map_or(0, |(bytes, _)| *bytes);
            let able = left.iter_mut().filter_map(|(name, (bytes, gone))| {
                let has_more = *name == owner || *bytes >= own;
                let next = self.by_owner.get(*name)?.ended.get(*gone).filter(|_| has_more)?;
                Some((next, bytes, gone))
            });
            let (next, bytes, gone) = able.max_by_key(|(_, bytes, _)| **bytes)?;
            *bytes = bytes.saturating_sub(next.bytes);
            *gone += 1;
            sum += next.bytes;
        }
        let gone = left.into_iter().filter(|(_, (_, gone))| *gone > 0);
        let gone: Vec<_> = gone.map(|(name, (_, gone))| (name.to_owned(), gone)).collect();
        let mut going = Vec::new();
        for (name, gone) in gone {
            if let Some(own) = self.by_owner.get_mut(&name) {
                going.extend(own.ended.drain(..gone).map(|ended| (name.clone(), ended)));
            }
        }
        Some(going)
    }

    /// A part of this identity has another size.
    fn change(&mut self, owner: &str, from: u64, to: u64) {
        let moved = |bytes: u64| bytes.saturating_sub(from).saturating_add(to);
        self.all = moved(self.all);
        let own = self.by_owner.entry(owner.to_owned()).or_default();
        own.bytes = moved(own.bytes);
        if own.bytes == 0 {
            self.by_owner.remove(owner);
        }
    }
}

impl Share {
    /// Makes it this large if there is room for it.
    pub fn set(&self, bytes: u64) -> Result<(), Short> {
        let mut own = lock(&self.bytes);
        let mut used = lock(&self.quota.used);
        let after = |sum: u64| sum.saturating_sub(*own).saturating_add(bytes);
        if bytes > *own {
            let of_owner = used.by_owner.get(&self.owner).map_or(0, |own| own.bytes);
            let over = after(of_owner).saturating_sub(self.quota.each);
            if !holds("spool.each", over == 0) {
                return Err(Short::Own(over));
            }
            let over = after(used.all).saturating_sub(self.quota.total);
            if over > 0 {
                return Err(Short::All(over));
            }
        }
        used.change(&self.owner, *own, bytes);
        *own = bytes;
        Ok(())
    }

    /// Makes the room that it is short of, at the cost of jobs that have ended; false if those are not enough.
    /// Blocks.
    pub fn make_room(&self, short: Short) -> bool {
        // No lock is held while others are dropped: one of them may be this very job.
        self.quota.make_room(&self.owner, short)
    }

    /// Its job has ended and keeps so much; others go if that is beyond a limit. Blocks.
    pub fn end(&self, bytes: u64) {
        self.force(bytes);
        self.quota.settle(&self.owner, bytes);
    }

    /// Makes it this large, whatever the limit is.
    pub fn force(&self, bytes: u64) {
        let mut own = lock(&self.bytes);
        lock(&self.quota.used).change(&self.owner, *own, bytes);
        *own = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.force(0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::Algorithm;

    /// A job of this identity that has ended and keeps so much.
    fn ended(quota: &Quota, owner: &str, bytes: u64) -> Arc<Log> {
        let log = Arc::new(Log::new(Algorithm::Sha256));
        let ended = Ended { job: JobId::new("j").unwrap(), log: Arc::downgrade(&log), bytes };
        lock(&quota.used).by_owner.entry(owner.to_owned()).or_default().ended.push_back(ended);
        log
    }

    /// As a job that writes does it.
    fn grows(share: &Share, bytes: u64) -> bool {
        loop {
            match share.set(bytes) {
                Ok(()) => return true,
                Err(short) if share.make_room(short) => {}
                Err(_) => return false,
            }
        }
    }

    #[test]
    fn who_keeps_much_takes_nothing_from_others() {
        let quota = Quota::new(100, 60);
        let (alice, bob) = (quota.share("alice"), quota.share("bob"));
        assert!(grows(&alice, 20));
        let kept = ended(&quota, "alice", 20);
        let filling = quota.share("mallory");
        assert!(grows(&filling, 60));
        assert!(!grows(&quota.share("mallory"), 1), "one may not have more, and waits alone");
        assert!(grows(&bob, 20), "and nobody else does");
        assert!(!kept.is_removed());
        // Nothing is left, and who has the most is the one whose job goes, though it ended last.
        let gone = ended(&quota, "mallory", 10);
        let next = lock(&quota.used).take_enough("bob", Short::All(10)).unwrap();
        assert!(next.len() == 1 && next[0].1.log.ptr_eq(&Arc::downgrade(&gone)));
        assert_eq!(next[0].0, "mallory", "and not who wants the room");
    }

    #[test]
    fn nobody_is_robbed_by_who_has_more() {
        let quota = Quota::new(100, 60);
        let (alice, mallory) = (quota.share("alice"), quota.share("mallory"));
        assert!(grows(&alice, 45) && grows(&mallory, 50));
        let kept = ended(&quota, "alice", 45);
        assert!(!grows(&mallory, 60));
        assert!(!kept.is_removed());
        drop((alice, kept, mallory));
        assert!(grows(&quota.share("bob"), 60));
        assert!(lock(&quota.used).by_owner.is_empty(), "who keeps nothing is forgotten");
    }

    /// Of a log that is gone not even the address may stay: it keeps the memory.
    #[test]
    fn what_is_gone_is_forgotten_when_the_next_one_ends() {
        let quota = Quota::new(100, 60);
        let running = quota.share("alice");
        assert!(grows(&running, 50));
        for _ in 0..10 {
            ended(&quota, "alice", 1).remove();
        }
        let last = Arc::new(Log::new(Algorithm::Sha256));
        last.output(rexec_protocol::message::Channel::Out, "x".into());
        quota.ended("alice", &JobId::new("j").unwrap(), &last);
        assert_eq!(lock(&quota.used).by_owner["alice"].ended.len(), 1);
    }

    /// One who waited took a little each second until nothing was left, and still waited.
    #[test]
    fn what_does_not_make_enough_room_is_not_dropped() {
        let quota = Quota::new(100, 60);
        let small = quota.share("alice");
        assert!(grows(&small, 5));
        let kept = ended(&quota, "alice", 5);
        let (running, waiting) = (quota.share("alice"), quota.share("alice"));
        assert!(grows(&running, 50));
        assert!(!grows(&waiting, 20) && !kept.is_removed());
        assert!(!waiting.make_room(Short::All(20)) && !kept.is_removed());
        assert!(waiting.make_room(Short::All(5)) && kept.is_removed());
    }

    /// She lost all that she kept when a job of hers ended, because others had what all may have.
    #[test]
    fn nobody_pays_for_what_others_have_too_much() {
        let quota = Quota::new(100, 300);
        let (carol, small) = (quota.share("carol"), quota.share("carol"));
        assert!(grows(&carol, 30));
        let kept: Vec<_> = (0..3).map(|_| ended(&quota, "carol", 10)).collect();
        let mallory = quota.share("mallory");
        mallory.force(200);
        let end = |bytes| {
            small.force(bytes);
            small.end(bytes);
            kept.iter().map(|log| log.is_removed()).collect::<Vec<_>>()
        };
        assert_eq!(end(5), [true, false, false], "what is new makes its own room, and no more");
        let large = ended(&quota, "mallory", 50);
        assert_eq!(end(5), [true, false, false], "one who has more can lose something");
        assert!(large.is_removed());
        assert_eq!(end(50), [true, false, false], "what is not enough stays");
    }
}
