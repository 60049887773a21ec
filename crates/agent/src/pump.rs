//! Carries a job's log to its client: one cursor, moving on as credit and the connection allow.

use crate::log::{self, Cursor, Log};
use rexec_net::Outbox;
use rexec_net::credit::SendCredit;
use std::sync::Arc;

/// Sends every record of `log`, then returns. If the connection goes first, the log is abandoned.
pub async fn run(log: Arc<Log>, credit: Arc<SendCredit>, outbox: Outbox) {
    let mut cursor = Cursor::default();
    loop {
        let record = log.next(&mut cursor).await;
        let is_last = log::is_last(&record);
        if !record.body.is_empty() && !credit.take(record.body.len() as u64).await {
            return log.abandon();
        }
        if outbox.data(record).await.is_err() {
            return log.abandon();
        }
        log.release(&cursor);
        if is_last {
            return;
        }
    }
}
