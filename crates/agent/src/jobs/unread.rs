//! Ended jobs whose clients have not said yet that they have everything: until when each is held, and how much
//! memory they take together.
//!
//! Each identity has its share of that: when there is no more, the one whose jobs take the most loses the first of
//! them. So whoever leaves a thousand jobs lying takes nobody else's output away.

use rexec_protocol::JobId;
use std::collections::{BTreeSet, HashMap};
use tokio::time::Instant;

/// How much memory they may hold together, in bytes.
const MOST: usize = 64 * 1024 * 1024;

/// The jobs.
#[derive(Debug, Default)]
pub(super) struct Unread {
    by_owner: HashMap<String, Share>,
    bytes: usize,
}

/// Those of one identity.
#[derive(Debug, Default)]
struct Share {
    /// Each with the time at which it is forgotten.
    jobs: BTreeSet<(Instant, JobId)>,
    bytes: usize,
}

impl Unread {
    /// A job has ended, takes this much, and is forgotten then.
    pub(super) fn insert(&mut self, owner: &str, until: Instant, id: JobId, bytes: usize) {
        let share = self.by_owner.entry(owner.to_owned()).or_default();
        share.jobs.insert((until, id));
        share.bytes += bytes;
        self.bytes += bytes;
    }

    /// It is none of them any more.
    pub(super) fn remove(&mut self, owner: &str, until: Instant, id: &JobId, bytes: usize) {
        let Some(share) = self.by_owner.get_mut(owner) else { return };
        if share.jobs.remove(&(until, id.clone())) {
            share.bytes = share.bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        if share.jobs.is_empty() {
            self.by_owner.remove(owner);
        }
    }

    /// One that is not to be held any longer, if there is one: its time is over, or there is no room for all.
    pub(super) fn over(&self, now: Instant) -> Option<JobId> {
        let first = |share: &Share| share.jobs.first().cloned();
        let next = self.by_owner.values().filter_map(first).min();
        if let Some((_, id)) = next.filter(|(until, _)| *until <= now) {
            return Some(id);
        }
        let most = self.by_owner.values().max_by_key(|share| share.bytes);
        let most = most.filter(|_| self.bytes > MOST)?;
        first(most).map(|(_, id)| id)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn id(name: &str) -> JobId {
        JobId::new(name).unwrap()
    }

    #[test]
    fn who_leaves_much_lying_takes_nothing_from_others() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut unread = Unread::default();
        unread.insert("alice", at(1), id("small"), 1000);
        for n in 0..65 {
            unread.insert("mallory", at(2 + n), id(&format!("large-{n}")), MOST / 64);
        }
        let gone = unread.over(now).unwrap();
        assert_eq!(gone, id("large-0"));
        unread.remove("mallory", at(2), &gone, MOST / 64);
        // There is as much as there may be, and a little of alice's.
        assert_eq!(unread.over(now), Some(id("large-1")));
        unread.remove("mallory", at(3), &id("large-1"), MOST / 64);
        assert_eq!(unread.over(now), None);
        assert_eq!(unread.over(at(1)), Some(id("small")), "its time is over");
        unread.remove("alice", at(1), &id("small"), 1000);
        assert_eq!((unread.bytes(), unread.by_owner.len()), (63 * (MOST / 64), 1));
    }
}
