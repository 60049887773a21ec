//! Ctrl-C, Ctrl-\, SIGTERM and SIGHUP.

use rexec_client::Signal;
use std::fs::File;
use std::future;
use std::io::{self, Read};
use tokio::signal::unix::{self, SignalKind, signal};

/// The signals that ask this process to end, from now on as values.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Option<unix::Signal>,
    quit: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
    hangup: Option<unix::Signal>,
}

impl Interrupts {
    /// Takes them over. Those that this process was started to ignore stay ignored: that is how
    /// nohup works, and how a shell keeps Ctrl-C from its background jobs.
    pub fn take_over() -> io::Result<Self> {
        let ignored = ignored();
        let take = |number: Signal, kind| {
            if contains(ignored, number) { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            interrupt: take(Signal::INT, SignalKind::interrupt())?,
            quit: take(Signal::QUIT, SignalKind::quit())?,
            terminate: take(Signal::TERM, SignalKind::terminate())?,
            hangup: take(Signal::HUP, SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            () = one(&mut self.interrupt) => Signal::INT,
            () = one(&mut self.quit) => Signal::QUIT,
            () = one(&mut self.terminate) => Signal::TERM,
            () = one(&mut self.hangup) => Signal::HUP,
        }
    }
}

async fn one(signal: &mut Option<unix::Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        future::pending().await
    }
}

/// The set of ignored signals, bit 0 for signal 1; see proc_pid_status(5). Empty if that cannot be
/// told: then all can interrupt.
fn ignored() -> u64 {
    // Long enough for the whole file, so that it is one read.
    let mut status = [0; 4096];
    let length = File::open("/proc/self/status").and_then(|mut file| file.read(&mut status));
    let text = status.get(..length.unwrap_or(0)).and_then(|status| str::from_utf8(status).ok());
    let set = text.and_then(|text| text.lines().find_map(|line| line.strip_prefix("SigIgn:")));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn contains(set: u64, signal: Signal) -> bool {
    set >> (signal.number() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_of_ignored_signals_is_read() {
        let pipe = Signal::from_number(nix::libc::SIGPIPE).unwrap();
        assert!(contains(ignored(), pipe), "Rust has it ignored");
        assert!(!contains(ignored(), Signal::KILL), "nobody can");
    }
}
