//! From words to a request.
//!
//! `rexec HOST COMMAND…` is by far the most frequent call, and its words after the host must not be
//! looked at. So it has a parser of its own, `Line`, for which the host is an external subcommand:
//! clap hands over everything from there on as it is.

use super::{Cli, Documented, Named, Request, Run, RunOptions, Usage};
use crate::help;
use crate::values::SshOption;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::{OsStr, OsString};

/// `rexec [OPTIONS] HOST COMMAND…` with clap looking at the options only.
#[derive(Debug, Parser)]
#[command(name = "rexec", version, disable_help_subcommand = true, override_usage = help::RUN_USAGE)]
pub(super) struct Line {
    #[command(flatten)]
    options: RunOptions,
    #[command(subcommand)]
    rest: Option<Rest>,
}

#[derive(Debug, Subcommand)]
enum Rest {
    #[command(external_subcommand)]
    Words(Vec<OsString>),
}

/// Takes the command line, the program's name first.
pub fn parse(args: &[OsString]) -> Result<Request, Usage> {
    match args.get(1).and_then(|word| word.to_str()) {
        Some("run") => line(args, 2),
        Some("help") => Err(long_help()),
        Some(word) if is_subcommand(word) => named(args),
        _ => line(args, 1),
    }
    .or_else(|error| explain(error, args))
}

/// The words that, as the first of a command line, name a subcommand and not a host.
const SUBCOMMANDS: [&str; 20] = [
    "run",
    "cp",
    "put",
    "get",
    "ping",
    "jobs",
    "logs",
    "attach",
    "wait",
    "kill",
    "rm",
    "chat",
    "wall",
    "who",
    "rooms",
    "doctor",
    "ca",
    "completions",
    "man",
    "help",
];
/// How much a word must be like a name to be taken for it, by Jaro's measure. clap has 0.7, which takes `host`
/// for `who`; here most words are names of hosts.
const LIKENESS: f64 = 0.8;

fn is_subcommand(word: &str) -> bool {
    SUBCOMMANDS.contains(&word)
}

/// The subcommand that was meant with a word that is none, as far as that can be told.
pub fn subcommand_like(word: &str) -> Option<&'static str> {
    let likeness = |name: &&str| strsim::jaro(word, name);
    let alike = SUBCOMMANDS.iter().map(|name| (likeness(name), *name));
    let (most, name) = alike.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (most > LIKENESS).then_some(name)
}

fn line(args: &[OsString], skip: usize) -> Result<Request, clap::Error> {
    let program = OsStr::new("rexec");
    let rest = args.iter().skip(skip).map(OsString::as_os_str);
    let line = Line::try_parse_from(std::iter::once(program).chain(rest))?;
    let words = match line.rest {
        Some(Rest::Words(words)) => words,
        None => Vec::new(),
    };
    let mut words = words.into_iter();
    let Some(target) = words.next() else {
        return Err(usage("which host? rexec [OPTIONS] [USER@]HOST[:PORT] COMMAND…"));
    };
    if let Some(name) = target.to_str().filter(|word| skip == 1 && is_subcommand(word)) {
        return Err(usage(&format!(
            "the options of '{name}' go after it: rexec {name} [OPTIONS]; for a host of that name: \
             rexec run [OPTIONS] {name} COMMAND"
        )));
    }
    let words = if line.options.command.script.is_some() {
        // There is no command: the words are the script's arguments, whatever they look like.
        after_dashes(words.collect())
    } else {
        command_words(words.collect())?
    };
    Ok(Request::Run(Box::new(Run { options: line.options, target, words })))
}

/// The first word, unless it is a `--`, is most likely meant for rexec if it looks like an option.
fn command_words(words: Vec<OsString>) -> Result<Vec<OsString>, clap::Error> {
    let first = words.first().map(|word| word.as_encoded_bytes()).unwrap_or_default();
    if first != b"--" && first.starts_with(b"-") && first.len() > 1 {
        let first = first.escape_ascii();
        return Err(usage(&format!(
            "'{first}' stands after the host, where the command begins; options go before the host, \
             and '--' goes before a command whose name starts with a dash"
        )));
    }
    Ok(after_dashes(words))
}

/// A `--` right after the host is dropped, as ssh does.
fn after_dashes(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    words
}

fn named(args: &[OsString]) -> Result<Request, clap::Error> {
    match Cli::try_parse_from(args)?.named {
        Some(Documented::Named(named)) => check(&named).map(|()| Request::Named(Box::new(named))),
        _ => Err(long_help()),
    }
}

/// Options that mean something only where a command is run.
fn check(named: &Named) -> Result<(), clap::Error> {
    let (name, connect) = match named {
        Named::Ping(ping) => ("ping", &ping.connect),
        Named::Jobs(jobs) => ("jobs", &jobs.connect),
        Named::Logs(logs) => ("logs", &logs.connect),
        Named::Attach(attach) => ("attach", &attach.connect),
        Named::Wait(wait) => ("wait", &wait.connect),
        Named::Kill(kill) => ("kill", &kill.connect),
        Named::Rm(rm) => ("rm", &rm.connect),
        _ => return Ok(()),
    };
    let useless = connect.ssh.iter().find_map(|option| match option {
        SshOption::User(_) => Some("User"),
        SshOption::SetEnv(_) => Some("SetEnv"),
        _ => None,
    });
    match useless {
        Some(key) => {
            Err(usage(&format!("-o {key} means nothing to {name}, which runs no command")))
        }
        None => Ok(()),
    }
}

fn usage(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::MissingRequiredArgument, text)
}

/// Stands for the whole help, which [`explain`] makes.
fn long_help() -> clap::Error {
    clap::Error::raw(ErrorKind::DisplayHelp, "")
}

/// Help is no error; and it comes from [`Cli`], whoever was asked.
fn explain(mut error: clap::Error, args: &[OsString]) -> Result<Request, Usage> {
    match error.kind() {
        ErrorKind::DisplayHelp => match Cli::command().try_get_matches_from(args) {
            Err(help) if help.kind() == ErrorKind::DisplayHelp => {
                Ok(Request::Print(help.to_string()))
            }
            _ => Ok(Request::Print(Cli::command().render_long_help().to_string())),
        },
        ErrorKind::DisplayVersion => Ok(Request::Print(error.to_string())),
        _ => {
            suggest(&mut error, args);
            let text = error.to_string();
            Err(Usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()))
        }
    }
}

/// Says what may have been meant by an option that is not there. One of clap's tips is how to pass it as a
/// word, which hardly anybody wants.
fn suggest(error: &mut clap::Error, args: &[OsString]) {
    let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested) else { return };
    let mut tips: Vec<_> =
        tips.iter().filter(|tip| !tip.to_string().starts_with("to pass '")).cloned().collect();
    let is_transfer =
        args.get(1).is_some_and(|word| word == "cp" || word == "put" || word == "get");
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && is_transfer
        && ["--exclude", "--include", "--filter"].contains(&word.as_str())
    {
        let tip =
            "what to leave out is rsync's business: rsync -a -e rexec-ssh --exclude PATTERN …";
        tips.push(tip.into());
    }
    error.remove(ContextKind::Suggested);
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
}

/// What a command line that could not be parsed says about where to report to. `--json` and
/// `--status-fd` are looked for among the words before the host, as far as that can be told.
pub fn reporting(args: &[OsString]) -> (bool, Option<i32>) {
    let command = Line::command();
    let takes_value = |word: &str| {
        let short =
            word.strip_prefix('-').filter(|short| short.len() == 1).and_then(|s| s.chars().next());
        let long = word.strip_prefix("--");
        command.get_arguments().any(|arg| {
            let named = (long.is_some() && arg.get_long() == long)
                || (short.is_some() && arg.get_short() == short);
            named && arg.get_action().takes_values()
        })
    };
    let (mut json, mut fd) = (false, None);
    let mut words = args.iter().skip(1).map(|word| word.to_string_lossy()).peekable();
    words.next_if(|word| is_subcommand(word));
    while let Some(word) = words.next() {
        json |= word == "--json";
        if let Some(number) = word.strip_prefix("--status-fd=") {
            fd = number.parse().ok();
        } else if word == "--status-fd" {
            fd = words.next().and_then(|number| number.parse().ok());
        } else if takes_value(&word) {
            words.next();
        } else if !word.starts_with('-') || word == "--" {
            break;
        }
    }
    (json, fd.filter(|fd| *fd >= 0))
}
