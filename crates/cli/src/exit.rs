//! The end of a run in words, for stderr. Every message says where, what happened, whether the
//! command may have run, and what to do.

use crate::event::{Ended, Left, Parting};
use crate::stdio::Output;
use crate::tty::guard::is_raw;
use crate::values::LogLevel;
use rexec_client::{ExitStatus, NeverStarted, Outcome, Signal, printable};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

/// Where messages go instead of stderr.
static LOG: OnceLock<File> = OnceLock::new();

/// Has all messages appended to a file from now on, as `ssh -E` does.
pub fn say_to(path: &Path) -> Result<(), String> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|why| format!("cannot write {}: {why}", path.display()))?;
    // Only the first call counts, and there is one.
    let _ = LOG.set(file);
    Ok(())
}

/// What rexec itself says on stderr.
#[derive(Debug, Clone, Copy)]
pub struct Notes {
    level: LogLevel,
    program: &'static str,
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Information,
    Error,
}

impl Notes {
    /// How much to say.
    pub fn new(level: LogLevel) -> Self {
        Self { level, program: "rexec" }
    }

    /// The same under the name of another program.
    #[must_use]
    pub fn of(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    /// How much is said.
    pub fn level(self) -> LogLevel {
        self.level
    }

    /// A step on the way, for those who ask.
    pub fn detail(self, text: impl FnOnce() -> String) {
        if matches!(self.level, LogLevel::Verbose(_)) {
            self.say(&text());
        }
    }

    /// Something worth knowing.
    pub fn inform(self, text: &str) {
        if self.level != LogLevel::Quiet {
            self.say(text);
        }
    }

    /// Something that has to be said.
    pub fn say(self, text: &str) {
        self.plainly(&format!("{}: {text}", self.program));
    }

    /// The same without a word on who says it, for programs that know such lines.
    pub fn plainly(self, text: &str) {
        // One write, so that lines of several processes do not mix. If it cannot be written, there
        // is nobody to tell, and the exit code tells.
        let line = match LOG.get() {
            None if is_raw() => format!("\r\n{}\r\n", text.replace('\n', "\r\n")),
            _ => format!("{text}\n"),
        };
        let _ = match LOG.get() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Says how a run ended, unless the command ended by itself.
    pub fn end(self, ended: &Ended) {
        let sentence = sentence(ended);
        let plain = sentence.is_none();
        match sentence {
            Some((Weight::Error, text)) => self.say(&text),
            Some((Weight::Information, text)) => self.inform(&text),
            None => {}
        }
        if let Some(status) = &ended.status {
            self.detail(|| {
                let how = if plain { format!("{}; ", status.outcome()) } else { String::new() };
                host(ended) + &how + &figures(status)
            });
        }
    }

    /// Says how to come back, to one who has left in the middle.
    pub fn left(self, left: &Left) {
        if let Some(again) = &left.again {
            let (host, job) = (printable(&left.host), &left.job);
            self.inform(&format!("{host}: left job {job}, which goes on; to come back: {again}"));
        }
    }

    /// Sizes and digests, as `--digest` asks for them.
    pub fn digests(self, ended: &Ended, stdin: bool) {
        let Some(status) = &ended.status else { return };
        let streams =
            [("stdout", status.stdout()), ("stderr", status.stderr()), ("stdin", status.stdin())];
        for (name, tally) in streams.iter().take(if stdin { 3 } else { 2 }) {
            self.say(&format!("{name} {} bytes {} {}", tally.size, status.algorithm(), tally.hash));
        }
    }
}

/// The one way to end: the code of an outcome.
pub fn code(outcome: &Outcome) -> ExitCode {
    ExitCode::from(outcome.exit_code())
}

/// The code of a client that has left: as if the signal that made it leave had ended it.
pub fn code_of_left(left: &Left) -> ExitCode {
    left.signal.map_or(ExitCode::SUCCESS, |signal| {
        code(&Outcome::Signaled { signal, out_of_memory: false })
    })
}

fn sentence(ended: &Ended) -> Option<(Weight, String)> {
    let outcome = &ended.outcome;
    let named = outcome.to_string();
    // Once is enough.
    let job = ended.job.as_ref().filter(|job| !named.contains(job.as_str()));
    let job = job.map(|job| format!(" (job {job})")).unwrap_or_default();
    let again = ended.again.as_ref().map(|again| format!("; to come back to it: {again}"));
    let again = again.unwrap_or_default();
    let held = ended.status.as_ref().is_some_and(|status| status.held());
    let (weight, text) = match outcome {
        Outcome::Exited { .. } if held => (
            Weight::Information,
            "a process that the command left behind holds its output open; what that writes from \
             now on is not shown"
                .to_owned(),
        ),
        Outcome::Exited { .. } => return None,
        // As with a local pipe: whatever read the output wanted no more, and SIGPIPE says so.
        Outcome::Signaled { signal, .. }
            if is_pipe(*signal) && ended.closed.contains(&Output::Stdout) =>
        {
            return None;
        }
        // A terminal has no SIGPIPE, and is hung up.
        Outcome::Cancelled if ended.closed.contains(&Output::Stdout) => return None,
        Outcome::Cancelled if ended.job.is_none() => {
            (Weight::Information, "cancelled; nothing was started".to_owned())
        }
        Outcome::Signaled { .. } | Outcome::Cancelled => {
            (Weight::Information, format!("the command {outcome}"))
        }
        Outcome::TimedOut => (Weight::Error, format!("the command {outcome}")),
        Outcome::Denied { .. } | Outcome::Unreachable { .. } if !ended.is_visit => {
            (Weight::Error, format!("{outcome}; nothing was started"))
        }
        Outcome::NeverStarted { reason: NeverStarted::Conflict, .. } => (
            Weight::Error,
            format!(
                "{outcome}; under one id all must be the same: the words, the options, and whether \
                     there is a stdin (-n: none)"
            ),
        ),
        Outcome::Lost { .. } if let Some(parting) = ended.left => {
            (Weight::Error, left(parting, &job) + &again)
        }
        Outcome::Lost { .. } if ended.is_unknown => (
            Weight::Error,
            format!(
                "lost: {outcome}; so there is nothing to come back to{job}: look there what it has \
                 done before you run it again. Of an id of your own (--id) an agent knows for a week"
            ),
        ),
        Outcome::Lost { .. } => (
            Weight::Error,
            format!(
                "lost: {outcome}; the command{job} may have run, and how it ended is not \
                     known{again}"
            ),
        ),
        // What is wrong or gone is said, and the command is not this one's.
        Outcome::Incomplete { .. } if ended.is_visit => (Weight::Error, outcome.to_string()),
        Outcome::Incomplete { .. } => (
            Weight::Error,
            format!(
                "{outcome}; the command has run, but its output here is not to be \
                     trusted"
            ),
        ),
        Outcome::NeverStarted { .. }
        | Outcome::Local { .. }
        | Outcome::Denied { .. }
        | Outcome::Unreachable { .. } => (Weight::Error, outcome.to_string()),
    };
    Some((weight, host(ended) + &text))
}

/// What becomes of a job that was left without waiting for an answer.
fn left(parting: Parting, job: &str) -> String {
    let then = match parting {
        Parting::Told => "was told to end, and may still be at it",
        Parting::GoesOn => "goes on",
        Parting::InOtherHands => "goes on with the one who sends its stdin now",
        Parting::Ends => "is ended now",
        Parting::MayGoOn => {
            "goes on if it was to do so without a client; otherwise it is ended now"
        }
        Parting::EndsWithLease => "does not hear of it, and is ended when its lease is over",
        Parting::MayGoOnWithoutLease => {
            "does not hear of it, and goes on if it was to do so without a client; otherwise it is \
             ended when its lease is over"
        }
    };
    format!("left without waiting; the command{job} {then}")
}

/// What a message begins with.
fn host(ended: &Ended) -> String {
    ended.host.as_deref().map(|host| format!("{}: ", printable(host))).unwrap_or_default()
}

/// Times and sizes, for -v.
fn figures(status: &ExitStatus) -> String {
    let usage = status.usage();
    let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
    format!(
        "it took {} (user {}, system {}); bytes: stdin {}, stdout {}, stderr {}",
        seconds(usage.wall_ms),
        seconds(usage.user_ms),
        seconds(usage.system_ms),
        status.stdin().size,
        status.stdout().size,
        status.stderr().size
    )
}

fn is_pipe(signal: Signal) -> bool {
    Signal::from_number(nix::libc::SIGPIPE) == Some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_client::JobId;

    fn ended(outcome: Outcome) -> Ended {
        Ended { job: JobId::new("j1"), ..Ended::of(Some("web1".to_owned()), outcome) }
    }

    #[test]
    fn each_end_is_said_in_one_line_but_a_plain_one_is_not() {
        let message = || "why\n\u{1b}[2J".to_owned();
        let reason = NeverStarted::NotFound;
        for (outcome, weight, part) in [
            (
                Outcome::Signaled { signal: Signal::KILL, out_of_memory: false },
                Weight::Information,
                "web1: the command was ended by signal KILL",
            ),
            (Outcome::Cancelled, Weight::Information, "cancelled"),
            (Outcome::TimedOut, Weight::Error, "timed out"),
            (
                Outcome::NeverStarted { reason, message: message() },
                Weight::Error,
                "not started: why",
            ),
            (Outcome::Denied { message: message() }, Weight::Error, "nothing was started"),
            (Outcome::Unreachable { message: message() }, Weight::Error, "nothing was started"),
            (Outcome::Lost { message: message() }, Weight::Error, "job j1) may have run"),
            (Outcome::Incomplete { message: message() }, Weight::Error, "not to be trusted"),
            (Outcome::Local { message: message() }, Weight::Error, "web1: why"),
        ] {
            let (said, text) = sentence(&ended(outcome)).unwrap();
            assert!(said == weight && text.contains(part), "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(sentence(&ended(Outcome::Exited { code: 1 })), None);
        let lost = ended(Outcome::Lost { message: message() });
        let lost = Ended { again: Some("rexec attach web1 j1".to_owned()), ..lost };
        assert!(sentence(&lost).unwrap().1.ends_with("to come back to it: rexec attach web1 j1"));
        let unreachable = ended(Outcome::Unreachable { message: message() });
        let visit = Ended { is_visit: true, ..unreachable };
        assert!(!sentence(&visit).unwrap().1.contains("started"), "it may run for all we know");
        let lost = Ended { is_unknown: true, ..ended(Outcome::Lost { message: message() }) };
        let unknown = sentence(&lost).unwrap().1;
        assert!(
            unknown.contains("nothing to come back to") && unknown.contains("--id"),
            "{unknown}"
        );
        let lost = ended(Outcome::Lost { message: message() });
        let hung_up = Ended { left: Some(Parting::Ends), ..lost };
        assert!(sentence(&hung_up).unwrap().1.contains("(job j1) is ended now"));
        let reason = NeverStarted::Conflict;
        let conflict = ended(Outcome::NeverStarted { reason, message: message() });
        assert!(sentence(&conflict).unwrap().1.contains("-n"));
        let early = Ended { job: None, ..ended(Outcome::Cancelled) };
        assert!(sentence(&early).unwrap().1.contains("nothing was started"));
    }

    #[test]
    fn a_reader_that_left_needs_no_word() {
        let signal = Signal::from_number(13).unwrap();
        let mut end = ended(Outcome::Signaled { signal, out_of_memory: false });
        assert!(sentence(&end).is_some());
        end.closed = vec![Output::Stdout];
        assert_eq!(sentence(&end), None);
    }
}
