//! Ctrl-C at the prompt while an answer is awaited: it ends the waiting, and not the prompt.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd;

/// SIGINT does nothing by itself while there is a value; see signalfd(2). For a thread that is alone in
/// its process.
pub(super) struct Interrupts {
    signals: SignalFd,
    mask: SigSet,
}

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Something to read, or its end.
    Input,
    /// Ctrl-C.
    Interrupt,
}

impl Interrupts {
    pub(super) fn take() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        mask.thread_block()?;
        Ok(Self { signals, mask })
    }

    /// Waits until there is something to read from `input`, or Ctrl-C was pressed.
    pub(super) fn first(&self, input: &impl AsFd) -> io::Result<First> {
        let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut both = [wanted(input.as_fd()), wanted(self.signals.as_fd())];
        loop {
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) => break,
                // The window has another size, for one.
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let [input, _] = both;
        let is_there = input.revents().is_none_or(|events| !events.is_empty());
        Ok(if is_there { First::Input } else { First::Interrupt })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // One that came with the answer is over with it. What fails here leaves Ctrl-C without effect on
        // this process, which `exit` and the end of stdin end as well.
        while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        let _ = self.mask.thread_unblock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_answer_or_ctrl_c_whichever_comes_first() {
        let (mut far, near) = UnixStream::pair().unwrap();
        {
            let interrupts = Interrupts::take().unwrap();
            nix::sys::signal::raise(Signal::SIGINT).unwrap();
            assert_eq!(interrupts.first(&near).unwrap(), First::Interrupt);
        }
        // That one was for the waiting before.
        let interrupts = Interrupts::take().unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(interrupts.first(&near).unwrap(), First::Input);
        drop(far);
        assert_eq!(interrupts.first(&near).unwrap(), First::Input);
    }
}
