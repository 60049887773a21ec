//! Whether a command waits until there is room for what it prints.

use super::Job;
use std::fmt::Display;
use tokio::sync::watch;

/// Why there is no room, while there is none.
pub(super) type Waiting = watch::Sender<Option<String>>;

impl Job {
    /// There is no room. To be said again as long as that holds: whoever makes some may have left since.
    pub fn waits_for_room(&self, why: &impl Display) {
        // Said anew, too, for who came meanwhile.
        self.waiting.send_modify(|waiting| *waiting = Some(why.to_string()));
    }

    /// There is room again, or none is needed any more.
    pub fn has_room(&self) {
        self.waiting.send_if_modified(|waiting| waiting.take().is_some());
    }

    /// Returns why the command waits, once it does and nobody is there who reads and so makes room.
    pub async fn waits_in_vain(&self) -> String {
        let mut waiting = self.waiting.subscribe();
        let in_vain = waiting.wait_for(|waiting| waiting.is_some() && !self.is_held()).await;
        let why = in_vain.ok().and_then(|waiting| waiting.clone());
        // The job holds the other end.
        why.unwrap_or_default()
    }
}
