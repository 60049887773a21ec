//! How much disk all jobs may take together, and those of one identity.
//!
//! Whoever has the most loses the oldest output of a job that has ended, when there is no more room; and one whose
//! jobs still run waits, alone. So nobody takes away what others keep.

use super::Log;
use rexec_guard::holds;
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
    /// The logs of those that have ended, the oldest end first.
    ended: VecDeque<Weak<Log>>,
}

/// One job's part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    owner: String,
    bytes: Mutex<u64>,
}

/// Why there is no room.
enum Short {
    /// The identity has all that one may have.
    Own,
    /// There is no more.
    All,
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
    pub fn ended(&self, owner: &str, log: &Arc<Log>) {
        let mut used = lock(&self.used);
        let ended = &mut used.by_owner.entry(owner.to_owned()).or_default().ended;
        ended.retain(|log| log.upgrade().is_some_and(|log| !log.is_removed()));
        ended.push_back(Arc::downgrade(log));
    }

    /// Deletes the output of a job that has ended, to make room for one of `owner`; false if there is none that
    /// may go for that. Blocks.
    fn make_room(&self, owner: &str, short: &Short) -> bool {
        loop {
            // No lock is held while files are deleted.
            let Some(oldest) = lock(&self.used).next_to_go(owner, short) else { return false };
            if let Some(log) = oldest.upgrade()
                && !log.is_removed()
            {
                let whose = match short {
                    Short::Own => "the kept output of one identity is",
                    Short::All => "the kept output of all jobs is",
                };
                tracing::warn!(owner, "{whose} at its limit; dropping the oldest");
                log.remove();
                self.dropped.fetch_add(1, Ordering::Release);
                return true;
            }
        }
    }
}

impl Used {
    /// The first ended job of this identity; or, if nobody has room, of the one that has the most of those that
    /// have no less than this one.
    fn next_to_go(&mut self, owner: &str, short: &Short) -> Option<Weak<Log>> {
        let own = self.by_owner.get(owner).map_or(0, |own| own.bytes);
        let may_lose = |name: &str, other: &Own| match short {
            Short::Own => name == owner,
            Short::All => name == owner || other.bytes >= own,
        };
        let able = self
            .by_owner
            .iter_mut()
            .filter(|(name, other)| !other.ended.is_empty() && may_lose(name.as_str(), other));
        able.max_by_key(|(_, other)| other.bytes).and_then(|(_, other)| other.ended.pop_front())
    }

    /// A part of this identity has another size.
    fn change(&mut self, owner: &str, from: u64, to: u64) {
        let moved = |bytes: u64| bytes.saturating_sub(from).saturating_add(to);
        self.all = moved(self.all);
        let own = self.by_owner.entry(owner.to_owned()).or_default();
        own.bytes = moved(own.bytes);
        if own.bytes == 0 && own.ended.iter().all(|log| log.strong_count() == 0) {
            self.by_owner.remove(owner);
        }
    }
}

impl Share {
    /// Makes it this large, at the cost of jobs that have ended. False, and nothing changed, if that
    /// takes more than there is. Blocks.
    pub fn set(&self, bytes: u64) -> bool {
        // No lock is held while others are dropped: one of them may be this very job.
        while let Err(short) = self.fit(bytes) {
            if !self.quota.make_room(&self.owner, &short) {
                return false;
            }
        }
        true
    }

    /// Makes it this large if there is room for it.
    fn fit(&self, bytes: u64) -> Result<(), Short> {
        let mut own = lock(&self.bytes);
        let mut used = lock(&self.quota.used);
        let after = |sum: u64| sum.saturating_sub(*own).saturating_add(bytes);
        if bytes > *own {
            let of_owner = used.by_owner.get(&self.owner).map_or(0, |own| own.bytes);
            if !holds("spool.each", after(of_owner) <= self.quota.each) {
                return Err(Short::Own);
            }
            if after(used.all) > self.quota.total {
                return Err(Short::All);
            }
        }
        used.change(&self.owner, *own, bytes);
        *own = bytes;
        Ok(())
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

    fn ended(quota: &Quota, owner: &str) -> Arc<Log> {
        let log = Arc::new(Log::new(Algorithm::Sha256));
        quota.ended(owner, &log);
        log
    }

    #[test]
    fn who_keeps_much_takes_nothing_from_others() {
        let quota = Quota::new(100, 60);
        let (alice, bob) = (quota.share("alice"), quota.share("bob"));
        assert!(alice.set(20));
        let kept = ended(&quota, "alice");
        let filling = quota.share("mallory");
        assert!(filling.set(60));
        assert!(!quota.share("mallory").set(1), "one may not have more, and waits alone");
        assert!(bob.set(20), "and nobody else does");
        assert!(!kept.is_removed());
        // Nothing is left, and who has the most is the one whose job goes, though it ended last.
        let gone = ended(&quota, "mallory");
        let next = lock(&quota.used).next_to_go("bob", &Short::All).and_then(|log| log.upgrade());
        assert!(next.is_some_and(|next| Arc::ptr_eq(&next, &gone)));
    }

    #[test]
    fn nobody_is_robbed_by_who_has_more() {
        let quota = Quota::new(100, 60);
        let (alice, mallory) = (quota.share("alice"), quota.share("mallory"));
        assert!(alice.set(45) && mallory.set(50));
        let kept = ended(&quota, "alice");
        assert!(!mallory.set(60));
        assert!(!kept.is_removed());
        drop((kept, alice, mallory));
        assert!(quota.share("bob").set(60));
        assert!(lock(&quota.used).by_owner.is_empty());
    }
}
