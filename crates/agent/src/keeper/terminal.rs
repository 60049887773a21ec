//! A command's terminal: opened in its embryo, used by the agent.
//!
//! Only a process with one thread opens one, and each end is close-on-exec from the call that makes
//! it: no other command can come to hold it, however many start at once. The command gets the slave
//! as its stdin, stdout, stderr and controlling terminal; see pty(7). The master goes to the agent.

use super::Credentials;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown};
use rexec_guard::holds;
use rexec_protocol::message::TerminalSize;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;

/// Both ends of a terminal that was just opened.
pub(super) struct Pair {
    /// The agent's.
    pub(super) master: OwnedFd,
    /// The command's.
    pub(super) slave: OwnedFd,
}

impl Pair {
    /// Opens a terminal that belongs to the user of `credentials`, or to this process's, and makes it
    /// the controlling terminal of this process, which has to lead a session without one.
    pub(super) fn open(size: TerminalSize, owner: Option<&Credentials>) -> nix::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).map_err(errno)?;
        unlockpt(&master).map_err(errno)?;
        // By the master and not by a name, which could be another's in another place of mounting.
        let slave = ioctl_tiocgptpeer(&master, flags).map_err(errno)?;
        give(&slave, owner)?;
        let mut modes = tcgetattr(&slave).map_err(errno)?;
        // So that the erase key erases characters, not bytes.
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&slave, OptionalActions::Now, &modes).map_err(errno)?;
        tcsetwinsize(&master, winsize(size)).map_err(errno)?;
        ioctl_tiocsctty(&slave).map_err(errno)?;
        Ok(Self { master, slave })
    }
}

/// As sshd does it: the user owns the terminal, others of its group may at most write to it. That
/// group is `tty`, if devpts was mounted to say so, and otherwise nobody's business.
fn give(slave: &OwnedFd, owner: Option<&Credentials>) -> nix::Result<()> {
    let group = Gid::from_raw(fstat(slave)?.st_gid);
    let has_group = group != Gid::effective();
    if let Some(owner) = owner
        && !holds("terminal.owner", false)
    {
        let group = if has_group { group } else { owner.gid() };
        fchown(slave, Some(owner.uid()), Some(group))?;
    }
    fchmod(slave, Mode::from_bits_truncate(if has_group { 0o620 } else { 0o600 }))
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

fn winsize(size: TerminalSize) -> Winsize {
    let TerminalSize { columns, rows, width, height } = size;
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: width, ws_ypixel: height }
}

/// The agent's end of a terminal: what is read is the command's output, what is written its input.
/// Reading fails with EIO when nobody holds the other end any more, which is how it ends.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes a master. Has to be called in a tokio runtime.
    #[allow(deprecated, reason = "an OwnedFd stays open, which the other maker has one promise")]
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self(Arc::new(AsyncFd::new(master)?)))
    }

    /// Sets its size; the kernel tells the foreground process group by SIGWINCH if it is another.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(tcsetwinsize(self.0.get_ref(), winsize(size))?)
    }

    pub(super) fn file(&self) -> &AsyncFd<OwnedFd> {
        &self.0
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
