//! This process's own stdout and stderr.
//!
//! They are shared with whoever started this process, so they stay blocking: O_NONBLOCK belongs to
//! the open file, and would break the shell's side of it. Each is served by a plain thread that is
//! started when there is something to write, because a thread costs as much as a small command.

use crate::closed;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd;
use rexec_client::Chunk;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread;
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for a writer; the credit of the command's output bounds their bytes.
const QUEUE: usize = 8;
/// A pipe of 64 KiB, the default, costs a switch of processes for every 64 KiB,
const PIPE: i32 = 1024 * 1024;
/// which matters from pieces of this size on.
const LARGE: usize = 64 * 1024;
/// Threads that only read or write need next to no stack.
pub(crate) const STACK: usize = 128 * 1024;

/// One of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Output {
    /// Its name, also as the type of JSON events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The descriptor itself: the buffers and locks of std are passed by.
    fn write(self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Stdout => unistd::write(closed::stdout().map_err(|_| Errno::EBADF)?, bytes),
            Self::Stderr => unistd::write(io::stderr(), bytes),
        }
    }

    fn with_fd<T>(self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::Stdout => f(io::stdout().as_fd()),
            Self::Stderr => f(io::stderr().as_fd()),
        }
    }
}

/// Something to write.
#[derive(Debug)]
pub enum Piece {
    /// Output as it came; the agent hears that it was consumed once it is written.
    Raw(Chunk),
    /// A line made of it.
    Line(Vec<u8>, Option<Chunk>),
    /// Nothing; answered when everything before it was written.
    Flush(oneshot::Sender<()>),
}

/// A handle to the thread that writes one output. The thread ends with its last handle, or when a
/// write fails.
#[derive(Debug, Clone)]
pub struct Writer {
    pieces: mpsc::Sender<Piece>,
    failure: Arc<OnceLock<io::Error>>,
}

/// Why nothing more can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// Whoever read it has closed it.
    Closed,
    /// So many bytes before what comes next never came.
    Torn(u64),
    /// The system's words.
    Failed(String),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it was closed"),
            Self::Torn(bytes) => write!(f, "{bytes} bytes are gone"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Writer {
    /// Starts the thread.
    pub fn start(output: Output) -> Result<Self, Halt> {
        let (pieces, mut queue) = mpsc::channel(QUEUE);
        let failure = Arc::new(OnceLock::new());
        let slot = Arc::clone(&failure);
        let work = move || {
            if let Err(error) = write_pieces(output, &mut queue) {
                // Before the queue is dropped, so that whoever sees it closed sees this.
                let _ = slot.set(error);
            }
            drop(queue);
        };
        let thread = thread::Builder::new().name(output.name().to_owned()).stack_size(STACK);
        match thread.spawn(work) {
            Ok(_) => Ok(Self { pieces, failure }),
            Err(error) => Err(Halt::Failed(format!("no thread for {}: {error}", output.name()))),
        }
    }

    /// Hands over a piece; waits while too many are waiting.
    pub async fn write(&self, piece: Piece) -> Result<(), Halt> {
        self.pieces.send(piece).await.map_err(|_| self.halt())
    }

    /// Waits until everything handed over so far is written.
    pub async fn flush(&self) -> Result<(), Halt> {
        let (done, written) = oneshot::channel();
        self.write(Piece::Flush(done)).await?;
        written.await.map_err(|_| self.halt())
    }

    /// Waits until something could not be written.
    pub async fn failed(&self) -> Halt {
        self.pieces.closed().await;
        self.halt()
    }

    fn halt(&self) -> Halt {
        match self.failure.get() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Halt::Closed,
            Some(error) => Halt::Failed(error.to_string()),
            None => Halt::Failed("its thread is gone".to_owned()),
        }
    }
}

fn write_pieces(output: Output, queue: &mut mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut enlarged = false;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Raw(chunk) => {
                if chunk.len() >= LARGE && !std::mem::replace(&mut enlarged, true) {
                    output.with_fd(enlarge_pipe);
                }
                write_all(output, &chunk)?;
            }
            Piece::Line(line, credit) => {
                write_all(output, &line)?;
                drop(credit);
            }
            Piece::Flush(done) => {
                output.with_fd(settle)?;
                // Nobody waits if the run was abandoned.
                let _ = done.send(());
            }
        }
    }
    Ok(())
}

fn write_all(output: Output, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Somebody else has made the descriptor non-blocking.
            Err(Errno::EAGAIN) => output.with_fd(|fd| wait_for(fd, PollFlags::POLLOUT))?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until a descriptor that should block, but does not, is ready.
pub(crate) fn wait_for(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// No harm if it is no pipe, or the user has too many large ones.
pub(crate) fn enlarge_pipe(fd: BorrowedFd<'_>) {
    let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE));
}

/// Some file systems, those of networks and quotas, report a failed write only when a descriptor of
/// the file is closed.
fn settle(fd: BorrowedFd<'_>) -> io::Result<()> {
    let is_file =
        fstat(fd).is_ok_and(|file| file.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits());
    if is_file {
        unistd::close(fd.try_clone_to_owned()?)?;
    }
    Ok(())
}
