//! A connection from this machine to another, as a command: its stdin goes there, its stdout comes from
//! there.
//!
//! It is a process of its own, this very program started as the user that policy has chosen, so that the
//! kernel sees that user make the connection: rules of a firewall about users hold, and the agent itself
//! talks to nobody.
//!
//! If it is killed before its stdin has ended, the other side sees a reset: what was cut off is not to look
//! like something that has ended.

use crate::{accept, listen};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use rexec_protocol::message::Command;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// The first argument of such a process; the host and the port follow.
pub const WORD: &str = "connect";

/// How long each address of a host is tried.
const PATIENCE: Duration = Duration::from_secs(30);

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
    // Small pieces, as of a terminal, are not to wait for more.
    socket.set_nodelay(true)?;
    abort_when_closed(socket, true)?;
    let upward = socket.try_clone()?;
    let (mut stdin, mut stdout) = (file(io::stdin())?, file(io::stdout())?);
    let sender = thread::spawn(move || {
        let sent = copy(&mut stdin, &mut &upward).and_then(|()| abort_when_closed(&upward, false));
        // The other side may have gone, and its end is seen where it is read.
        let _ = upward.shutdown(if sent.is_ok() { Shutdown::Write } else { Shutdown::Both });
    });
    match copy(&mut &*socket, &mut stdout) {
        Ok(()) => {}
        // Nobody reads any more: that is the end of both directions.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(error),
    }
    // What reads stdout is to see its end, also while the other direction goes on.
    drop(stdout);
    nix::unistd::dup2_stdout(io::stderr())?;
    // A thread that panicked has ended too.
    let _ = sender.join();
    Ok(())
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
