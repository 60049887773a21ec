//! One rule, and the first reason why it does not match.

use super::destination::Destination;
use super::network::Network;
use super::pattern::{Glob, Words, path_elements};
use super::question::{AT_CONSOLE, Action, Caller, Local, Question};
use super::variable::Variable;
use rexec_guard::holds;
use rexec_protocol::outcome::printable;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What follows from a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Yes.
    #[default]
    Allow,
    /// No.
    Deny,
}

/// A rule, checked and ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which no other rule has.
    pub name: String,
    /// The file that it is in.
    pub file: PathBuf,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What follows from a match.
    pub effect: Effect,
    /// The command that runs whatever was asked for.
    pub force: Option<Vec<String>>,
    /// The umask of commands.
    pub umask: Option<u32>,
    /// What commands may use.
    pub limits: Limits,
    pub(super) who: Who,
    pub(super) from: Option<Vec<Network>>,
    pub(super) locals: Option<Vec<Account>>,
    pub(super) commands: Option<Commands>,
    pub(super) terminal: Option<bool>,
    pub(super) env: Option<Vec<Variable>>,
    pub(super) read: Option<Vec<Words>>,
    pub(super) write: Option<Vec<Words>>,
    /// Where connections may be made to, or may not.
    pub(super) forward: Option<Vec<Destination>>,
    /// Which ports of this machine may be opened, or may not.
    pub(super) listen: Option<Vec<Destination>>,
    /// Whose jobs may be watched, or may not.
    pub(super) attach: Option<Vec<Owner>>,
    /// Whose jobs may be controlled, or may not.
    pub(super) control: Option<Vec<Owner>>,
    /// The rooms to be in, or not to be in.
    pub(super) rooms: Option<Vec<Glob>>,
    /// The rooms to say something in, or not.
    pub(super) say: Option<Vec<Glob>>,
    pub(super) wall: bool,
    pub(super) presence: bool,
    /// What may be done on the console, or may not.
    pub(super) console: Option<Vec<String>>,
}

/// What the commands that a rule allows may use; `None` is no limit by this rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long one may run.
    pub timeout: Option<Duration>,
    /// How many that this rule allowed to one caller may run at once.
    pub commands: Option<u32>,
    /// Memory of one, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads of one.
    pub processes: Option<u64>,
    /// Processors that one may keep busy, in thousandths.
    pub milli_cpus: Option<u32>,
    /// Open files of each of its processes.
    pub open_files: Option<u64>,
}

impl Limits {
    /// Whether there is one that a process could escape by outliving the command that it belongs to.
    pub fn are_of_the_tree(&self) -> bool {
        let Self { timeout, commands, memory, processes, milli_cpus, open_files: _ } = self;
        timeout.is_some()
            || commands.is_some()
            || memory.is_some()
            || processes.is_some()
            || milli_cpus.is_some()
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub anybody: bool,
    pub users: Vec<String>,
    pub groups: Vec<String>,
}

/// A local user in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// `*`
    Any,
    /// `@self`
    Own,
    /// A name.
    Named(String),
}

/// The commands of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Commands {
    Any,
    Listed(Vec<Words>),
}

/// Whose jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// `*`
    Any,
    /// `own`
    Own,
    /// A name.
    User(String),
    /// `group:NAME`
    Group(String),
}

/// The first condition of a rule that does not hold, in the order in which they are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mismatch {
    /// It is about others.
    Who,
    /// The address is in none of its networks.
    From,
    /// It says nothing about this kind of action.
    Action(&'static str),
    /// Its local users.
    Local,
    /// The command, the path, the owner of the job, or the room.
    Object,
    /// It is for commands with, or without, a terminal.
    Terminal,
    /// The name of a variable that it does not allow; or none that it denies was set.
    Variable(Option<Vec<u8>>),
}

impl Rule {
    /// Why this rule does not decide the question; `None` if it does.
    pub fn mismatch(&self, question: &Question<'_>) -> Option<Mismatch> {
        let Question { caller, action } = question;
        if !holds("policy.who", self.who.covers(caller)) {
            Some(Mismatch::Who)
        } else if !holds("policy.from", self.is_from(caller)) {
            Some(Mismatch::From)
        } else {
            self.mismatch_of(caller, action)
        }
    }

    /// Whether the rule is about a caller at all.
    pub(super) fn is_about(&self, caller: &Caller<'_>) -> bool {
        self.who.covers(caller) && self.is_from(caller)
    }

    /// Whether a local user of this name is among those of an allow rule. That it may have uid 0 is
    /// not known yet.
    pub(super) fn may_be(&self, caller: &Caller<'_>, name: &str) -> bool {
        self.is_as(caller, Local { name, is_root: false, shell: b"" })
    }

    fn is_from(&self, caller: &Caller<'_>) -> bool {
        match (&self.from, caller.from) {
            (None, _) => true,
            (Some(networks), Some(from)) => networks.iter().any(|network| network.contains(from)),
            (Some(_), None) => self.effect == Effect::Deny,
        }
    }

    fn mismatch_of(&self, caller: &Caller<'_>, action: &Action<'_>) -> Option<Mismatch> {
        let unless = |fits: bool, mismatch| if fits { None } else { Some(mismatch) };
        let silent = Mismatch::Action(action.verb());
        let local = || {
            let fits = action.local().is_none_or(|local| self.is_as(caller, local));
            unless(holds("policy.local", fits), Mismatch::Local)
        };
        match *action {
            Action::Run { local: Local { shell, .. }, argv, env, terminal } => {
                let Some(commands) = &self.commands else { return Some(silent) };
                local()
                    .or_else(|| {
                        let is_listed = commands.include(argv, shell);
                        unless(holds("policy.command", is_listed), Mismatch::Object)
                    })
                    .or_else(|| {
                        let fits = self.fits_terminal(terminal);
                        unless(holds("policy.terminal", fits), Mismatch::Terminal)
                    })
                    .or_else(|| self.unfit_variable(env))
            }
            Action::Read { path, tree, .. } => {
                let Some(paths) = &self.read else { return Some(silent) };
                local().or_else(|| unless(self.is_about_path(paths, path, tree), Mismatch::Object))
            }
            Action::Write { path, tree, .. } => {
                let Some(paths) = &self.write else { return Some(silent) };
                local().or_else(|| unless(self.is_about_path(paths, path, tree), Mismatch::Object))
            }
            Action::Connect { host, port, .. } => {
                let Some(destinations) = &self.forward else { return Some(silent) };
                let is_listed = destinations.iter().any(|known| known.includes(host, port));
                local().or_else(|| unless(holds("policy.forward", is_listed), Mismatch::Object))
            }
            Action::Listen { host, port, .. } => {
                let Some(places) = &self.listen else { return Some(silent) };
                let denies = self.effect == Effect::Deny;
                let is_listed = places.iter().any(|known| known.listens(host, port, denies));
                local().or_else(|| unless(holds("policy.listen", is_listed), Mismatch::Object))
            }
            Action::Attach { owner, owner_groups, control } => {
                let lists = self.jobs(control);
                if lists.iter().all(Option::is_none) {
                    return Some(silent);
                }
                let mut owners = lists.into_iter().flatten().flatten();
                let is_one = |known: &Owner| known.is(caller, owner, owner_groups);
                unless(holds("policy.job_owner", owners.any(is_one)), Mismatch::Object)
            }
            Action::Room { name, say } => {
                let lists = self.places(say);
                if lists.iter().all(Option::is_none) {
                    return Some(silent);
                }
                let mut rooms = lists.into_iter().flatten().flatten();
                let is_one = rooms.any(|known| known.matches(name.as_bytes()));
                unless(holds("policy.room", is_one), Mismatch::Object)
            }
            Action::Wall => unless(holds("policy.wall", self.wall), silent),
            Action::Who => unless(holds("policy.presence", self.presence), silent),
            Action::Console { action } => {
                let Some(actions) = &self.console else { return Some(silent) };
                let mut actions = actions.iter();
                unless(actions.any(|known| known == "*" || known == action), Mismatch::Object)
            }
        }
    }

    /// The lists that decide about a job. Who may control one may watch it, and who may not watch one
    /// may not control it.
    fn jobs(&self, control: bool) -> [Option<&Vec<Owner>>; 2] {
        let (attach, controls) = (self.attach.as_ref(), self.control.as_ref());
        match (self.effect, control) {
            (Effect::Allow, true) => [controls, None],
            (Effect::Deny, false) => [attach, None],
            (Effect::Allow, false) | (Effect::Deny, true) => [attach, controls],
        }
    }

    /// Of a tree an allow rule has to include all, and a deny rule no more than something.
    fn is_about_path(&self, patterns: &[Words], path: &[u8], tree: bool) -> bool {
        let Some(parts) = path_elements(path) else { return false };
        let mut patterns = patterns.iter();
        match (tree, self.effect) {
            (false, _) => patterns.any(|pattern| pattern.matches(&parts, b"")),
            (true, Effect::Allow) => {
                let covers =
                    |pattern: &Words| pattern.is_open_ended() && pattern.matches(&parts, b"");
                holds("policy.whole_tree", patterns.any(covers))
            }
            (true, Effect::Deny) => !holds(
                "policy.denied_in_tree",
                !patterns.any(|pattern| pattern.reaches_below(&parts)),
            ),
        }
    }

    /// Whether the rule allows every path for this kind of action.
    pub(super) fn allows_all_paths(&self, action: &Action<'_>) -> bool {
        let patterns = match action {
            Action::Read { .. } => self.read.as_ref(),
            Action::Write { .. } => self.write.as_ref(),
            _ => None,
        };
        let is_all = |pattern: &Words| pattern.is_open_ended() && pattern.matches(&[], b"");
        patterns.is_some_and(|patterns| patterns.iter().any(is_all))
    }

    /// The programs of its commands, as far as it names them.
    pub(super) fn programs(&self) -> impl Iterator<Item = Vec<u8>> {
        let listed = match &self.commands {
            Some(Commands::Listed(listed)) => listed.as_slice(),
            Some(Commands::Any) | None => &[],
        };
        let forced = self.force.iter().filter_map(|words| words.first());
        listed.iter().filter_map(Words::first).chain(forced.map(|word| word.clone().into_bytes()))
    }

    /// Whether it lets its callers run whatever they like.
    pub fn allows_any_command(&self) -> bool {
        self.effect == Effect::Allow && self.force.is_none() && self.commands == Some(Commands::Any)
    }

    /// Whether it allows something on the console, but to nobody who could be there: no certificate
    /// leads there, and no group and no address comes with a local user.
    pub(super) fn is_idle_at_console(&self) -> bool {
        let is_there = |user: &String| user.starts_with(AT_CONSOLE);
        let reaches =
            self.from.is_none() && (self.who.anybody || self.who.users.iter().any(is_there));
        self.effect == Effect::Allow && self.console.is_some() && !reaches
    }

    /// The lists that decide about a room, in the same way: who may say something may listen.
    fn places(&self, say: bool) -> [Option<&Vec<Glob>>; 2] {
        let (rooms, says) = (self.rooms.as_ref(), self.say.as_ref());
        match (self.effect, say) {
            (Effect::Allow, true) => [says, None],
            (Effect::Deny, false) => [rooms, None],
            (Effect::Allow, false) | (Effect::Deny, true) => [rooms, says],
        }
    }

    fn is_as(&self, caller: &Caller<'_>, local: Local<'_>) -> bool {
        let Some(locals) = &self.locals else { return self.effect == Effect::Deny };
        let is_root = local.is_root || local.name == ROOT;
        let mut all = locals.iter();
        match self.effect {
            // Uid 0 only where the word `root` stands, and the name too if it has another.
            Effect::Allow if !holds("policy.root_is_named", !is_root) => {
                let named = |name: &str| locals.iter().any(|account| account.is_named(name));
                named(ROOT) && named(local.name)
            }
            Effect::Allow => all.any(|account| account.covers(caller, local.name)),
            // A deny rule about root is about every name of uid 0.
            Effect::Deny => all.any(|account| {
                account.covers(caller, local.name) || (is_root && account.is_named(ROOT))
            }),
        }
    }

    fn fits_terminal(&self, asked: bool) -> bool {
        match (self.effect, self.terminal) {
            (Effect::Allow, terminal) => !asked || terminal == Some(true),
            (Effect::Deny, terminal) => asked || terminal.is_none(),
        }
    }

    fn unfit_variable(&self, asked: &[&[u8]]) -> Option<Mismatch> {
        let known = self.env.as_deref();
        match self.effect {
            Effect::Allow => {
                let known = known.unwrap_or_default();
                let is_allowed = |name: &&&[u8]| known.iter().any(|entry| entry.allows(name));
                let unfit = asked.iter().find(|name| !holds("policy.variable", is_allowed(name)));
                unfit.map(|name| Mismatch::Variable(Some(name.to_vec())))
            }
            Effect::Deny => {
                let known = known?;
                let is_denied = |name: &&[u8]| known.iter().any(|entry| entry.denies(name));
                if asked.iter().any(is_denied) { None } else { Some(Mismatch::Variable(None)) }
            }
        }
    }
}

/// The user that is never meant by a pattern.
const ROOT: &str = "root";

impl Who {
    fn covers(&self, caller: &Caller<'_>) -> bool {
        self.anybody
            || self.users.iter().any(|user| user == caller.user)
            || caller.groups.iter().any(|group| self.groups.contains(group))
    }
}

impl Account {
    fn is_named(&self, name: &str) -> bool {
        matches!(self, Self::Named(known) if known == name)
    }

    fn covers(&self, caller: &Caller<'_>, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Own => caller.user == name,
            Self::Named(known) => known == name,
        }
    }
}

impl Commands {
    fn include(&self, argv: &[&[u8]], shell: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(patterns) => patterns.iter().any(|words| words.matches(argv, shell)),
        }
    }
}

impl Owner {
    fn is(&self, caller: &Caller<'_>, owner: &str, owner_groups: &[String]) -> bool {
        match self {
            Self::Any => true,
            Self::Own => caller.user == owner,
            Self::User(name) => name == owner,
            Self::Group(name) => owner_groups.contains(name),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Who => f.write_str("it is about others"),
            Self::From => f.write_str("the caller's address is in none of its networks"),
            Self::Action(verb) => write!(f, "it says nothing about who may {verb}"),
            Self::Local => f.write_str("it is for other local users"),
            Self::Object => f.write_str("this is not on its list"),
            Self::Terminal => f.write_str("the terminal decides: see its 'terminal'"),
            Self::Variable(Some(name)) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "its 'env' does not allow the variable {}", printable(&name))
            }
            Self::Variable(None) => f.write_str("no variable of its 'env' was set"),
        }
    }
}
