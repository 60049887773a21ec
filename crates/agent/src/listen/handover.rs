//! A connection goes from the process that has accepted it to the one that carries it.
//!
//! Both are this program, and run as the same user. They meet at a unix socket with an abstract name, made
//! of the id of the job that listens: see unix(7). Anybody on the machine may have such a name first, or come
//! there and ask. So each of the two has the kernel say who the other one is, and neither gives anything to
//! another user, nor takes anything from one.
//!
//! The two may be of different builds, since jobs outlive agents: what is new in a message must be optional.

use crate::keeper::wire::{self, Inbox};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;
use rexec_guard::holds;
use rexec_protocol::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long an answer is waited for. The other process does nothing else.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which connection is wanted.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    number: u64,
}

/// Beside it is the connection, if it is there.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    is_there: bool,
}

/// Where connections of a job are asked for. It does not block.
pub(super) fn open(job: &str) -> io::Result<UnixListener> {
    let desk = UnixListener::bind_addr(&name(job)?)?;
    desk.set_nonblocking(true)?;
    Ok(desk)
}

/// Who asks.
pub(super) struct Asker {
    socket: UnixStream,
    inbox: Inbox,
    /// When it is not waited for any more.
    pub(super) until: Instant,
}

impl Asker {
    /// `None`: it is somebody else.
    pub(super) fn new(socket: UnixStream, now: Instant) -> io::Result<Option<Self>> {
        socket.set_nonblocking(true)?;
        let until = now + PATIENCE;
        let is_own = holds("accept.asker", is_own(&socket)?);
        Ok(is_own.then(|| Self { socket, inbox: Inbox::default(), until }))
    }

    /// What it asks for; `None` if that has not come yet.
    pub(super) fn number(&mut self) -> io::Result<Option<u64>> {
        match self.inbox.fill(self.socket.as_fd()) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(self.inbox.take()?.map(|Ask { number }| number)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives it what it asked for. Nothing was sent to it before, so there is room for this.
    pub(super) fn answer(&self, connection: Option<&TcpStream>) -> io::Result<()> {
        let answer = wire::frame(&Answer { is_there: connection.is_some() })?;
        let beside: Vec<_> = connection.iter().map(|socket| socket.as_raw_fd()).collect();
        wire::send(self.socket.as_fd(), &answer, &beside)
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes a connection of a job over.
pub(crate) fn take(job: &str, number: u64) -> io::Result<TcpStream> {
    let desk = reach(job, PATIENCE)?;
    if !holds("accept.desk", is_own(&desk)?) {
        let message = "another user of this machine has its name";
        return Err(io::Error::new(ErrorKind::PermissionDenied, message));
    }
    desk.set_read_timeout(Some(PATIENCE))?;
    wire::send(desk.as_fd(), &wire::frame(&Ask { number })?, &[])?;
    let mut inbox = Inbox::default();
    let answer = match inbox.wait(desk.as_fd()) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        answer => answer,
    };
    match (answer?, inbox.take_fds().next()) {
        (Some(Answer { is_there: true }), Some(socket)) => Ok(socket.into()),
        (Some(Answer { .. }), _) => {
            let message = "there is none: it was taken, or has waited for too long";
            Err(io::Error::new(ErrorKind::NotFound, message))
        }
        (None, _) => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Comes to the desk. A process that is stopped accepts nobody, and once its queue is full the kernel has others wait
/// for as long as they would for a write: see `SO_SNDTIMEO` in socket(7).
fn reach(job: &str, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(patience))?;
    // An abstract name begins with a zero.
    let address = SockAddr::unix(format!("\0{}", text(job)))?;
    match socket.connect(&address) {
        Ok(()) => Ok(OwnedFd::from(socket).into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    }
}

fn name(job: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(text(job))
}

/// A digest, because an id may be longer than a name.
fn text(job: &str) -> String {
    let digest = Digest::of(Algorithm::Sha256, job.as_bytes());
    format!("rexec-listen/{digest}")
}

fn is_own(socket: &UnixStream) -> io::Result<bool> {
    let peer = getsockopt(socket, PeerCredentials)?;
    Ok(peer.uid() == Uid::effective().as_raw())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keeper::tests::somebody;
    use std::net::TcpListener;
    use std::path::Path;

    /// Asks for a connection, as somebody else; how much it gets.
    pub(crate) fn ask(job: &str) -> usize {
        let desk = UnixStream::connect_addr(&name(job).unwrap()).unwrap();
        // It may be closed already.
        let _ = wire::send(desk.as_fd(), &wire::frame(&Ask { number: 1 }).unwrap(), &[]);
        Inbox::default().fill(desk.as_fd()).unwrap_or(0)
    }

    /// Has the name of a job, as somebody else; how much it is told.
    pub(crate) fn squat(job: &str) -> usize {
        let desk = UnixListener::bind_addr(&name(job).unwrap()).unwrap();
        let (socket, _) = desk.accept().unwrap();
        Inbox::default().fill(socket.as_fd()).unwrap_or(0)
    }

    /// The same test may run elsewhere on this machine.
    fn job(name: &str) -> Option<String> {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        Some(format!("{name}-{}", std::process::id()))
    }

    #[test]
    fn a_stranger_gets_no_connection() {
        let Some(job) = job("stranger-asks") else { return };
        let desk = UnixListener::bind_addr(&name(&job).unwrap()).unwrap();
        let mut stranger = somebody("ask", Path::new(&job)).spawn().unwrap();
        let (socket, _) = desk.accept().unwrap();
        if let Some(mut asker) = Asker::new(socket, Instant::now()).unwrap() {
            while asker.number().unwrap().is_none() {}
            asker.answer(None).unwrap();
        }
        assert!(stranger.wait().unwrap().success(), "it was answered");
    }

    #[test]
    fn nothing_is_taken_from_a_stranger() {
        let Some(job) = job("stranger-squats") else { return };
        let mut stranger = somebody("squat", Path::new(&job)).spawn().unwrap();
        let error = loop {
            match take(&job, 1).map_err(|error| error.kind()) {
                Err(ErrorKind::ConnectionRefused) => std::thread::yield_now(),
                end => break end.unwrap_err(),
            }
        };
        assert_eq!(error, ErrorKind::PermissionDenied);
        assert!(stranger.wait().unwrap().success(), "it was asked");
    }

    /// Whoever has the name may be stopped.
    #[test]
    fn a_desk_that_accepts_nobody_is_not_waited_for() {
        let job = format!("stopped-{}", std::process::id());
        let _desk = UnixListener::bind_addr(&name(&job).unwrap()).unwrap();
        let mut before = Vec::new();
        let error = loop {
            match reach(&job, Duration::from_millis(10)) {
                Ok(one) => before.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    /// Whoever of the same user has the name, and gives nothing or goes.
    #[test]
    fn what_is_not_given_is_an_error() {
        let job = format!("given-{}", std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for (says, gives, kind) in [
            (Some(true), true, None),
            (Some(false), false, Some(ErrorKind::NotFound)),
            (Some(true), false, Some(ErrorKind::NotFound)),
            (None, false, Some(ErrorKind::UnexpectedEof)),
        ] {
            let desk = UnixListener::bind_addr(&name(&job).unwrap()).unwrap();
            let asked = job.clone();
            let taking = std::thread::spawn(move || take(&asked, 7).map_err(|error| error.kind()));
            let (socket, _) = desk.accept().unwrap();
            let mut asker = Asker::new(socket, Instant::now()).unwrap().unwrap();
            let number = loop {
                if let Some(number) = asker.number().unwrap() {
                    break number;
                }
            };
            assert_eq!(number, 7);
            if let Some(is_there) = says {
                let fds: Vec<_> = gives.then(|| here.as_raw_fd()).into_iter().collect();
                let answer = wire::frame(&Answer { is_there }).unwrap();
                wire::send(asker.as_fd(), &answer, &fds).unwrap();
            }
            drop((asker, desk));
            let taken = taking.join().unwrap();
            assert_eq!(taken.as_ref().err(), kind.as_ref());
            assert!(
                taken.is_err() || taken.unwrap().peer_addr().unwrap() == here.peer_addr().unwrap()
            );
        }
    }
}
