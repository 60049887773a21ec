//! All rules, in order: the decision.

use super::case::{Case, Failure};
use super::compile;
use super::format::{self, PolicyError};
use super::question::{Caller, Question};
use super::reason;
use super::rule::{Account, Effect, Mismatch, Rule};
use rexec_guard::holds;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A policy: rules that do not change. A new version is a new value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    place: PathBuf,
    files: Vec<PathBuf>,
    rules: Vec<Rule>,
    cases: Vec<Case>,
}

/// One file of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, for messages.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// What a policy says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Yes, by this rule.
    Allowed {
        /// The rule that decided.
        rule: &'a Rule,
    },
    /// No.
    Denied {
        /// Why, and what to do, for the one who asked.
        reason: String,
        /// The name of the rule that denies; `None` if no rule matched.
        rule: Option<&'a str>,
    },
}

/// What comes of a question in the end: some need no rule, and to some no rule can say yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The rules decide.
    Ruled(Answer<'a>),
    /// Allowed: no rule denies it, and for this reason none has to allow it.
    Free(&'static str),
    /// Denied, for this reason, whatever is allowed.
    Never(String),
}

impl Policy {
    /// Reads a policy from its files, in the order in which they count. `place` is where an
    /// administrator would write the first rule.
    ///
    /// All or nothing: a file that is wrong anywhere makes no policy.
    pub fn parse(place: &Path, sources: &[Source]) -> Result<Self, PolicyError> {
        let mut policy = Self { place: place.to_owned(), ..Self::default() };
        for source in sources {
            let raw = format::read(source)?;
            for rule in raw.rule {
                let rule = compile::rule(source, rule)?;
                if let Some(other) = policy.rules.iter().find(|other| other.name == rule.name) {
                    return Err(PolicyError {
                        file: rule.file,
                        place: Some((rule.line, 1)),
                        rule: Some(rule.name),
                        message: format!(
                            "a rule of this name is at {}:{} already; tests and records tell rules by their names",
                            other.file.display(),
                            other.line,
                        ),
                    });
                }
                policy.rules.push(rule);
            }
            for test in raw.test {
                policy.cases.push(Case::new(source, test)?);
            }
            policy.files.push(source.path.clone());
        }
        Ok(policy)
    }

    /// Decides. The first rule that matches does; without one the answer is no.
    pub fn answer(&self, question: &Question<'_>) -> Answer<'_> {
        let mut nearest: Option<Mismatch> = None;
        for rule in &self.rules {
            match (rule.mismatch(question), rule.effect) {
                (None, Effect::Allow) => return Answer::Allowed { rule },
                (None, Effect::Deny) if !holds("policy.deny", false) => {
                    let reason = reason::by_rule(question, rule);
                    return Answer::Denied { reason, rule: Some(&rule.name) };
                }
                (Some(mismatch), Effect::Allow) if nearest.as_ref() < Some(&mismatch) => {
                    nearest = Some(mismatch);
                }
                _ => {}
            }
        }
        Answer::Denied { reason: reason::by_none(question, self, nearest), rule: None }
    }

    /// What comes of a question, for those who want to know without asking the agent.
    pub fn verdict(&self, question: &Question<'_>) -> Verdict<'_> {
        let answer = self.answer(question);
        let is_denied_by_rule = matches!(answer, Answer::Denied { rule: Some(_), .. });
        match (question.is_out_of_reach(), question.needs_no_rule()) {
            (Some(why), _) if !is_denied_by_rule => Verdict::Never(why),
            (_, Some(why)) if matches!(answer, Answer::Denied { rule: None, .. }) => {
                Verdict::Free(why)
            }
            _ => Verdict::Ruled(answer),
        }
    }

    /// The users as whom something may run, as far as rules name them.
    pub fn locals(&self) -> BTreeSet<&str> {
        let allowing = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        let accounts = allowing.flat_map(|rule| rule.locals.iter().flatten());
        let names = accounts.filter_map(|account| match account {
            Account::Named(name) => Some(name.as_str()),
            Account::Any | Account::Own => None,
        });
        names.collect()
    }

    /// The programs that may be run, as far as rules name them.
    pub fn programs(&self) -> BTreeSet<Vec<u8>> {
        let allowing = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        allowing.flat_map(Rule::programs).collect()
    }

    /// The names of the allow rules with `ctl` about nobody who could be at the console.
    pub fn idle_at_console(&self) -> Vec<&str> {
        let idle = self.rules.iter().filter(|rule| rule.is_idle_at_console());
        idle.map(|rule| rule.name.as_str()).collect()
    }

    /// Whether what `question` asks about would be allowed for every path there is. Then it does not
    /// matter where a link leads.
    pub fn is_about_all_paths(&self, question: &Question<'_>) -> bool {
        let mut rules = self.rules.iter().map(|rule| (rule, rule.mismatch(question)));
        let decides = rules.find(|(rule, mismatch)| {
            // A deny rule about other paths.
            mismatch.is_none()
                || (rule.effect == Effect::Deny && *mismatch == Some(Mismatch::Object))
        });
        decides.is_some_and(|(rule, mismatch)| {
            let is_all = rule.effect == Effect::Allow
                && mismatch.is_none()
                && rule.allows_all_paths(&question.action);
            holds("policy.links", is_all)
        })
    }

    /// The rules that were looked at for a question, each with why it did not match; the last one
    /// decides, if it did.
    pub fn explain<'a>(
        &'a self,
        question: &Question<'_>,
    ) -> impl Iterator<Item = (&'a Rule, Option<Mismatch>)> {
        let mut decided = false;
        self.rules.iter().map_while(move |rule| {
            let mismatch = if decided { return None } else { rule.mismatch(question) };
            decided = mismatch.is_none();
            Some((rule, mismatch))
        })
    }

    /// The local user for a caller who names none: the first that the first allow rule about the
    /// caller names, whatever is to be done. So it depends on who asks, and from where, but not on
    /// the command: the same person does not become somebody else with the next word.
    ///
    /// `@self` and `*` are the local user with the caller's own name.
    pub fn default_user(&self, caller: &Caller<'_>) -> Option<String> {
        let about = |rule: &&Rule| rule.effect == Effect::Allow && rule.is_about(caller);
        let locals = self.rules.iter().filter(about).find_map(|rule| rule.locals.as_ref())?;
        locals.first().map(|account| match account {
            Account::Named(name) => name.clone(),
            Account::Own | Account::Any => caller.user.to_owned(),
        })
    }

    /// Whether any rule lets the caller be the local user `name` for anything.
    pub fn may_be(&self, caller: &Caller<'_>, name: &str) -> bool {
        let about = |rule: &&Rule| rule.effect == Effect::Allow && rule.is_about(caller);
        self.rules.iter().filter(about).any(|rule| rule.may_be(caller, name))
    }

    /// Runs the tests that the policy carries, and returns those that fail.
    pub fn failures(&self) -> Vec<Failure<'_>> {
        self.cases.iter().filter_map(|case| case.run(self)).collect()
    }

    /// How many tests it carries.
    pub fn tests(&self) -> usize {
        self.cases.len()
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The files that it was read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How an administrator begins; only for a policy without rules.
    pub fn how_to_begin(&self) -> String {
        format!(
            "to begin, write to {}: rule = [{{ name = \"first\", users = [\"alice\"], as = [\"deploy\"], commands = [[\"uptime\"]] }}]",
            self.place.display(),
        )
    }
}
