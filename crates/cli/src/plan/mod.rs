//! What to do: the options, the environment and the files made into one value. No option is read
//! and no file is opened after this, but for the certificates.

mod endpoint;
mod terminal;
#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, endpoint_of, reach};
pub use terminal::Terminal;

use crate::args::{CommandOptions, ConnectOptions, Run, RunOptions};
use crate::config::Env;
use crate::forward::Forwards;
use crate::target::Target;
use crate::values::{self, LogLevel, SshOption, Variable};
use nix::sys::stat::{SFlag, fstat, major, minor};
use rexec_client::{Algorithm, Drain, JobId, OnDisconnect, OnFull};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use terminal::Wish;

/// A script travels in one request, a little under 1 MiB with its arguments.
const MAX_SCRIPT: u64 = 1024 * 1024;

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub endpoint: Endpoint,
    /// As whom; `None` leaves it to the agent.
    pub user: Option<String>,
    /// What.
    pub work: Work,
    /// Variables to add.
    pub env: Vec<(OsString, OsString)>,
    /// In which folder.
    pub cwd: Option<PathBuf>,
    /// For how long at most.
    pub timeout: Option<Duration>,
    /// Whether this process's stdin is forwarded.
    pub stdin: bool,
    /// The terminal that it gets.
    pub terminal: Option<Terminal>,
    /// One was asked for that makes no sense.
    pub terminal_in_vain: bool,
    /// The digest of the streams; `None` leaves it to the agent.
    pub hash: Option<Algorithm>,
    /// Events as JSON Lines instead of the plain output.
    pub json: bool,
    /// Sizes and digests at the end.
    pub digest: bool,
    /// How much to say beside the command's own output.
    pub level: LogLevel,
    /// Leave as soon as it runs.
    pub detach: bool,
    /// The caller's own id for it.
    pub id: Option<JobId>,
    /// What becomes of it when this client is gone; `None` leaves it to the agent.
    pub on_disconnect: Option<OnDisconnect>,
    /// What happens when no more of its output can be kept.
    pub on_full: OnFull,
    /// Ports of this machine that lead to the agent's.
    pub forwards: Forwards,
    /// How long its output is waited for once it has ended.
    pub drain: Drain,
    /// Whether it finds the variables of sshd in its environment.
    pub ssh_env: bool,
    /// Its output ends where bytes are missing. What follows would be wrong for a program that talks to it, as rsync
    /// does, and whoever wrote a file there could have chosen it.
    pub ends_at_gap: bool,
    /// How often to try again.
    pub retries: u32,
    /// What to type to come back to it, but for its id.
    pub again: String,
}

/// The forms of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The login shell itself.
    Login,
    /// A line for the login shell.
    Line(OsString),
    /// Program and arguments.
    Argv(OsString, Vec<OsString>),
    /// None: only ports are forwarded.
    Nothing,
    /// A connection from the agent's machine.
    Connect {
        /// A name or an address, as that machine knows it.
        host: String,
        /// The port there.
        port: u16,
    },
    /// The command that the agent has under this name.
    Subsystem(String),
    /// A program that is sent along.
    Script {
        /// Its contents.
        text: Vec<u8>,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

impl Plan {
    /// Makes a plan of what was typed. The errors are for the person who typed it.
    pub fn new(run: Run, env: Env<'_>) -> Result<Self, String> {
        let Run { options, target, words } = run;
        let RunOptions { connect, command, job, output } = options;
        let typed = target.display().to_string();
        let again = again(&connect, &typed);
        let target = Target::parse(&target)?;
        let is_login = words.is_empty() && command.script.is_none();
        if is_login && job.detach {
            // As with ssh -f.
            return Err(
                "-d needs a command, or --script FILE: nobody is there to type to a login shell"
                    .to_owned(),
            );
        }
        if job.detach && !matches!(job.on_disconnect, None | Some(OnDisconnect::Keep {})) {
            return Err("-d leaves the command without a client, so --on-disconnect kill or lease can mean nothing; \
                        --timeout ends it after a time"
                .to_owned());
        }
        // As with ssh, who sits at it and is not to be heard is nobody. Nobody sits at a detached one.
        let is_heard = job.detach || io::stdin().is_terminal() && !command.no_stdin;
        let wish = terminal::wish(&command, is_login, is_heard);
        // What was typed comes before what is on this machine: no file is looked for in vain.
        if wish == Wish::Yes && output.json {
            return Err(format!(
                "--json is for programs, and a terminal for people: {}",
                if is_login { "name a command, or add -T" } else { "leave -t out" }
            ));
        }
        let terminal = (wish == Wish::Yes).then(|| Terminal::new(&command, env));
        let level = log_level(&connect);
        let ssh_env = connect.ssh.iter().filter_map(|option| match option {
            SshOption::SetEnv(variables) => Some(variables.clone()),
            _ => None,
        });
        // The later one of two variables of one name wins: the letters of rexec, over ssh's.
        let variables: Vec<Variable> =
            ssh_env.flatten().chain(command.env.iter().cloned()).collect();
        let cwd = command.cwd.clone();
        if let Some(dir) = cwd.as_ref().filter(|dir| !dir.is_absolute()) {
            return Err(format!("--cwd {}: it must be an absolute path", dir.display()));
        }
        let settings = endpoint::settings(connect, command.user.clone(), &target, env)?;
        let stdin = !job.detach
            && !command.no_stdin
            && !is_stdin(command.script.as_deref())
            && !stdin_is_null();
        // Who is shown a digest, now or later, wants to compare it with what sha256sum says.
        let shows = output.digest || output.json || output.status_fd.is_some();
        let shows = shows || job.detach || job.id.is_some();
        let hash = output.hash.or(settings.hash).or(shows.then_some(Algorithm::Sha256));
        let timeout = command.timeout;
        let user = settings.user.clone();
        let mut endpoint = endpoint::endpoint(target, settings, env)?;
        // While it runs, a further attempt is one to make the connection again.
        endpoint.reconnect_for = endpoint.reconnect_for.saturating_mul(job.retry.saturating_add(1));
        Ok(Self {
            work: work(command, words)?,
            endpoint,
            user,
            env: variables.into_iter().filter_map(Variable::resolve).collect(),
            cwd,
            timeout,
            stdin,
            terminal,
            terminal_in_vain: wish == Wish::InVain,
            hash,
            json: output.json,
            digest: output.digest,
            level,
            detach: job.detach,
            id: job.id,
            on_disconnect: job.on_disconnect,
            // What a terminal shows can be drawn again.
            on_full: job.on_full.unwrap_or(match wish {
                Wish::Yes => OnFull::DiscardOldest,
                Wish::No | Wish::InVain => OnFull::Block,
            }),
            forwards: Forwards::default(),
            drain: Drain::Bounded,
            ssh_env: false,
            ends_at_gap: false,
            retries: job.retry,
            again,
        })
    }
}

/// How much to say. The letters go before `-o LogLevel`.
pub fn log_level(connect: &ConnectOptions) -> LogLevel {
    if connect.quiet {
        return LogLevel::Quiet;
    }
    if connect.verbose > 0 {
        return LogLevel::Verbose(connect.verbose);
    }
    let chosen = connect.ssh.iter().find_map(|option| match option {
        SshOption::LogLevel(level) => Some(*level),
        _ => None,
    });
    chosen.unwrap_or(LogLevel::Normal)
}

/// What to type to come to a job on the same agent, but for its id.
pub(crate) fn again(connect: &ConnectOptions, target: &str) -> String {
    let mut words = vec!["rexec".to_owned(), "attach".to_owned()];
    words.extend(connect.retyped());
    words.push(values::quoted(target));
    words.join(" ")
}

fn work(options: CommandOptions, words: Vec<OsString>) -> Result<Work, String> {
    if let Some(file) = options.script {
        let text = read_script(&file)?;
        return Ok(Work::Script { text, args: words });
    }
    if words.is_empty() {
        return Ok(Work::Login);
    }
    if options.shell || (words.len() == 1 && !options.argv) {
        return Ok(Work::Line(words.join(OsStr::new(" "))));
    }
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Ok(Work::Argv(program, words.collect())),
        None => Err("the program's name is empty".to_owned()),
    }
}

fn read_script(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot read the script {}: {error}", file.display());
    let source: Box<dyn Read> = if is_stdin(Some(file)) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(failed)?)
    };
    let mut text = Vec::new();
    source.take(MAX_SCRIPT + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_SCRIPT {
        return Err(format!("the script {} is larger than 1 MiB", file.display()));
    }
    Ok(text)
}

fn is_stdin(script: Option<&Path>) -> bool {
    script == Some(Path::new("-"))
}

/// An empty stdin need not be forwarded: the command gets its own `/dev/null`.
pub(crate) fn stdin_is_null() -> bool {
    const NULL: (u64, u64) = (1, 3); // devices.txt of the kernel
    fstat(io::stdin()).is_ok_and(|file| {
        let kind = SFlag::from_bits_truncate(file.st_mode & SFlag::S_IFMT.bits());
        kind == SFlag::S_IFCHR && (major(file.st_rdev), minor(file.st_rdev)) == NULL
    })
}
