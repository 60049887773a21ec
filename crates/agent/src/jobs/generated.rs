//! Ids that agents or client programs made, and of which only the end is remembered.
//!
//! All identities together have so much room, and each has its share: when there is no more, the one that has the
//! most loses its oldest. So whoever runs a thousand commands in a second makes nobody else's be forgotten. Where
//! something was forgotten it is known of whom, and since when all is known: a job of which nothing is known, and
//! that was submitted before then, may have run.

use rexec_protocol::JobId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How many are remembered …
const MOST: usize = 10_000;
/// … and for how long.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// How often it is looked for those that are too old.
const LOOK: Duration = Duration::from_secs(1);

/// The ids, in the order in which their jobs became memories.
#[derive(Debug)]
pub(super) struct Generated {
    /// By owner, the oldest first.
    by_owner: HashMap<String, VecDeque<(Instant, JobId)>>,
    count: usize,
    /// Every job that was submitted after this is known …
    complete_since: Instant,
    /// … but for those of these owners: of them, every one after that.
    dropped: HashMap<String, Instant>,
    /// When to look for those that are too old.
    next_look: Instant,
}

impl Generated {
    /// Nothing; all that comes from now on will be known.
    pub(super) fn new(now: Instant) -> Self {
        let (by_owner, dropped) = Default::default();
        Self { by_owner, count: 0, complete_since: now, dropped, next_look: now }
    }

    /// Every job of this owner that was submitted after this is known.
    pub(super) fn complete_since(&self, owner: &str) -> Instant {
        let dropped = self.dropped.get(owner).copied();
        dropped.map_or(self.complete_since, |dropped| dropped.max(self.complete_since))
    }

    /// The same of whichever owner; and of those of whom something was dropped since.
    pub(super) fn complete(&self) -> (Instant, impl Iterator<Item = (&str, Instant)>) {
        (self.complete_since, self.dropped.iter().map(|(owner, since)| (owner.as_str(), *since)))
    }

    /// It was so already when another agent ran.
    pub(super) fn inherit(&mut self, since: Instant, dropped: HashMap<String, Instant>) {
        (self.complete_since, self.dropped) = (since, dropped);
    }

    /// From now on this is only remembered.
    pub(super) fn push(&mut self, owner: &str, now: Instant, id: JobId) {
        self.by_owner.entry(owner.to_owned()).or_default().push_back((now, id));
        self.count += 1;
    }

    /// This is none of them any more.
    pub(super) fn remove(&mut self, owner: &str, id: &JobId) {
        if let Some(own) = self.by_owner.get_mut(owner) {
            let before = own.len();
            own.retain(|(_, other)| other != id);
            self.count -= before - own.len();
        }
    }

    /// Those that are to be forgotten.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<JobId> {
        let mut forgotten = Vec::new();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.forget_old(now, &mut forgotten);
        }
        while self.count > MOST {
            let most = self.by_owner.iter_mut().max_by_key(|(_, own)| own.len());
            let Some((owner, own)) = most else { break };
            let Some((since, id)) = own.pop_front() else { break };
            self.count -= 1;
            // It was submitted before that.
            let dropped = self.dropped.entry(owner.clone()).or_insert(since);
            *dropped = since.max(*dropped);
            forgotten.push(id);
        }
        forgotten
    }

    fn forget_old(&mut self, now: Instant, forgotten: &mut Vec<JobId>) {
        let (count, complete_since) = (&mut self.count, &mut self.complete_since);
        let mut is_old = |since: Instant| {
            let is_old = now.duration_since(since) > LONGEST;
            if is_old {
                *complete_since = since.max(*complete_since);
            }
            is_old
        };
        self.dropped.retain(|_, since| !is_old(*since));
        self.by_owner.retain(|_, own| {
            let old = own.iter().take_while(|(since, _)| is_old(*since)).count();
            *count -= old;
            forgotten.extend(own.drain(..old).map(|(_, id)| id));
            !own.is_empty()
        });
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<(Instant, &JobId)> {
        let mut all: Vec<_> = self.by_owner.values().flatten().collect();
        all.sort_by_key(|(since, _)| *since);
        all.into_iter().map(|(since, id)| (*since, id)).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> JobId {
        JobId::new(&format!("job-{n}")).unwrap()
    }

    #[test]
    fn who_is_fast_makes_nobody_else_be_forgotten() {
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_millis(n as u64);
        let mut generated = Generated::new(start);
        generated.push("alice", at(1), id(0));
        let mut forgotten = Vec::new();
        for n in 1..3 * MOST {
            generated.push("mallory", at(n), id(n));
            forgotten.extend(generated.forget(at(n)));
        }
        assert_eq!(generated.len(), MOST);
        assert_eq!(forgotten, (1..=2 * MOST).map(id).collect::<Vec<_>>(), "the oldest first");
        // What is not known of her has not run.
        assert_eq!(generated.complete_since("alice"), start);
        assert_eq!(generated.complete_since("mallory"), at(2 * MOST));
        assert_eq!(generated.all().first(), Some(&(at(1), &id(0))));
        // Each has its share.
        for n in 0..MOST {
            generated.push("bob", at(3 * MOST), id(3 * MOST + n));
            generated.forget(at(3 * MOST));
        }
        let shares = ["mallory", "bob"].map(|owner| generated.by_owner[owner].len());
        assert!(shares[0].abs_diff(shares[1]) <= 1, "{shares:?}");
    }

    #[test]
    fn what_is_old_is_forgotten_of_everybody_and_nothing_is_kept_of_whom() {
        let start = Instant::now();
        let mut generated = Generated::new(start);
        let (first, second) = (start + LOOK, start + 2 * LOOK);
        generated.push("alice", first, id(1));
        generated.push("bob", second, id(2));
        generated.dropped.insert("mallory".to_owned(), start);
        assert_eq!(generated.forget(first + LONGEST), []);
        assert_eq!(generated.forget(second + LONGEST), [id(1)]);
        assert_eq!(generated.complete_since("alice"), first);
        assert_eq!(generated.complete_since("carol"), first, "longer ago than is known of anybody");
        assert_eq!((generated.by_owner.len(), generated.dropped.len(), generated.len()), (1, 0, 1));
        generated.remove("bob", &id(2));
        assert_eq!(generated.len(), 0);
    }
}
