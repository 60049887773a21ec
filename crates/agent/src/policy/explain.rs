//! `rexec-agent policy test`: what would be decided, and why.

use super::engine::reason::deed;
use super::engine::{console_action, host_and_any_port, host_and_port};
use super::{Action, Answer, Caller, Limits, Local, Policy, PolicyPaths, Question, Rule, Verdict};
use nix::unistd::User;
use rexec_protocol::message::{Command, ExecSpec};
use rexec_protocol::outcome::printable;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

/// A question, as it is typed.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Asked {
    /// Name of the identity: NAME of rexec:user:NAME, or a SPIFFE id
    #[arg(long, value_name = "NAME")]
    user: String,
    /// A group of the identity; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Where the caller connects from; without it, rules with networks do not allow
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// Local user [default: the one that the policy has for this caller]
    #[arg(long = "as", value_name = "USER")]
    local: Option<String>,
    /// A terminal is asked for
    #[arg(long)]
    terminal: bool,
    /// And all that is below the path, with --read and --write
    #[arg(long, conflicts_with_all = ["line", "attach", "control", "room", "say", "wall", "who", "ctl", "words"])]
    tree: bool,
    /// A variable that the caller sets; may be repeated
    #[arg(long = "env", value_name = "NAME")]
    env: Vec<OsString>,
    /// A group of the job's owner, with --attach and --control; may be repeated
    #[arg(long = "owner-group", value_name = "GROUP", conflicts_with_all = ["line", "read", "write", "words", "room", "say", "wall", "who", "ctl"])]
    owner_groups: Vec<String>,
    #[command(flatten)]
    what: What,
}

/// Exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A line for the login shell
    #[arg(long, value_name = "LINE")]
    line: Option<OsString>,
    /// A file to fetch
    #[arg(long, value_name = "PATH")]
    read: Option<OsString>,
    /// A file to put
    #[arg(long, value_name = "PATH")]
    write: Option<OsString>,
    /// Make a connection to this HOST:PORT
    #[arg(long, value_name = "HOST:PORT", value_parser = destination)]
    forward: Option<(String, u16)>,
    /// Open the port of this HOST:PORT of this machine; * is all its addresses, 0 any port
    #[arg(long, value_name = "HOST:PORT", value_parser = own_place)]
    listen: Option<(String, u16)>,
    /// Watch a job of this identity
    #[arg(long, value_name = "OWNER")]
    attach: Option<String>,
    /// Feed, signal, end or remove a job of this identity
    #[arg(long, value_name = "OWNER")]
    control: Option<String>,
    /// Be in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Say something in this room
    #[arg(long, value_name = "ROOM")]
    say: Option<String>,
    /// Tell everybody something
    #[arg(long)]
    wall: bool,
    /// Ask who is connected
    #[arg(long)]
    who: bool,
    /// Do this on the agent's console; the caller is then local:USER
    #[arg(long, value_name = "ACTION", value_parser = on_console)]
    ctl: Option<String>,
    /// A command
    #[arg(last = true, value_name = "WORD")]
    words: Vec<OsString>,
}

fn destination(text: &str) -> Result<(String, u16), String> {
    owned(host_and_port(text))
}

fn own_place(text: &str) -> Result<(String, u16), String> {
    owned(host_and_any_port(text))
}

fn owned(parts: Option<(&str, u16)>) -> Result<(String, u16), String> {
    let parts = parts.map(|(host, port)| (host.to_owned(), port));
    parts.ok_or_else(|| "it is written HOST:PORT, or [ADDRESS]:PORT".to_owned())
}

fn on_console(action: &str) -> Result<String, String> {
    console_action(action).map(|()| action.to_owned())
}

/// The exit code where no decision could be made.
pub const TROUBLE: u8 = 2;

/// Prints the decision and where it comes from. 0: allowed, 1: denied, 2: no decision.
pub fn run(asked: &Asked, paths: &PolicyPaths, out: &mut dyn Write) -> ExitCode {
    let decided = Policy::load(paths).map_err(io::Error::other);
    match decided.and_then(|policy| asked.explain(&policy, out)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If the reader is gone, the exit code tells.
            let _ = writeln!(out, "no decision: {error}");
            ExitCode::from(TROUBLE)
        }
    }
}

impl Asked {
    fn explain(&self, policy: &Policy, out: &mut dyn Write) -> io::Result<bool> {
        let caller = Caller { user: &self.user, groups: &self.groups, from: self.from };
        // As whom does not matter to attaching; without any name only a denial can follow.
        let name = self.local.clone().or_else(|| policy.default_user(&caller));
        let account = Account::of(name.as_deref().unwrap_or(&self.user))?;
        let argv = self.argv(&account);
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        let env: Vec<&[u8]> = self.env.iter().map(|name| name.as_bytes()).collect();
        let local = account.local();
        let action = match &self.what {
            What { read: Some(path), .. } => {
                Action::Read { local, path: path.as_bytes(), tree: self.tree }
            }
            What { write: Some(path), .. } => {
                Action::Write { local, path: path.as_bytes(), tree: self.tree }
            }
            What { forward: Some((host, port)), .. } => {
                Action::Connect { local, host, port: *port }
            }
            What { listen: Some((host, port)), .. } => Action::Listen { local, host, port: *port },
            What { attach: Some(owner), .. } => self.about_job(owner, false),
            What { control: Some(owner), .. } => self.about_job(owner, true),
            What { room: Some(name), .. } => Action::Room { name, say: false },
            What { say: Some(name), .. } => Action::Room { name, say: true },
            What { wall: true, .. } => Action::Wall,
            What { who: true, .. } => Action::Who,
            What { ctl: Some(action), .. } => Action::Console { action },
            _ => Action::Run { local, argv: &argv, env: &env, terminal: self.terminal },
        };
        if let Some(why) = self.what.fault() {
            writeln!(out, "refused before the policy is asked: {why}")?;
            return Ok(false);
        }
        if action.local().is_some() && name.is_some() && !account.is_known {
            let name = printable(&account.name);
            writeln!(out, "note: this machine has no local user '{name}'")?;
        }
        let question = Question { caller, action };
        let allowed = write_answer(policy, &question, out)?;
        write_passed_over(policy, &question, out)?;
        Ok(allowed)
    }

    fn about_job<'a>(&'a self, owner: &'a str, control: bool) -> Action<'a> {
        Action::Attach { owner, owner_groups: &self.owner_groups, control }
    }

    fn argv(&self, account: &Account) -> Vec<Vec<u8>> {
        match &self.what.line {
            Some(line) => vec![account.shell.clone(), b"-c".to_vec(), line.as_bytes().to_vec()],
            None => self.what.words.iter().map(|word| word.clone().into_vec()).collect(),
        }
    }
}

impl What {
    /// What is wrong with a place, whoever asks for it.
    fn fault(&self) -> Option<&'static str> {
        let command = match self {
            Self { forward: Some((host, port)), .. } => {
                Command::Connect { host: host.clone(), port: *port }
            }
            Self { listen: Some((host, port)), .. } => {
                Command::Listen { host: host.clone(), port: *port }
            }
            _ => return None,
        };
        ExecSpec { stdin: true, ..ExecSpec::new(command) }.fault()
    }
}

/// What matters of a local user.
struct Account {
    name: String,
    shell: Vec<u8>,
    is_root: bool,
    is_known: bool,
}

impl Account {
    fn of(name: &str) -> io::Result<Self> {
        let found = User::from_name(name)?;
        let shell = found.as_ref().map(|user| user.shell.as_os_str().as_bytes().to_vec());
        Ok(Self {
            name: name.to_owned(),
            // See passwd(5) for an empty one.
            shell: shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| b"/bin/sh".to_vec()),
            is_root: found.as_ref().is_some_and(|user| user.uid.is_root()),
            is_known: found.is_some(),
        })
    }

    fn local(&self) -> Local<'_> {
        Local { name: &self.name, is_root: self.is_root, shell: &self.shell }
    }
}

fn write_answer(policy: &Policy, question: &Question<'_>, out: &mut dyn Write) -> io::Result<bool> {
    let user = printable(question.caller.user);
    match policy.verdict(question) {
        Verdict::Free(why) => {
            writeln!(out, "allowed: {user} may {}", deed(&question.action))?;
            writeln!(out, "by no rule: {why}")?;
            Ok(true)
        }
        Verdict::Never(why) => {
            writeln!(out, "denied: {why}")?;
            Ok(false)
        }
        Verdict::Ruled(Answer::Allowed { rule }) => {
            writeln!(out, "allowed: {user} may {}", deed(&question.action))?;
            writeln!(out, "by {}", place(rule))?;
            if matches!(question.action, Action::Run { .. }) {
                write_conditions(rule, out)?;
            }
            Ok(true)
        }
        Verdict::Ruled(Answer::Denied { reason, rule }) => {
            writeln!(out, "denied: {reason}")?;
            match policy.rules().iter().find(|known| Some(known.name.as_str()) == rule) {
                Some(rule) => writeln!(out, "by {}", place(rule))?,
                None => writeln!(out, "no rule matches, and what no rule allows is denied")?,
            }
            Ok(false)
        }
    }
}

fn place(rule: &Rule) -> String {
    format!("rule '{}', {}:{}", rule.name, rule.file.display(), rule.line)
}

fn write_conditions(rule: &Rule, out: &mut dyn Write) -> io::Result<()> {
    if let Some(force) = &rule.force {
        writeln!(out, "forced command, which runs instead: {}", printable(&force.join(" ")))?;
    }
    if let Some(umask) = rule.umask {
        writeln!(out, "umask: {umask:03o}")?;
    }
    writeln!(out, "limits: {}", limits(&rule.limits))
}

fn limits(limits: &Limits) -> String {
    let Limits { timeout, commands, memory, processes, milli_cpus, open_files } = limits;
    let all = [
        timeout.map(|time| format!("timeout {}", humantime::format_duration(time))),
        commands.map(|count| format!("{count} commands at once")),
        memory.map(|bytes| format!("memory {} KiB", bytes / 1024)),
        processes.map(|count| format!("{count} processes")),
        milli_cpus.map(|milli| format!("{} cpus", f64::from(milli) / 1000.0)),
        open_files.map(|count| format!("{count} open files")),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "none by this rule".to_owned() } else { all.join(", ") }
}

fn write_passed_over(
    policy: &Policy,
    question: &Question<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let passed = policy.explain(question).filter_map(|(rule, why)| Some((rule, why?)));
    for (index, (rule, why)) in passed.enumerate() {
        if index == 0 {
            writeln!(out, "rules that do not match:")?;
        }
        writeln!(out, "  {}: {why}", place(rule))?;
    }
    Ok(())
}
