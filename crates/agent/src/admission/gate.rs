//! Which connections may begin a handshake. Pure: the time and the chance come in.
//!
//! As OpenSSH's MaxStartups: below `early_drop` handshakes under way everybody is let in, from
//! there on a growing share is refused at random, and at the limit all are. Random, because a
//! flooder has many attempts and an honest client a few, so it is mostly the flooder who is hit.

use super::expiring::Expiring;
use super::penalties::{Fault, Penalties};
use super::source::Source;
use crate::config::Limits;
use crate::policy::engine::Network;
use rexec_guard::holds;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a source is known after somebody there has proved who they are.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Sources that are known at most.
const KNOWN: usize = 4_096;

/// Why a connection was closed before its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many connections of this source have failed.
    #[error("its source is refused for another {} s (limits.penalties)", .0.as_secs().saturating_add(1))]
    Penalised(Duration),
    /// This source has as many handshakes under way as one may have.
    #[error("its source has too many handshakes under way (limits.handshakes_per_source)")]
    Source,
    /// Chance has hit it.
    #[error("many handshakes are under way, so some are refused (limits.handshakes_early_drop)")]
    EarlyDrop,
    /// All places are taken.
    #[error("all places for handshakes are taken (limits.handshakes)")]
    Full,
}

/// The handshakes under way, and what is remembered of their sources.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    under_way: usize,
    by_source: HashMap<Source, usize>,
    penalties: Penalties,
    known: Expiring<()>,
}

impl Gate {
    /// Nothing under way, nobody known.
    pub fn new(limits: Limits) -> Self {
        let penalties = Penalties::new(limits.penalties.clone());
        let known = Expiring::new(KNOWN);
        Self { limits, under_way: 0, by_source: HashMap::new(), penalties, known }
    }

    /// Lets a handshake begin, or says why not. `chance` is from 0 to below 1, each as likely as
    /// the next. Who was let in must [`Gate::leave`].
    pub fn enter(&mut self, from: IpAddr, chance: f64, now: Instant) -> Result<(), Refusal> {
        let source = Source::of(from);
        if let Some(left) = self.penalties.left(source, now)
            && !holds("admission.penalties", false)
        {
            return Err(Refusal::Penalised(left));
        }
        let Limits { handshakes, handshakes_reserved, handshakes_per_source, .. } = self.limits;
        let is_known = self.known.get(source, now).is_some();
        // Many clients may share an address that honest ones are known to come from; half of all
        // places is for the rest.
        let (places, per_source) = match is_known {
            true => (handshakes, handshakes_per_source.max(handshakes / 2)),
            false => (handshakes - handshakes_reserved, handshakes_per_source),
        };
        let has_room = self.by_source.get(&source).is_none_or(|count| *count < per_source);
        if !holds("admission.handshakes_per_source", has_room) {
            return Err(Refusal::Source);
        }
        if !holds("admission.handshakes", self.under_way < places) {
            return Err(Refusal::Full);
        }
        if !is_known && !holds("admission.early_drop", chance >= self.drop_chance(places)) {
            return Err(Refusal::EarlyDrop);
        }
        self.under_way += 1;
        *self.by_source.entry(source).or_default() += 1;
        Ok(())
    }

    /// A handshake is over, in whatever way.
    pub fn leave(&mut self, from: IpAddr) {
        let source = Source::of(from);
        self.under_way = self.under_way.saturating_sub(1);
        match self.by_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_source.remove(&source)),
        }
    }

    /// A handshake has failed. If its source is refused from now on, for how long.
    pub fn failed(&mut self, from: IpAddr, fault: Fault, now: Instant) -> Option<Duration> {
        let settings = &self.limits.penalties;
        let is_exempt = |network: &Network| network.contains(from);
        if !settings.enabled || settings.exempt.iter().any(is_exempt) {
            return None;
        }
        self.penalties.add(Source::of(from), fault, now)
    }

    /// Somebody has proved who they are, and is at this source.
    pub fn authenticated(&mut self, from: IpAddr, now: Instant) {
        self.known.set(Source::of(from), now + KNOWN_FOR, (), now);
    }

    /// From 0 at `handshakes_early_drop` to 1 at `places`.
    fn drop_chance(&self, places: usize) -> f64 {
        let early = self.limits.handshakes_early_drop;
        let (above, room) = (self.under_way.saturating_sub(early), places.saturating_sub(early));
        if above == 0 { 0.0 } else { above as f64 / room as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// Never hit by an early drop, and always once that is possible.
    const LUCKY: f64 = 0.999_999;
    const UNLUCKY: f64 = 0.0;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    fn gate() -> Gate {
        Gate::new(Limits::default())
    }

    #[test]
    fn strangers_leave_places_for_those_who_are_known() {
        let (mut gate, now) = (gate(), Instant::now());
        gate.authenticated(address(9_999), now);
        for n in 0..124 {
            assert_eq!(gate.enter(address(n), LUCKY, now), Ok(()), "{n}");
        }
        assert_eq!(gate.enter(address(500), LUCKY, now), Err(Refusal::Full));
        for _ in 0..4 {
            assert_eq!(gate.enter(address(9_999), UNLUCKY, now), Ok(()));
        }
        assert_eq!(gate.enter(address(9_999), LUCKY, now), Err(Refusal::Full));
        gate.leave(address(9_999));
        assert_eq!(gate.enter(address(9_999), UNLUCKY, now), Ok(()));
        gate.leave(address(9_999));
        let day = now + KNOWN_FOR;
        assert_eq!(gate.enter(address(9_999), LUCKY, day), Err(Refusal::Full), "forgotten");
    }

    #[test]
    fn a_source_has_a_limit_of_its_own() {
        let (mut gate, now) = (gate(), Instant::now());
        for _ in 0..16 {
            assert_eq!(gate.enter(address(1), UNLUCKY, now), Ok(()));
        }
        assert_eq!(gate.enter(address(1), LUCKY, now), Err(Refusal::Source));
        assert_eq!(gate.enter(address(2), LUCKY, now), Ok(()));
        gate.leave(address(1));
        assert_eq!(gate.enter(address(1), LUCKY, now), Ok(()));
        gate.authenticated(address(1), now);
        assert_eq!(gate.enter(address(1), LUCKY, now), Ok(()), "one that is known has more");
    }

    #[test]
    fn early_drop_rises_from_nothing_to_all() {
        let (mut gate, now) = (gate(), Instant::now());
        for n in 0..32 {
            assert_eq!(gate.enter(address(n), UNLUCKY, now), Ok(()));
        }
        assert_eq!(gate.drop_chance(124), 0.0);
        for n in 32..78 {
            gate.enter(address(n), LUCKY, now).unwrap();
        }
        assert_eq!(gate.drop_chance(124), 0.5);
        assert_eq!(gate.enter(address(78), 0.49, now), Err(Refusal::EarlyDrop));
        assert_eq!(gate.enter(address(78), 0.51, now), Ok(()));
    }

    #[test]
    fn penalised_sources_are_refused_and_exempt_ones_never_are() {
        let (mut gate, now) = (gate(), Instant::now());
        let local = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..100 {
            gate.failed(address(1), Fault::Failed, now);
            assert_eq!(gate.failed(local, Fault::Failed, now), None);
        }
        assert!(matches!(gate.enter(address(1), LUCKY, now), Err(Refusal::Penalised(_))));
        assert_eq!(gate.enter(local, LUCKY, now), Ok(()));
        let later = now + Duration::from_secs(600);
        assert_eq!(gate.enter(address(1), LUCKY, later), Ok(()));
    }

    #[test]
    fn penalties_can_be_switched_off() {
        let mut limits = Limits::default();
        limits.penalties.enabled = false;
        let (mut gate, now) = (Gate::new(limits), Instant::now());
        for _ in 0..100 {
            assert_eq!(gate.failed(address(1), Fault::Failed, now), None);
        }
        assert_eq!(gate.enter(address(1), LUCKY, now), Ok(()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u32, f64),
        Leave(usize),
        Failed(u32),
        Authenticated(u32),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u32..40, 0.0..1.0f64).prop_map(|(n, chance)| Step::Enter(n, chance)),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => (0u32..40).prop_map(Step::Failed),
            1 => (0u32..40).prop_map(Step::Authenticated),
            1 => (0u64..20).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever happens: never more than the limits, the books agree with what was let in, and
        /// an honest source finds a place while few handshakes are under way.
        #[test]
        fn the_limits_hold(steps in prop::collection::vec(step(), 0..800)) {
            let limits = Limits {
                handshakes: 24,
                handshakes_early_drop: 8,
                handshakes_per_source: 3,
                handshakes_reserved: 2,
                ..Limits::default()
            };
            let (mut gate, mut now) = (Gate::new(limits), Instant::now());
            let mut inside: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter(n, chance) => {
                        let result = gate.enter(address(n), chance, now);
                        if result.is_ok() {
                            inside.push(n);
                        }
                        let free = inside.len() < 8 && !inside.contains(&n);
                        let is_fine = matches!(result, Ok(()) | Err(Refusal::Penalised(_)));
                        prop_assert!(!free || is_fine, "{result:?}");
                    }
                    Step::Leave(at) if !inside.is_empty() => {
                        gate.leave(address(inside.swap_remove(at % inside.len())));
                    }
                    Step::Leave(_) => {}
                    Step::Failed(n) => drop(gate.failed(address(n), Fault::Failed, now)),
                    Step::Authenticated(n) => gate.authenticated(address(n), now),
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                }
                prop_assert!(inside.len() <= 24);
                prop_assert_eq!(gate.under_way, inside.len());
                for n in 0..40 {
                    let count = inside.iter().filter(|other| **other == n).count();
                    prop_assert!(count <= 12);
                    let counted = gate.by_source.get(&Source::of(address(n))).copied();
                    prop_assert_eq!(counted.unwrap_or(0), count);
                }
            }
        }
    }
}
