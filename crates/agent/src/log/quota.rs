//! How much disk all jobs may take together.

use super::Log;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The room for all jobs.
#[derive(Debug)]
pub struct Quota {
    total: u64,
    used: Mutex<u64>,
    dropped: AtomicU64,
    /// The logs of jobs that have ended, the oldest end first.
    ended: Mutex<VecDeque<Weak<Log>>>,
}

/// One job's part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    bytes: Mutex<u64>,
}

impl Quota {
    /// Room for `total` bytes.
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: Mutex::new(0),
            dropped: AtomicU64::new(0),
            ended: Mutex::default(),
        })
    }

    /// A part of no bytes yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { quota: Arc::clone(self), bytes: Mutex::new(0) }
    }

    /// How many logs had to go.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// This job has ended: its output is the next to go, after that of those before it.
    pub fn ended(&self, log: &Arc<Log>) {
        let mut ended = lock(&self.ended);
        ended.retain(|log| log.upgrade().is_some_and(|log| !log.is_removed()));
        ended.push_back(Arc::downgrade(log));
    }

    /// Deletes the output of the job that ended first; false if there is none. Blocks.
    fn drop_oldest(&self) -> bool {
        loop {
            // No lock is held while files are deleted.
            let Some(oldest) = lock(&self.ended).pop_front() else { return false };
            if let Some(log) = oldest.upgrade()
                && !log.is_removed()
            {
                tracing::warn!("the kept output of all jobs is at its limit; dropping the oldest");
                log.remove();
                self.dropped.fetch_add(1, Ordering::Release);
                return true;
            }
        }
    }
}

impl Share {
    /// Makes it this large, at the cost of jobs that have ended. False, and nothing changed, if that
    /// takes more than there is. Blocks.
    pub fn set(&self, bytes: u64) -> bool {
        // No lock is held while others are dropped: one of them may be this very job.
        while !self.fits(bytes) {
            if !self.quota.drop_oldest() {
                return false;
            }
        }
        true
    }

    /// Makes it this large if there is room for it.
    fn fits(&self, bytes: u64) -> bool {
        let mut own = lock(&self.bytes);
        let mut used = lock(&self.quota.used);
        let others = used.saturating_sub(*own);
        let fits = bytes <= *own || others.saturating_add(bytes) <= self.quota.total;
        if fits {
            *used = others.saturating_add(bytes);
            *own = bytes;
        }
        fits
    }

    /// Makes it this large, whatever the limit is.
    pub fn force(&self, bytes: u64) {
        let mut own = lock(&self.bytes);
        let mut used = lock(&self.quota.used);
        *used = used.saturating_sub(*own).saturating_add(bytes);
        *own = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let own = *lock(&self.bytes);
        let mut used = lock(&self.quota.used);
        *used = used.saturating_sub(own);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
