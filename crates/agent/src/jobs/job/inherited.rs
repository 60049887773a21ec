//! A job that another agent process has begun, and what the next one has to know of it.

use super::holding::Leases;
use super::waiting::Waiting;
use super::{Attendance, Controls, Heard, Job, Stage, State};
use crate::jobs::meta::{End, Meta};
use crate::jobs::orders::orders;
use crate::jobs::store::{Left, Store};
use crate::log::Log;
use crate::spool::boot_id;
use crate::stdin::Feed;
use rexec_protocol::message::Exit;
use rexec_protocol::outcome::shorten;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

impl Job {
    /// A job of another agent process, which has ended.
    pub(in crate::jobs) fn left(left: Left, end: &End, store: Arc<Store>) -> Arc<Self> {
        let Left { meta, log, .. } = left;
        log.exit(end.exit.clone().into());
        // Nobody listens.
        let fed = Exit::from(end.exit.clone()).stdin.size;
        let (job, _) = Self::inherited(meta, log, (None, fed), end.pid, store);
        job.ended(end.ended_ms);
        job
    }

    /// A job that another agent process has begun. Its client has the time to come that it has when
    /// its connection is lost.
    pub(in crate::jobs) fn adopted(
        meta: Meta,
        log: Arc<Log>,
        feed: Option<Arc<Feed>>,
        pid: u32,
        store: Arc<Store>,
        leases: Leases,
    ) -> (Arc<Self>, Controls) {
        let (job, controls) = Self::inherited(meta, log, (feed, 0), pid, store);
        if !job.is_kept() {
            job.attendance.send_replace(job.wait_for(leases.silent));
        }
        (job, controls)
    }

    fn inherited(
        meta: Meta,
        log: Arc<Log>,
        (feed, fed): (Option<Arc<Feed>>, u64),
        pid: u32,
        store: Arc<Store>,
    ) -> (Arc<Self>, Controls) {
        let (control, orders) = orders();
        let (attendance, attended) = watch::channel(Attendance::Attended);
        let Meta { kept, user, listens, .. } = meta;
        let is_connection = meta.connection || listens.is_some();
        let heard = Arc::new(Heard::new(meta.listening));
        let listens = listens.map(|port| (port, heard));
        let state = State { kept, user, listens, ..State::default() };
        let job = Arc::new(Self {
            id: meta.job,
            body: meta.body,
            owner: meta.owner,
            algorithm: meta.algorithm,
            log,
            feed,
            fed,
            durable: meta.durable,
            committed: AtomicBool::new(meta.durable || meta.kept),
            unheard: AtomicBool::new(false),
            resumable: meta.resumable,
            on_disconnect: meta.on_disconnect,
            on_full: meta.on_full,
            store,
            command: meta.command,
            has_terminal: meta.terminal,
            terminal_size: meta.terminal_size,
            is_connection,
            begun_ms: meta.begun_ms,
            control,
            stage: watch::Sender::new(Stage::Started { pid }),
            attendance,
            waiting: Waiting::default(),
            state: Mutex::new(state),
        });
        (job, Controls { orders, attended })
    }

    /// What another agent process has to know of it.
    pub fn meta(&self) -> Meta {
        let state = self.lock();
        Meta {
            job: self.id.clone(),
            owner: self.owner.clone(),
            user: state.user.clone(),
            body: self.body,
            algorithm: self.algorithm,
            // For people: a script of a mebibyte is not to be on disk, and in each will, once more.
            command: shorten(self.command.clone()),
            begun_ms: self.begun_ms,
            durable: self.durable,
            resumable: self.resumable,
            kept: state.kept,
            on_disconnect: self.on_disconnect,
            on_full: self.on_full,
            stdin: self.feed.is_some(),
            terminal: self.has_terminal,
            terminal_size: self.terminal_size,
            connection: self.is_connection,
            listens: state.listens.as_ref().map(|(port, _)| port.clone()),
            listening: state.listens.as_ref().and_then(|(_, heard)| heard.port()),
            boot: boot_id(),
        }
    }
}
