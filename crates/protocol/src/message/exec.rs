use crate::digest::Algorithm;
use crate::ids::JobId;
use crate::outcome::{printable, shorten};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;

/// Opens a stream and asks for a command to be run; the frame's body is an [`ExecSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// How many bytes of stdout and stderr together the agent may send before it hears of a
    /// `window`; at least [`crate::frame::MAX_DATA`].
    pub window: u64,
    /// The digest of all three byte streams.
    pub digest: Algorithm,
}

/// What to run and how. Words, names and paths are bytes, as the kernel takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The command.
    pub command: Command,
    /// The local user to run as; the agent's policy decides. `None`: the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables to add to the environment that the agent builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(ByteBuf, ByteBuf)>,
    /// The working directory; `None`: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteBuf>,
    /// End the command after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether stdin will be sent; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
}

/// The forms of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Words that reach `execve` as they are. The first is looked up in the command's `PATH` unless
    /// it holds a slash.
    Argv(Vec<ByteBuf>),
    /// A line for the user's login shell: `SHELL -c LINE`.
    Line(ByteBuf),
    /// A program sent along, run by its `#!` line or, without one, by `/bin/sh`.
    Script {
        /// The file's contents.
        text: ByteBuf,
        /// The words after the script's own name.
        args: Vec<ByteBuf>,
    },
}

impl fmt::Display for Command {
    /// For logs: words separated by blanks, cut, and not meant to be run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Argv(words) => words.as_slice(),
            Self::Line(line) => std::slice::from_ref(line),
            Self::Script { args, .. } => {
                f.write_str("(script)")?;
                args
            }
        };
        let text =
            words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ");
        f.write_str(&printable(&shorten(text)))
    }
}

/// The command runs; its output follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The agent's name for this run.
    pub job: JobId,
    /// The process id on the agent's machine.
    pub pid: u32,
}

impl ExecSpec {
    /// A spec that runs `command` with every choice left to the agent.
    pub fn new(command: Command) -> Self {
        Self { command, user: None, env: Vec::new(), cwd: None, timeout_ms: None, stdin: false }
    }

    /// The first thing that makes this unfit to be run anywhere, in words for the person who wrote
    /// it: no word at all, a NUL, an `=` in a variable's name, a relative directory.
    pub fn fault(&self) -> Option<&'static str> {
        let has_nul = |bytes: &ByteBuf| bytes.contains(&0);
        let words: &[ByteBuf] = match &self.command {
            Command::Argv(words) => words,
            Command::Line(line) if has_nul(line) => {
                return Some("the command line holds a NUL byte");
            }
            Command::Line(_) => &[],
            Command::Script { args, .. } => args,
        };
        let no_program = matches!(&self.command, Command::Argv(words) if words.first().is_none_or(|w| w.is_empty()));
        if no_program {
            return Some("the command is empty");
        }
        if words.iter().any(has_nul) {
            return Some("a word of the command holds a NUL byte");
        }
        if self.env.iter().any(|(name, value)| has_nul(name) || has_nul(value)) {
            return Some("an environment variable holds a NUL byte");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
            return Some("an environment variable's name is empty or holds '='");
        }
        match &self.cwd {
            Some(dir) if has_nul(dir) => Some("the working directory holds a NUL byte"),
            Some(dir) if !dir.starts_with(b"/") => {
                Some("the working directory is not an absolute path")
            }
            _ => None,
        }
    }
}
