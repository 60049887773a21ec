//! One connection, both ways, each to its own end.
//!
//! What was cut off at one side is cut off at the other: nobody is to take a part for the whole. So both ends are
//! reset unless all has come to a good end, be it that this program is killed.

use super::About;
use bytes::BytesMut;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use rexec_client::{Child, ChildStderr, ChildStdin, ChildStdout, Chunk};
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// What is read at once.
const PIECE: usize = 64 * 1024;
/// What is kept of an error message.
const MESSAGE: usize = 1024;

/// A connection was cut off before both sides had said all: why, if somebody has to be told.
struct Cut(Option<String>);

/// The side here is gone, and need not be told.
const LEFT: Cut = Cut(None);

/// Carries what comes between a connection of the agent's machine, which is this child, and one here.
pub(super) async fn carry(mut child: Child, mut socket: TcpStream, about: &About) {
    abort_when_closed(&socket, true);
    // Kept until the child has ended: when it is dropped, that is its end there.
    let mut stdin = child.stdin.take();
    let carried = both(&mut child, stdin.as_mut(), &mut socket).await;
    let Err(Cut(why)) = carried else { return abort_when_closed(&socket, false) };
    if let Some(why) = why {
        about.say(&why);
    }
    drop(socket);
    child.stdin = stdin;
    reset(child).await;
}

/// Ends a connection there as one that was cut off.
pub(super) async fn reset(mut child: Child) {
    // It must not end before its child does, or that would be an end like any other.
    let _stdin = child.stdin.take();
    // If the line is gone, the agent ends it.
    let _ = child.kill().await;
}

/// Whether the last close of a socket is a reset; see `SO_LINGER` in socket(7).
pub(super) fn abort_when_closed(socket: &TcpStream, abort: bool) {
    // It fails for what is no socket.
    let _ = setsockopt(socket, sockopt::Linger, &linger { l_onoff: abort.into(), l_linger: 0 });
}

async fn both(
    child: &mut Child,
    stdin: Option<&mut ChildStdin>,
    socket: &mut TcpStream,
) -> Result<(), Cut> {
    // Small pieces, as of a terminal, are not to wait for more.
    socket.set_nodelay(true).map_err(cut)?;
    let (reader, writer) = socket.split();
    let mut sending = pin!(send(reader, stdin));
    let mut receiving = pin!(receive(child.stdout.take(), child.stderr.take(), writer));
    let (mut sent, mut received) = (false, false);
    loop {
        tokio::select! {
            end = &mut sending, if !sent => {
                end?;
                sent = true;
            }
            end = &mut receiving, if !received => {
                end?;
                received = true;
            }
            end = child.wait(), if received => {
                let status = end.map_err(cut)?;
                let is_good = status.success();
                return if is_good { Ok(()) } else { Err(cut(status.outcome())) };
            }
        }
    }
}

/// Fails if the side here was cut off, or gave up, before the end of what it had to say.
async fn send(mut from: ReadHalf<'_>, to: Option<&mut ChildStdin>) -> Result<(), Cut> {
    let Some(to) = to else { return Ok(()) };
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        if from.read_buf(&mut piece).await.map_err(|_| LEFT)? == 0 {
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

/// Fails if not all came, or if the side here takes no more.
async fn receive(
    from: Option<ChildStdout>,
    words: Option<ChildStderr>,
    mut to: WriteHalf<'_>,
) -> Result<(), Cut> {
    if let Some(mut from) = from {
        while let Some(chunk) = next(&mut from).await? {
            to.write_all(&chunk).await.map_err(|_| LEFT)?;
        }
    }
    // Only what came to its own end there ends without a word.
    let words = hear(words).await?;
    if !words.is_empty() {
        return Err(cut(words));
    }
    to.shutdown().await.map_err(|_| LEFT)
}

/// Fails as soon as it is known that something will never come, whether it is before or after what did.
async fn next(from: &mut ChildStdout) -> Result<Option<Chunk>, Cut> {
    let lost = || cut("the agent has not told all of it");
    let chunk = from.chunk().await.map_err(|_| lost())?;
    match from.missing() {
        0 => Ok(chunk),
        missing => {
            Err(cut(format!("{missing} bytes of it were lost with an agent that was killed")))
        }
    }
}

async fn hear(from: Option<ChildStderr>) -> Result<String, Cut> {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        while let Some(chunk) = next(&mut from).await? {
            let room = MESSAGE.saturating_sub(text.len());
            text.extend(chunk.iter().take(room));
        }
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

fn cut(why: impl ToString) -> Cut {
    Cut(Some(why.to_string()))
}
