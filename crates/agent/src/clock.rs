//! Waiting for a time that may not be set.

use tokio::time::{Instant, sleep_until};

/// Returns at `instant`; without one, never.
pub async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
