//! This process's stdin, on its way to the command.

use crate::stdio::{STACK, enlarge_pipe, wait_for};
use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;
use rexec_client::ChildStdin;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::sync::mpsc;

/// Stdin is read in pieces of this size at first, because most of it is short,
const SMALL: usize = 8 * 1024;
/// and in pieces of this size once it turns out to be long: one `data` frame.
const LARGE: usize = 256 * 1024;
/// Buffers that are kept: one being filled, one or two waiting, the rest under way.
const BUFFERS: usize = 6;

/// Sends stdin to its end, or until the command takes no more.
///
/// # Errors
/// Those of reading here, and that a terminal was closed. What the command got so far is then not all there is, and it must not
/// take it for that.
pub async fn forward(command: &mut ChildStdin) -> io::Result<()> {
    let was_terminal = io::stdin().is_terminal();
    readable().await;
    let mut pieces = start()?;
    while let Some(piece) = pieces.recv().await {
        if command.send(piece?).await.is_err() {
            // The command reads no more, or the connection is gone, which is said elsewhere.
            return Ok(());
        }
    }
    // A terminal that was closed reads like one at which somebody has typed Ctrl-D.
    if was_terminal && hung_up(io::stdin().as_fd())? {
        return Err(io::Error::other("the terminal was closed"));
    }
    // As above.
    let _ = command.shutdown().await;
    Ok(())
}

fn hung_up(terminal: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fd = [PollFd::new(terminal, PollFlags::empty())];
    poll(&mut fd, PollTimeout::ZERO)?;
    Ok(fd.iter().any(|fd| fd.revents().is_some_and(|ready| ready.contains(PollFlags::POLLHUP))))
}

/// Waits until there is something to read, so that the thread is not started before: many commands
/// end without any. What epoll does not know, such as a file, is always ready.
#[allow(unsafe_code, reason = "tokio cannot know that stdin stays open")]
async fn readable() {
    // SAFETY: nothing in this program closes descriptor 0, and std opens it if it was not.
    let registered = unsafe { AsyncFd::register_with_interest(io::stdin(), Interest::READABLE) };
    if let Ok(fd) = registered {
        let _ = fd.readable().await;
    }
}

/// Reads stdin from now on, piece by piece.
pub(crate) fn start() -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (pieces, queue) = mpsc::channel(2);
    let thread = thread::Builder::new().name("stdin".to_owned()).stack_size(STACK);
    // It is never waited for: it may be in a read that lasts longer than the command.
    thread.spawn(move || read_all(&pieces))?;
    Ok(queue)
}

fn read_all(pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let (home, returned) = sync_channel(BUFFERS);
    let mut size = SMALL;
    loop {
        let mut bytes = buffer(&returned, size);
        let piece = match read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                if length == size && size < LARGE {
                    size *= 4;
                    enlarge_pipe(io::stdin().as_fd());
                }
                Ok(Bytes::from_owner(Buffer { bytes, length, home: home.clone() }))
            }
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

fn read(bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match unistd::read(io::stdin(), bytes) {
            Ok(length) => return Ok(length),
            Err(Errno::EINTR) => {}
            // Somebody else has made the descriptor non-blocking.
            Err(Errno::EAGAIN) => wait_for(io::stdin().as_fd(), PollFlags::POLLIN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A buffer that has done its round, or a new one. Only new ones have to be cleared.
fn buffer(returned: &Receiver<Vec<u8>>, size: usize) -> Vec<u8> {
    loop {
        match returned.try_recv() {
            Ok(bytes) if bytes.len() == size => return bytes,
            Ok(_) => {} // from before the size grew
            Err(_) => return vec![0; size],
        }
    }
}

/// Bytes under way; the buffer goes back when the last of them was sent.
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // If there are enough already, this one is freed.
        let _ = self.home.try_send(std::mem::take(&mut self.bytes));
    }
}
