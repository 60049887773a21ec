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

/// Whether another connection may do better. Who is refused right at the start is told so at once.
pub(crate) fn is_mendable(end: &NetError, is_first: bool) -> bool {
    match end {
        NetError::Cut(_)
        | NetError::Closed
        | NetError::Silent(_)
        | NetError::Deadline { .. }
        | NetError::Dial { .. }
        | NetError::Left(_) => true,
        NetError::Peer { code, .. } => {
            let is_busy = *code == ErrorCode::Busy && !is_first;
            is_busy || matches!(code, ErrorCode::ShuttingDown | ErrorCode::Timeout)
        }
        _ => false,
    }
}

/// Connects again, until it works or the time for it is over.
pub(crate) async fn reconnect(
    shared: &Shared,
    dialer: &Dialer,
    lost: NetError,
) -> Result<(Connection, Deadline), (NetError, Duration)> {
    let since = Instant::now();
    let mut last = lost;
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let reason = last.to_string();
        shared.link.send_replace(Link::Away { reason, since: since.into_std(), attempt });
        match dialer.dial().await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
        if !is_mendable(&last, false) || since.elapsed() >= dialer.reconnect_for {
            break;
        }
        // Many clients that lost the same agent shall not come back in step.
        let jitter = fastrand::f64().mul_add(0.4, 0.8);
        sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err((last, since.elapsed()))
}
