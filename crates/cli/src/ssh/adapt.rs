//! From ssh's options to rexec's.

use super::file;
use super::options::{Options, RequestTerminal, SessionType, first};
use super::place::{self, Place};
use crate::args::{CommandOptions, ConnectOptions, Run, RunOptions};
use crate::config::{Env, Settings, SshConfig};
use crate::exit::Notes;
use crate::forward::Forwards;
use crate::plan::{Plan, Work};
use crate::values::{self, EscapeKey, LogLevel, SshOption, Variable};
use rexec_client::{DEFAULT_PORT, Drain, OnFull};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often ssh asks a silent server before it gives up.
pub(super) const ALIVE_COUNT: u32 = 3;
/// After how many spans without a sign of life an agent is given up: see [`ConnectOptions::keepalive`].
const SPANS: u32 = 3;
/// Certificates stand at the beginning of a file.
const BEGINNING: u64 = 256 * 1024;

/// Adds what the command line leaves open: the destination's own parts, and `ssh_config` where `-F` or the
/// settings name one.
pub(super) fn read_file(options: &mut Options, place: &Place, env: Env<'_>) -> Result<(), String> {
    let Place { user, host, port } = place;
    if let Some(user) = user {
        first(&mut options.user, user.clone());
    }
    if let Some(port) = port {
        first(&mut options.port, *port);
    }
    let chosen = match &options.file {
        Some(file) if file == Path::new("none") => None,
        Some(file) => Some(file.clone()),
        None => match Settings::of_files(None, env)?.ssh_config {
            Some(SshConfig::File(file)) => Some(file),
            Some(SshConfig::Wanted(true)) => own_file(env).filter(|file| file.exists()),
            Some(SshConfig::Wanted(false)) | None => None,
        },
    };
    if let Some(path) = chosen {
        let is_named = options.file.is_some();
        file::read(&path, is_named, home(env), host, options)?;
    }
    let named = options.host_name.take().map(|name| file::host_name(&name, host));
    options.host_name = named.transpose()?;
    Ok(())
}

/// What the options say of what rexec has settings for.
pub(super) fn known(options: &Options) -> Settings {
    Settings {
        user: options.user.clone(),
        port: options.port.and_then(NonZeroU16::new),
        connect_timeout: options.connect_timeout(),
        reconnect_for: patience(options),
        ..Settings::default()
    }
}

fn own_file(env: Env<'_>) -> Option<PathBuf> {
    Some(home(env)?.join(".ssh/config"))
}

fn home(env: Env<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from).or_else(std::env::home_dir)
}

/// The same request as rexec takes it.
pub(super) fn run(
    options: &Options,
    place: &Place,
    words: Vec<OsString>,
    env: Env<'_>,
) -> Result<Run, String> {
    let mut words = command_words(options, place, words, env)?;
    let session = options.session();
    let has_no_command = session == SessionType::Nothing || options.place.is_some();
    let is_behind = options.background == Some(true);
    if is_behind && words.is_empty() && session != SessionType::Nothing {
        return Err("-f: nothing could go to the background without a command, or -N".to_owned());
    }
    if has_no_command {
        words.clear();
    }
    let (quiet, verbose) = match options.level {
        Some(LogLevel::Verbose(n)) => (false, n),
        _ => (true, 0),
    };
    let attempts = options.attempts.map(SshOption::ConnectionAttempts);
    let alias = options.alias.clone().map(SshOption::HostKeyAlias);
    let connect = ConnectOptions {
        port: options.port,
        identity: identity(&options.identities, env),
        connect_timeout: options.connect_timeout(),
        reconnect_for: patience(options),
        keepalive: patience(options).map(|time| time / SPANS),
        ssh: attempts.into_iter().chain(alias).collect(),
        quiet,
        verbose,
        ..ConnectOptions::default()
    };
    let (terminal, no_terminal) = match options.terminal {
        Some(RequestTerminal::Yes) => (1, false),
        Some(RequestTerminal::Force) => (2, false),
        Some(RequestTerminal::No) => (0, true),
        Some(RequestTerminal::Auto) | None => {
            (0, session == SessionType::Subsystem || has_no_command)
        }
    };
    let command = CommandOptions {
        user: options.user.clone(),
        no_stdin: options.no_stdin == Some(true) || is_behind,
        terminal,
        no_terminal,
        escape: escape(options)?,
        env: sent(options),
        shell: true,
        ..CommandOptions::default()
    };
    let host = options.host_name.as_ref().unwrap_or(&place.host);
    demand_host(host)?;
    let target = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let options = RunOptions { connect, command, ..RunOptions::default() };
    Ok(Run { options, target: target.into(), words })
}

/// As rexec has it, and as a URI has it, a port may stand behind a host; here it is a part of it.
fn demand_host(host: &str) -> Result<(), String> {
    let address = host.split('%').next().unwrap_or(host);
    if !host.contains(':') || address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "'{host}' is neither a name nor an address; a port goes to -p, or into ssh://{host}"
    ))
}

fn escape(options: &Options) -> Result<Option<EscapeKey>, String> {
    let Some(text) = &options.escape else { return Ok(None) };
    values::escape(&text.to_string_lossy()).map(Some).map_err(|why| format!("-e: {why}"))
}

fn command_words(
    options: &Options,
    place: &Place,
    words: Vec<OsString>,
    env: Env<'_>,
) -> Result<Vec<OsString>, String> {
    match options.remote_command() {
        Some(_) if !words.is_empty() => {
            Err("a command was given, and RemoteCommand is another one".to_owned())
        }
        Some(command) => Ok(vec![remote_command(command, options, place, env)?.into()]),
        None if options.session() == SessionType::Subsystem && words.is_empty() => {
            Err("-s: the subsystem has no name".to_owned())
        }
        None => Ok(words),
    }
}

/// `RemoteCommand` with its percents: those of ssh that can be known here.
fn remote_command(
    command: &str,
    options: &Options,
    place: &Place,
    env: Env<'_>,
) -> Result<String, String> {
    if !command.contains('%') {
        return Ok(command.to_owned());
    }
    let settings = known(options).over(None, env)?;
    let port = settings.port.map_or(DEFAULT_PORT, NonZeroU16::get);
    let expand = |c| match c {
        'h' => Some(options.host_name.as_ref().unwrap_or(&place.host).clone()),
        'n' => Some(place.host.clone()),
        'p' => Some(port.to_string()),
        'r' => settings.user.clone(),
        _ => None,
    };
    place::expanded(command, expand).ok_or_else(|| {
        format!("RemoteCommand {command}: of percents it takes %h, %n, %p, %r with a user, and %%")
    })
}

/// For how long a lost connection is tried to be made again: as long as ssh would wait for a sign of life.
fn patience(options: &Options) -> Option<Duration> {
    let interval = options.alive_interval.filter(|interval| !interval.is_zero())?;
    Some(interval.saturating_mul(options.alive_count.unwrap_or(ALIVE_COUNT)))
}

/// What a caller names as identity is an ssh key, which is of no use here, unless it is a certificate
/// with its key; then it is meant for rexec.
fn identity(files: &[PathBuf], env: Env<'_>) -> Option<PathBuf> {
    let mut files = files.iter().map(|file| match (file.strip_prefix("~"), env("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => file.clone(),
    });
    files.find(|file| has_certificate(file))
}

fn has_certificate(file: &Path) -> bool {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        fs::File::open(file)?.take(BEGINNING).read_to_end(&mut text)?;
        Ok(text)
    };
    let mark = b"-----BEGIN CERTIFICATE-----";
    read().is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark))
}

/// The variables to send: those that are named, and those of this process that a pattern asks for.
fn sent(options: &Options) -> Vec<Variable> {
    let is_wanted = |name: &OsStr| {
        let name = name.to_string_lossy();
        options.send_env.iter().any(|pattern| file::matches(pattern, &name))
    };
    let own = std::env::vars_os().filter(|_| !options.send_env.is_empty());
    let own = own.filter(|(name, _)| is_wanted(name));
    let own = own.map(|(name, value)| Variable { name, value: Some(value) });
    // The later one of two variables of one name wins.
    own.chain(options.set_env.iter().rev().cloned()).collect()
}

/// What rexec's own command line has no word for.
pub(super) fn as_sshd(plan: &mut Plan, options: &Options) -> Result<(), String> {
    plan.drain = Drain::Wait;
    plan.ssh_env = true;
    plan.ends_at_gap = true;
    // A program may be the reader of a terminal, and wants all of it.
    plan.on_full = OnFull::Block;
    forward(plan, options)?;
    if options.session() == SessionType::Subsystem
        && let Work::Line(name) = &plan.work
    {
        plan.work = Work::Subsystem(name.to_string_lossy().into_owned());
    }
    Ok(())
}

/// What `-W`, `-N`, `-L`, `-D` and `-R` make of it. As with ssh, `-W` leaves the others out.
fn forward(plan: &mut Plan, options: &Options) -> Result<(), String> {
    if let Some((host, port)) = &options.place {
        plan.work = Work::Connect { host: host.clone(), port: *port };
        // What is a command's alone.
        (plan.env, plan.terminal, plan.terminal_in_vain) = (Vec::new(), None, false);
        return Ok(());
    }
    if options.session() == SessionType::Nothing {
        plan.work = Work::Nothing;
    }
    if options.no_forwards == Some(true) {
        return Ok(());
    }
    let all = options.all_forwards == Some(true);
    if let Some(why) = options.lacking.first().filter(|_| all) {
        return Err(format!("{why} (and ExitOnForwardFailure wants it)"));
    }
    let mut local = options.forwards.clone();
    for forward in local.iter_mut().filter(|_| options.for_all == Some(true)) {
        // An address that was given stays.
        forward.bind.get_or_insert_with(|| "*".to_owned());
    }
    let remote = options.remote_forwards.clone();
    let permits = options.permits.clone().unwrap_or_default();
    plan.forwards = Forwards { local, remote, permits, all };
    Ok(())
}

/// Says what a caller has to do without, as ssh does when a server has it not.
pub(super) fn warn(options: &Options, notes: Notes) {
    for what in &options.missing {
        notes.say(&format!("warning: no {what} here; going on without it"));
    }
    for what in options.warnings.iter().filter(|_| options.level != Some(LogLevel::Quiet)) {
        notes.say(&format!("warning: {what}"));
    }
}
