//! Who is connected: from where, since when, in which rooms, on which jobs; and words for them.

use crate::jobs::Attachment;
use crate::log::now_ms;
use rexec_net::{Identity, Outbox};
use rexec_protocol::message::{ConnectionInfo, HappeningKind, Notice};
use rexec_protocol::{Frame, JobId, RoomName, StreamId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// All connections of an agent, the oldest first.
#[derive(Debug, Default)]
pub struct Everybody(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    all: BTreeMap<u64, Arc<Presence>>,
}

/// One connection.
#[derive(Debug)]
pub struct Presence {
    id: u64,
    identity: Arc<Identity>,
    from: SocketAddr,
    since_ms: u64,
    outbox: Outbox,
    takes_notices: bool,
    state: Mutex<State>,
    kicked: Notify,
}

#[derive(Debug, Default)]
struct State {
    rooms: Vec<RoomName>,
    jobs: Vec<AtJob>,
    /// Why it has to go.
    kicked: Option<String>,
}

#[derive(Debug)]
struct AtJob {
    attachment: Attachment,
    job: JobId,
    /// Others at the job are to know of it.
    shown: bool,
}

impl Everybody {
    /// A client is there.
    pub fn enter(
        &self,
        identity: &Arc<Identity>,
        from: SocketAddr,
        outbox: Outbox,
        takes_notices: bool,
    ) -> Arc<Presence> {
        let mut table = self.lock();
        table.last += 1;
        let presence = Arc::new(Presence {
            id: table.last,
            identity: Arc::clone(identity),
            from,
            since_ms: now_ms(),
            outbox,
            takes_notices,
            state: Mutex::default(),
            kicked: Notify::new(),
        });
        table.all.insert(presence.id, Arc::clone(&presence));
        presence
    }

    /// A client has gone.
    pub fn leave(&self, presence: &Presence) {
        self.lock().all.remove(&presence.id);
    }

    /// What is known of each.
    pub fn list(&self) -> Vec<ConnectionInfo> {
        self.all().iter().map(|presence| presence.info()).collect()
    }

    /// Whether all jobs that they are at are of this kind.
    pub fn are_only_at(&self, is_meant: impl Fn(&JobId) -> bool) -> bool {
        let is_elsewhere =
            |presence: &Presence| presence.lock().jobs.iter().any(|at| !is_meant(&at.job));
        !self.all().iter().any(|presence| is_elsewhere(presence))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Tells all who are on a job; how many.
    pub fn wall(&self, user: &str, text: &str) -> u64 {
        let (user, text) = (user.to_owned(), text.to_owned());
        let notice = Notice { time_ms: now_ms(), kind: HappeningKind::Wall, user, job: None, text };
        let told = self.all().into_iter().filter(|presence| {
            let is_busy = !presence.lock().jobs.is_empty();
            is_busy && presence.tell(&notice)
        });
        told.count() as u64
    }

    /// Tells those who are at a job what somebody says in its room; but for those who are in there, and for
    /// the one who says it.
    pub fn overhear(&self, room: &RoomName, said: &Notice) {
        for presence in self.all() {
            let is_meant = {
                let state = presence.lock();
                let is_there = state.jobs.iter().any(|at| Some(&at.job) == said.job.as_ref());
                is_there && !state.rooms.contains(room)
            };
            if is_meant && presence.identity.name() != said.user {
                presence.tell(said);
            }
        }
    }

    /// Tells the connections that are at a job, but for this attachment, what happens there.
    pub fn tell_others(&self, but: Attachment, kind: HappeningKind, user: &str, job: &JobId) {
        self.tell_some(kind, user, job, |at| at.attachment != but);
    }

    /// Tells the connection of one attachment.
    pub fn tell_one(&self, whom: Attachment, kind: HappeningKind, user: &str, job: &JobId) {
        self.tell_some(kind, user, job, |at| at.attachment == whom);
    }

    /// Tells all connections that are at a job.
    pub fn tell_all(&self, kind: HappeningKind, user: &str, job: &JobId) {
        self.tell_some(kind, user, job, |_| true);
    }

    fn tell_some(
        &self,
        kind: HappeningKind,
        user: &str,
        job: &JobId,
        is_meant: impl Fn(&AtJob) -> bool,
    ) {
        let (user, about) = (user.to_owned(), Some(job.clone()));
        let notice = Notice { time_ms: now_ms(), kind, user, job: about, text: String::new() };
        for presence in self.all() {
            let is_there = presence.lock().jobs.iter().any(|at| at.job == *job && is_meant(at));
            if is_there {
                presence.tell(&notice);
            }
        }
    }

    /// Ends the connection of this number; without one, the connections of the identity of this name. How
    /// many.
    pub fn kick(&self, whose: &str, reason: &str) -> usize {
        let all = self.all();
        let number = whose.parse().ok();
        if let Some(one) = all.iter().find(|presence| Some(presence.id) == number) {
            one.kick(reason);
            return 1;
        }
        let is_meant = |presence: &&Arc<Presence>| presence.identity.name() == whose;
        all.iter().filter(is_meant).map(|presence| presence.kick(reason)).count()
    }

    fn all(&self) -> Vec<Arc<Presence>> {
        self.lock().all.values().map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence {
    /// It is at a job from now on.
    pub fn at_job(&self, attachment: Attachment, job: &JobId) {
        self.lock().jobs.push(AtJob { attachment, job: job.clone(), shown: false });
    }

    /// Others are to know that it is there.
    pub fn shown(&self, attachment: Attachment) {
        let mut state = self.lock();
        let at = state.jobs.iter_mut().find(|at| at.attachment == attachment);
        if let Some(at) = at {
            at.shown = true;
        }
    }

    /// It has left a job; whether others were to know that it was there.
    pub fn left_job(&self, attachment: Attachment) -> bool {
        let mut state = self.lock();
        let place = state.jobs.iter().position(|at| at.attachment == attachment);
        place.is_some_and(|place| state.jobs.swap_remove(place).shown)
    }

    /// It is in a room from now on.
    pub fn in_room(&self, room: &RoomName) {
        self.lock().rooms.push(room.clone());
    }

    /// It has left a room.
    pub fn left_room(&self, room: &RoomName) {
        let mut state = self.lock();
        if let Some(place) = state.rooms.iter().position(|known| known == room) {
            state.rooms.swap_remove(place);
        }
    }

    /// Waits until it has to go, and says why.
    pub async fn kicked(&self) -> String {
        // One word is kept for who is not waiting just now.
        self.kicked.notified().await;
        self.lock().kicked.clone().unwrap_or_default()
    }

    fn kick(&self, reason: &str) {
        self.lock().kicked = Some(reason.to_owned());
        self.kicked.notify_one();
    }

    /// False if the client is too old to understand it.
    fn tell(&self, notice: &Notice) -> bool {
        if self.takes_notices {
            let notice = notice.clone();
            self.outbox.try_notice(Frame::new(StreamId::CONNECTION, notice.into()));
        }
        self.takes_notices
    }

    fn info(&self) -> ConnectionInfo {
        let traffic = self.outbox.traffic();
        let state = self.lock();
        ConnectionInfo {
            id: self.id,
            user: self.identity.name().to_owned(),
            from: self.from.to_string(),
            since_ms: self.since_ms,
            rooms: state.rooms.clone(),
            jobs: state.jobs.iter().map(|at| at.job.clone()).collect(),
            received: traffic.received,
            sent: traffic.sent,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
