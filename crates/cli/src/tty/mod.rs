//! The terminal that rexec itself runs on, for the length of a session with a command on another.
//!
//! [`Tty`] makes it raw and tells what the person at it does: types, escapes, changes the window,
//! stops and continues this process. [`guard`] restores it, [`escape`] knows the keys.

pub mod escape;
pub mod guard;

use crate::stdin;
use bytes::Bytes;
use escape::{Escape, Escapes, Typed};
use guard::Raw;
use nix::sys::signal::{Signal, raise};
use rexec_client::TerminalSize;
use rustix::termios::{Winsize, tcgetwinsize};
use std::collections::VecDeque;
use std::future;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::mpsc;

/// The escape key, unless another one was chosen.
pub const ESCAPE: u8 = b'~';

/// Back to the first screen (1047), without mouse (1000 to 1006) and bracketed paste (2004), with plain
/// cursor and number keys, wrapping, a visible cursor, no colours, and a free line; see ctlseqs of xterm. What is so
/// already stays so.
const PLAIN: &[u8] =
    b"\x1b[?1047l\x1b[?1000;1002;1003;1006;2004;1l\x1b>\x1b[?7;25h\x1b[0m\r\n\x1b[J";

/// What happens at the terminal.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was typed for the command.
    Typed(Vec<u8>),
    /// Something was typed for this program.
    Escape(Escape),
    /// The window has another size.
    Resized,
    /// This process was stopped, and goes on: what is shown may not be what was.
    Continued,
    /// Nothing will be typed any more.
    Closed,
}

/// How keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// What begins an escape; `None`: nothing does.
    pub escape: Option<u8>,
}

/// This process's terminal, taken over. Dropping it gives it back.
#[derive(Debug)]
pub struct Tty {
    /// `None`: stdin is no terminal.
    raw: Option<Raw>,
    key: Option<u8>,
    escapes: Escapes,
    /// `None`: nothing is typed, or nothing any more.
    keys: Option<mpsc::Receiver<io::Result<Bytes>>>,
    ready: VecDeque<Event>,
    window: unix::Signal,
    stopping: unix::Signal,
    continued: unix::Signal,
}

impl Tty {
    /// Takes over. If stdin is a terminal it becomes raw, and there are escapes; without `with_stdin`
    /// nothing is read. Has to be called in a tokio runtime.
    pub fn take_over(keys: Keys, with_stdin: bool) -> io::Result<Self> {
        let is_terminal = with_stdin && io::stdin().is_terminal();
        let key = keys.escape.filter(|_| is_terminal);
        // The signals first: a stop in between must not find the terminal raw.
        let window = signal(SignalKind::window_change())?;
        let stopping = signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
        let continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
        Ok(Self {
            raw: is_terminal.then(Raw::enter).transpose()?,
            key,
            escapes: Escapes::new(key),
            keys: with_stdin.then(stdin::start).transpose()?,
            ready: VecDeque::new(),
            window,
            stopping,
            continued,
        })
    }

    /// What happens next. Safe to cancel.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::select! {
                piece = one(&mut self.keys) => match piece {
                    Some(Ok(bytes)) => self.typed(&bytes),
                    // Whatever is wrong with it, nothing can be typed there.
                    Some(Err(_)) | None => {
                        self.keys = None;
                        return Event::Closed;
                    }
                },
                _ = self.window.recv() => return Event::Resized,
                _ = self.stopping.recv() => return Event::Escape(Escape::Suspend),
                _ = self.continued.recv() => {
                    self.resume();
                    return Event::Continued;
                }
            }
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        let typed = self.escapes.push(bytes).into_iter();
        self.ready.extend(typed.map(|typed| match typed {
            Typed::Bytes(bytes) => Event::Typed(bytes),
            Typed::Escape(escape) => Event::Escape(escape),
        }));
    }

    /// Stops this process, with the terminal as it was; returns when it is continued, which is then
    /// an [`Event::Continued`].
    pub fn suspend(&mut self) {
        if let Some(raw) = &self.raw {
            raw.pause();
        }
        // SIGTSTP itself is taken over. If the process cannot be stopped, it goes on.
        let _ = raise(Signal::SIGSTOP);
        self.resume();
    }

    /// A shell may have used the terminal meanwhile.
    fn resume(&self) {
        if let Some(raw) = &self.raw {
            // If the terminal is gone, reading will tell.
            let _ = raw.again();
        }
    }

    /// What begins an escape, if anything does.
    pub fn key(&self) -> Option<u8> {
        self.key
    }

    /// The text for [`Escape::Help`].
    pub fn help(&self) -> String {
        escape::help(self.key.unwrap_or(ESCAPE))
    }

    /// [`leave_screen`], if this terminal is that of the job.
    pub fn leave_screen(&self) {
        if self.raw.is_some() {
            leave_screen();
        }
    }
}

/// For who leaves in the middle: what a program that fills the screen has made of the terminal, it
/// would have undone at its end.
pub fn leave_screen() {
    if io::stdout().is_terminal() {
        // If it cannot be written, there is nobody to see it.
        let _ = io::stdout().write_all(PLAIN).and_then(|()| io::stdout().flush());
    }
}

async fn one<T>(queue: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match queue {
        Some(queue) => queue.recv().await,
        None => future::pending().await,
    }
}

/// The size of the terminal on stdin, stdout or stderr, whichever is one first; all zeros, which
/// means that it is not known, if none is.
pub fn size() -> TerminalSize {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let of = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok();
    let found = of(stdin.as_fd()).or_else(|| of(stdout.as_fd())).or_else(|| of(stderr.as_fd()));
    let Some(Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel }) = found else {
        return TerminalSize::default();
    };
    TerminalSize { columns: ws_col, rows: ws_row, width: ws_xpixel, height: ws_ypixel }
}
