//! A listening socket that goes on accepting when the process has no descriptor left.
//!
//! accept(2) then fails, and the connection stays in the kernel's queue: the client waits, and a
//! loop that tries again at once spins (tokio-rs/tokio#3529). So one descriptor is kept in reserve.
//! It is closed for a moment to accept a connection and close that, which its client sees at once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// How long to rest after a connection was closed for want of a descriptor; doubled, up to a second,
/// while not even that works. A hundred connections a second cost next to nothing.
const REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How often the log speaks of it at most.
const PAUSE: Duration = Duration::from_secs(10);

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    /// `None` while somebody else has got it.
    reserve: Option<OwnedFd>,
    rest: Duration,
    /// Connections closed since the log last spoke of it.
    closed: u64,
    told: Option<Instant>,
}

impl Door {
    /// Accepts from `listener`.
    pub fn new(listener: TcpListener) -> Self {
        let mut door = Self { listener, reserve: None, rest: REST, closed: 0, told: None };
        door.keep_reserve();
        door
    }

    /// The next connection.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.rest = REST;
                    return accepted;
                }
                Err(error) if is_the_connections_own(&error) => {}
                Err(error) => self.turn_away(&error).await,
            }
        }
    }

    /// Closes the connection that waits first, and rests.
    async fn turn_away(&mut self, error: &io::Error) {
        self.reserve = None;
        // It waits already, or another thread was faster: either way there is an answer now.
        let waiting = std::future::poll_fn(|cx| Poll::Ready(self.listener.poll_accept(cx))).await;
        let is_closed = matches!(waiting, Poll::Ready(Ok(_)));
        drop(waiting);
        self.keep_reserve();
        self.closed += u64::from(is_closed);
        if self.told.is_none_or(|told| told.elapsed() >= PAUSE) {
            let closed = std::mem::take(&mut self.closed);
            tracing::error!(
                %error, closed,
                "cannot accept connections, so those that wait are closed; if there are no \
                 descriptors left, raise LimitNOFILE or lower limits.connections"
            );
            self.told = Some(Instant::now());
        }
        sleep(self.rest).await;
        self.rest = if is_closed { REST } else { (self.rest * 2).min(LONGEST_REST) };
    }

    fn keep_reserve(&mut self) {
        // A second descriptor of what is open anyway: it needs no file to be there.
        self.reserve = self.listener.as_fd().try_clone_to_owned().ok();
    }
}

/// Errors of accept(2) that concern only the connection that was to be accepted.
fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
