//! A port of this machine, as a command: its stdout says which, and who connects to it.
//!
//! It is a process of its own, this very program started as the user that policy has chosen, so that the
//! port is that user's and the agent itself has none but its own. It carries nothing: each connection waits
//! until a process of another job, [`accept`](crate::accept), comes and takes it over.
//!
//! One thread waits for whatever comes first, and nothing in it waits for anything else: neither who asks for
//! a connection nor who reads what it says can hold it up. It ends when its stdin ends, or when nobody hears it
//! any more, and resets what was not taken.

mod bind;
pub(crate) mod handover;
mod pace;

use crate::connect::{abort_when_closed, end, file};
use handover::Asker;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use pace::Pace;
use rexec_protocol::listen::{MAX_WAITING, Said, WAITS};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The first argument of such a process; the host and the port follow. Its environment names the job.
pub const WORD: &str = "listen";

/// Processes that ask at once; further ones wait before they are heard.
const ASKERS: usize = 16;
/// After a connection that could not be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that this process has for other ends: its own three, the desk, and some that nobody has counted.
const RESERVE: usize = 16;

/// The whole life of the process.
pub fn listen_main(mut words: impl Iterator<Item = String>) -> ExitCode {
    let (host, port) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let job = std::env::var("REXEC_JOB").unwrap_or_default();
    let opened = port.parse().map_err(io::Error::other);
    let opened = opened.and_then(|port| {
        let (stdin, stdout) = (file(io::stdin())?, file(io::stdout())?);
        Port::open(&host, port, &job, stdin, stdout)
    });
    end(opened
        .map_err(|error| format!("cannot listen on {host} port {port}: {error}"))
        .and_then(|port| port.serve().map_err(|error| format!("cannot go on listening: {error}"))))
}

/// An open port.
struct Port {
    sockets: Vec<TcpListener>,
    desk: UnixListener,
    askers: Vec<Asker>,
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    /// How many of them there may be.
    room: usize,
    accepted: u64,
    stdin: File,
    stdout: File,
    /// There was no room in stdout.
    is_stuck: bool,
    /// Nothing is accepted before this, at the desk neither.
    rest: Option<Instant>,
    pace: Pace,
}

/// A connection that nobody has taken.
struct Waiting {
    number: u64,
    socket: TcpStream,
    until: Instant,
}

/// What something has come from.
#[derive(Clone, Copy)]
enum Source {
    Stdin,
    Stdout,
    Desk,
    Asker(usize),
    Socket(usize),
}

impl Port {
    fn open(host: &str, port: u16, job: &str, stdin: File, stdout: File) -> io::Result<Self> {
        // First, so that whoever reads of a connection finds it there.
        let desk = handover::open(job)?;
        let sockets = bind::bind(host, port)?;
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self {
            desk,
            askers: Vec::new(),
            waiting: VecDeque::new(),
            room: room(descriptors, sockets.len()),
            sockets,
            accepted: 0,
            stdin,
            stdout,
            is_stuck: false,
            rest: None,
            pace: Pace::new(Instant::now()),
        })
    }

    fn serve(mut self) -> io::Result<()> {
        let Some(first) = self.sockets.first() else { return Ok(()) };
        let port = first.local_addr()?.port();
        self.say(Said::Port(port))?;
        while self.go_on()? {}
        Ok(())
    }

    /// Waits for something, and deals with it. False at the end.
    fn go_on(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        self.forget(now);
        // Backwards: who is gone from the end of a list moves nobody before it.
        for (source, flags) in self.ready(now)?.into_iter().rev() {
            match source {
                Source::Stdin if self.stdin_has_ended() => return Ok(false),
                Source::Stdin => {}
                // Nobody would hear of another connection.
                Source::Stdout if flags.contains(PollFlags::POLLERR) => return Ok(false),
                Source::Stdout => self.is_stuck = false,
                Source::Desk => self.hear(now),
                Source::Asker(at) => self.give(at),
                Source::Socket(at) => self.accept(at, now)?,
            }
        }
        Ok(true)
    }

    /// Who has waited for too long is not waited for any more.
    fn forget(&mut self, now: Instant) {
        self.askers.retain(|asker| asker.until > now);
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now) {
            self.waiting.pop_front();
        }
        self.rest = self.rest.filter(|until| *until > now);
    }

    /// Waits until something comes, or the time of something is over.
    fn ready(&self, now: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let (read, none) = (PollFlags::POLLIN, PollFlags::empty());
        let room = if self.is_stuck { PollFlags::POLLOUT } else { none };
        let mut wanted: Vec<(Source, BorrowedFd<'_>, PollFlags)> = vec![
            (Source::Stdin, self.stdin.as_fd(), read),
            // That its reader is gone is told in any case.
            (Source::Stdout, self.stdout.as_fd(), room),
        ];
        let is_resting = self.rest.is_some();
        if self.has_room() && !self.is_stuck && !is_resting && self.pace.next(now).is_none() {
            let sockets = self.sockets.iter().enumerate();
            wanted.extend(sockets.map(|(at, socket)| (Source::Socket(at), socket.as_fd(), read)));
        }
        if self.askers.len() < ASKERS && !is_resting {
            wanted.push((Source::Desk, self.desk.as_fd(), read));
        }
        let askers = self.askers.iter().enumerate();
        wanted.extend(askers.map(|(at, asker)| (Source::Asker(at), asker.as_fd(), read)));
        let mut fds: Vec<_> = wanted.iter().map(|(_, fd, want)| PollFd::new(*fd, *want)).collect();
        match poll(&mut fds, self.time_left(now)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let found = fds.iter().map(|fd| fd.revents().unwrap_or(none));
        let ready = wanted.iter().map(|(source, ..)| *source).zip(found);
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn time_left(&self, now: Instant) -> PollTimeout {
        let askers = self.askers.iter().map(|asker| asker.until);
        let oldest = self.waiting.front().map(|waiting| waiting.until);
        // While there is no room, its time makes none.
        let paced = self.pace.next(now).filter(|_| self.has_room() && !self.is_stuck);
        let next = askers.chain(oldest).chain(self.rest).chain(paced).min();
        // It is rounded down to milliseconds, and would be no wait at all.
        let left = next.map(|next| next.duration_since(now) + Duration::from_millis(1));
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    /// What comes there means nothing, but for its end.
    fn stdin_has_ended(&mut self) -> bool {
        match self.stdin.read(&mut [0; 4096]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::Interrupted,
        }
    }

    /// Somebody wants to ask.
    fn hear(&mut self, now: Instant) {
        match self.desk.accept() {
            Ok((socket, _)) => {
                // Whoever is gone already, or is somebody else, gets no answer.
                if let Ok(Some(asker)) = Asker::new(socket, now) {
                    self.askers.push(asker);
                }
            }
            Err(error) => self.rest_after(&error, now),
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < self.room
    }

    /// Leaves those who wait to the kernel for a moment, if they could not be accepted for want of something. What
    /// was gone before it was accepted is no reason.
    fn rest_after(&mut self, error: &io::Error, now: Instant) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) {
            self.rest = Some(now + PAUSE);
        }
    }

    /// An asker has said something, or has gone.
    fn give(&mut self, at: usize) {
        let Some(number) = self.askers.get_mut(at).map(Asker::number) else { return };
        let Some(number) = number.transpose() else { return };
        let asker = self.askers.swap_remove(at);
        let Ok(number) = number else { return };
        let found = self.waiting.iter().position(|waiting| waiting.number == number);
        let found = found.and_then(|at| self.waiting.remove(at));
        // If it is gone, so is the connection.
        let _ = asker.answer(found.as_ref().map(|waiting| &waiting.socket));
    }

    fn accept(&mut self, at: usize, now: Instant) -> io::Result<()> {
        if !has_room(&self.stdout)? {
            self.is_stuck = true;
            return Ok(());
        }
        // More than one socket may have been ready.
        if !self.has_room() || self.pace.next(now).is_some() {
            return Ok(());
        }
        let Some(socket) = self.sockets.get(at) else { return Ok(()) };
        match socket.accept() {
            Ok((socket, from)) => {
                // Whatever ends it before somebody has taken it: what was cut off is not to look like an end.
                if abort_when_closed(&socket, true).is_err() {
                    return Ok(());
                }
                self.accepted += 1;
                self.pace.count(now);
                let (number, until) = (self.accepted, now + WAITS);
                self.waiting.push_back(Waiting { number, socket, until });
                self.say(Said::arrival(number, from))
            }
            Err(error) => {
                self.rest_after(&error, now);
                Ok(())
            }
        }
    }

    /// In one write, which does not wait where there is room: see pipe(7).
    fn say(&mut self, said: Said) -> io::Result<()> {
        match self.stdout.write_all(format!("{said}\n").as_bytes()) {
            // The next look at it says so, too.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// How many connections may wait, so that those who ask for them can still be heard.
fn room(descriptors: u64, sockets: usize) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    descriptors.saturating_sub(RESERVE + ASKERS + sockets).clamp(1, MAX_WAITING)
}

/// Whether a line can be written without a wait.
fn has_room(stdout: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds.iter().any(|fd| fd.any().unwrap_or(false))),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
