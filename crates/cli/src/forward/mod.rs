//! Ports of this machine that lead to places that the agent's machine can reach.
//!
//! Each connection that comes is a stream of the one connection to the agent, with its own credit in both
//! directions, so that one that nobody reads holds up no other.

mod carry;
mod socks;

use crate::exit::Notes;
use crate::run::digest;
use rexec_client::{Algorithm, Command, Session, Stdio, printable};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once; further ones wait to be accepted. An agent runs 256 commands at once for one
/// connection, unless it was set otherwise, and each of these is one.
const CONNECTIONS: usize = 200;
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// A port to listen on here, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The name or address to listen on, `*` for all of this machine; `None` for `localhost`.
    pub bind: Option<String>,
    /// The port here.
    pub port: u16,
    /// Where it leads.
    pub to: Destination,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Always there.
    Place {
        /// A name or an address, as the agent's machine knows it.
        host: String,
        /// The port there.
        port: u16,
    },
    /// Where each asks to go, by SOCKS 4, 4a or 5.
    Asked,
}

/// The ports that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwards {
    /// In the order in which they were asked for.
    pub list: Vec<Forward>,
    /// Without one of them all else is pointless.
    pub all: bool,
}

/// How connections are made there.
#[derive(Debug, Clone)]
pub struct Route {
    /// The agent.
    pub session: Session,
    /// The local user of its machine, if not the one that its policy has for this caller.
    pub user: Option<String>,
    /// What proves the bytes; `None` leaves it to the agent.
    pub hash: Option<Algorithm>,
}

/// The ports that are served, until this is dropped.
#[derive(Debug)]
pub struct Served(#[allow(dead_code, reason = "it ends its tasks when it is dropped")] JoinSet<()>);

/// An address that cannot be had.
type Taken = (SocketAddr, io::Error);

impl Forwards {
    /// Listens, and serves what comes. The error says which port cannot be had, and why.
    pub async fn serve(&self, route: &Route, notes: Notes) -> Result<Served, String> {
        let mut served = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        for forward in &self.list {
            match forward.listen().await {
                Ok((listeners, taken)) => {
                    for (address, error) in taken {
                        let why = format!("cannot listen on {address}: {error}");
                        if self.all {
                            return Err(why);
                        }
                        notes.say(&format!("warning: {why}"));
                    }
                    for listener in listeners {
                        let (route, to) = (route.clone(), forward.to.clone());
                        served.spawn(accept(listener, route, to, Arc::clone(&room), notes));
                    }
                }
                Err(error) => {
                    let why = format!("cannot listen on port {}: {error}", forward.port);
                    if self.all {
                        return Err(why);
                    }
                    notes.say(&format!("warning: {why}"));
                }
            }
        }
        Ok(Served(served))
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

impl Route {
    /// A connection from the agent's machine.
    fn to(&self, host: String, port: u16) -> Command {
        let command = self.session.connect_to(host, port).stdin(Stdio::Piped);
        let command = digest(command, self.hash);
        match &self.user {
            Some(user) => command.user(user),
            None => command,
        }
    }
}

async fn accept(
    listener: TcpListener,
    route: Route,
    to: Destination,
    room: Arc<Semaphore>,
    notes: Notes,
) {
    let mut carried = JoinSet::new();
    // It is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        while carried.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, from)) => {
                let (route, to) = (route.clone(), to.clone());
                carried.spawn(async move {
                    if let Err(why) = carry::carry(&route, socket, to).await {
                        notes.say(&printable(&format!("connection from {from}: {why}")));
                    }
                    drop(place);
                });
            }
            // One that was gone before it was accepted, or no descriptor left: the next may fare better.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
