//! Another connection in the place of one that was lost.

use crate::connector::Dialer;
use crate::link::{Link, Shared};
use rexec_net::NetError;
use rexec_net::handshake::{Connection, Deadline};
use rexec_protocol::ErrorCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to wait before the second attempt to connect again; it doubles from then on …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an attempt may take at least, however little time is left.
const LEAST: Duration = Duration::from_secs(1);

/// Whether another connection may do better. Who is refused right at the start is told so at once.
pub(crate) fn is_mendable(end: &NetError, is_first: bool) -> bool {
    match end {
        NetError::Cut(_)
        | NetError::Closed
        | NetError::Silent(_)
        | NetError::Deadline { .. }
        | NetError::Dial { .. }
        | NetError::Unresolved { .. }
        | NetError::Left(_) => true,
        NetError::Peer { code, .. } => {
            let is_busy = *code == ErrorCode::Busy && !is_first;
            is_busy || matches!(code, ErrorCode::ShuttingDown | ErrorCode::Timeout)
        }
        _ => false,
    }
}

/// What the agent has said on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard {
    Nothing,
    Hello,
    More,
}

impl Heard {
    /// What it means for how long the agent has been away.
    pub(crate) fn tell(self, away: &mut Option<Away>) {
        match self {
            Self::Nothing => {}
            Self::Hello => away.iter_mut().for_each(Away::greeted),
            Self::More => *away = None,
        }
    }
}

/// How long a session has been without its agent. A connection on which nothing but a hello came ends no
/// wait, or an agent that ends each one at once would be called upon for ever.
#[derive(Debug)]
pub(crate) struct Away {
    since: Instant,
    attempts: u32,
    pause: Duration,
}

impl Away {
    pub(crate) fn begin() -> Self {
        Self { since: Instant::now(), attempts: 0, pause: FIRST_PAUSE }
    }

    /// The agent was there, if not for long: the pauses are short again.
    fn greeted(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Connects again, until it works or the time for it is over.
    pub(crate) async fn end(
        &mut self,
        shared: &Shared,
        dialer: &Dialer,
        lost: NetError,
    ) -> Result<(Connection, Deadline), (NetError, Duration)> {
        let mut last = lost;
        self.tell(shared, &last);
        loop {
            if self.attempts > 0 {
                if !is_mendable(&last, false) || self.since.elapsed() >= dialer.reconnect_for {
                    return Err((last, self.since.elapsed()));
                }
                self.pause().await;
                self.tell(shared, &last);
            }
            self.attempts = self.attempts.saturating_add(1);
            let left = dialer.reconnect_for.saturating_sub(self.since.elapsed()).max(LEAST);
            match dialer.dial_within(left).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
    }

    /// Says that another attempt is due.
    fn tell(&self, shared: &Shared, last: &NetError) {
        let (reason, since) = (last.to_string(), self.since.into_std());
        let attempt = self.attempts.saturating_add(1);
        shared.link.send_replace(Link::Away { reason, since, attempt });
    }

    async fn pause(&mut self) {
        // Many clients that lost the same agent shall not come back in step.
        let jitter = fastrand::f64().mul_add(0.4, 0.8);
        sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
