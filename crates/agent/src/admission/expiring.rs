//! A table of sources that forgets: each entry has a time until which it counts, and when the table
//! is full the entry goes whose time would have ended first. A peer with many addresses can make
//! the table forget, but cannot make it grow.

use super::source::Source;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// At most `capacity` sources, each until a time.
#[derive(Debug)]
pub(super) struct Expiring<T> {
    entries: HashMap<Source, (Instant, T)>,
    order: BTreeSet<(Instant, Source)>,
    capacity: usize,
}

impl<T: Copy> Expiring<T> {
    /// An empty table.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeSet::new(), capacity }
    }

    /// The entry of a source and its end, if that is still to come.
    pub(super) fn get(&self, source: Source, now: Instant) -> Option<(Instant, T)> {
        self.entries.get(&source).copied().filter(|(until, _)| *until > now)
    }

    /// Enters a source, or replaces its entry; makes room by forgetting what ends first.
    pub(super) fn set(&mut self, source: Source, until: Instant, value: T, now: Instant) {
        if let Some((until, _)) = self.entries.remove(&source) {
            self.order.remove(&(until, source));
        }
        while let Some(&(until, first)) = self.order.first()
            && (until <= now || self.entries.len() >= self.capacity)
        {
            self.order.pop_first();
            self.entries.remove(&first);
        }
        self.entries.insert(source, (until, value));
        self.order.insert((until, source));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn source(n: u32) -> Source {
        Source::of(Ipv4Addr::from(n).into())
    }

    #[test]
    fn a_full_table_forgets_what_ends_first() {
        let now = Instant::now();
        let second = |n| now + Duration::from_secs(n);
        let mut table = Expiring::new(3);
        for (n, until) in [(1, 30), (2, 10), (3, 20)] {
            table.set(source(n), second(until), n, now);
        }
        // Not the first any more.
        table.set(source(2), second(40), 2, now);
        table.set(source(4), second(50), 4, now);
        assert_eq!(table.get(source(3), now), None);
        for (n, until) in [(1, 30), (2, 40), (4, 50)] {
            assert_eq!(table.get(source(n), now), Some((second(until), n)));
        }
    }

    #[test]
    fn what_has_ended_does_not_count_and_makes_room() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut table = Expiring::new(100);
        for n in 0..50 {
            table.set(source(n), later, (), now);
        }
        assert_eq!(table.get(source(7), later), None);
        table.set(source(99), later + Duration::from_secs(1), (), later);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn it_never_grows_above_its_capacity() {
        let now = Instant::now();
        let mut table = Expiring::new(16);
        for n in 0..10_000 {
            table.set(
                source(n % 777),
                now + Duration::from_millis(u64::from(n * 7919 % 1000 + 1)),
                n,
                now,
            );
            assert!(table.len() <= 16 && table.order.len() == table.len());
        }
        assert_eq!(table.len(), 16);
    }
}
