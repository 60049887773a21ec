//! What a job that listens has said of its port, for the record: a client may leave the choice of the port to this
//! machine, and names a connection by its number alone.

use rexec_protocol::listen::{MAX_SAID, Said};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Connections that are remembered: twice as many as such a job lets wait.
const ARRIVALS: usize = 128;

/// What was heard of one port.
#[derive(Debug)]
pub struct Heard {
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The beginning of a line.
    line: Vec<u8>,
    port: Option<u16>,
    /// That port is on record.
    is_recorded: bool,
    /// The last ones, the oldest first.
    arrivals: VecDeque<(u64, SocketAddr)>,
}

impl Heard {
    /// Nothing yet; or the port, if another agent has heard it.
    pub(super) fn new(port: Option<u16>) -> Self {
        let state = State { port, is_recorded: port.is_some(), ..State::default() };
        Self { state: Mutex::new(state), opened: Notify::new() }
    }

    /// Takes what the job prints next.
    pub(super) fn hear(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Of what is too long to be a line, so much is kept that it is none.
            let room = MAX_SAID.saturating_sub(state.line.len());
            state.line.extend(piece.iter().take(room));
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = std::mem::take(&mut state.line);
            match line.strip_suffix(b"\n").and_then(Said::parse) {
                Some(Said::Port(port)) if state.port.is_none() => {
                    state.port = Some(port);
                    // One word is kept for who is not waiting just now.
                    self.opened.notify_one();
                }
                Some(Said::Arrival { number, from }) => {
                    if state.arrivals.len() >= ARRIVALS {
                        state.arrivals.pop_front();
                    }
                    state.arrivals.push_back((number, from));
                }
                Some(Said::Port(_)) | None => {}
            }
        }
    }

    /// Waits until the port is open, if no agent has heard that before.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// The port, once: if it is open, and not on record.
    pub fn to_be_recorded(&self) -> Option<u16> {
        let mut state = self.lock();
        let port = state.port.filter(|_| !state.is_recorded)?;
        state.is_recorded = true;
        Some(port)
    }

    /// The port, once it is known.
    pub(super) fn port(&self) -> Option<u16> {
        self.lock().port
    }

    /// Where a connection comes from that is about to be taken.
    pub fn peer(&self, number: u64) -> Option<SocketAddr> {
        let state = self.lock();
        state.arrivals.iter().find(|(other, _)| *other == number).map(|(_, from)| *from)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_heard_in_whatever_pieces_they_come() {
        let heard = Heard::new(None);
        let said = b"port 8080\n1 192.0.2.7:5\nnonsense\nport 9\n2 [2001:db8::1]:6\n";
        for byte in said {
            heard.hear(&[*byte]);
        }
        heard.opened().await;
        assert_eq!((heard.to_be_recorded(), heard.to_be_recorded()), (Some(8080), None));
        assert_eq!(heard.peer(2), "[2001:db8::1]:6".parse().ok());
        assert_eq!(heard.peer(1), "192.0.2.7:5".parse().ok());
        // What takes it may fail, and is asked for again.
        assert_eq!((heard.peer(1).is_some(), heard.peer(3)), (true, None));
    }

    #[test]
    fn no_more_is_kept_than_there_can_be() {
        let heard = Heard::new(Some(8080));
        assert_eq!(heard.to_be_recorded(), None);
        for n in 1..=10_000 {
            heard.hear(format!("{n} 192.0.2.7:5\n").as_bytes());
        }
        heard.hear(&vec![b'1'; 1 << 20]);
        let state = heard.lock();
        assert_eq!((state.arrivals.len(), state.line.len()), (ARRIVALS, MAX_SAID));
        assert_eq!(state.port, Some(8080));
    }
}
