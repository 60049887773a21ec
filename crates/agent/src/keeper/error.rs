//! Why a command did not start, in words for the person who wanted it to.

use super::limits::Controller;
use super::wire::{Failure, Stage};
use super::{LaunchSpec, Program};
use nix::errno::Errno;
use rexec_protocol::NeverStarted;
use std::io;

/// Why there is no running command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The command was not started, and will not be.
    #[error("{message}")]
    NeverStarted {
        /// What kind of reason, for the client and its exit status.
        reason: NeverStarted,
        /// What could not be done to what, and the system's words for it.
        message: String,
    },
    /// Nobody knows whether the command was started, or what it has done since. Whoever runs it
    /// again may run it twice.
    #[error("{message}")]
    Unknown {
        /// What went wrong.
        message: String,
    },
}

impl LaunchError {
    pub(super) fn new(reason: NeverStarted, message: impl Into<String>) -> Self {
        Self::NeverStarted { reason, message: message.into() }
    }

    /// The agent's own machinery failed before the command was started.
    pub(super) fn machinery(what: &str, error: &io::Error) -> Self {
        Self::new(NeverStarted::Resource, format!("the agent {what}: {error}"))
    }

    /// The agent's own machinery failed when the command may have been started.
    pub(super) fn unknown(what: &str, error: &io::Error) -> Self {
        Self::Unknown {
            message: format!("the agent {what}; whether the command ran is not known: {error}"),
        }
    }

    pub(super) fn from_failure(failure: &Failure, spec: &LaunchSpec) -> Self {
        let errno = Errno::from_raw(failure.errno);
        let words = errno.desc();
        let (reason, message) = match failure.stage {
            Stage::Order => (
                NeverStarted::Invalid,
                format!("{} is not a command that could be run: {words}", name(spec)),
            ),
            Stage::Resources => (
                NeverStarted::Resource,
                format!("the system lacks what it takes to start {}: {words}", name(spec)),
            ),
            Stage::Terminal => (
                NeverStarted::Resource,
                format!("the system gives no terminal (see kernel.pty.max in sysctl(8)): {words}"),
            ),
            Stage::Limit(controller) => (NeverStarted::Resource, limit(controller, errno)),
            Stage::Credentials => (
                NeverStarted::User,
                format!("the agent cannot become the user that {} runs as: {words}", name(spec)),
            ),
            Stage::Cwd => (
                NeverStarted::Cwd,
                format!("cannot enter the directory {}: {words}", quoted(&spec.cwd)),
            ),
            Stage::Exec => exec(errno, failure.found, spec),
        };
        Self::NeverStarted { reason, message }
    }
}

fn limit(controller: Controller, errno: Errno) -> String {
    let what = match controller {
        Controller::Memory => "memory",
        Controller::Processes => "the number of processes",
        Controller::Cpu => "processor time",
    };
    let controller = controller.name();
    let why = match errno {
        Errno::EOPNOTSUPP => format!(
            "there is no cgroup controller '{controller}' for it (a systemd service needs Delegate=yes)"
        ),
        errno => errno.desc().to_owned(),
    };
    format!("the policy limits {what}, and this machine cannot enforce that: {why}")
}

fn exec(errno: Errno, found: bool, spec: &LaunchSpec) -> (NeverStarted, String) {
    let (name, words) = (name(spec), errno.desc());
    match errno {
        Errno::ENOENT if found => (
            NeverStarted::NotExecutable,
            format!("{name} is there, but the interpreter or loader that it names is not: {words}"),
        ),
        Errno::ENOENT => (NeverStarted::NotFound, not_found(spec, words)),
        Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => {
            (NeverStarted::NotFound, format!("cannot find {name}: {words}"))
        }
        Errno::E2BIG => (
            NeverStarted::TooLarge,
            format!(
                "the arguments and environment of {name} are too large for this system: {words}"
            ),
        ),
        Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::EIO => (
            NeverStarted::Resource,
            format!("the system lacks what it takes to start {name}: {words}"),
        ),
        _ => (NeverStarted::NotExecutable, format!("cannot execute {name}: {words}")),
    }
}

fn not_found(spec: &LaunchSpec, words: &str) -> String {
    let is_searched = matches!(&spec.program, Program::Argv { words, .. } if words.first().is_some_and(|word| !word.contains(&b'/')));
    match spec.path() {
        Some(path) if is_searched => {
            format!(
                "cannot find {} in PATH ({}): {words}",
                name(spec),
                String::from_utf8_lossy(path)
            )
        }
        _ => format!("cannot find {}: {words}", name(spec)),
    }
}

fn name(spec: &LaunchSpec) -> String {
    match &spec.program {
        Program::Argv { words, .. } => quoted(words.first().map_or(b"", |word| word)),
        Program::Script { name, .. } => format!("the script {}", quoted(name)),
        Program::Own { .. } => {
            "the agent's own program, which its file must be executable for,".to_owned()
        }
    }
}

/// Names are bytes; what is not UTF-8 in them is shown as such. Long ones are cut.
fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 256;
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("'{}{more}'", String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes)))
}
