//! This process's own stdout and stderr.
//!
//! They are shared with whoever started this process, so they stay blocking: O_NONBLOCK belongs to
//! the open file, and would break the shell's side of it. Each is served by a plain thread that is
//! started when there is something to write that may have to wait, because a thread costs as much as a
//! small command. A pipe with room is written without one.

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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for a writer; the credit of the command's output bounds their bytes.
const QUEUE: usize = 8;
/// A pipe of 64 KiB, the default, costs a switch of processes for every 64 KiB,
const PIPE: i32 = 1024 * 1024;
/// which matters from pieces of this size on.
pub(crate) const LARGE: usize = 64 * 1024;
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

    /// Whether [`Output::write_now`] is of use.
    pub fn is_pipe(self) -> bool {
        let mode = self.with_fd(|fd| fstat(fd)).map(|file| file.st_mode & SFlag::S_IFMT.bits());
        mode.is_ok_and(|kind| kind == SFlag::S_IFIFO.bits())
    }

    /// Writes what a pipe has room for, and says how much that was. Kernels before 6.4 cannot say
    /// whether there is room, which counts as none.
    pub fn write_now(self, bytes: &[u8]) -> Result<usize, Halt> {
        /// The place of a file that has none.
        const NO_OFFSET: u64 = u64::MAX;
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let rest = [IoSlice::new(rest)];
            let write = |fd: BorrowedFd<'_>| pwritev2(fd, &rest, NO_OFFSET, ReadWriteFlags::NOWAIT);
            match self.with_fd(write) {
                Ok(n) => written += n,
                Err(rustix::io::Errno::PIPE) => return Err(Halt::Closed),
                // Whatever else it is, who writes in earnest finds it, too.
                Err(_) => break,
            }
        }
        Ok(written)
    }

    /// Makes a pipe as large as it is worth while for large pieces.
    pub fn enlarge(self) {
        self.with_fd(enlarge_pipe);
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
    /// Output as it came, but for as many bytes at its start; the agent hears that it was consumed once
    /// it is written.
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
    /// Pieces that were handed over and are not written.
    waiting: Arc<AtomicUsize>,
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
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let work = move || {
            if let Err(error) = write_pieces(output, &mut queue, &left) {
                // Before the queue is dropped, so that whoever sees it closed sees this.
                let _ = slot.set(error);
            }
            drop(queue);
        };
        let thread = thread::Builder::new().name(output.name().to_owned()).stack_size(STACK);
        match thread.spawn(work) {
            Ok(_) => Ok(Self { pieces, waiting, failure }),
            Err(error) => Err(Halt::Failed(format!("no thread for {}: {error}", output.name()))),
        }
    }

    /// Hands over a piece; waits while too many are waiting.
    pub async fn write(&self, piece: Piece) -> Result<(), Halt> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.pieces.send(piece).await.map_err(|_| self.halt())
    }

    /// Whether all that was handed over is written, so that who writes past it keeps the order.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0 && self.failure.get().is_none()
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

fn write_pieces(
    output: Output,
    queue: &mut mpsc::Receiver<Piece>,
    left: &AtomicUsize,
) -> io::Result<()> {
    let mut enlarged = false;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Raw(chunk, from) => {
                if chunk.len() >= LARGE && !std::mem::replace(&mut enlarged, true) {
                    output.enlarge();
                }
                write_all(output, chunk.get(from..).unwrap_or_default())?;
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
        left.fetch_sub(1, Ordering::Release);
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
