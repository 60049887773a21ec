//! A connection from this machine to another, as a command: its stdin goes there, its stdout comes from
//! there.
//!
//! It is a process of its own, this very program started as the user that policy has chosen, so that the
//! kernel sees that user make the connection: rules of a firewall about users hold, and the agent itself
//! talks to nobody.
//!
//! If it is killed before its stdin has ended, the other side sees a reset: what was cut off is not to look
//! like something that has ended. Nor is it the other way round: stderr ends, without a word, before stdout where
//! the other side has ended in good order, and has said why where the connection broke.

use crate::{accept, listen};
use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use rexec_protocol::message::Command;
use socket2::{SockRef, TcpKeepalive};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The first argument of such a process; the host and the port follow.
pub const WORD: &str = "connect";

/// How long each address of a host is tried.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a silent machine is asked whether it is there, and how often before it is given up; see tcp(7).
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(120)).with_interval(Duration::from_secs(15));

/// The words of the process for a command that is about connections, which are on record as well; `None` for
/// other commands.
pub fn words(command: &Command) -> Option<[String; 3]> {
    match command {
        Command::Connect { host, port } => Some([WORD.to_owned(), host.clone(), port.to_string()]),
        Command::Listen { host, port } => {
            Some([listen::WORD.to_owned(), host.clone(), port.to_string()])
        }
        Command::Accept { job, number } => {
            Some([accept::WORD.to_owned(), job.to_string(), number.to_string()])
        }
        _ => None,
    }
}

/// The whole life of the process.
pub fn connect_main(mut words: impl Iterator<Item = String>) -> ExitCode {
    let (host, port) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let connected = port.parse().map_err(io::Error::other).and_then(|port| reach(&host, port));
    end(connected
        .map_err(|error| format!("cannot connect to {host} port {port}: {error}"))
        .and_then(|socket| {
            carry(&socket)
                .map_err(|error| format!("the connection to {host} port {port} broke: {error}"))
        }))
}

/// How such a process ends.
pub(crate) fn end(ended: Result<(), String>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Whoever asked reads it there; if not, the exit status tells.
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The most that is carried at once; what a pipe holds.
const PIECE: usize = 64 * 1024;

/// Carries both directions to their ends, each on its own.
pub(crate) fn carry(socket: &TcpStream) -> io::Result<()> {
    prepare(socket)?;
    let (mut stdin, mut stdout) = (file(io::stdin())?, file(io::stdout())?);
    let upward = Arc::new(Upward { socket: socket.try_clone()?, broken: Mutex::default() });
    let sender = {
        let upward = Arc::clone(&upward);
        thread::spawn(move || upward.carry(&mut stdin))
    };
    match copy(&mut &*socket, &mut stdout) {
        Ok(()) => upward.look()?,
        // Nobody reads any more: that is the end of both directions.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(error),
    }
    // What reads them is to see their ends, also while the other direction goes on. That nothing was said of what
    // came is known before its end.
    let (_, nobody) = io::pipe()?;
    nix::unistd::dup2_stderr(&nobody)?;
    drop(stdout);
    nix::unistd::dup2_stdout(&nobody)?;
    // A thread that panicked has ended too.
    let _ = sender.join();
    Ok(())
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Small pieces, as of a terminal, are not to wait for more.
    socket.set_nodelay(true)?;
    // No place is kept for a machine that is gone.
    SockRef::from(socket).set_tcp_keepalive(&KEEPALIVE)?;
    abort_when_closed(socket, true)
}

/// The direction from stdin.
struct Upward {
    socket: TcpStream,
    /// The error number of a write, unless it only says that there is nobody to write to. Held during each write.
    broken: Mutex<Option<i32>>,
}

impl Upward {
    fn carry(&self, stdin: &mut File) {
        let sent = copy(stdin, &mut &*self).and_then(|()| abort_when_closed(&self.socket, false));
        // The other side may have gone, and its end is seen where it is read.
        let _ = self.socket.shutdown(if sent.is_ok() { Shutdown::Write } else { Shutdown::Both });
    }

    /// Whether the end of the other direction is one. That a connection was reset the kernel says once: if a write
    /// was told, who reads sees an end like any other.
    fn look(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO)?;
        // Otherwise it goes on in this direction, and a write may take as long as it wants.
        let is_over = fds.iter().filter_map(PollFd::revents).any(|found| !found.is_empty());
        let broken = if is_over { *self.lock() } else { None };
        broken.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<i32>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Upward {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut broken = self.lock();
        let written = (&self.socket).write(bytes);
        *broken = match &written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => error.raw_os_error(),
            _ => None,
        };
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the socket's last close is a reset; see `SO_LINGER` in socket(7).
pub(crate) fn abort_when_closed(socket: &TcpStream, abort: bool) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Linger, &linger { l_onoff: abort.into(), l_linger: 0 })?)
}

/// Not `io::copy`, which has the kernel splice: that keeps a pipe locked while it waits for the socket, and
/// the agent, at the pipe's other end, would wait too, whether it wants to or not.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(piece.get(..n).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The same without the buffers of std, in which a piece without a line's end would wait.
pub(crate) fn file(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A connection, with the direction to its other end.
    fn upward() -> (Upward, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        prepare(&socket).unwrap();
        (Upward { socket, broken: Mutex::default() }, listener.accept().unwrap().0)
    }

    /// Of a machine that is gone nothing comes, not even an end.
    #[test]
    fn who_is_silent_is_asked_for() {
        assert!(SockRef::from(&upward().0.socket).keepalive().unwrap());
    }

    /// The kernel says it to the first that asks, here to who writes.
    #[test]
    fn a_reset_that_a_write_was_told_of_is_no_end() {
        let (upward, far) = upward();
        abort_when_closed(&far, true).unwrap();
        drop(far);
        assert_eq!((&upward).write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!((&upward.socket).read(&mut [0]).unwrap(), 0);
        assert_eq!(upward.look().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    /// Nobody waits for a write, be it that the other side reads nothing.
    #[test]
    fn an_end_is_one_while_the_other_direction_goes_on() {
        let (upward, far) = upward();
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&upward.socket).read(&mut [0]).unwrap(), 0);
        let _writing = upward.broken.lock().unwrap();
        upward.look().unwrap();
    }

    /// It has said all before it left. That it takes no more is not said here.
    #[test]
    fn who_ends_and_then_leaves_has_ended() {
        let (upward, far) = upward();
        far.shutdown(Shutdown::Write).unwrap();
        drop(far);
        // The first is answered with a reset.
        while (&upward).write(b"x").is_ok() {}
        assert_eq!((&upward.socket).read(&mut [0]).unwrap(), 0);
        upward.look().unwrap();
    }
}
