//! How far a transfer is, in one line of a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rexec_client::TransferEvent;
use std::fmt::Write;
use std::time::Duration;

/// How often the line is drawn at most, in a second.
const RATE: u8 = 10;
/// How often it is drawn if nothing happens: then rate and time left change as well.
const TICK: Duration = Duration::from_millis(250);
const FORM: &str =
    "{bytes}/{total_bytes} {bytes_per_sec} {elapsed}<{eta} {wide_bar:.dim} {msg}  {room}";
/// The line is as wide as the terminal, and where it ends a terminal shows the `^C` that is typed: in the next
/// line, and this one could not be removed any more. So the two columns at its end are blank, and gone back over.
const ROOM: &str = "\x1b[2D";

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Something has happened, so that there is something to be seen.
    is_shown: bool,
    files: u64,
    done: u64,
    /// Bytes that earlier transfers had left.
    resumed: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(RATE));
        if let Ok(style) = ProgressStyle::with_template(FORM) {
            let room = |_: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(ROOM);
            };
            bar.set_style(style.with_key("room", room));
        }
        Self { bar, is_shown: false, files: 0, done: 0, resumed: 0 }
    }

    pub(super) fn take(&mut self, event: &TransferEvent) {
        if !std::mem::replace(&mut self.is_shown, true) {
            self.bar.enable_steady_tick(TICK);
        }
        match event {
            TransferEvent::Found(size) => {
                self.files += 1;
                self.bar.inc_length(*size);
            }
            TransferEvent::Moved(n) => {
                self.bar.inc(*n);
                // Of a stream the size is not known before.
                if self.bar.position() > self.bar.length().unwrap_or_default() {
                    self.bar.set_length(self.bar.position());
                }
                return;
            }
            TransferEvent::Spared(n) => {
                self.bar.inc(*n);
                return;
            }
            TransferEvent::Resumed(n) => {
                self.bar.inc(*n);
                self.resumed += n;
            }
            TransferEvent::Stored { .. }
            | TransferEvent::Adjusted { .. }
            | TransferEvent::Skipped { .. }
            | TransferEvent::Failed { .. } => self.done += 1,
            _ => return,
        }
        let mut message = format!("{} of {} files", self.done, self.files.max(self.done));
        if self.resumed > 0 {
            message = format!("{message}, {} were there", HumanBytes(self.resumed));
        }
        self.bar.set_message(message);
    }

    /// Has something else written while the line is away.
    pub(super) fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
