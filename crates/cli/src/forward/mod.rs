//! Ports of this machine that lead to places that the agent's machine can reach, and the other way round.
//!
//! Each connection that comes is a stream of the one connection to the agent, with its own credit in both
//! directions, so that one that nobody reads holds up no other. `local` has the ports here, `remote` those
//! there; `carry` is for both.

mod carry;
mod local;
mod permits;
mod remote;
mod socks;

use crate::exit::Notes;
use crate::run::digest;
pub use permits::{Permits, Permitted};
use rexec_client::{Algorithm, Command, Error, Listener, Session, Stdio, printable};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Connections at once, of which each port has its share; further ones wait to be accepted. An agent runs 256
/// commands at once for one connection, unless it was set otherwise, and each of these is one.
const CONNECTIONS: usize = 200;
/// How long somebody may take to say where they want to go, and how long the way there is looked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port to listen on, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The name or address to listen on, `*` for all of that machine; `None` for `localhost`.
    pub bind: Option<String>,
    /// The port; 0, which is for the agent's machine alone: one that is free.
    pub port: u16,
    /// Where it leads.
    pub to: Destination,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Always there.
    Place {
        /// A name or an address, as the machine knows it that connects.
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
    /// Those of this machine, in the order in which they were asked for.
    pub local: Vec<Forward>,
    /// Those of the agent's.
    pub remote: Vec<Forward>,
    /// Where those of them may lead that are asked where to.
    pub permits: Permits,
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
pub struct Served {
    ports: JoinSet<Closed>,
    /// What is still carried of ports that are closed.
    carried: Vec<JoinSet<()>>,
}

/// Why a port is closed, and what it still carries.
type Closed = (String, JoinSet<()>);

/// What is said of a connection.
#[derive(Debug)]
struct About {
    notes: Notes,
    whence: String,
}

impl About {
    fn say(&self, why: &str) {
        self.notes.say(&printable(&format!("{}: {why}", self.whence)));
    }
}

impl Forwards {
    /// Listens, and serves what comes. The error says which port cannot be had, and why.
    pub async fn serve(&self, route: &Route, notes: Notes) -> Result<Served, String> {
        let mut ports = JoinSet::new();
        // Connections of one that never end are not to keep those of another waiting.
        let share = (CONNECTIONS / (self.local.len() + self.remote.len()).max(1)).max(1);
        let permits = Arc::new(self.permits.clone());
        for forward in &self.local {
            let room = Arc::new(Semaphore::new(share));
            let (listeners, lacking) = local::listen(forward).await;
            for why in lacking {
                self.do_without(why, notes)?;
            }
            for listener in listeners {
                notes.detail(|| local::described(&listener));
                let (route, to) = (route.clone(), forward.to.clone());
                ports.spawn(local::accept(listener, route, to, Arc::clone(&room), notes));
            }
        }
        for forward in &self.remote {
            match route.listen(forward).await {
                Ok(listener) => {
                    let (to, permits) = (forward.to.clone(), Arc::clone(&permits));
                    let room = Arc::new(Semaphore::new(share));
                    remote::announce(forward, &listener, notes);
                    notes.detail(|| {
                        format!("port {} of the agent's machine is open", listener.port())
                    });
                    ports.spawn(remote::accept(listener, to, permits, room, notes));
                }
                Err(error) => {
                    // The first words are those of ssh.
                    let port = forward.port;
                    let why =
                        format!("remote port forwarding failed for listen port {port}: {error}");
                    self.do_without(why, notes)?;
                }
            }
        }
        Ok(Served { ports, carried: Vec::new() })
    }

    fn do_without(&self, why: String, notes: Notes) -> Result<(), String> {
        if self.all {
            return Err(why);
        }
        notes.say(&format!("warning: {why}"));
        Ok(())
    }
}

impl Served {
    /// Waits until one of the agent's ports is closed, and says why.
    pub async fn lost(&mut self) -> String {
        loop {
            match self.ports.join_next().await {
                Some(Ok((why, carried))) => {
                    self.carried.push(carried);
                    return why;
                }
                // A task that was ended, which only happens at the end of all.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Serves beside something else, which goes on without one of them.
    pub fn beside(mut self, notes: Notes) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                notes.say(&format!("warning: {}", self.lost().await));
            }
        }))
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

    /// A port of the agent's machine.
    async fn listen(&self, forward: &Forward) -> Result<Listener, Error> {
        let host = forward.bind.as_deref().unwrap_or("localhost");
        let listen = self.session.listen(host, forward.port);
        let listen = match self.hash {
            Some(algorithm) => listen.digest(algorithm),
            None => listen.any_digest(),
        };
        let listen = match &self.user {
            Some(user) => listen.user(user),
            None => listen,
        };
        listen.start().await
    }
}
