//! The `rexec` program, as a user runs it.

use super::{TestAgent, program};
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

impl TestAgent {
    /// `rexec`, set up as Alice would have it, without its arguments. No stdin.
    pub fn rexec(&self) -> Command {
        let mut command = Command::new(program("rexec"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("REXEC_IDENTITY", self.path("alice.pem"))
            .env("REXEC_AUTHORITY", self.path("authority.crt"))
            .stdin(Stdio::null());
        command
    }

    /// The target argument for this agent.
    pub fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs `rexec TARGET WORDS…` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Output {
        self.rexec().arg(self.target()).args(words).output().unwrap()
    }
}

/// The exit code of an output, which must not have died of a signal.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}
