//! This process's own stdout and stderr.
//!
//! They are shared with whoever started this process, so they stay blocking: O_NONBLOCK belongs to
//! the open file, and would break the shell's side of it. Each is served by a plain thread that is
//! started once there is something to write that is long, or would wait: a thread costs a twentieth of a small command.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd;
use rexec_client::Chunk;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fmt;
use std::io::{self, IoSlice};
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
            Self::Stdout => unistd::write(io::stdout(), bytes),
            Self::Stderr => unistd::write(io::stderr(), bytes),
        }
    }

    /// Writes as much of something short as does not make it wait, and returns how much that was: nothing, where
    /// only a try could tell. So a command that says little costs no thread; what is long is better written
    /// beside the rest of the work. See `RWF_NOWAIT` in pwritev2(2).
    pub fn write_at_once(self, bytes: &[u8]) -> Result<usize, Halt> {
        if bytes.len() >= LARGE {
            return Ok(0);
        }
        // The offset says: where the last write has ended.
        let write = |fd: BorrowedFd<'_>| {
            pwritev2(fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT)
        };
        match self.with_fd(write) {
            Err(rustix::io::Errno::PIPE) => Err(Halt::Closed),
            // Whatever else is wrong, the thread finds too.
            written => Ok(written.unwrap_or_default()),
        }
    }

    /// Some file systems, those of networks and quotas, report a failed write only when a descriptor of
    /// the file is closed.
    pub fn settle(self) -> Result<(), Halt> {
        self.with_fd(settle).map_err(|error| Halt::of(&error))
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
    /// Output as it came, without its first so many bytes; the agent hears that it was consumed once it is written.
    Raw(Chunk, usize),
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
    /// The system's words.
    Failed(String),
}

impl Halt {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it was closed"),
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
            Some(error) => Halt::of(error),
            None => Halt::Failed("its thread is gone".to_owned()),
        }
    }
}

fn write_pieces(output: Output, queue: &mut mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut enlarged = false;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Raw(chunk, written) => {
                if chunk.len() >= LARGE && !std::mem::replace(&mut enlarged, true) {
                    output.with_fd(enlarge_pipe);
                }
                write_all(output, chunk.get(written..).unwrap_or_default())?;
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

fn settle(fd: BorrowedFd<'_>) -> io::Result<()> {
    let is_file =
        fstat(fd).is_ok_and(|file| file.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits());
    if is_file {
        unistd::close(fd.try_clone_to_owned()?)?;
    }
    Ok(())
}
