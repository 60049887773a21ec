//! Ctrl-C, Ctrl-\, SIGTERM, SIGHUP, and whatever else would end this process if it did not listen.
//!
//! To end without a goodbye is to leave a command to its lease, in which it still does what nobody expects
//! of it any more: a receiver of rsync puts its part of a file in the place of a newer one.

use nix::libc;
use rexec_client::Signal;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::task::Poll;
use tokio::signal::unix::{self, SignalKind, signal};

/// What ends a process that does nothing about it; see signal(7). Without the faults of a program itself,
/// SIGPIPE, which Rust ignores, and the real-time signals, which nobody sends.
const ENDING: [i32; 14] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    // rsync ends its ssh by this one.
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// The signals that ask this process to end, from now on as values.
#[derive(Debug)]
pub struct Interrupts(Vec<(Signal, unix::Signal)>);

impl Interrupts {
    /// Takes them over. Those that this process was started to ignore stay ignored: that is how
    /// nohup works, and how a shell keeps Ctrl-C from its background jobs.
    pub fn take_over() -> io::Result<Self> {
        let ignored = ignored();
        let known = ENDING.into_iter().filter_map(Signal::from_number);
        let wanted = known.filter(|number| !contains(ignored, *number));
        let listen = |number: Signal| {
            let kind = SignalKind::from_raw(number.number().into());
            signal(kind).map(|listener| (number, listener))
        };
        wanted.map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next one. Safe to cancel.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (number, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Whether this is how somebody, or a system that shuts down, asks a program to end. What comes from elsewhere
/// is for this process alone, most often from a caller that ends itself.
pub fn is_a_request(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP].contains(&signal)
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
