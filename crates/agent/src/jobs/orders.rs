//! What is asked of a job and waits, because its supervisor is busy: in order, and of each kind at most one, or
//! of sizes two, so that whoever asks for much fills nothing and need not be refused.

use crate::supervisor::Control;
use rexec_protocol::message::Cancel;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Where it is asked.
#[derive(Debug, Clone)]
pub(super) struct Desk(Arc<Shared>);

/// Where the supervisor hears of it. When it is dropped, nobody listens any more.
#[derive(Debug)]
pub struct Orders(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Control>,
    is_over: bool,
}

/// Both ends.
pub(super) fn orders() -> (Desk, Orders) {
    let shared = Arc::new(Shared::default());
    (Desk(Arc::clone(&shared)), Orders(shared))
}

impl Desk {
    /// Adds to what waits; gives it back if nobody listens any more.
    pub(super) fn ask(&self, control: Control) -> Result<(), Control> {
        let mut state = self.0.lock();
        if state.is_over {
            return Err(control);
        }
        state.add(control);
        drop(state);
        self.0.arrived.notify_one();
        Ok(())
    }
}

impl Orders {
    /// What comes next; waits for it. Safe to cancel.
    pub async fn next(&mut self) -> Control {
        loop {
            if let Some(control) = self.0.lock().waiting.pop_front() {
                return control;
            }
            // One that arrives before this is remembered.
            self.0.arrived.notified().await;
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        state.waiting.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, new: Control) {
        match &new {
            // The last one counts: a STOP after a CONT stops, whatever came before.
            Control::Signal(signal) => self
                .waiting
                .retain(|waiting| !matches!(waiting, Control::Signal(other) if other == signal)),
            // A screen is drawn again after another size and one back.
            Control::Resize(_) => {
                let is_size = |waiting: &Control| matches!(waiting, Control::Resize(_));
                let sizes = self.waiting.iter().filter(|waiting| is_size(waiting)).count();
                if sizes > 1
                    && let Some(first) = self.waiting.iter().position(is_size)
                {
                    self.waiting.remove(first);
                }
            }
            Control::Cancel(Cancel { signal, grace_ms }) => {
                let same = self.waiting.iter_mut().find_map(|waiting| match waiting {
                    Control::Cancel(cancel) if cancel.signal == *signal => Some(cancel),
                    _ => None,
                });
                if let Some(same) = same {
                    // As where both are carried out: a later one can only shorten the grace.
                    same.grace_ms = same.grace_ms.min(*grace_ms);
                    return;
                }
            }
            Control::Stop(channel) => {
                let is_same =
                    |waiting: &Control| matches!(waiting, Control::Stop(other) if other == channel);
                if self.waiting.iter().any(is_same) {
                    return;
                }
            }
            Control::Shutdown => {
                if self.waiting.iter().any(|waiting| matches!(waiting, Control::Shutdown)) {
                    return;
                }
            }
            // Each is from another client, which is told and asks only once.
            Control::Keep(_) => {}
        }
        self.waiting.push_back(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::Signal;
    use rexec_protocol::message::{Channel, TerminalSize};

    fn signal(name: &str) -> Control {
        Control::Signal(name.parse().unwrap())
    }

    fn resize(columns: u16) -> Control {
        Control::Resize(TerminalSize { columns, rows: 24, width: 0, height: 0 })
    }

    fn cancel(grace_ms: u64) -> Control {
        Control::Cancel(Cancel { signal: Signal::TERM, grace_ms })
    }

    /// PROTOCOL.md, section 11, allows ten thousand frames in a second. What waits is one of each kind.
    #[tokio::test]
    async fn signals_and_sizes_for_a_busy_job_are_no_flood() {
        let (desk, mut orders) = orders();
        for n in 0..10_000 {
            for control in [
                signal("STOP"),
                cancel(20_000 - n),
                signal("CONT"),
                resize(u16::try_from(n).unwrap()),
                Control::Stop(Channel::Err),
            ] {
                desk.ask(control).unwrap();
            }
        }
        desk.ask(signal("STOP")).unwrap();
        let mut heard = Vec::new();
        while !desk.0.lock().waiting.is_empty() {
            heard.push(format!("{:?}", orders.next().await));
        }
        let expected = [
            cancel(10_001),
            Control::Stop(Channel::Err),
            resize(9_998),
            signal("CONT"),
            resize(9_999),
            signal("STOP"),
        ];
        assert_eq!(heard, expected.map(|control| format!("{control:?}")));
    }

    #[tokio::test]
    async fn what_is_asked_while_it_is_waited_for_is_heard_and_later_it_is_given_back() {
        let (desk, mut orders) = orders();
        let asked = desk.clone();
        let waiting = tokio::spawn(async move { (format!("{:?}", orders.next().await), orders) });
        tokio::task::yield_now().await;
        asked.ask(Control::Shutdown).unwrap();
        let (heard, orders) = waiting.await.unwrap();
        assert_eq!(heard, "Shutdown");
        drop(orders);
        assert!(matches!(desk.ask(resize(1)), Err(Control::Resize(_))));
    }
}
