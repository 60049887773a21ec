//! Who may do what, as whom: one function decides, and its yes is a value.
//!
//! [`decide`] is the only maker of a [`Permit`], and starting a command consumes one, so there is
//! no way to a process that does not pass here. It asks the [`Policy`] about the decoded request,
//! the same value that is then run; no text is put together to be decided on, and none is read
//! again afterwards.
//!
//! | module | what it does |
//! |---|---|
//! | [`engine`] | rules and questions, as plain values: what a policy means |
//! | `transfer` | a transfer of files, as questions about paths |
//! | [`files`] | finds and reads the files, and refuses those that others may write |
//! | [`reload`] | follows them while the agent runs |
//! | [`explain`] | `rexec-agent policy test` |
//!
//! What the format is, and why, stands in `docs/policy.md`.

pub mod engine;
pub mod explain;
pub mod files;
pub mod reload;
mod transfer;

pub use engine::{
    Action, Answer, CONSOLE, Caller, Effect, Limits, Local, Policy, PolicyError, Question, Rule,
    Verdict,
};
pub use files::PolicyPaths;
pub use reload::Reloading;

use crate::account::Account;
use crate::jobs::meta::Port;
use rexec_guard::holds;
use rexec_net::Identity;
use rexec_protocol::message::{Command, ExecSpec};
use rexec_protocol::outcome::{printable, shorten};
use rexec_protocol::{Algorithm, Digest};
use serde_bytes::ByteBuf;
use std::borrow::Cow;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

/// What stands for a script that was sent along: this and its SHA-256.
const SCRIPT: &str = "script:";

/// Proof that policy allowed one command, once, as one local account.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    spec: ExecSpec,
    rule: String,
    grant: Grant,
    original: Option<Original>,
}

/// What was asked for, where another command takes its place.
#[derive(Debug)]
struct Original {
    /// The words, quoted for a shell.
    words: Vec<u8>,
    /// The line for the login shell, if it was one.
    line: Option<Vec<u8>>,
}

/// Under what conditions a command was allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// What it may use. Its timeout is in the permit's spec already.
    pub limits: Limits,
    /// Its umask; `None` is the agent's choice.
    pub umask: Option<u32>,
}

impl Permit {
    /// The account that the command runs as.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What was allowed, which is what is run: the request as it was decided on, or the forced
    /// command in its place, and never longer than the rule's timeout.
    pub fn spec(&self) -> &ExecSpec {
        &self.spec
    }

    /// The name of the rule that decided.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The conditions.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What was asked for, if a forced command takes its place: the words, quoted for a shell.
    pub fn original(&self) -> Option<&[u8]> {
        self.original.as_ref().map(|original| original.words.as_slice())
    }

    /// The same as sshd has it: a line for the login shell is not quoted once more.
    pub fn original_line(&self) -> Option<&[u8]> {
        self.original
            .as_ref()
            .map(|Original { words, line }| line.as_ref().unwrap_or(words).as_slice())
    }
}

/// Policy said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// What is not allowed and what to do, for the client.
    pub message: String,
    /// The name of the rule that denies; `None` if no rule matched.
    pub rule: Option<String>,
}

/// The local user that a command is for: the one that the caller names, or the one that policy has
/// for callers who name none. `None` if no rule has one; the request will be denied as any account.
pub fn local_user(
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    spec: &ExecSpec,
) -> Option<String> {
    spec.user.clone().or_else(|| policy.default_user(&caller(identity, from)))
}

/// Refuses a caller whom no rule lets be the local user `name`, whatever that user's account is.
pub fn may_be(
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    name: &str,
    spec: &ExecSpec,
) -> Result<(), Denied> {
    let caller = caller(identity, from);
    if holds("policy.may_be", policy.may_be(&caller, name)) {
        return Ok(());
    }
    // Denied for sure; what is asked is in which words.
    permit(policy, caller, &Arc::new(Account::stranger(name)), spec.clone(), None).map(drop)
}

/// Decides whether `identity`, at `from`, may have `spec` run as `account`, the account of
/// [`local_user`]. `port` is where the job listens of which it accepts a connection, if it does.
pub fn decide(
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    account: &Arc<Account>,
    spec: ExecSpec,
    port: Option<&Port>,
) -> Result<Permit, Denied> {
    permit(policy, caller(identity, from), account, spec, port)
}

/// Decides whether `identity`, at `from`, may watch, or with `control` do anything with, the jobs of
/// `owner`, who had `owner_groups` when it started them. One's own need no rule, but a rule can deny
/// even those.
pub fn may_attach(
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    owner: (&str, &[String]),
    control: bool,
) -> Result<(), Denied> {
    attach(policy, caller(identity, from), owner, control)
}

fn attach(
    policy: &Policy,
    caller: Caller<'_>,
    (owner, owner_groups): (&str, &[String]),
    control: bool,
) -> Result<(), Denied> {
    let action = Action::Attach { owner, owner_groups, control };
    let question = Question { caller, action };
    let is_free = question.needs_no_rule().is_some();
    match policy.answer(&question) {
        Answer::Allowed { .. } => Ok(()),
        Answer::Denied { rule: None, .. } if holds("policy.own_jobs", is_free) => Ok(()),
        Answer::Denied { reason, rule } => {
            Err(Denied { message: reason, rule: rule.map(str::to_owned) })
        }
    }
}

/// Decides whether `identity`, at `from`, may be in the room `name`, or with `say` speak there. About
/// the room of a job [`may_attach`] decides.
pub fn may_join(
    policy: &Policy,
    identity: &Identity,
    from: IpAddr,
    name: &str,
    say: bool,
) -> Result<(), Denied> {
    ask(policy, caller(identity, from), Action::Room { name, say })
}

/// Decides whether `identity`, at `from`, may tell everybody something.
pub fn may_wall(policy: &Policy, identity: &Identity, from: IpAddr) -> Result<(), Denied> {
    ask(policy, caller(identity, from), Action::Wall)
}

/// Decides whether `identity`, at `from`, may ask who is connected.
pub fn may_ask_who(policy: &Policy, identity: &Identity, from: IpAddr) -> Result<(), Denied> {
    ask(policy, caller(identity, from), Action::Who)
}

/// Decides whether the local user `user`, who can reach the console, may do `action` there. No rule is
/// needed: who can reach it can change the policy, too. But a rule can keep it from being done.
pub fn may_control_agent(policy: &Policy, user: &str, action: &str) -> Result<(), Denied> {
    let user = format!("{}{user}", engine::AT_CONSOLE);
    let caller = Caller { user: &user, groups: &[], from: None };
    match ask(policy, caller, Action::Console { action }) {
        Err(Denied { rule: None, .. }) => Ok(()),
        decided => decided,
    }
}

fn ask(policy: &Policy, caller: Caller<'_>, action: Action<'_>) -> Result<(), Denied> {
    match policy.answer(&Question { caller, action }) {
        Answer::Allowed { .. } => Ok(()),
        Answer::Denied { reason, rule } => {
            Err(Denied { message: reason, rule: rule.map(str::to_owned) })
        }
    }
}

fn caller(identity: &Identity, from: IpAddr) -> Caller<'_> {
    Caller { user: identity.name(), groups: identity.groups(), from: Some(from) }
}

fn permit(
    policy: &Policy,
    caller: Caller<'_>,
    account: &Arc<Account>,
    spec: ExecSpec,
    port: Option<&Port>,
) -> Result<Permit, Denied> {
    if let Command::Files(request) = &spec.command {
        let (request, rule) = transfer::decide(policy, caller, account, request)?;
        let spec = ExecSpec { command: Command::Files(request), ..spec };
        return Ok(allowed(rule, account, spec, None));
    }
    let shell = account.shell.as_os_str().as_bytes();
    let words = words(&spec.command, shell)?;
    let argv: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
    let env: Vec<&[u8]> = spec.env.iter().map(|(name, _)| name.as_slice()).collect();
    let local = Local { name: &account.name, is_root: account.is_root(), shell };
    let terminal = spec.terminal.is_some();
    let action = match &spec.command {
        Command::Connect { host, port } => Action::Connect { local, host, port: *port },
        Command::Listen { host, port } => Action::Listen { local, host, port: *port },
        // Each connection is asked about as the port is that it came to.
        Command::Accept { job, .. } => match port {
            Some(Port { host, port }) => Action::Listen { local, host, port: *port },
            None => {
                let (user, name) = (caller.user, printable(local.name));
                let message = format!("{user} may not accept connections of job {job} as '{name}'");
                return Err(Denied { message, rule: None });
            }
        },
        _ => Action::Run { local, argv: &argv, env: &env, terminal },
    };
    let rule = match policy.answer(&Question { caller, action }) {
        Answer::Allowed { rule } => rule,
        Answer::Denied { reason, rule } => {
            return Err(Denied { message: reason, rule: rule.map(str::to_owned) });
        }
    };
    // As sshd has it: who asks for a shell, asks for no command.
    let asked = !matches!(spec.command, Command::Login {}) && !spec.command.is_connection();
    let line = match &spec.command {
        Command::Line(line) => Some(line.to_vec()),
        _ => None,
    };
    let original = (rule.force.is_some() && asked).then(|| Original { words: quoted(&argv), line });
    Ok(allowed(rule, account, spec, original))
}

/// What a rule has allowed.
fn allowed(
    rule: &Rule,
    account: &Arc<Account>,
    spec: ExecSpec,
    original: Option<Original>,
) -> Permit {
    Permit {
        account: Arc::clone(account),
        spec: under(rule, spec),
        rule: rule.name.clone(),
        grant: Grant { limits: rule.limits.clone(), umask: rule.umask },
        original,
    }
}

/// The spec as a rule lets it run.
fn under(rule: &Rule, mut spec: ExecSpec) -> ExecSpec {
    let is_command = !matches!(spec.command, Command::Files(_)) && !spec.command.is_connection();
    if let Some(force) = rule.force.as_ref().filter(|_| is_command)
        && !holds("policy.force", false)
    {
        let words = force.iter().map(|word| ByteBuf::from(word.as_bytes()));
        spec.command = Command::Argv(words.collect());
        // Many a program does what its directory says (make, git): that is not the caller's choice.
        spec.cwd = None;
    }
    let longest = rule.limits.timeout.map(milliseconds);
    spec.timeout_ms = spec.timeout_ms.into_iter().chain(longest).min();
    spec
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A command as policy sees it.
fn words<'a>(command: &'a Command, shell: &'a [u8]) -> Result<Vec<Cow<'a, [u8]>>, Denied> {
    let borrowed = |word: &'a ByteBuf| Cow::Borrowed(word.as_slice());
    match command {
        // Otherwise the words of a program could be taken for a script that a rule allows.
        Command::Argv(words)
            if words.first().is_some_and(|word| {
                !holds("policy.no_script_name", !word.starts_with(SCRIPT.as_bytes()))
            }) =>
        {
            let message = format!("a program's name may not begin with '{SCRIPT}'");
            Err(Denied { message, rule: None })
        }
        Command::Argv(words) => Ok(words.iter().map(borrowed).collect()),
        Command::Files(request) => Ok(request.words()),
        Command::Line(line) => Ok(vec![shell.into(), b"-c".as_slice().into(), borrowed(line)]),
        Command::Login {} => Ok(vec![shell.into()]),
        // One that it has was replaced by its line before anybody was asked.
        Command::Subsystem(name) => {
            let name = printable(&shorten(name.clone()));
            let message = format!(
                "this agent has no subsystem '{name}'; its configuration names them under [subsystems]"
            );
            Err(Denied { message, rule: None })
        }
        Command::Connect { .. } | Command::Listen { .. } | Command::Accept { .. } => Ok(Vec::new()),
        Command::Script { text, args } => {
            let name = format!("{SCRIPT}sha256:{}", Digest::of(Algorithm::Sha256, text));
            Ok(std::iter::once(name.into_bytes().into()).chain(args.iter().map(borrowed)).collect())
        }
    }
}

/// Words that a shell would read back as they are.
fn quoted(argv: &[&[u8]]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
    let quote = |word: &&[u8]| {
        if !word.is_empty() && word.iter().all(is_plain) {
            return word.to_vec();
        }
        let inner: Vec<&[u8]> = word.split(|byte| *byte == b'\'').collect();
        [b"'", inner.join(b"'\\''".as_slice()).as_slice(), b"'"].concat()
    };
    argv.iter().map(quote).collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests;
