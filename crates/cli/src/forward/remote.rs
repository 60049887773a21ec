//! Ports of the agent's machine.

use super::carry::carry;
use super::{Closed, Destination, Forward, PATIENCE, socks};
use crate::exit::Notes;
use rexec_client::{Child, Command, Link, Listener, printable};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection that leads nowhere has to come into the hands of the process that is to end it. One
/// that ended before would leave it waiting, for a minute.
const TAKEN: Duration = Duration::from_secs(1);

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
    forward: Forward,
    room: Arc<Semaphore>,
    notes: Notes,
) -> Closed {
    let mut carried = JoinSet::new();
    // It is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        while carried.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((connection, from)) => {
                let to = forward.to.clone();
                carried.spawn(async move {
                    if let Err((why, child)) = serve(connection, to).await {
                        let from = format!("connection from {from} to the agent's machine");
                        notes.say(&printable(&format!("{from}: {why}")));
                        if let Some(child) = child {
                            reset(child).await;
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => {
                if matches!(*listener.session().link().borrow(), Link::Gone { .. }) {
                    // Whoever waits for anything at all on this connection says so.
                    break;
                }
                let port = listener.port();
                return (format!("port {port} of the agent's machine is closed: {error}"), carried);
            }
        }
    }
    std::future::pending().await
}

/// Why a connection leads nowhere, and what is left of it there.
type Failed = (String, Option<Child>);

/// Connects here and carries what comes.
async fn serve(connection: Command, to: Destination) -> Result<(), Failed> {
    let alone = |why| (why, None);
    let taking = connection.kill_on_drop(true).spawn();
    let taking = async { taking.await.map_err(|error| alone(error.to_string())) };
    let (child, socket) = match to {
        Destination::Place { host, port } => {
            let (child, socket) = tokio::join!(taking, connect(&host, port));
            (child?, socket)
        }
        Destination::Asked => {
            let mut child = taking.await?;
            let asked = timeout(PATIENCE, asked(&mut child)).await;
            match asked.map_err(io::Error::from).flatten() {
                Ok((host, port)) => (child, connect(&host, port).await),
                Err(error) => (child, Err(format!("SOCKS: {error}"))),
            }
        }
    };
    match socket {
        Ok(socket) => carry(child, socket).await.map_err(alone),
        Err(why) => Err((why, Some(child))),
    }
}

/// Ends a connection there as one that was cut off: its stdin must not end before it does.
async fn reset(mut child: Child) {
    let _stdin = child.stdin.take();
    tokio::time::sleep(TAKEN).await;
    // If the line is gone, the agent ends it.
    let _ = child.kill().await;
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = timeout(PATIENCE, TcpStream::connect((host, port))).await;
    let connected = connected.map_err(io::Error::from).flatten();
    connected.map_err(|error| format!("cannot connect to {host} port {port} here: {error}"))
}

/// Where somebody there wants to go here.
async fn asked(child: &mut Child) -> io::Result<(String, u16)> {
    match (&mut child.stdout, &mut child.stdin) {
        (Some(stdout), Some(stdin)) => {
            socks::destination(&mut tokio::io::join(stdout, stdin)).await
        }
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
