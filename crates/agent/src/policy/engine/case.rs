//! The tests that a policy carries: what must be allowed, and what must never be.

use super::destination::{host_and_any_port, host_and_port};
use super::format::{self, PolicyError, Run, place};
use super::question::{Action, Caller, Local, Question, console_action};
use super::rule::Effect;
use super::rules::{Answer, Policy, Source, Verdict};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// One `[[test]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    file: PathBuf,
    line: usize,
    test: format::Test,
}

/// A test that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The file of the test.
    pub file: &'a Path,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What was expected, and what was decided.
    pub message: String,
}

impl Case {
    pub(super) fn new(source: &Source, test: Spanned<format::Test>) -> Result<Self, PolicyError> {
        let (line, column) = place(&source.text, test.span().start);
        let test = test.into_inner();
        let fault = |message: &str| PolicyError {
            file: source.path.clone(),
            place: Some((line, column)),
            rule: None,
            message: format!("a test {message}"),
        };
        let texts = [&test.read, &test.write, &test.attach, &test.control];
        let about_places = [&test.forward, &test.listen];
        let about_people = [&test.room, &test.say, &test.ctl];
        let others = texts.into_iter().chain(about_places).chain(about_people).flatten().count();
        let flags = [test.wall, test.who].into_iter().flatten();
        let is_run = test.run.is_some();
        if others + flags.clone().count() + usize::from(is_run) != 1 {
            return Err(fault(
                "has exactly one of 'run', 'read', 'write', 'forward', 'listen', 'attach', 'control', 'room', 'say', 'wall', 'who' and 'ctl'",
            ));
        }
        if flags.into_iter().any(|flag| !flag) {
            return Err(fault("has 'wall' and 'who' as true or not at all"));
        }
        if matches!(&test.run, Some(Run::Words(words)) if words.is_empty()) {
            return Err(fault("runs no word at all"));
        }
        if test.tree && test.read.is_none() && test.write.is_none() {
            return Err(fault("has 'tree' without 'read' or 'write'"));
        }
        if !is_run && (test.terminal || !test.env.is_empty()) {
            return Err(fault("has 'terminal' or 'env' without 'run'"));
        }
        if test.forward.as_deref().is_some_and(|place| host_and_port(place).is_none()) {
            return Err(fault("has a 'forward' that is not HOST:PORT"));
        }
        if test.listen.as_deref().is_some_and(|place| host_and_any_port(place).is_none()) {
            return Err(fault("has a 'listen' that is not HOST:PORT"));
        }
        if let Some(why) = test.ctl.as_deref().and_then(|action| console_action(action).err()) {
            return Err(fault(&format!("has a 'ctl' that is no action: {why}")));
        }
        Ok(Self { file: source.path.clone(), line, test })
    }

    /// `None` if the policy says what is expected.
    pub(super) fn run<'a>(&'a self, policy: &'a Policy) -> Option<Failure<'a>> {
        let fails = |message: String| Failure { file: &self.file, line: self.line, message };
        let Some(verdict) = self.verdict(policy) else {
            let message = "no rule about this caller says as whom, and the test has no 'as'";
            let expected = self.test.expect == Effect::Deny && self.test.rule.is_none();
            return if expected { None } else { Some(fails(message.to_owned())) };
        };
        let (effect, rule, how) = match &verdict {
            Verdict::Ruled(Answer::Allowed { rule }) => {
                (Effect::Allow, Some(rule.name.as_str()), String::new())
            }
            Verdict::Ruled(Answer::Denied { rule: None, reason }) => {
                (Effect::Deny, None, format!(", as no rule matches ({reason})"))
            }
            Verdict::Ruled(Answer::Denied { rule, reason }) => {
                (Effect::Deny, *rule, format!(" ({reason})"))
            }
            Verdict::Free(why) => (Effect::Allow, None, format!(" ({why})")),
            Verdict::Never(why) => (Effect::Deny, None, format!(" ({why})")),
        };
        let is_rule = self.test.rule.as_deref().is_none_or(|wanted| rule == Some(wanted));
        if effect == self.test.expect && is_rule {
            return None;
        }
        let expected = match &self.test.rule {
            Some(rule) => format!("{} by rule '{rule}'", self.test.expect),
            None => self.test.expect.to_string(),
        };
        let by = rule.map_or_else(String::new, |rule| format!(" by rule '{rule}'"));
        Some(fails(format!("expected {expected}, decided {effect}{by}{how}")))
    }

    /// `None` if the test names no local user, and the policy has none for this caller.
    fn verdict<'a>(&self, policy: &'a Policy) -> Option<Verdict<'a>> {
        let test = &self.test;
        let caller = Caller { user: &test.user, groups: &test.groups, from: test.from };
        if let Some(owner) = test.attach.as_ref().or(test.control.as_ref()) {
            let (owner_groups, control) = (&test.owner_groups, test.control.is_some());
            let action = Action::Attach { owner, owner_groups, control };
            return Some(policy.verdict(&Question { caller, action }));
        }
        if let Some(action) = self.about_people() {
            return Some(policy.verdict(&Question { caller, action }));
        }
        let name = test.local.clone().or_else(|| policy.default_user(&caller))?;
        let shell = test.shell.as_bytes();
        let local = Local { name: &name, is_root: name == "root", shell };
        let env: Vec<&[u8]> = test.env.iter().map(|name| name.as_bytes()).collect();
        let argv: Vec<&[u8]> = match &test.run {
            Some(Run::Words(words)) => words.iter().map(|word| word.as_bytes()).collect(),
            Some(Run::Line(line)) => vec![shell, b"-c", line.as_bytes()],
            None => Vec::new(),
        };
        let there = test.forward.as_deref().and_then(host_and_port);
        let here = test.listen.as_deref().and_then(host_and_any_port);
        let action = match (&test.read, &test.write) {
            (Some(path), _) => Action::Read { local, path: path.as_bytes(), tree: test.tree },
            (_, Some(path)) => Action::Write { local, path: path.as_bytes(), tree: test.tree },
            _ => match (there, here) {
                (Some((host, port)), _) => Action::Connect { local, host, port },
                (_, Some((host, port))) => Action::Listen { local, host, port },
                _ => Action::Run { local, argv: &argv, env: &env, terminal: test.terminal },
            },
        };
        Some(policy.verdict(&Question { caller, action }))
    }

    fn about_people(&self) -> Option<Action<'_>> {
        let format::Test { room, say, wall, who, ctl, .. } = &self.test;
        match (room, say, ctl) {
            (Some(name), ..) => Some(Action::Room { name, say: false }),
            (_, Some(name), _) => Some(Action::Room { name, say: true }),
            (.., Some(action)) => Some(Action::Console { action }),
            _ if wall.is_some() => Some(Action::Wall),
            _ => who.map(|_| Action::Who),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}
