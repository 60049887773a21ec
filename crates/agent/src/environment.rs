//! From a request to what is handed to the kernel: program, environment, directory.
//!
//! The environment is built from nothing, as sshd does it; see environ(7) and sshd(8), "LOGIN
//! PROCESS". What the client sent, and policy let pass, is added last, so a command sees what its caller
//! asked for, except for the variables that say what rexec knows. A terminal brings its type and its
//! locale with it, and a command that stands in for one over ssh what sshd says of the connection.

use crate::account::Account;
use crate::connect;
use crate::keeper::{Credentials, LaunchSpec, Limits, Program};
use crate::policy;
use crate::policy::Permit;
use rexec_guard::holds;
use rexec_net::Identity;
use rexec_protocol::message::{Command, Terminal, is_locale};
use rexec_protocol::{JobId, msgpack};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What files and folders that a command makes are not open to, unless its rule says otherwise.
const UMASK: u32 = 0o022;

/// Where a command comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Who asked for it.
    pub identity: &'a Identity,
    /// Its id.
    pub job: &'a JobId,
    /// Where the client is.
    pub from: SocketAddr,
    /// Where it reached this agent.
    pub to: SocketAddr,
}

/// Works out what to launch. With `switch`, the command becomes the permit's user; otherwise it
/// stays the agent's, which is the same then.
pub fn launch_spec(permit: &Permit, origin: &Origin<'_>, switch: bool) -> LaunchSpec {
    let (spec, account) = (permit.spec(), permit.account());
    LaunchSpec {
        program: program(&spec.command, account),
        env: variables(permit, origin),
        cwd: spec.cwd.clone().unwrap_or_else(|| bytes(&account.home)),
        cwd_or_root: spec.cwd.is_none(),
        stdin: spec.stdin,
        terminal: spec.terminal.as_ref().map(|terminal| terminal.size),
        credentials: switch.then(|| Credentials::from(&**account)),
        umask: permit.grant().umask.unwrap_or(UMASK),
        limits: limits(&permit.grant().limits),
    }
}

/// The limits that the kernel enforces. The others are the agent's business.
fn limits(limits: &policy::Limits) -> Limits {
    Limits {
        memory: limits.memory,
        processes: limits.processes,
        millicpus: limits.milli_cpus.map(u64::from),
        open_files: limits.open_files,
    }
}

fn program(command: &Command, account: &Account) -> Program {
    match command {
        Command::Argv(words) => Program::Argv { words: words.clone(), argv0: None },
        Command::Line(line) => Program::Argv {
            words: vec![bytes(&account.shell), ByteBuf::from("-c"), line.clone()],
            argv0: account.shell.file_name().map(bytes),
        },
        Command::Login {} => Program::Argv {
            words: vec![bytes(&account.shell)],
            argv0: account
                .shell
                .file_name()
                .map(|name| ByteBuf::from([b"-", name.as_bytes()].concat())),
        },
        Command::Connect { .. } | Command::Listen { .. } | Command::Accept { .. } => {
            let words = connect::words(command).into_iter().flatten().map(String::into_bytes);
            Program::Own { words: words.map(ByteBuf::from).collect(), input: ByteBuf::new() }
        }
        // Policy knows none. What is empty is not launched.
        Command::Subsystem(_) => Program::Argv { words: Vec::new(), argv0: None },
        Command::Files(request) => Program::Own {
            words: vec![ByteBuf::from(crate::files::WORD)],
            input: ByteBuf::from(msgpack::encode(request)),
        },
        Command::Script { text, args } => {
            let (text, args) = (text.clone(), args.clone());
            Program::Script { text, args, name: ByteBuf::from("script") }
        }
    }
}

fn variables(permit: &Permit, origin: &Origin<'_>) -> Vec<(ByteBuf, ByteBuf)> {
    let (spec, account) = (permit.spec(), permit.account());
    let Origin { identity, job, from, to } = *origin;
    let path = if account.is_root() { ROOT_PATH } else { PATH };
    let ours: [(&str, &OsStr); 5] = [
        ("HOME", account.home.as_os_str()),
        ("USER", account.name.as_ref()),
        ("LOGNAME", account.name.as_ref()),
        ("SHELL", account.shell.as_os_str()),
        ("PATH", path.as_ref()),
    ];
    let known = [("REXEC_JOB", job.as_str().as_ref()), ("REXEC_CALLER", identity.name().as_ref())];
    let original =
        permit.original().map(|words| ("REXEC_ORIGINAL_COMMAND", OsStr::from_bytes(words)));
    let facts = known.into_iter().chain(original);
    let as_sshd = spec.ssh_env.then(|| of_sshd(from, to, permit.original_line()));
    let pair = |(name, value): (&str, &OsStr)| (ByteBuf::from(name), bytes(value));
    let mut variables: BTreeMap<ByteBuf, ByteBuf> = BTreeMap::new();
    let terminal = spec.terminal.iter().flat_map(of_terminal);
    let asked = spec.env.iter().cloned();
    let given = ours.into_iter().map(pair).chain(terminal).chain(asked);
    for (name, value) in given.chain(facts.map(pair)).chain(as_sshd.into_iter().flatten()) {
        variables.insert(name, value);
    }
    variables.into_iter().collect()
}

/// What sshd tells a command: see sshd(8), and "ENVIRONMENT" in ssh(1).
fn of_sshd(
    from: SocketAddr,
    to: SocketAddr,
    original: Option<&[u8]>,
) -> impl Iterator<Item = (ByteBuf, ByteBuf)> {
    let (client, agent) = (from.ip().to_canonical(), to.ip().to_canonical());
    let (source, port) = (from.port(), to.port());
    let connection = [
        ("SSH_CLIENT", format!("{client} {source} {port}")),
        ("SSH_CONNECTION", format!("{client} {source} {agent} {port}")),
    ];
    let connection = connection.map(|(name, text)| (ByteBuf::from(name), ByteBuf::from(text)));
    let original =
        original.map(|line| (ByteBuf::from("SSH_ORIGINAL_COMMAND"), ByteBuf::from(line)));
    connection.into_iter().chain(original)
}

/// What comes with a terminal, and needs no rule of its own.
fn of_terminal(terminal: &Terminal) -> impl Iterator<Item = (ByteBuf, ByteBuf)> {
    let term = Some((ByteBuf::from("TERM"), terminal.term.clone()));
    let locale = terminal.locale.iter();
    let locale =
        locale.filter(|(name, value)| holds("terminal.locale", is_locale(name, value))).cloned();
    term.into_iter().filter(|(_, term)| !term.is_empty()).chain(locale)
}

fn bytes(text: impl AsRef<OsStr>) -> ByteBuf {
    ByteBuf::from(text.as_ref().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rexec_protocol::message::TerminalSize;

    #[test]
    fn addresses_are_written_as_sshd_writes_them() {
        let [from, to] = ["[::ffff:192.0.2.1]:40000", "[::ffff:192.0.2.9]:8512"]
            .map(|address| address.parse().unwrap());
        let pair = |(name, value): (&str, &str)| (ByteBuf::from(name), ByteBuf::from(value));
        let told: Vec<_> = of_sshd(from, to, Some(b"echo hi")).collect();
        let expected = [
            ("SSH_CLIENT", "192.0.2.1 40000 8512"),
            ("SSH_CONNECTION", "192.0.2.1 40000 192.0.2.9 8512"),
            ("SSH_ORIGINAL_COMMAND", "echo hi"),
        ];
        assert_eq!(told, expected.map(pair));
    }

    #[test]
    fn a_terminal_brings_its_type_and_a_locale_and_nothing_else() {
        let pair = |(name, value): (&str, &str)| (ByteBuf::from(name), ByteBuf::from(value));
        let locale = [("LANG", "de_DE.UTF-8"), ("LC_ALL", "/tmp/evil"), ("LD_PRELOAD", "x")];
        let (term, size) = (ByteBuf::from("xterm"), TerminalSize::default());
        let terminal = Terminal { term, size, locale: locale.map(pair).to_vec() };
        let brought: Vec<_> = of_terminal(&terminal).collect();
        assert_eq!(brought, [("TERM", "xterm"), ("LANG", "de_DE.UTF-8")].map(pair));
    }
}
