//! Starting, watching and ending commands, in processes made for it.
//!
//! # Theory of operation
//!
//! The agent has many threads and faces the network, so it does not fork. It starts its own program
//! once more as a **zygote**: a process with one thread that does nothing but fork. What it forks,
//! ahead of time, are **keepers**, and each of those forks an **embryo**, a process with pipes, a
//! session, a cgroup and clean signals that lacks nothing but a command. For each command the agent
//! makes a pair of sockets and sends one end to the zygote's socket, from which a ready keeper takes
//! it. The embryo reads what to run and becomes it; from there on agent and keeper talk to each
//! other alone:
//!
//! ```text
//!            zygote ──fork──▶ keeper ──fork──▶ embryo
//!                               ▲ │               │
//!  agent ──(end of a socket)────┘ └──(the same)───▶ reads Launch, execs: the command ──▶ …
//!    │                          ▲ ▲                  │
//!    ├── Signal, End, Release ──┘ └─ SIGCHLD, orphans┤
//!    ◀── Taken + pipe ends, Started, Exited, TreeGone│
//!    ◀═════════════ stdin, stdout, stderr ═══════════╛
//! ```
//!
//! A keeper whose command is over, has left nothing running and was not changed by anybody (`heritage`) forks another
//! embryo and takes the next launch from the same socket. A few of them wait for that, for some moments.
//!
//! So the time from request to exec holds no fork of ours at all, and a keeper shares nearly all of
//! its memory with the zygote. The pipes go straight to the agent; a keeper copies no byte.
//!
//! A command that is to have a terminal gets it from its embryo, which opens one when it has read the
//! launch; the pipes are dropped then, and the terminal's master goes the same way to the agent.
//!
//! A command runs at most once. A launch that was not read to its end was not started, which the
//! kernel tells the agent (ECONNRESET), and only then is it sent again.
//!
//! A keeper is a child subreaper: everything that its command starts stays below it, however often
//! it forks and whatever sessions it makes, and comes to it when its parent dies. So it can end all
//! of it, and it knows that all is gone when wait(2) says that there are no children. Where the
//! system has cgroup v2, the job also gets a cgroup, which is killed with one write.
//!
//! A keeper lives as long as its commands, and then until the agent releases it. When the socket
//! closes before that, the agent is gone. If it has left a will ([`Keeper::leave`]), the keeper has
//! duplicates of the agent's ends of the pipes, so that the command notices nothing; it looks for the
//! next agent at the socket that the will names, hands all of it over ([`Adoptions`]), and goes on as
//! before. Without a will, or when nobody came in time, it ends the tree (HUP, and KILL five seconds
//! later). A keeper says who it is before its command runs. When it dies or does not answer (a command of the same user can kill or stop it),
//! the agent kills the tree from outside. The zygote may die at any time: keepers do not depend on
//! it, and the next launch starts another one.
//!
//! # Files
//!
//! | file | process | |
//! |---|---|---|
//! | `zygote` | agent | one zygote, kept running; launches |
//! | `attempt` | agent | one try to have a keeper start a command |
//! | `handle` | agent | [`Keeper`]: orders out, events in |
//! | `force` | agent | the end of a job whose keeper is dead or stuck |
//! | `pause` | agent | a short pause of a job, which gets it out of its system calls |
//! | `spares` | agent | keepers that have done one command and wait for another |
//! | `room` | agent | room for the descriptors of a launch |
//! | `error` | agent | [`LaunchError`]: an errno in words |
//! | `adopt` | agent | jobs of the agent before it |
//! | `wire` | all | the messages, and descriptors beside them |
//! | `process` | zygote | its main loop: keep some keepers ready |
//! | `job` | keeper | its main loop |
//! | `orphan` | keeper | the wait for another agent |
//! | `heritage` | keeper | what a command has from it that others can change |
//! | `ending` | keeper | when to ask, when to kill; no I/O |
//! | `launch` | keeper, embryo | pipes, cgroup, fork, script |
//! | `exec` | embryo | what makes it the command |
//! | `credentials` | embryo | user and groups, set and verified |
//! | `terminal` | embryo, agent | a terminal instead of pipes, and its size |
//! | `ends` | agent | where to read and write, be it pipes or a terminal |
//! | `limits` | keeper, embryo | memory, processes and processor time of a job |
//! | `tree`, `cgroup` | keeper | all processes of a job |
//! | `sys` | all | system calls without a safe wrapper |

mod adopt;
mod attempt;
mod cgroup;
mod credentials;
mod ending;
mod ends;
mod error;
mod exec;
mod force;
mod handle;
mod heritage;
mod job;
mod launch;
mod limits;
mod orphan;
mod pause;
mod process;
mod room;
mod spares;
mod sys;
mod terminal;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
pub(crate) mod wire;
mod zygote;

pub use adopt::{Adopted, Adoptions, Orphan};
pub use credentials::Credentials;
pub use ends::{Reader, Writer};
pub use error::LaunchError;
pub use handle::{Keeper, Will};
pub use limits::Limits;
pub use pause::{Paused, Reach};
pub use process::{ZYGOTE, zygote_main};
pub use terminal::Terminal;
pub use zygote::Zygote;

use rexec_protocol::Signal;
use rexec_protocol::message::{Channel, TerminalSize, Usage};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The version of what keepers and agents say to each other.
const VERSION: u32 = 1;

/// What to start, with every choice made.
///
/// The command gets a session and process group of its own, the default action for every signal and
/// none blocked, a soft limit of 0 for core dumps and of 1024 for descriptors, and the descriptors
/// 0, 1 and 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The command.
    pub program: Program,
    /// Its whole environment, in this order.
    pub env: Vec<(ByteBuf, ByteBuf)>,
    /// Its working directory.
    pub cwd: ByteBuf,
    /// Whether it starts in `/` if that cannot be entered: a missing home is no reason not to run,
    /// a missing directory that was asked for is.
    pub cwd_or_root: bool,
    /// Whether it gets a pipe as stdin; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Whether it gets a terminal, and of which size. That is then its stdin, too; without `stdin`
    /// nothing is ever typed there.
    pub terminal: Option<TerminalSize>,
    /// Whom it runs as; `None`: as the agent itself, which need not be root then.
    pub credentials: Option<Credentials>,
    /// Its umask; see umask(2).
    pub umask: u32,
    /// What it may use.
    pub limits: Limits,
}

/// The forms of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Words for `execve`.
    Argv {
        /// The first is the program, looked up in the `PATH` of the environment given here unless
        /// it holds a slash. A file without `#!` line that is no binary is run by `/bin/sh`.
        words: Vec<ByteBuf>,
        /// What the program sees as its own name, if not the first word: `-bash`, say.
        argv0: Option<ByteBuf>,
    },
    /// A program that exists nowhere yet, run by its `#!` line or else by `/bin/sh`.
    ///
    /// It is a sealed file in memory, executed as `/proc/self/fd/N`, which is also what the
    /// interpreter passes on as its name (`$0`). For the interpreter to be able to open it, the
    /// command holds one descriptor more than others do.
    Script {
        /// What would be in the file.
        text: ByteBuf,
        /// The words after the name.
        args: Vec<ByteBuf>,
        /// What `/proc` and error messages call it.
        name: ByteBuf,
    },
    /// This very program, as another process that reads what it is to do from a sealed file in memory.
    Own {
        /// Its arguments; after them comes the path of that file.
        words: Vec<ByteBuf>,
        /// What is in the file.
        input: ByteBuf,
    },
}

impl LaunchSpec {
    /// What makes this unfit to be run anywhere. `ExecSpec::fault` finds the same in a client's
    /// request; this is for what was added or built here.
    fn fault(&self) -> Option<&'static str> {
        let (words, is_empty) = match &self.program {
            Program::Argv { words, .. } => (words, words.first().is_none_or(|w| w.is_empty())),
            Program::Script { args, .. } => (args, false),
            Program::Own { words, .. } => (words, false),
        };
        let mut all = words.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if is_empty {
            Some("the command is empty")
        } else if all.any(|bytes| bytes.contains(&0)) || self.cwd.contains(&0) {
            Some("the command, its directory or its environment holds a NUL byte")
        } else if self.env.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
            Some("an environment variable's name is empty or holds '='")
        } else {
            None
        }
    }

    /// The `PATH` of the environment.
    fn path(&self) -> Option<&[u8]> {
        let is_path = |(name, _): &&(ByteBuf, ByteBuf)| name.as_slice() == b"PATH";
        self.env.iter().find(is_path).map(|(_, path)| path.as_slice())
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    /// Its process, which is also its process group and session.
    pub pid: u32,
    /// Where to write its stdin, if that was asked for.
    pub stdin: Option<Writer>,
    /// Where to read its stdout.
    pub stdout: Reader,
    /// Where to read its stderr; `None` if a terminal has both.
    pub stderr: Option<Reader>,
    /// Its terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// Who watches over it.
    pub keeper: Keeper,
}

/// What a keeper tells of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The command's own process has ended, and is reaped. Others may still hold its pipes.
    Exited {
        /// How.
        status: Status,
        /// At what cost, with all the children that it waited for.
        usage: Usage,
        /// It was killed because the job was out of memory.
        out_of_memory: bool,
    },
    /// The answer to [`Keeper::end`], after `Exited`: the whole tree has been ended.
    TreeGone {
        /// How many processes could not be killed: they hang in the kernel, or belong to a user
        /// that the agent may not signal.
        survivors: u32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(Signal),
}

impl Status {
    /// From what wait(2) reports of a process that has ended.
    fn from_wait(status: i32) -> Self {
        match Signal::from_number(libc::WTERMSIG(status)) {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(libc::WEXITSTATUS(status) as u8),
        }
    }
}
