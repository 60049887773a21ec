//! What the options mean here. As with ssh, the first of several that say the same counts.
//!
//! An option is obeyed where it has a meaning, taken in silence where leaving it out changes nothing
//! that a caller could rely on, and refused where it would: a caller that asks for a jump host must not
//! be connected directly.

use super::direct::Direct;
use super::{keywords, ports};
use crate::forward::{Forward, Permits};
use crate::values::{self, LogLevel, Variable};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `-l`, `User`.
    pub user: Option<String>,
    /// `-p`, `Port`.
    pub port: Option<u16>,
    /// `HostName`.
    pub host_name: Option<String>,
    /// `HostKeyAlias`: what the agent's certificate must be for.
    pub alias: Option<String>,
    /// `ConnectionAttempts`.
    pub attempts: Option<u32>,
    /// `-i`, `IdentityFile`, in their order.
    pub identities: Vec<PathBuf>,
    /// `ConnectTimeout`; zero for rexec's own.
    pub connect_timeout: Option<Duration>,
    /// `ServerAliveInterval`; zero for never.
    pub alive_interval: Option<Duration>,
    /// `ServerAliveCountMax`.
    pub alive_count: Option<u32>,
    /// `SetEnv`.
    pub set_env: Vec<Variable>,
    /// `SendEnv`: patterns of names.
    pub send_env: Vec<String>,
    /// `-t`, `-T`, `RequestTTY`.
    pub terminal: Option<RequestTerminal>,
    /// `-e`, `EscapeChar`.
    pub escape: Option<OsString>,
    /// `-n`, `StdinNull`.
    pub no_stdin: Option<bool>,
    /// `-f`, `ForkAfterAuthentication`.
    pub background: Option<bool>,
    /// `-s`, `-N`, `SessionType`.
    pub session: Option<SessionType>,
    /// `RemoteCommand`, with its percents; `none` for none.
    pub remote_command: Option<String>,
    /// `-q`, `-v`, `LogLevel`.
    pub level: Option<LogLevel>,
    /// `-E`.
    pub log_file: Option<PathBuf>,
    /// `-F`.
    pub file: Option<PathBuf>,
    /// `-J none`, `ProxyJump none`, `ProxyCommand none`.
    pub direct: Direct,
    /// `-G`.
    pub print: bool,
    /// `-V`.
    pub version: bool,
    /// `-O`.
    pub control: Option<String>,
    /// `-L`, `-D`, `LocalForward`, `DynamicForward`.
    pub forwards: Vec<Forward>,
    /// `-R`, `RemoteForward`.
    pub remote_forwards: Vec<Forward>,
    /// `PermitRemoteOpen`.
    pub permits: Option<Permits>,
    /// `ClearAllForwardings`.
    pub no_forwards: Option<bool>,
    /// `ExitOnForwardFailure`.
    pub all_forwards: Option<bool>,
    /// `-g`, `GatewayPorts`: ports are for all addresses of this machine.
    pub for_all: Option<bool>,
    /// `-W`: in the place of a command.
    pub place: Option<(String, u16)>,
    /// What was asked for that is not to be had, and does no harm to be without.
    pub missing: Vec<&'static str>,
    /// What the file says that is not heeded.
    pub warnings: Vec<String>,
    /// The ports among that: whoever wants all or none (`ExitOnForwardFailure`) must not go on.
    pub lacking: Vec<String>,
}

/// What becomes of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestTerminal {
    /// `-T`, `no`.
    No,
    /// `-t`, `yes`: if stdin is one.
    Yes,
    /// `-tt`, `force`.
    Force,
    /// `auto`: for a login shell.
    Auto,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionType {
    /// `default`: a command, or a login shell.
    Command,
    /// `-s`, `subsystem`: the words are the name of one.
    Subsystem,
    /// `-N`, `none`: ports only.
    Nothing,
}

impl SessionType {
    /// As ssh_config(5) calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command => "default",
            Self::Subsystem => "subsystem",
            Self::Nothing => "none",
        }
    }
}

impl Options {
    /// How long connecting may take, if that was said.
    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout.filter(|time| !time.is_zero())
    }

    /// What the connection is for.
    pub(super) fn session(&self) -> SessionType {
        self.session.unwrap_or(SessionType::Command)
    }

    /// The command that was said in the place of words.
    pub(super) fn remote_command(&self) -> Option<&str> {
        self.remote_command.as_deref().filter(|command| !command.eq_ignore_ascii_case("none"))
    }

    /// `-s` or `-N`, which exclude each other, and any other `SessionType` that was said before.
    fn only_session(&mut self, letter: char, session: SessionType) -> Result<(), String> {
        match self.session.replace(session) {
            Some(before) if before != session => {
                let before = before.name();
                Err(format!("-{letter}: the session is {before} already, by -N, -s or SessionType"))
            }
            _ => Ok(()),
        }
    }

    /// A letter without an argument.
    pub(super) fn flag(&mut self, letter: u8) -> Result<(), String> {
        match letter {
            b'1' => return Err("-1: the first version of the protocol is no more".to_owned()),
            b'A' => self.lacks("forwarding of an authentication agent (-A)"),
            b'X' | b'Y' => self.lacks("forwarding of X11 (-X, -Y)"),
            // ssh reads no stdin then either.
            b'f' => (self.background, self.no_stdin) = (Some(true), Some(true)),
            b'g' => self.for_all = Some(true),
            b'N' => self.only_session('N', SessionType::Nothing)?,
            b'G' => self.print = true,
            b'n' => self.no_stdin = Some(true),
            b'q' => self.level = Some(LogLevel::Quiet),
            b's' => self.only_session('s', SessionType::Subsystem)?,
            b't' => {
                self.terminal = Some(match self.terminal {
                    Some(RequestTerminal::Yes | RequestTerminal::Force) => RequestTerminal::Force,
                    _ => RequestTerminal::Yes,
                });
            }
            b'T' => self.terminal = Some(RequestTerminal::No),
            b'v' => {
                let more = match self.level {
                    Some(LogLevel::Verbose(n)) => n.saturating_add(1),
                    _ => 1,
                };
                self.level = Some(LogLevel::Verbose(more));
            }
            b'V' => self.version = true,
            // Versions, address families, compression, Kerberos, masters, syslog, and what there is
            // none of anyway.
            _ => {}
        }
        Ok(())
    }

    /// A letter with its argument.
    pub(super) fn argument(&mut self, letter: u8, argument: OsString) -> Result<(), String> {
        match letter {
            // Of these two the last one counts, in ssh as well.
            b'E' => self.log_file = Some(argument.into()),
            b'F' => self.file = Some(argument.into()),
            b'i' => {
                let file = PathBuf::from(argument);
                if let Err(why) = file.metadata()
                    && !file.starts_with("~")
                {
                    // As ssh has it, and as it is with one that is no certificate: another may do.
                    let shown = file.display();
                    self.warnings.push(format!("identity file {shown} not accessible: {why}"));
                }
                self.identities.push(file);
            }
            b'e' => first(&mut self.escape, argument),
            b'l' => first(&mut self.user, text(letter, argument)?),
            b'p' => {
                let port = values::port(&text(letter, argument)?);
                first(&mut self.port, port.map_err(|why| format!("-p: {why}"))?);
            }
            b'o' => {
                let text = text(letter, argument)?;
                let (key, value) = keywords::split(&text)?;
                keywords::apply(self, &key, &value)?;
            }
            b'O' => first(&mut self.control, text(letter, argument)?),
            b'B' | b'b' => {
                return Err(refused(letter, "the source address is the system's choice"));
            }
            b'D' => self.forwards.push(named(letter, ports::dynamic(&text(letter, argument)?))?),
            b'L' => self.forwards.push(named(letter, ports::local(&text(letter, argument)?))?),
            b'W' => first(&mut self.place, named(letter, ports::place(&text(letter, argument)?))?),
            b'R' => {
                let forward = named(letter, ports::remote(&text(letter, argument)?))?;
                self.remote_forwards.push(forward);
            }
            b'J' => named(letter, self.direct.heed("proxyjump", &text(letter, argument)?))?,
            b'Q' => {
                return Err(refused(letter, "nothing to choose from: TLS 1.3 has its own ciphers"));
            }
            b'w' => return Err(refused(letter, "there are no tunnel devices")),
            // Ciphers, MACs, control sockets, smart cards and tags.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn lacks(&mut self, what: &'static str) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }
}

/// Sets what was not set before.
pub(super) fn first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

fn text(letter: u8, argument: OsString) -> Result<String, String> {
    let letter = char::from(letter);
    argument.into_string().map_err(|text| format!("-{letter}: '{}' is not UTF-8", text.display()))
}

fn named<T>(letter: u8, parsed: Result<T, String>) -> Result<T, String> {
    parsed.map_err(|why| refused(letter, &why))
}

fn refused(letter: u8, why: &str) -> String {
    format!("-{}: {why}", char::from(letter))
}
