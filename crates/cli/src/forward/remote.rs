//! Ports of the agent's machine.

use super::carry::{carry, reset};
use super::permits::Permits;
use super::{About, Closed, Destination, Forward, PATIENCE, socks};
use crate::exit::Notes;
use rexec_client::{Child, Incoming, Link, Listener};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that wait for a place here. An agent lets no more wait, so the oldest of more is gone.
const WAITING: usize = 64;

/// Tells the port that the agent's machine has chosen, as ssh does, for programs that look for it.
pub(super) fn announce(forward: &Forward, listener: &Listener, notes: Notes) {
    if forward.port == 0 {
        let (host, port) = match &forward.to {
            Destination::Place { host, port } => (host.as_str(), *port),
            Destination::Asked => ("socks", 0),
        };
        let allocated = listener.port();
        notes.plainly(&format!("Allocated port {allocated} for remote forward to {host}:{port}"));
    }
}

/// Serves a port until it is closed, and says why.
pub(super) async fn accept(
    mut listener: Listener,
    to: Destination,
    permits: Arc<Permits>,
    room: Arc<Semaphore>,
    notes: Notes,
) -> Closed {
    let (mut waiting, mut carried) = (VecDeque::<Incoming>::new(), JoinSet::new());
    let port = listener.port();
    // That the port is closed is seen also while all places are taken.
    let error = loop {
        tokio::select! {
            told = listener.accept() => match told {
                Ok(incoming) => {
                    if incoming.missed() > 0 {
                        let missed = incoming.missed();
                        notes.say(&format!("warning: port {port} of the agent's machine: {missed} connections were lost with an agent that was killed"));
                    }
                    waiting.push_back(incoming);
                    if waiting.len() > WAITING {
                        waiting.pop_front();
                    }
                }
                Err(error) => break error,
            },
            place = Arc::clone(&room).acquire_owned(), if !waiting.is_empty() => {
                let Some(incoming) = waiting.pop_front() else { continue };
                let from = incoming.peer_addr();
                let whence = format!("connection from {from} to the agent's machine");
                let about = About { notes, whence };
                let (to, permits) = (to.clone(), Arc::clone(&permits));
                while carried.try_join_next().is_some() {}
                carried.spawn(async move {
                    serve(incoming, to, &permits, &about).await;
                    drop(place);
                });
            }
        }
    };
    if matches!(*listener.session().link().borrow(), Link::Gone { .. }) {
        // Whoever waits for anything at all on this connection says so.
        std::future::pending().await
    }
    (format!("port {port} of the agent's machine is closed: {error}"), carried)
}

/// Takes a connection, connects here and carries what comes.
async fn serve(incoming: Incoming, to: Destination, permits: &Permits, about: &About) {
    // Nothing is connected to here for one that may be gone there.
    let mut child = match incoming.take().await {
        Ok(child) => child,
        Err(error) => return about.say(&error.to_string()),
    };
    let (host, port) = match to {
        Destination::Place { host, port } => (host, port),
        Destination::Asked => match asked(&mut child, permits).await {
            Ok(place) => place,
            Err(error) => {
                about.say(&format!("SOCKS: {error}"));
                return let_go(child, &error).await;
            }
        },
    };
    match connect(&host, port).await {
        Ok(socket) => carry(child, socket, about).await,
        Err(why) => {
            about.say(&why);
            reset(child).await;
        }
    }
}

/// Lets a connection go that leads nowhere. If it was told why, it has to have the time to read that.
async fn let_go(mut child: Child, error: &io::Error) {
    let is_told = error.kind() == io::ErrorKind::InvalidData;
    if !is_told || timeout(PATIENCE, child.wait()).await.is_err() {
        reset(child).await;
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = timeout(PATIENCE, TcpStream::connect((host, port))).await;
    let connected = connected.map_err(io::Error::from).flatten();
    connected.map_err(|error| format!("cannot connect to {host} port {port} here: {error}"))
}

/// Where somebody there wants to go here, and may.
async fn asked(child: &mut Child, permits: &Permits) -> io::Result<(String, u16)> {
    let (Some(stdout), Some(stdin)) = (&mut child.stdout, &mut child.stdin) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut socket = tokio::io::join(stdout, stdin);
    let asked = timeout(PATIENCE, socks::destination(&mut socket, permits)).await;
    asked.map_err(io::Error::from).flatten()
}
