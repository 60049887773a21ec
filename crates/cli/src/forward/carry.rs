//! One connection, both ways, each to its own end.

use bytes::BytesMut;
use rexec_client::{Child, ChildStderr, ChildStdin, ChildStdout, Signal};
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What is read at once.
const PIECE: usize = 64 * 1024;
/// What is kept of an error message.
const MESSAGE: usize = 1024;

/// How the way to the side here ended.
enum Received {
    /// With all that there was.
    All,
    /// The side here takes no more.
    Left,
    /// Before the end of what there was.
    Cut(io::Error),
}

/// Carries what comes between a connection of the agent's machine, which is this child, and one here. The errors
/// are for the user.
pub(super) async fn carry(mut child: Child, socket: TcpStream) -> Result<(), String> {
    // Small pieces, as of a terminal, are not to wait for more.
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let (reader, writer) = socket.into_split();
    // Kept until the child has ended: when it is dropped, that is its end there.
    let mut stdin = child.stdin.take();
    let mut sending = pin!(send(reader, stdin.as_mut()));
    let mut receiving = pin!(receive(child.stdout.take(), writer));
    let mut hearing = pin!(hear(child.stderr.take()));
    let (mut sent, mut received, mut cut, mut message) = (false, false, false, None);
    let status = loop {
        tokio::select! {
            end = &mut sending, if !sent && !cut => match end {
                Ok(()) => sent = true,
                // Nor is the start of what the side here had to say to look like all of it.
                Err(_) => {
                    cut = true;
                    child.cancel_with(Signal::KILL, Duration::ZERO).await;
                }
            },
            end = &mut receiving, if !received => match end {
                Received::All => received = true,
                // The connection there ends with the child.
                Received::Left if sent => return Ok(()),
                Received::Left => {
                    (received, cut) = (true, true);
                    child.cancel_with(Signal::KILL, Duration::ZERO).await;
                }
                Received::Cut(error) => return Err(error.to_string()),
            },
            text = &mut hearing, if message.is_none() => message = Some(text),
            end = child.wait(), if received && message.is_some() => {
                break end.map_err(|error| error.to_string())?;
            }
        }
    };
    // Who has cut its connection need not be told.
    match message.filter(|_| !status.success() && !cut) {
        Some(message) if !message.is_empty() => Err(message),
        _ => Ok(()),
    }
}

/// Fails if the side here was cut off, or gave up, before the end of what it had to say.
async fn send(mut from: OwnedReadHalf, to: Option<&mut ChildStdin>) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        if from.read_buf(&mut piece).await? == 0 {
            break;
        }
        if to.send(piece.freeze()).await.is_err() {
            return Ok(());
        }
    }
    // If it takes no more, it has ended.
    let _ = to.shutdown().await;
    Ok(())
}

async fn receive(from: Option<ChildStdout>, mut to: OwnedWriteHalf) -> Received {
    let Some(mut from) = from else { return Received::All };
    loop {
        match from.chunk().await {
            Ok(Some(chunk)) => {
                if to.write_all(&chunk).await.is_err() {
                    return Received::Left;
                }
            }
            Ok(None) if to.shutdown().await.is_ok() => return Received::All,
            Ok(None) => return Received::Left,
            Err(error) => {
                // A connection that was cut is not to look like one that has ended.
                let _ = to.as_ref().set_zero_linger();
                return Received::Cut(error);
            }
        }
    }
}

async fn hear(from: Option<ChildStderr>) -> String {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        while let Ok(Some(chunk)) = from.chunk().await {
            let room = MESSAGE.saturating_sub(text.len());
            text.extend(chunk.iter().take(room));
        }
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}
