//! What the options mean here. As with ssh, the first of several that say the same counts.
//!
//! An option is obeyed where it has a meaning, taken in silence where leaving it out changes nothing
//! that a caller could rely on, and refused where it would: a caller that asks for a jump host must not
//! be connected directly.

use super::direct::Direct;
use super::{keywords, ports};
use crate::forward::Forward;
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
    /// `-i`, `IdentityFile`, in their order.
    pub identities: Vec<PathBuf>,
    /// `ConnectTimeout`.
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
    pub no_stdin: bool,
    /// `-s`, `SessionType subsystem`.
    pub subsystem: bool,
    /// `RemoteCommand`.
    pub remote_command: Option<OsString>,
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
    /// `ClearAllForwardings`.
    pub no_forwards: bool,
    /// `ExitOnForwardFailure`.
    pub all_forwards: bool,
    /// `-g`, `GatewayPorts`: ports are for all addresses of this machine.
    pub for_all: bool,
    /// `-W`: in the place of a command.
    pub place: Option<(String, u16)>,
    /// `-N`, `SessionType none`.
    pub no_command: bool,
    /// What was asked for that is not to be had, and does no harm to be without.
    pub missing: Vec<&'static str>,
    /// What the file says that is not heeded.
    pub warnings: Vec<String>,
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

impl Options {
    /// A letter without an argument.
    pub(super) fn flag(&mut self, letter: u8) -> Result<(), String> {
        match letter {
            b'1' => return Err("-1: the first version of the protocol is no more".to_owned()),
            b'A' => self.lacks("forwarding of an authentication agent (-A)"),
            b'X' | b'Y' => self.lacks("forwarding of X11 (-X, -Y)"),
            b'f' => {
                return Err("-f: going to the background is not there; use -n and '&'".to_owned());
            }
            b'g' => self.for_all = true,
            b'N' => self.no_command = true,
            b'G' => self.print = true,
            b'n' => self.no_stdin = true,
            b'q' => self.level = Some(LogLevel::Quiet),
            b's' => self.subsystem = true,
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
            b'E' => first(&mut self.log_file, argument.into()),
            b'F' => first(&mut self.file, argument.into()),
            b'i' => self.identities.push(argument.into()),
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
            b'R' => return Err(refused(letter, NO_REMOTE)),
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

/// Why `-R` is refused.
pub(super) const NO_REMOTE: &str = "an agent opens no ports for its clients";

fn named<T>(letter: u8, parsed: Result<T, String>) -> Result<T, String> {
    parsed.map_err(|why| refused(letter, &why))
}

fn refused(letter: u8, why: &str) -> String {
    format!("-{}: {why}", char::from(letter))
}
