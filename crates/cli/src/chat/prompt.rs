//! A prompt that lines which come in do not tear apart: rustyline takes the line that is being typed
//! away, prints, and shows it again.
//!
//! It reads the terminal in a thread of its own, and prints from another. Neither can be interrupted,
//! so whoever ends the process first gives the terminal back as it was.

use super::typed::{Typed, typed};
use super::widen::Widening;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use rexec_client::{Outcome, printable};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use std::io::{self, Write};
use std::thread;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait to be printed.
const QUEUE: usize = 64;
/// Ends the mode in which a terminal marks what is pasted; the editor begins it.
const NO_BRACKETED_PASTE: &[u8] = b"\x1b[?2004l";

/// Has Ctrl-Z stop this process in the thread that reads the keys, and in no other: the editor gives the
/// terminal back, stops, and takes the terminal again once it is continued. If another thread had the
/// signal, the editor would do the last before the process stops. Before there is another thread.
pub(super) fn stop_where_keys_are_read() {
    // If that fails, Ctrl-Z is what it was.
    let _ = stops().thread_block();
}

fn stops() -> SigSet {
    SigSet::from(Signal::SIGTSTP)
}

/// The prompt.
pub(super) struct Prompt {
    lines: mpsc::Sender<Printed>,
    before: Termios,
}

enum Printed {
    Line(String),
    /// Answered when all before it is printed.
    Flush(oneshot::Sender<()>),
}

impl Prompt {
    /// Shows it; what is typed goes to `typed`, and Ctrl-C and Ctrl-D end it: after them, the terminal
    /// is as it was before, and Ctrl-C is a signal again.
    pub(super) fn start(room: &str, to: mpsc::Sender<Typed>) -> Result<Self, Outcome> {
        Self::open(room, to).map_err(|error| Outcome::Local { message: why(&error) })
    }

    fn open(room: &str, to: mpsc::Sender<Typed>) -> Result<Self, ReadlineError> {
        let before = tcgetattr(io::stdin()).map_err(io::Error::from)?;
        let config = Config::builder().auto_add_history(true).build();
        let mut editor: Editor<Widening, MemHistory> =
            Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
        let prompt = format!("{room}> ");
        editor.set_helper(Some(Widening::of(&prompt)));
        let mut printer = editor.create_external_printer()?;
        let (lines, mut queue) = mpsc::channel(QUEUE);
        thread::Builder::new().spawn(move || {
            while let Some(printed) = queue.blocking_recv() {
                match printed {
                    Printed::Line(line) => {
                        if printer.print(line + "\n").is_err() {
                            return;
                        }
                    }
                    Printed::Flush(done) => drop(done.send(())),
                }
            }
        })?;
        thread::Builder::new().spawn(move || {
            let _ = stops().thread_unblock();
            loop {
                let line = match editor.readline(&prompt) {
                    Ok(line) => typed(&line),
                    Err(ReadlineError::Eof | ReadlineError::Interrupted) => Typed::Quit,
                    // Bytes that are no text, or the terminal is gone.
                    Err(error) => Typed::Broken(format!("what is typed cannot be read: {error}")),
                };
                let is_last = matches!(line, Typed::Quit | Typed::Broken(_));
                if to.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { lines, before })
    }

    /// Prints lines above what is being typed.
    pub(super) async fn print(&self, text: String) {
        // Without the thread, the terminal is gone.
        let _ = self.lines.send(Printed::Line(text)).await;
    }

    /// Gives the terminal back, once all is printed.
    pub(super) async fn end(self) {
        let (done, printed) = oneshot::channel();
        if self.lines.send(Printed::Flush(done)).await.is_ok() {
            let _ = printed.await;
        }
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(NO_BRACKETED_PASTE).and_then(|()| stdout.flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        let _ = stdout.write_all(b"\r\x1b[K").and_then(|()| stdout.flush());
    }
}

/// Why there is no prompt, and what to do.
fn why(error: &ReadlineError) -> String {
    match error {
        // stdin and stdout are terminals: it is the kind of terminal that the editor does not take.
        ReadlineError::Errno(Errno::ENOTTY) => {
            let term = std::env::var("TERM").unwrap_or_default();
            let term = printable(&term);
            format!(
                "TERM={term} is no terminal for a prompt: set TERM to what the terminal is, such as xterm, or use --read-only or a pipe, which need none"
            )
        }
        error => format!("no prompt: {error}; --read-only and a pipe need none"),
    }
}
