//! What the user sees while there is no connection: one line below the cursor on a terminal, nothing in a
//! pipe, and with `-v` a line each time that something happens.

use crate::exit::Notes;
use crate::tty::escape::shown;
use crate::values::LogLevel;
use rexec_client::{Link, Session, printable};
use std::convert::Infallible;
use std::future;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// How often the line is written anew.
const TICK: Duration = Duration::from_secs(1);

/// Watches a session's connection, and tells of it.
#[derive(Debug)]
pub struct LinkLine {
    link: watch::Receiver<Link>,
    host: String,
    patience: Duration,
    notes: Notes,
    style: Style,
    key: Option<u8>,
    /// Since when there is no connection, and how many attempts were told of.
    away: Option<(Instant, u32)>,
    is_shown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Line,
    /// The same in the last line of a screen, over what is there: it will be drawn again.
    Bottom,
    Log,
    Nothing,
}

impl LinkLine {
    /// For a session with `host` whose connection is tried to be made again for `patience`.
    pub fn new(session: &Session, host: &str, patience: Duration, notes: Notes) -> Self {
        let style = match notes.level() {
            LogLevel::Verbose(_) => Style::Log,
            LogLevel::Normal if io::stderr().is_terminal() => Style::Line,
            LogLevel::Normal | LogLevel::Quiet => Style::Nothing,
        };
        Self {
            link: session.link(),
            host: printable(host),
            patience,
            notes,
            style,
            key: None,
            away: None,
            is_shown: false,
        }
    }

    /// From now on a command fills the screen. `key` begins escapes.
    pub fn stay_at_the_bottom(&mut self, key: Option<u8>) {
        self.erase();
        self.key = key;
        if self.style == Style::Line {
            self.style = Style::Bottom;
        }
    }

    /// Tells for as long as this is polled. Safe to cancel.
    pub async fn tell(&mut self) -> Infallible {
        loop {
            let link = self.link.borrow_and_update().clone();
            self.show(&link);
            let changed = self.link.changed();
            let is_line = matches!(self.style, Style::Line | Style::Bottom)
                && matches!(link, Link::Away { .. });
            let changed = tokio::select! {
                changed = changed => changed,
                () = sleep(TICK), if is_line => Ok(()),
            };
            if changed.is_err() {
                // The session is over, and its end is told elsewhere.
                future::pending::<()>().await;
            }
        }
    }

    fn show(&mut self, link: &Link) {
        match link {
            Link::Away { reason, since, attempt } => {
                let is_new = self.away != Some((*since, *attempt));
                self.away = Some((*since, *attempt));
                let words = self.words(reason, since.elapsed());
                match self.style {
                    Style::Line => self.draw(&words),
                    Style::Bottom => self.draw_at_the_bottom(&words),
                    Style::Log if is_new => self.notes.say(&words),
                    Style::Log | Style::Nothing => {}
                }
            }
            Link::Up | Link::Gone { .. } => {
                self.erase();
                let away = self.away.take().filter(|_| *link == Link::Up);
                if let Some((since, _)) = away.filter(|_| self.style == Style::Log) {
                    let (host, time) = (&self.host, seconds(since.elapsed()));
                    self.notes.say(&format!("{host}: connected again after {time}"));
                }
            }
        }
    }

    fn words(&self, reason: &str, elapsed: Duration) -> String {
        format!(
            "{}: connection lost ({}); trying again, {} of {}",
            self.host,
            printable(reason),
            seconds(elapsed),
            seconds(self.patience)
        )
    }

    /// Writes the line below the cursor, which stays where it is: there may be half a line of output.
    fn draw(&mut self, words: &str) {
        let mut text = String::new();
        if !std::mem::replace(&mut self.is_shown, true) {
            // IND and CUU: a line below this one, whatever that takes. DECSC: come back to here.
            text.push_str("\x1bD\x1b[A\x1b7");
        }
        // Cut at the edge (DECAWM off) instead of wrapped, or it could not be erased again.
        text.push_str(&format!("\x1b[B\r\x1b[?7lrexec: {words}\x1b[K\x1b[?7h\x1b8"));
        // If it cannot be written, there is nobody to see it.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Writes the line at the lower edge of the screen, inverted, and leaves all else as it is.
    fn draw_at_the_bottom(&mut self, words: &str) {
        self.is_shown = true;
        // First: the line is cut at the edge of the screen.
        let leave = self.key.map(|key| format!("{}. leaves; ", shown(key))).unwrap_or_default();
        let text =
            format!("\x1b7\x1b[999;1H\x1b[0;7m\x1b[?7lrexec: {leave}{words}\x1b[K\x1b[?7h\x1b8");
        // As above.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let text: &[u8] = match self.style {
                Style::Bottom => b"\x1b7\x1b[999;1H\x1b[0m\x1b[K\x1b8",
                _ => b"\x1b[B\r\x1b[K\x1b8",
            };
            // As above.
            let _ = io::stderr().write_all(text);
        }
    }
}

impl Drop for LinkLine {
    fn drop(&mut self) {
        self.erase();
    }
}

/// A duration in whole seconds, as people write it.
fn seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// [`LinkLine::tell`] where there may be no session yet.
pub async fn tell(line: &mut Option<LinkLine>) -> Infallible {
    match line {
        Some(line) => line.tell().await,
        None => future::pending().await,
    }
}
