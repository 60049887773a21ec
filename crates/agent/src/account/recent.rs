//! Accounts that were just looked up: a script that runs a command a hundred times a second need
//! not have the user database asked as often.

use super::Account;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer holds. A user who is locked out is so after this time at the latest.
const LIFE: Duration = Duration::from_secs(1);
/// Names come from callers: no more of them are kept than this.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<String, (Instant, Arc<Account>)>>);

impl Recent {
    /// The account of this name, if it was asked for a moment ago.
    pub(super) fn get(&self, name: &str, now: Instant) -> Option<Arc<Account>> {
        let known = self.lock();
        let (asked, account) = known.get(name)?;
        (now.saturating_duration_since(*asked) < LIFE).then(|| Arc::clone(account))
    }

    /// Keeps an account for which the question was asked at `asked`.
    pub(super) fn put(&self, account: Arc<Account>, asked: Instant) {
        let mut known = self.lock();
        if known.len() >= KEPT {
            known.retain(|_, (then, _)| asked.saturating_duration_since(*then) < LIFE);
        }
        if known.len() < KEPT {
            known.insert(account.name.clone(), (asked, account));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<Account>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Arc<Account> {
        Arc::new(Account::stranger(name))
    }

    #[test]
    fn an_answer_holds_for_a_second() {
        let (recent, now) = (Recent::default(), Instant::now());
        recent.put(account("a"), now);
        assert!(recent.get("a", now + LIFE / 2).is_some());
        assert!(recent.get("a", now + LIFE).is_none());
        assert!(recent.get("b", now).is_none());
    }

    #[test]
    fn names_do_not_pile_up() {
        let (recent, now) = (Recent::default(), Instant::now());
        for n in 0..2 * KEPT {
            recent.put(account(&n.to_string()), now);
        }
        assert_eq!(recent.lock().len(), KEPT);
        recent.put(account("later"), now + LIFE);
        assert_eq!(recent.lock().len(), 1);
    }
}
