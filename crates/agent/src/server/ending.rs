//! How an agent ends: when the commands have ended for which somebody is there, at once, or leaving them to the
//! next one.

use super::Agent;
use crate::jobs::Job;
use crate::rooms::handover;
use rexec_protocol::JobId;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the connections have to end, after the time their commands have to end.
const LAST: Duration = Duration::from_secs(10);
/// How often it is looked whether the last command has ended for which somebody is there.
const LOOK: Duration = Duration::from_millis(50);

impl Agent {
    /// Takes nothing new, and leaves the running commands to the next agent; false, and nothing, if
    /// the agent ends already.
    #[must_use]
    pub fn leave(&self) -> bool {
        let is_first = self.begin_to_end();
        if is_first {
            self.leave.cancel();
        }
        is_first
    }

    /// What is cancelled when the agent leaves.
    pub fn leaving(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// Whether the agent leaves.
    pub fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Returns once the agent leaves.
    pub async fn has_left(&self) {
        self.leave.cancelled().await;
    }

    /// Returns once all is left to the next agent, and clients may go there.
    pub async fn farewell(&self) {
        self.farewell.cancelled().await;
    }

    /// Takes no new connections and no new commands, and lets those finish for which somebody is there; what
    /// is to go on without a client is left to the next agent. False, and nothing, if the agent ends already.
    #[must_use]
    pub fn stop(&self) -> bool {
        let is_first = self.begin_to_end();
        if is_first {
            self.stop.cancel();
        }
        is_first
    }

    /// Whether this is the first to end it: commands that are left to the next agent are not waited
    /// for as well.
    fn begin_to_end(&self) -> bool {
        !self.ending.swap(true, Ordering::AcqRel)
    }

    /// Whether the agent ends, in whichever way.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes nothing new, and ends the running commands, however the agent was to end before.
    pub fn abort(&self) {
        self.begin_to_end();
        self.stop.cancel();
        self.abort.cancel();
    }

    /// Takes no new commands, or takes them again; connections go on.
    pub fn drain(&self, on: bool) {
        self.draining.store(on, Ordering::Release);
    }

    /// Whether no new commands are taken for now.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns once the agent was told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Returns once the agent was told to end the running commands.
    pub async fn aborting(&self) {
        self.abort.cancelled().await;
    }

    /// Whether the agent was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Lets the commands finish for which somebody is there, and ends them when the time for that is over. What is
/// to go on without a client is left to the next agent.
pub(super) async fn drain(agent: &Arc<Agent>, sessions: &TaskTracker) {
    sessions.close();
    agent.jobs.tasks.close();
    tokio::select! {
        () = finish(agent) => agent.leave.cancel(),
        () = agent.abort.cancelled() => end_all(agent, sessions).await,
    }
    hand_over(agent, sessions).await;
}

/// Returns once nothing runs that is not to be left, and the clients have what had ended.
async fn finish(agent: &Agent) {
    let limits = &agent.config.limits;
    if timeout(limits.drain, until_only(agent, |job| !job.is_awaited())).await.is_ok() {
        return;
    }
    tracing::warn!(
        "the time for running commands is over; ending those that do not go on without a client"
    );
    let running = agent.jobs.running();
    running.iter().filter(|job| !job.is_kept()).for_each(|job| job.shut_down());
    if timeout(limits.kill_grace + LAST, until_only(agent, Job::is_kept)).await.is_err() {
        tracing::error!("connections or commands do not end; leaving them");
    }
}

/// Waits until all jobs that run are `left`, and no client is at any other.
async fn until_only(agent: &Agent, left: impl Fn(&Job) -> bool) {
    loop {
        let running = agent.jobs.running();
        let others = running.iter().any(|job| !left(job));
        let is_left = |id: &JobId| running.iter().any(|job| job.id == *id);
        if !others && agent.everybody.are_only_at(is_left) {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn end_all(agent: &Agent, sessions: &TaskTracker) {
    agent.jobs.running().iter().for_each(|job| job.shut_down());
    let all = async { tokio::join!(sessions.wait(), agent.jobs.tasks.wait()) };
    if timeout(agent.config.limits.kill_grace + LAST, all).await.is_err() {
        tracing::error!("connections or commands do not end; leaving them");
    }
}

/// Leaves everything to the next agent: first the jobs, then the clients are told to come back.
pub(super) async fn hand_over(agent: &Arc<Agent>, sessions: &TaskTracker) {
    // Each supervisor knows whether its job can be left, and ends it otherwise.
    agent.jobs.tasks.close();
    let left = async {
        tokio::select! {
            () = agent.jobs.tasks.wait() => {}
            () = agent.abort.cancelled() => {}
        }
    };
    if timeout(agent.config.limits.kill_grace + LAST, left).await.is_err() {
        tracing::error!("some jobs cannot be left to the next agent");
    }
    let (jobs, state) = (Arc::clone(&agent.jobs), agent.config.state_dir.clone());
    match spawn_blocking(move || jobs.hand_over(&state)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the next agent will not know what this one does")
        }
        Err(error) => tracing::error!(%error, "the next agent will not know what this one does"),
    }
    agent.farewell.cancel();
    sessions.close();
    if timeout(LAST, sessions.wait()).await.is_err() {
        tracing::warn!("some connections do not end; leaving them");
    }
}

/// Leaves the rooms to the next agent, once nobody is in them any more.
pub(super) async fn leave_rooms(agent: &Arc<Agent>) {
    let left = Arc::clone(agent);
    let leave = move || handover::put(&left.config.state_dir, &left.rooms.leave_behind());
    let written = spawn_blocking(leave).await.map_err(io::Error::other);
    if let Err(error) = written.and_then(|written| written) {
        tracing::error!(%error, "the next agent will not know what was said in the rooms");
    }
}
