//! Ports of this machine.

use super::carry::{abort_when_closed, carry};
use super::permits::Permits;
use super::{About, Closed, Destination, Forward, PATIENCE, Route, socks};
use crate::exit::Notes;
use rexec_client::Child;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// An address that cannot be had.
type Taken = (SocketAddr, io::Error);

/// One socket for each address that can be had, and what is to be said of the others.
pub(super) async fn listen(forward: &Forward) -> (Vec<TcpListener>, Vec<String>) {
    match forward.listen().await {
        Ok((listeners, taken)) => {
            let why = |(address, error)| format!("cannot listen on {address}: {error}");
            (listeners, taken.into_iter().map(why).collect())
        }
        Err(error) => {
            (Vec::new(), vec![format!("cannot listen on port {}: {error}", forward.port)])
        }
    }
}

/// What is said of a port that is open.
pub(super) fn described(listener: &TcpListener) -> String {
    match listener.local_addr() {
        Ok(address) => format!("listening on {} port {}", address.ip(), address.port()),
        Err(error) => format!("listening, and nobody knows where: {error}"),
    }
}

impl Forward {
    /// One socket for each address, at least one; and the addresses that somebody else has.
    async fn listen(&self) -> io::Result<(Vec<TcpListener>, Vec<Taken>)> {
        let port = self.port;
        let addresses: Vec<SocketAddr> = match self.bind.as_deref() {
            // The first serves both kinds, where there are both.
            Some("*") => {
                vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
            }
            bind => lookup_host((bind.unwrap_or("localhost"), port)).await?.collect(),
        };
        let (mut listeners, mut taken) = (Vec::<TcpListener>::new(), Vec::new());
        let mut last = io::ErrorKind::NotFound.into();
        for address in addresses {
            // A name may have an address twice.
            if listeners.iter().any(|one| one.local_addr().is_ok_and(|own| own == address)) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    // The first of all addresses is most often the second as well.
                    if listeners.is_empty() || self.bind.as_deref() != Some("*") {
                        taken.push((address, error));
                    }
                }
                // A machine without IPv6 may still know localhost's address of that kind.
                Err(error) => last = error,
            }
        }
        if listeners.is_empty() {
            Err(taken.pop().map_or(last, |(_, error)| error))
        } else {
            Ok((listeners, taken))
        }
    }
}

/// Serves a port for ever.
pub(super) async fn accept(
    listener: TcpListener,
    route: Route,
    to: Destination,
    room: Arc<Semaphore>,
    notes: Notes,
) -> Closed {
    let mut carried = JoinSet::new();
    loop {
        let (socket, from, place) = next(&listener, &room).await;
        while carried.try_join_next().is_some() {}
        let about = About { notes, whence: format!("connection from {from}") };
        let (route, to) = (route.clone(), to.clone());
        carried.spawn(async move {
            serve(&route, socket, to, &about).await;
            drop(place);
        });
    }
}

/// The next connection, once there is a place for it: an address to which nobody comes has no need of one.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => match Arc::clone(room).acquire_owned().await {
                Ok(place) => return (socket, from, place),
                // It is never closed.
                Err(_) => std::future::pending().await,
            },
            // One that was gone before it was accepted, or no descriptor left: the next may fare better.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Connects on the agent's machine and carries what comes.
async fn serve(route: &Route, mut socket: TcpStream, to: Destination, about: &About) {
    match reach(route, &mut socket, to).await {
        Ok(child) => carry(child, socket, about).await,
        Err(why) => about.say(&why),
    }
}

async fn reach(route: &Route, socket: &mut TcpStream, to: Destination) -> Result<Child, String> {
    let (host, port) = match to {
        Destination::Place { host, port } => (host, port),
        Destination::Asked => {
            // Where it may lead is for policy to say.
            let asked = timeout(PATIENCE, socks::destination(socket, &Permits::default())).await;
            let asked = asked.map_err(io::Error::from).flatten();
            asked.map_err(|error| format!("SOCKS: {error}"))?
        }
    };
    // What leads nowhere is reset: an end in good order would be an empty answer.
    abort_when_closed(socket, true);
    let command = route.to(host, port).kill_on_drop(true);
    command.spawn().await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one place for each port, the address to which nobody came had it, and the other was not served.
    #[tokio::test]
    async fn an_address_to_which_nobody_comes_takes_no_place() {
        let room = Arc::new(Semaphore::new(1));
        let idle = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let busy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _to = TcpStream::connect(busy.local_addr().unwrap()).await.unwrap();
        tokio::select! {
            biased;
            _ = next(&idle, &room) => panic!("nobody has come"),
            (_, _, place) = next(&busy, &room) => drop(place),
        }
        assert_eq!(room.available_permits(), 1);
    }
}
