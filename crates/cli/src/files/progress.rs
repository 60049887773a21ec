//! How far a transfer is, in one line of a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rexec_client::TransferEvent;

/// How often the line is drawn at most, in a second.
const RATE: u8 = 10;
const FORM: &str = "{bytes}/{total_bytes} {bytes_per_sec} {elapsed}<{eta} {wide_bar:.dim} {msg}";

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    files: u64,
    done: u64,
    /// Bytes that earlier transfers had left.
    resumed: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(RATE));
        if let Ok(style) = ProgressStyle::with_template(FORM) {
            bar.set_style(style);
        }
        Self { bar, files: 0, done: 0, resumed: 0 }
    }

    pub(super) fn take(&mut self, event: &TransferEvent) {
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
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
