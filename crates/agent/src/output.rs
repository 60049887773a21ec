//! The reading end of one of a command's outputs, until it ends.

use crate::keeper::Reader;
use crate::ledger::Ledger;
use crate::pipe_size::PipeSize;
use crate::unstick::{Side, Watch};
use bytes::{BufMut, Bytes, BytesMut};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rexec_net::recycler::Recycler;
use rexec_protocol::frame::MAX_DATA;
use rexec_protocol::message::Channel;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for a first read; it grows while reads fill it.
const SMALL: usize = 8 * 1024;
/// The largest room: one `data` body. Half of that was measured a tenth slower, because each piece wakes the
/// command, the client, and TCP's pacing.
const LARGE: usize = MAX_DATA;

/// One output: a pipe, or a terminal.
#[derive(Debug)]
pub struct Output {
    pipe: Option<Reader>,
    /// Instead of `pipe`, once it was shared.
    shared: Option<Arc<Shared>>,
    /// Says before each read that there will be one; what it brought is for the reader's owner to say.
    ledger: Option<(Channel, Arc<Ledger>)>,
    buffer: BytesMut,
    recycler: Recycler,
    room: usize,
    size: PipeSize,
    watch: Arc<Watch>,
}

impl Output {
    /// Reads from `pipe`; an output that is not there has ended.
    pub fn new(pipe: Option<Reader>, watch: Arc<Watch>) -> Self {
        Self {
            pipe,
            shared: None,
            ledger: None,
            buffer: BytesMut::new(),
            recycler: Recycler::default(),
            room: SMALL,
            size: PipeSize::default(),
            watch,
        }
    }

    /// From now on the ledger says when this channel is read.
    pub fn keep_books(&mut self, channel: Channel, ledger: Arc<Ledger>) {
        self.ledger = Some((channel, ledger));
    }

    /// True until the end was read, or [`Output::close`] was called.
    pub fn is_open(&self) -> bool {
        self.pipe.is_some() || self.shared.is_some()
    }

    /// Stops reading: the writer gets SIGPIPE. True if it was open.
    pub fn close(&mut self) -> bool {
        let was_open = self.is_open();
        let ends = (self.pipe.take(), self.shared.take());
        if was_open {
            // Who closes the last end of a pipe has to get into it, too.
            self.watch.during(Side::Read, || drop(ends));
        }
        was_open
    }

    /// From now on it is read through [`Output::shared`] only, by threads that may block.
    pub fn share(&mut self) -> io::Result<()> {
        if let Some(pipe) = &self.pipe {
            self.shared = Some(Arc::new(share(pipe.as_fd().try_clone_to_owned()?)?));
            self.pipe = None;
        }
        Ok(())
    }

    /// What to read, if it was shared and has not ended. It does not block.
    pub fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.clone()
    }

    /// Takes note that `n` bytes of what is shared were at hand at once.
    pub fn moved(&mut self, n: usize) {
        if let Some(shared) = &self.shared {
            self.size.moved(shared.get_ref(), n, (&self.watch, Side::Read));
        }
    }

    /// The next bytes; empty at the end. Safe to cancel. A pipe that cannot be read has nothing
    /// more to give, so that counts as its end too.
    pub async fn read(&mut self) -> Bytes {
        loop {
            let Some(pipe) = &self.pipe else { return Bytes::new() };
            if pipe.readable().await.is_err() {
                return Bytes::new();
            }
            if let Some(bytes) = self.try_read() {
                return bytes;
            }
        }
    }

    /// What is in the pipe right now; `None` if nothing is.
    pub fn try_read(&mut self) -> Option<Bytes> {
        // Before the ledger: what says that a read begins says afterwards that it is over.
        self.pipe.as_ref()?;
        self.make_room();
        let room = (self.buffer.capacity() - self.buffer.len()).min(LARGE);
        if let Some((channel, ledger)) = &self.ledger {
            ledger.begin(*channel, room);
        }
        let mut room = (&mut self.buffer).limit(room);
        let pipe = self.pipe.as_ref()?;
        match self.watch.during(Side::Read, || pipe.try_read_buf(&mut room)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some((channel, ledger)) = &self.ledger {
                    ledger.nothing(*channel);
                }
                None
            }
            read => Some(self.take(read.unwrap_or_default())),
        }
    }

    fn make_room(&mut self) {
        if self.buffer.capacity() < self.room.div_ceil(2) {
            self.recycler.make_room(&mut self.buffer, self.room);
        }
    }

    fn take(&mut self, n: usize) -> Bytes {
        if self.buffer.capacity() == n {
            self.room = (self.room * 2).min(LARGE);
        }
        if let Some(pipe) = &self.pipe {
            self.size.moved(pipe, n, (&self.watch, Side::Read));
        }
        self.buffer.split_to(n).freeze()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close();
    }
}

/// An output for several threads.
pub type Shared = AsyncFd<OwnedFd>;

#[allow(deprecated, reason = "an OwnedFd stays open, which the other maker has one promise")]
fn share(pipe: OwnedFd) -> io::Result<Shared> {
    AsyncFd::with_interest(pipe, Interest::READABLE)
}

/// Returns when there is something to read, or an end.
pub async fn readable(output: &Shared) {
    loop {
        let Ok(mut ready) = output.readable().await else { return };
        // Only the kernel knows what another thread has left of it.
        let look = |output: &Shared| {
            let mut look = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
            match poll(&mut look, PollTimeout::ZERO)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        };
        if ready.try_io(look).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::{Algorithm, JobId};

    /// The next agent would take it for output that was being read, and is gone.
    #[test]
    fn a_closed_output_has_nothing_under_way() {
        let ledger = Arc::new(Ledger::new(Algorithm::Sha256).unwrap());
        let watch = Watch::new(JobId::new("job").unwrap(), None);
        let mut output = Output::new(None, watch.into());
        output.keep_books(Channel::Out, Arc::clone(&ledger));
        assert_eq!(output.try_read(), None);
        assert_eq!(ledger.place(Channel::Out).unwrap().under_way, 0);
    }
}
