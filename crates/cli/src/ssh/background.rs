//! `-f`: to the background, once the ports are open and the command runs.
//!
//! What is to go there is another process of this program from the start, because a process with threads cannot be
//! forked. Until it says that it is ready, by the pipe that it has in the place of a stdin, the first one waits, so that
//! whoever called it knows that what follows can rely on it.

use super::OWN;
use nix::unistd::{dup2_stdin, setsid};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

/// Set for the process that is to go to the background.
const MARK: &str = "REXEC_SSH_BACKGROUND";

/// The background process, before it is ready.
#[derive(Debug)]
pub(super) struct Ready(File);

/// Where this process is on its way.
pub(super) enum Place {
    /// It goes to the background by [`Ready::tell`].
    Behind(Ready),
    /// It has started that one, and ends like this.
    Before(ExitCode),
}

/// Starts the process for the background, or is that one. `args` are those of this process.
pub(super) fn go(args: &[OsString]) -> Result<Place, String> {
    let failed = |error: io::Error| format!("-f: cannot go to the background: {error}");
    if env::var_os(MARK).is_some() {
        return become_ready().map(Place::Behind).map_err(failed);
    }
    let (mut told, tell) = pipe().map_err(failed)?;
    let child = start(args, tell.into()).map_err(failed)?;
    Ok(Place::Before(match told.read(&mut [0]) {
        Ok(1..) => ExitCode::SUCCESS,
        // It has ended, and has said why.
        Ok(0) | Err(_) => code_of(child),
    }))
}

fn start(args: &[OsString], stdin: Stdio) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    let mut args = args.iter();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env(MARK, "1").stdin(stdin).spawn()
}

fn code_of(mut child: Child) -> ExitCode {
    let code = child.wait().ok().and_then(|status| status.code());
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN))
}

/// Takes the pipe away from stdin, which is empty from then on, as with `-n`.
fn become_ready() -> io::Result<Ready> {
    let pipe = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(Ready(pipe.into()))
}

impl Ready {
    /// Lets the first process go, and goes on without its terminal.
    pub(super) fn tell(mut self) {
        // It was started by another process, so it leads no group, and this cannot fail.
        let _ = setsid();
        // Whoever waited may have been ended.
        let _ = self.0.write_all(b"r");
    }
}
