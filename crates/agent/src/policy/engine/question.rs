//! What can be asked of a policy.

use rexec_protocol::outcome::printable;
use std::net::IpAddr;

/// Who asks, as the certificate and the connection say.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The name of the identity.
    pub user: &'a str,
    /// Its groups.
    pub groups: &'a [String],
    /// Where the connection comes from. `None`, in a test, is an address about which nothing is
    /// known: it is in no network of an allow rule, and in every network of a deny rule.
    pub from: Option<IpAddr>,
}

/// The local user that something is to be done as.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    /// The login name.
    pub name: &'a str,
    /// Whether its uid is 0, whatever its name.
    pub is_root: bool,
    /// The login shell, which `$SHELL` in a pattern stands for.
    pub shell: &'a [u8],
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Run a command.
    Run {
        /// As whom.
        local: Local<'a>,
        /// The words; for a shell line `[SHELL, "-c", LINE]`, for a script that was sent along
        /// `["script:sha256:HEX", …]`.
        argv: &'a [&'a [u8]],
        /// The names of the variables that the caller sets.
        env: &'a [&'a [u8]],
        /// Whether on a terminal.
        terminal: bool,
    },
    /// Fetch a file.
    Read {
        /// As whom.
        local: Local<'a>,
        /// Its path, absolute and without links.
        path: &'a [u8],
        /// And all that is below it.
        tree: bool,
    },
    /// Put a file.
    Write {
        /// As whom.
        local: Local<'a>,
        /// Its path, absolute and without links.
        path: &'a [u8],
        /// And all that is below it.
        tree: bool,
    },
    /// Make a connection to somewhere.
    Connect {
        /// As whom.
        local: Local<'a>,
        /// Where to, as the caller names it.
        host: &'a str,
        /// The port there.
        port: u16,
    },
    /// Open a port of this machine.
    Listen {
        /// As whom.
        local: Local<'a>,
        /// The name or address of this machine, as the caller names it; or `*`, all of them.
        host: &'a str,
        /// The port; 0 for any.
        port: u16,
    },
    /// Watch a job that is there, or control it: feed, signal, end and remove it.
    Attach {
        /// The identity that started it.
        owner: &'a str,
        /// The groups that it had then.
        owner_groups: &'a [String],
        /// Whether to control it.
        control: bool,
    },
    /// Be in a room, or say something there.
    Room {
        /// Its name; the rooms of jobs are asked about as [`Action::Attach`].
        name: &'a str,
        /// Whether to say something.
        say: bool,
    },
    /// Tell everybody something.
    Wall,
    /// Ask who is connected.
    Who,
    /// Something on the agent's own console.
    Console {
        /// One of [`CONSOLE`].
        action: &'a str,
    },
}

/// What can be done on the agent's own console.
pub const CONSOLE: [&str; 10] =
    ["status", "who", "rooms", "jobs", "kick", "kill", "drain", "reload", "log-level", "quit"];

/// Says which actions there are, if this is none of them.
pub fn console_action(name: &str) -> Result<(), String> {
    if CONSOLE.contains(&name) {
        return Ok(());
    }
    Err(format!(
        "'{}' is nothing that `rexec-agent ctl` does: {}",
        printable(name),
        CONSOLE.join(", ")
    ))
}

/// What the name of a local user at the console begins with.
pub const AT_CONSOLE: &str = "local:";

/// May this caller do this?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub caller: Caller<'a>,
    /// What for.
    pub action: Action<'a>,
}

impl Question<'_> {
    /// Why no rule has to allow it, where none has to. A deny rule counts all the same.
    pub fn needs_no_rule(&self) -> Option<&'static str> {
        match self.action {
            Action::Attach { owner, .. } if owner == self.caller.user => {
                Some("one's own jobs need no rule; only a deny rule keeps one from them")
            }
            Action::Console { .. } if self.caller.is_at_console() => Some(
                "the console needs no rule: only root and the agent's own user get to it, who can change the policy, too; only a deny rule with 'ctl' keeps them from something",
            ),
            _ => None,
        }
    }

    /// Why no rule can allow it, where none can.
    pub fn is_out_of_reach(&self) -> Option<String> {
        match self.action {
            Action::Console { .. } if !self.caller.is_at_console() => {
                let user = printable(self.caller.user);
                Some(format!(
                    "{user} may not {}, whatever a rule says: it is for root and the agent's own user on its machine, who are local:NAME there",
                    self.action.verb()
                ))
            }
            _ => None,
        }
    }
}

impl Caller<'_> {
    /// Whether this is a local user of the agent's machine, at its console. Nobody else gets there.
    fn is_at_console(&self) -> bool {
        self.user.starts_with(AT_CONSOLE)
    }
}

impl Action<'_> {
    /// The local user that it is done as, if that matters.
    pub fn local(&self) -> Option<Local<'_>> {
        match *self {
            Self::Run { local, .. }
            | Self::Read { local, .. }
            | Self::Write { local, .. }
            | Self::Connect { local, .. }
            | Self::Listen { local, .. } => Some(local),
            _ => None,
        }
    }

    /// In words that follow "may".
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run commands",
            Self::Read { .. } => "read files",
            Self::Write { .. } => "write files",
            Self::Connect { .. } => "make connections",
            Self::Listen { .. } => "open ports",
            Self::Attach { control: false, .. } => "attach to jobs",
            Self::Attach { .. } => "control jobs",
            Self::Room { say: false, .. } => "be in rooms",
            Self::Room { .. } => "say anything in rooms",
            Self::Wall => "tell everybody something",
            Self::Who => "ask who is connected",
            Self::Console { .. } => "use the console",
        }
    }
}
