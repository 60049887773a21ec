//! How much of the agent any one may have: sources before they have proved who they are, and
//! identities after.
//!
//! # Theory of operation
//!
//! A connection passes these, in this order:
//!
//! | what | counted per | when it is too much |
//! |---|---|---|
//! | [`door`]: descriptors | process | closed |
//! | [`gate`]: penalties, handshakes under way | source, agent | closed, before TLS |
//! | connections | identity, agent | told `busy`, closed |
//! | frames and errors ([`rexec_net::rates`]) | connection | told `flood`, closed |
//! | commands | identity, agent | that command is `never_started`, `busy` |
//! | forwarded connections and ports | identity, with the commands agent | the same |
//! | commands that were permitted, and could not be started | identity | `busy` |
//! | entries of lists | identity | the connection is not read for a while |
//! | coming to a job | identity, identity and job | it comes there, and that is not on record |
//!
//! What is closed before TLS costs the agent one accept(2). Counting is by RAII: [`Handshake`] and
//! [`Place`] give back what they hold when they are dropped. A command's place is held until it was
//! reaped and, if it was ended, until its whole tree is gone: cancelling makes no room by itself.
//! (HTTP/2's rapid reset, CVE-2023-44487, is the flood that counts only what is not cancelled.)
//!
//! Only what happens before the identity is known counts against a source. Later, the identity's
//! own limits hold, and others at its address must not suffer.

pub mod door;
mod expiring;
pub mod gate;
pub mod penalties;
pub mod places;
pub mod refusals;
pub mod settings;
pub mod source;

use crate::audit::event::LeftOut;
use crate::config::Limits;
use crate::policy::Permit;
use crate::rooms::pace::Pace;
use gate::Gate;
use penalties::Fault;
use places::{Place, Places};
use refusals::{Records, Refusals};
use rexec_guard::holds;
use rexec_net::{Identity, NetError};
use rexec_protocol::JobId;
use rexec_protocol::message::Command;
use rexec_protocol::outcome::printable;
use source::Source;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What all connections of an agent have in use.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    before: Mutex<Before>,
    connections: Count,
    commands: Count,
    /// By identity: those of the commands that are connections or ports. Whoever can reach a port decides how
    /// many there are, and is not to decide whether its owner can run a command.
    forwards: Places<String>,
    /// By identity and rule.
    by_rule: Places<(String, String)>,
    /// By identity, job and rights: how often it is on record that it comes there, without more rights.
    attaches: Pace,
    /// By identity: the same at all jobs together.
    attaches_in_all: Pace,
    /// By identity, job and rights: how often others there are told.
    told: Pace,
    /// By identity: commands whose start was on record, and that did not start.
    failed: Pace,
    /// By identity: entries that are looked at for lists.
    lists: Pace,
    /// By identity: what of it is not on record.
    unrecorded: Mutex<HashMap<String, LeftOut>>,
    /// What of each identity's denials went on record.
    denials: Mutex<HashMap<String, Records>>,
}

/// Beyond this many identities, those are forgotten that have not been denied anything lately.
const DENIED: usize = 1024;

/// How many commands of one identity may fail to start in a second, and at once. Each takes two lines of the audit
/// log, and nothing else holds it up.
const FAILED: (u32, u32) = (20, 200);

/// How many entries are looked at for the lists of one identity in a second, and at once: each takes some
/// microseconds.
const LISTED: (u32, u32) = (50_000, 100_000);

/// What happens before anybody is known.
#[derive(Debug)]
struct Before {
    gate: Gate,
    refusals: Refusals,
    records: Records,
}

/// Something counted both in all and per identity.
#[derive(Debug, Default)]
struct Count {
    all: Places<()>,
    by_identity: Places<String>,
}

/// What one identity holds of a `Count`.
#[derive(Debug)]
pub struct Held {
    _all: Place<()>,
    _own: Place<String>,
}

/// What one identity holds of what a rule of the policy allows it at once.
pub type HeldByRule = Place<(String, String)>;

/// A limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} {what} {whose} are {state}, which is the limit ({key})")]
pub struct Full {
    limit: usize,
    what: &'static str,
    whose: String,
    state: &'static str,
    key: Cow<'static, str>,
}

/// A handshake under way, until it is dropped.
#[derive(Debug)]
pub struct Handshake {
    admission: Arc<Admission>,
    from: IpAddr,
}

impl Admission {
    /// Nothing in use.
    pub fn new(limits: Limits) -> Self {
        let before = Before {
            gate: Gate::new(limits.clone()),
            refusals: Refusals::default(),
            records: Records::default(),
        };
        let (connections, commands) = <(Count, Count)>::default();
        let (before, forwards, by_rule) =
            (Mutex::new(before), Places::default(), Places::default());
        let Limits { attaches_per_second: rate, attaches_burst: burst, .. } = limits;
        let (attaches, told) = (Pace::new(rate, burst), Pace::new(rate, burst));
        let attaches_in_all = Pace::new(rate.saturating_mul(4), burst.saturating_mul(2));
        let failed = Pace::new(FAILED.0, FAILED.1);
        let lists = Pace::new(LISTED.0, LISTED.1);
        let (unrecorded, denials) = Default::default();
        Self {
            limits,
            before,
            connections,
            commands,
            forwards,
            by_rule,
            attaches,
            attaches_in_all,
            told,
            failed,
            lists,
            unrecorded,
            denials,
        }
    }

    /// Lets a handshake begin. The error is what there is to be said of those that may not, now and
    /// then.
    pub fn handshake(self: &Arc<Self>, from: SocketAddr) -> Result<Handshake, Option<String>> {
        let now = Instant::now();
        let mut before = self.before();
        let refusal = match before.gate.enter(from.ip(), chance(), now) {
            Ok(()) => return Ok(Handshake { admission: Arc::clone(self), from: from.ip() }),
            Err(refusal) => refusal,
        };
        let sum = before.refusals.count(refusal, now);
        drop(before);
        tracing::debug!(%from, %refusal, "closed before TLS");
        if let Some(counts) = &sum {
            tracing::warn!(last = %from, why = %refusal, counts, "connections closed before TLS");
        }
        Err(sum)
    }

    /// Whether one more refusal can be put on record, and how many were left out before it: nobody
    /// without a certificate may fill the disk, and so keep everybody's commands from starting.
    pub fn may_record_refusal(&self) -> Option<u64> {
        self.before().records.next(Instant::now())
    }

    /// Takes a place for the connection of a client.
    pub fn connection(&self, identity: &Identity) -> Result<Held, Full> {
        let Limits { connections, connections_per_identity, .. } = self.limits;
        let limit = |most, key| Limit { most, what: "connections", state: "open", key };
        let Count { all, by_identity } = &self.connections;
        take(
            identity,
            (all, limit(connections, "limits.connections")),
            (by_identity, limit(connections_per_identity, "limits.connections_per_identity")),
        )
    }

    /// Takes a place for a command; to be held until nothing of it runs any more.
    pub fn command(&self, identity: &Identity, command: &Command) -> Result<Held, Full> {
        let Limits { commands, commands_per_identity, forwards_per_identity, .. } = self.limits;
        let limit = |most, key| Limit { most, what: "commands", state: "running", key };
        let Count { all, by_identity } = &self.commands;
        let own = if holds("admission.forwards", command.is_connection()) {
            let (what, state) = ("forwarded connections and ports", "open");
            let (most, key) = (forwards_per_identity, "limits.forwards_per_identity");
            (&self.forwards, Limit { most, what, state, key })
        } else {
            (by_identity, limit(commands_per_identity, "limits.commands_per_identity"))
        };
        take(identity, (all, limit(commands, "limits.commands")), own)
    }

    /// Takes a place among the commands that the permit's rule allows the identity at once, if it
    /// limits them; to be held as long. Connections and ports are none of those: a port would take the place
    /// of each connection that comes to it.
    pub fn under_rule(
        &self,
        identity: &Identity,
        permit: &Permit,
    ) -> Result<Option<HeldByRule>, Full> {
        let Some(limit) = permit.grant().limits.commands else { return Ok(None) };
        if permit.spec().command.is_connection() {
            return Ok(None);
        }
        if holds("admission.commands_of_rule", false) {
            return Ok(None);
        }
        let (name, rule) = (identity.name(), permit.rule());
        let limit = limit as usize;
        match self.by_rule.try_take((name.to_owned(), rule.to_owned()), limit) {
            Some(place) => Ok(Some(place)),
            None => {
                let whose = format!("of '{}'", printable(name));
                let key = format!("'limits.commands' of the policy's rule '{rule}'").into();
                Err(Full { limit, what: "commands", whose, state: "running", key })
            }
        }
    }

    /// Takes the places of a command that runs already, and was started under this rule's limit by an
    /// agent that is gone. Limits are for those who come: this one is there.
    pub fn running(
        &self,
        user: &str,
        is_connection: bool,
        limited_by: Option<&str>,
    ) -> (Held, Option<HeldByRule>) {
        let own = if is_connection { &self.forwards } else { &self.commands.by_identity };
        let own = own.take(user.to_owned());
        let held = Held { _all: self.commands.all.take(()), _own: own };
        let rule = limited_by.map(|rule| self.by_rule.take((user.to_owned(), rule.to_owned())));
        (held, rule)
    }

    /// Counts that an identity comes to a job. `Some`: that goes on record, and what before did not. `None`: it
    /// comes too often for that, and would fill the disk. It comes there all the same: it may be one of many
    /// whose connections have broken. Whoever `gains` rights by it is on record with them in any case.
    pub fn may_record_attach(
        &self,
        who: &str,
        job: &JobId,
        control: bool,
        gains: bool,
    ) -> Option<LeftOut> {
        let now = Instant::now();
        let mut unrecorded = self.unrecorded();
        // First, so that no other job makes room.
        let in_all = || {
            holds("admission.attaches_in_all", self.attaches_in_all.allows(who, now))
                && holds("admission.attaches", self.attaches.allows(&visit(who, job, control), now))
        };
        if gains || in_all() {
            return Some(unrecorded.remove(who).unwrap_or_default());
        }
        let left_out = unrecorded.entry(who.to_owned()).or_default();
        left_out.left_out += 1;
        left_out.left_out_control += u64::from(control);
        None
    }

    /// What is not on record of how often an identity came to jobs; it is about to be.
    pub fn left_out(&self, who: &str) -> Option<LeftOut> {
        self.unrecorded().remove(who)
    }

    /// The same of all identities.
    pub fn all_left_out(&self) -> HashMap<String, LeftOut> {
        std::mem::take(&mut *self.unrecorded())
    }

    /// Counts that others at a job are told that an identity comes there; false if it does so too often.
    pub fn may_tell(&self, who: &str, job: &JobId, control: bool) -> bool {
        self.told.allows(&visit(who, job, control), Instant::now())
    }

    /// Whether that could be told now.
    pub fn could_tell(&self, who: &str, job: &JobId, control: bool) -> bool {
        self.told.would_allow(&visit(who, job, control), Instant::now())
    }

    /// The same as [`Admission::may_tell`], where an identity takes a job's stdin from another client.
    pub fn may_tell_of_stdin(&self, who: &str, job: &JobId) -> bool {
        self.told.allows(&format!("{who}\0{job}\0in"), Instant::now())
    }

    /// Whether another command of this identity may be put on record as one that is started, after those that did
    /// not start.
    pub fn may_fail(&self, name: &str) -> Result<(), String> {
        let may = self.failed.would_allow(name, Instant::now());
        if holds("admission.failed", may) {
            return Ok(());
        }
        let whose = printable(name);
        Err(format!(
            "too many commands of '{whose}' could not be started lately; try again in a second"
        ))
    }

    /// A command of this identity was on record as one that is started, and did not start.
    pub fn has_failed(&self, name: &str) {
        self.failed.rest_after(name, 1, Instant::now());
    }

    /// Counts a list for which so many entries were looked at; says for how long the connection that asked for it
    /// is not to get another one.
    pub fn rest_after_list(&self, who: &str, looked_at: usize) -> Duration {
        // Also a list of nothing costs something.
        let entries = u32::try_from(looked_at).unwrap_or(u32::MAX).saturating_add(1);
        self.lists.rest_after(who, entries, Instant::now())
    }

    /// As [`Admission::may_record_refusal`], for commands of one identity that are not started.
    pub fn may_record_denial(&self, identity: &Identity) -> Option<u64> {
        let now = Instant::now();
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.len() > DENIED {
            denials.retain(|_, records| !records.is_idle(now));
        }
        denials.entry(identity.name().to_owned()).or_default().next(now)
    }

    fn before(&self) -> MutexGuard<'_, Before> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unrecorded(&self) -> MutexGuard<'_, HashMap<String, LeftOut>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither has a NUL in it.
fn visit(who: &str, job: &JobId, control: bool) -> String {
    format!("{who}\0{job}\0{control}")
}

/// How many places there are, of what, and which setting says so.
struct Limit {
    most: usize,
    what: &'static str,
    state: &'static str,
    key: &'static str,
}

impl Limit {
    fn reached(self, whose: String) -> Full {
        let Self { most, what, state, key } = self;
        Full { limit: most, what, whose, state, key: key.into() }
    }
}

/// Takes a place among all, and one among those of the identity.
fn take(
    identity: &Identity,
    (all, limit): (&Places<()>, Limit),
    (by_identity, own_limit): (&Places<String>, Limit),
) -> Result<Held, Full> {
    let name = identity.name();
    let own = by_identity.try_take(name.to_owned(), own_limit.most);
    let own = own.ok_or_else(|| own_limit.reached(format!("of '{}'", printable(name))))?;
    let all = all.try_take((), limit.most).ok_or_else(|| limit.reached("in all".to_owned()))?;
    Ok(Held { _all: all, _own: own })
}

impl Handshake {
    /// The peer has proved who it is.
    pub fn succeeded(&self) {
        self.admission.before().gate.authenticated(self.from, Instant::now());
    }

    /// The handshake has failed; its source may be refused from now on.
    pub fn failed(&self, error: &NetError) {
        let Some(fault) = Fault::of(error) else { return };
        let refused = self.admission.before().gate.failed(self.from, fault, Instant::now());
        if let Some(time) = refused {
            tracing::warn!(
                source = %Source::of(self.from), seconds = time.as_secs(), last = %fault,
                "connections of this source keep failing; it is refused for now"
            );
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.admission.before().gate.leave(self.from);
    }
}

/// From 0 to below 1. The keys of a hash map's hasher are made so that nobody can guess its values,
/// which is all that is needed here.
fn chance() -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let random = RandomState::new().hash_one(()) >> (u64::BITS - BITS);
    random as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 1))
    }

    #[test]
    fn a_handshake_gives_its_place_back() {
        let limits = Limits { handshakes_per_source: 1, ..Limits::default() };
        let admission = Arc::new(Admission::new(limits));
        let first = admission.handshake(from(1)).unwrap();
        let said = admission.handshake(from(1)).unwrap_err().unwrap();
        assert!(said.contains("per source 1"), "{said}");
        assert!(admission.handshake(from(2)).is_ok());
        drop(first);
        assert!(admission.handshake(from(1)).is_ok());
    }

    #[test]
    fn failures_are_counted_against_the_source() {
        let admission = Arc::new(Admission::new(Limits::default()));
        for _ in 0..4 {
            let handshake = admission.handshake(from(1)).unwrap();
            handshake.failed(&NetError::Refused("a bad certificate".to_owned()));
        }
        assert!(admission.handshake(from(1)).is_err());
        assert!(admission.handshake(from(2)).is_ok());
    }

    /// Jobs that one makes oneself are made faster than any log is written.
    #[test]
    fn coming_to_one_job_after_another_is_paced_as_well() {
        let admission = Admission::new(Limits::default());
        let jobs: Vec<JobId> =
            (0..10_000).map(|n| JobId::new(&format!("job-{n}")).unwrap()).collect();
        let records = |gains| {
            let come = |job| admission.may_record_attach("bob", job, true, gains);
            jobs.iter().filter_map(come).count()
        };
        assert!((200..300).contains(&records(false)));
        // What it may do there is on record of each job all the same.
        assert_eq!(records(true), jobs.len());
    }

    /// Each takes two lines of the audit log, and no process holds them up. Those that start are not counted.
    #[test]
    fn commands_that_cannot_be_started_are_paced() {
        let admission = Admission::new(Limits::default());
        let fails = |name: &str| {
            let is_let = admission.may_fail(name).is_ok();
            if is_let {
                admission.has_failed(name);
            }
            is_let
        };
        let failed = (0..1000).filter(|_| fails("mallory")).count();
        assert!((200..300).contains(&failed), "{failed}");
        let said = admission.may_fail("mallory").unwrap_err();
        assert!(said.contains("'mallory' could not be started lately"), "{said}");
        assert!((0..10_000).all(|_| admission.may_fail("alice").is_ok()));
    }

    /// Two workers would otherwise do nothing else.
    #[test]
    fn lists_are_paced_by_what_they_cost() {
        let admission = Admission::new(Limits::default());
        let rest = |who, entries| admission.rest_after_list(who, entries);
        let waited: Vec<_> = (0..30).map(|_| rest("mallory", 6000)).collect();
        assert_eq!(waited[0], Duration::ZERO);
        assert!(waited[29] > Duration::from_millis(1500), "{waited:?}");
        assert_eq!(rest("alice", 6000), Duration::ZERO);
        assert!((0..10_000).all(|_| rest("bob", 1).is_zero()), "short lists are free");
    }

    /// To watch over and over hides nothing of what comes then, and what is left out is not lost.
    #[test]
    fn control_and_watching_are_counted_apart() {
        let admission = Admission::new(Limits::default());
        let job = JobId::new("job").unwrap();
        let come = |control| admission.may_record_attach("bob", &job, control, false);
        let watched = (0..150).filter(|_| come(false).is_some()).count();
        assert!((100..150).contains(&watched), "{watched}");
        assert!(come(true).is_some());
        assert!(admission.left_out("bob").is_none(), "it is with the last one");
        let controlled = (0..150).filter(|_| come(true).is_some()).count() as u64;
        let left_out = admission.left_out("bob").unwrap();
        let all = (left_out.left_out, left_out.left_out_control);
        assert_eq!(all, (150 - controlled, 150 - controlled));
        assert!(admission.left_out("bob").is_none() && admission.all_left_out().is_empty());
    }

    #[test]
    fn chances_are_spread_evenly() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let chance = chance();
            assert!((0.0..1.0).contains(&chance));
            tenths[(chance * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1_200).contains(count)), "{tenths:?}");
    }
}
