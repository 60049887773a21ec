//! Both outputs of a job as one.

use crate::streams::{ChildStderr, ChildStdout, Chunk};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

/// The stdout and the stderr of a job that was there already, in the order in which the agent read
/// them: see [`crate::Attach`]. [`Chunk::is_stderr`] tells them apart. Who does not read one of them
/// does not get the other either.
#[derive(Debug)]
pub struct InOrder {
    lanes: [Lane; 2],
    /// Why one of them ended too early; what the other has is still to be read.
    cut: Option<io::Error>,
    /// The number of the piece that comes next.
    next: u64,
}

#[derive(Debug)]
struct Lane {
    output: ChildStdout,
    /// What came, and is not its turn yet.
    head: Option<Chunk>,
    ended: bool,
}

impl InOrder {
    /// Takes both outputs of one [`crate::Child`].
    pub fn new(stdout: ChildStdout, stderr: ChildStderr) -> Self {
        let lane = |output| Lane { output, head: None, ended: false };
        Self { lanes: [lane(stdout), lane(stderr)], cut: None, next: 0 }
    }

    /// The next bytes; `None` at the end of both. Safe to cancel.
    ///
    /// # Errors
    /// `UnexpectedEof` if the connection was lost before the end.
    pub async fn chunk(&mut self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// How many bytes of stdout and of stderr will never come, as far as is known.
    pub fn missing(&self) -> (u64, u64) {
        let [out, err] = &self.lanes;
        (out.output.missing(), err.output.missing())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let mut is_complete = true;
        for lane in &mut self.lanes {
            match lane.fill(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.cut = Some(error),
                Poll::Pending => is_complete = false,
            }
        }
        let next = self.next;
        // The lower number of the two is the next one, and so is the one that is due.
        let first = self
            .lanes
            .iter_mut()
            .filter(|lane| lane.head.is_some())
            .min_by_key(|lane| lane.number());
        match first {
            Some(lane) if is_complete || lane.number() <= next => {
                self.next = lane.number() + 1;
                Poll::Ready(Ok(lane.head.take()))
            }
            None if is_complete => Poll::Ready(self.cut.take().map_or(Ok(None), Err)),
            _ => Poll::Pending,
        }
    }
}

impl Lane {
    /// Ready once it is known what comes next here.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || self.head.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.output.poll_chunk(cx) {
            Poll::Ready(Ok(Some(chunk))) => self.head = Some(chunk),
            Poll::Ready(Ok(None)) => self.ended = true,
            Poll::Ready(Err(error)) => {
                self.ended = true;
                return Poll::Ready(Err(error));
            }
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    fn number(&self) -> u64 {
        self.head.as_ref().map_or(u64::MAX, Chunk::number)
    }
}
