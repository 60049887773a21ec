//! Who is there for a job: the one client that holds it, those that would hold it next, those that only look
//! on; and for how long the command waits when nobody is.

use super::{ExecSpec, Job, OnDisconnect};
use crate::stdin;
use rexec_net::Outbox;
use rexec_protocol::StreamId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Names one attachment of a client, for as long as the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u64);

impl Attachment {
    /// One that no other has.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// A client that is there as long as the job is, and does not hold it yet.
#[derive(Debug)]
pub(super) struct Claim {
    attachment: Attachment,
    /// The last record up to which it has all output.
    has: Option<u64>,
}

impl Claim {
    fn of(attachment: Attachment) -> Self {
        Self { attachment, has: None }
    }
}

/// Who is there for a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attendance {
    /// A client, or nobody needs to be.
    Attended,
    /// Nobody, and at this time it is over.
    Until(Instant),
    /// Nobody will come.
    Gone,
}

/// How a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It said goodbye.
    Goodbye,
    /// It may not come back.
    Banned,
    /// Its system closed the connection, or something cut it.
    Closed,
    /// Nothing was heard any more.
    Silent,
}

/// How long a job waits for its client, unless the client said something else.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// After [`Leave::Closed`].
    pub closed: Duration,
    /// After [`Leave::Silent`].
    pub silent: Duration,
}

/// What becomes of a job whose client is gone. A connection, or a port, is there for its client alone, and
/// nobody asks policy about it again: it waits for no longer than `longest`.
pub(in crate::jobs) fn then(spec: &ExecSpec, longest: Duration) -> Option<OnDisconnect> {
    match spec.on_disconnect {
        Some(OnDisconnect::Lease { ms }) if spec.command.is_connection() => {
            let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            Some(OnDisconnect::Lease { ms: ms.min(longest) })
        }
        then => then,
    }
}

impl Job {
    /// A client comes.
    pub fn attach(&self) -> Attachment {
        self.lock().attached += 1;
        Attachment::next()
    }

    /// A client comes that holds the job once those are gone that came before it.
    pub fn attach_as_next(&self) -> Attachment {
        let attachment = Attachment::next();
        let mut state = self.lock();
        state.attached += 1;
        state.claims.push(Claim::of(attachment));
        attachment
    }

    /// A client comes, and is from now on the one for whom the command waits and whose stdin it gets. Whose
    /// stdin it does not get any more is told besides.
    pub fn attach_as_holder(
        &self,
        stream: StreamId,
        outbox: &Outbox,
        from: stdin::From,
    ) -> (Attachment, Option<Attachment>) {
        let attachment = Attachment::next();
        let takes_stdin = self.takes_stdin();
        let mut state = self.lock();
        state.attached += 1;
        let former = state.holder.replace(attachment);
        state.claims.extend(former.map(Claim::of));
        // In one step: of two that come at once, the same one has both.
        if let Some(feed) = &self.feed {
            feed.connect(attachment, stream, outbox, from);
        }
        self.attendance.send_replace(Attendance::Attended);
        (attachment, former.filter(|_| takes_stdin))
    }

    /// A client goes. If it held the job, the next one does; without one the job waits for it to come back,
    /// for as long as that was agreed on.
    pub fn leave(&self, attachment: Attachment, how: Leave, leases: Leases) {
        let mut state = self.lock();
        state.attached = state.attached.saturating_sub(1);
        state.claims.retain(|claim| claim.attachment != attachment);
        if state.holder != Some(attachment) {
            return;
        }
        state.holder = None;
        if let Some(feed) = &self.feed {
            feed.disconnect();
        }
        // The others were told that nobody wants their stdin: with one of them a command that reads would
        // wait for ever.
        if !self.takes_stdin() && !state.claims.is_empty() {
            let Claim { attachment, has } = state.claims.remove(0);
            state.holder = Some(attachment);
            drop(state);
            if let Some(record) = has {
                self.acknowledge(attachment, record);
            }
            return;
        }
        let after = match how {
            _ if state.kept => Attendance::Attended,
            Leave::Goodbye | Leave::Banned => Attendance::Gone,
            Leave::Closed => self.wait_for(leases.closed),
            Leave::Silent => self.wait_for(leases.silent),
        };
        // If nobody listens, it has ended.
        self.attendance.send_replace(after);
    }

    pub(super) fn wait_for(&self, default: Duration) -> Attendance {
        match self.lease_or(default) {
            None => Attendance::Gone,
            // A lease beyond what the clock can count is one without end.
            Some(lease) => {
                Instant::now().checked_add(lease).map_or(Attendance::Attended, Attendance::Until)
            }
        }
    }

    fn lease_or(&self, default: Duration) -> Option<Duration> {
        match self.on_disconnect {
            _ if !self.resumable => None,
            Some(OnDisconnect::Kill {}) => None,
            Some(OnDisconnect::Lease { ms }) => Some(Duration::from_millis(ms)),
            Some(OnDisconnect::Keep {}) | None => Some(default),
        }
    }

    /// How long the client asked the job to wait for it.
    pub fn lease(&self) -> Option<Duration> {
        match self.on_disconnect {
            Some(OnDisconnect::Lease { ms }) => Some(Duration::from_millis(ms)),
            _ => None,
        }
    }

    /// How long it may be without an agent; `None`: for ever.
    pub fn lease_without_agent(&self, leases: Leases) -> Option<Duration> {
        if self.is_kept() { None } else { Some(self.lease_or(leases.silent).unwrap_or_default()) }
    }

    /// Whether it goes on when its agent is gone: somebody will come for it, or need not.
    pub fn outlives_agent(&self) -> bool {
        self.is_kept() || self.lease_or(Duration::ZERO).is_some()
    }

    /// The client that holds the job is about to leave on purpose: another may hold it at once.
    pub fn let_go(&self, attachment: Attachment) {
        let mut state = self.lock();
        if state.holder == Some(attachment) {
            state.holder = None;
            if let Some(feed) = &self.feed {
                feed.disconnect();
            }
        }
    }

    /// Whether this attachment holds the job.
    pub fn is_held_by(&self, attachment: Attachment) -> bool {
        self.lock().holder == Some(attachment)
    }

    /// Whether somebody is there for it, or has to come: it does not go on without a client, or has one.
    pub fn is_awaited(&self) -> bool {
        let state = self.lock();
        !state.kept || state.holder.is_some()
    }

    /// Whether anybody holds the job.
    pub fn is_held(&self) -> bool {
        self.lock().holder.is_some()
    }

    /// Whether the command may still be given something that is typed or sent.
    pub fn takes_stdin(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| !feed.has_ended())
    }

    /// Whether what this attachment says that it has counts, now or when it holds the job.
    pub fn is_counted(&self, attachment: Attachment) -> bool {
        let state = self.lock();
        let claims = || state.claims.iter().any(|claim| claim.attachment == attachment);
        state.holder == Some(attachment) || claims()
    }

    /// The holder has all output up to this record; it is forgotten, unless others may come for it.
    pub fn acknowledge(&self, attachment: Attachment, record: u64) {
        let mut state = self.lock();
        let mut claims = state.claims.iter_mut();
        if let Some(claim) = claims.find(|claim| claim.attachment == attachment) {
            claim.has = Some(record);
            return;
        }
        let (is_holder, is_kept) = (state.holder == Some(attachment), state.kept);
        drop(state);
        match (is_holder, is_kept) {
            (true, true) => self.log.acknowledge(record),
            (true, false) => self.log.release(record),
            (false, _) => {}
        }
    }
}
