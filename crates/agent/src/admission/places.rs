//! Places: how many of something are in use, per key. A place is given back when it is dropped, so
//! nothing that ends, in whatever way, can stay counted.

use rexec_guard::holds;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts places per key. Cheap to clone; clones count together.
#[derive(Debug)]
pub struct Places<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    taken: Places<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// Takes a place under `key`, unless `limit` places are taken under it.
    #[must_use]
    pub fn try_take(&self, key: K, limit: usize) -> Option<Place<K>> {
        let mut taken = self.lock();
        let count = taken.get(&key).copied().unwrap_or(0);
        if !holds("admission.places", count < limit) {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        drop(taken);
        Some(Place { taken: self.clone(), key })
    }

    /// Takes a place under `key`, whatever the limit is.
    pub fn take(&self, key: K) -> Place<K> {
        *self.lock().entry(key.clone()).or_default() += 1;
        Place { taken: self.clone(), key }
    }
}

impl<K: Eq + Hash> Places<K> {
    /// How many places are taken under `key`.
    pub fn taken(&self, key: &K) -> usize {
        self.lock().get(key).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        match taken.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            // Keys come from peers: none is kept that is not in use.
            _ => drop(taken.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_as_many_places_as_its_limit() {
        let places = Places::default();
        let first = places.try_take("alice", 2).unwrap();
        let second = places.try_take("alice", 2).unwrap();
        assert!(places.try_take("alice", 2).is_none());
        let other = places.try_take("bob", 1).unwrap();
        drop(first);
        assert_eq!(places.taken(&"alice"), 1);
        let again = places.try_take("alice", 2).unwrap();
        drop((second, other, again));
        assert!(places.lock().is_empty(), "no key is left behind");
    }

    #[test]
    fn a_limit_holds_for_many_threads() {
        let places = Places::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let place = places.try_take((), 3);
                        assert!(places.taken(&()) <= 3);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.taken(&()), 0);
    }
}
