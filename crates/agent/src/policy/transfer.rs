//! A transfer of files, as questions about paths.
//!
//! The agent's process opens no file of a user, so it cannot know what a path leads to. It decides on
//! the path as it is written, made absolute; the program that carries the transfer out runs as the
//! target user and refuses symbolic links in that path, unless policy allows every path anyway. What is
//! decided on and what is carried out are the same value.

use super::Denied;
use super::engine::{Action, Answer, Caller, Local, Policy, Question, Rule};
use crate::account::Account;
use rexec_files::pattern::literal_prefix;
use rexec_guard::holds;
use rexec_protocol::files::{FilesRequest, Get, Put, Target, Update};
use serde_bytes::ByteBuf;
use std::os::unix::ffi::OsStrExt;

/// The request as it may be carried out, and the rule that allows it.
pub(super) fn decide<'p>(
    policy: &'p Policy,
    caller: Caller<'_>,
    account: &Account,
    request: &FilesRequest,
) -> Result<(FilesRequest, &'p Rule), Denied> {
    let asker = Asker { policy, caller, account };
    match request {
        FilesRequest::Get(get) => {
            let (get, rule) = asker.get(get)?;
            Ok((FilesRequest::Get(get), rule))
        }
        FilesRequest::Put(put) => {
            let (put, rule) = asker.put(put)?;
            Ok((FilesRequest::Put(put), rule))
        }
    }
}

struct Asker<'a, 'p> {
    policy: &'p Policy,
    caller: Caller<'a>,
    account: &'a Account,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Read,
    Write,
}

impl<'p> Asker<'_, 'p> {
    fn get(&self, get: &Get) -> Result<(Get, &'p Rule), Denied> {
        let mut get = get.clone();
        let mut decided: Option<&Rule> = None;
        for path in &mut get.paths {
            let whole = absolute(self.account, path)?;
            // All that a pattern can match is below its first parts.
            let prefix = if get.glob { literal_prefix(&whole) } else { &whole };
            let is_pattern = prefix.len() < whole.len();
            let tree = get.recursive || is_pattern;
            let (rule, free) = self.ask(Deed::Read, prefix, tree)?;
            get.links &= free;
            decided = Some(one_rule(decided, rule)?);
            let contents = is_contents(path);
            *path = ByteBuf::from(if contents { join(&whole, b".") } else { whole });
        }
        let none = || Denied { message: "no file is named".to_owned(), rule: None };
        Ok((get, decided.ok_or_else(none)?))
    }

    fn put(&self, put: &Put) -> Result<(Put, &'p Rule), Denied> {
        let mut put = put.clone();
        let path = absolute(self.account, &put.path)?;
        let tree = put.recursive;
        let child = put.name.as_ref().map(|name| join(&path, name));
        let (rule, free) = match (put.target, &child) {
            (Target::Into, Some(child)) => self.ask(Deed::Write, child, tree)?,
            // Any names may come.
            (Target::Into | Target::Either, None) => self.ask(Deed::Write, &path, true)?,
            (Target::Exact, _) => self.ask(Deed::Write, &path, tree)?,
            (Target::Either, Some(child)) => {
                match (self.ask(Deed::Write, &path, tree), self.ask(Deed::Write, child, tree)) {
                    (Ok((rule, free)), Ok((_, also))) => (rule, free && also),
                    (Ok(decided), Err(_)) if !holds("policy.put_narrowed", false) => {
                        put.target = Target::Exact;
                        decided
                    }
                    (Ok(decided), Err(_)) => decided,
                    (Err(_), Ok(decided)) => {
                        put.target = Target::Into;
                        decided
                    }
                    (Err(denied), Err(_)) => return Err(denied),
                }
            }
        };
        if put.store.update == Some(Update::Digest) {
            // The digest of what is there would tell a caller who may not read it.
            let whole = tree || put.target != Target::Exact;
            let (other, also) = self.ask(Deed::Read, &path, whole)?;
            one_rule(Some(rule), other)?;
            put.links &= also;
        }
        if put.store.special && !holds("policy.special_modes", rule.allows_any_command()) {
            let message = format!(
                "{} may not set set-user-id, set-group-id and sticky bits here: that is for those \
                 who may run any command",
                self.caller.user
            );
            return Err(Denied { message, rule: Some(rule.name.clone()) });
        }
        put.links &= free;
        put.path = ByteBuf::from(path);
        Ok((put, rule))
    }

    /// The rule that allows it, and whether it would allow any path.
    fn ask(&self, deed: Deed, path: &[u8], tree: bool) -> Result<(&'p Rule, bool), Denied> {
        let shell = self.account.shell.as_os_str().as_bytes();
        let local = Local { name: &self.account.name, is_root: self.account.is_root(), shell };
        let action = match deed {
            Deed::Read => Action::Read { local, path, tree },
            Deed::Write => Action::Write { local, path, tree },
        };
        let question = Question { caller: self.caller, action };
        match self.policy.answer(&question) {
            Answer::Allowed { rule } => Ok((rule, self.policy.is_about_all_paths(&question))),
            Answer::Denied { reason, rule } => {
                Err(Denied { message: reason, rule: rule.map(str::to_owned) })
            }
        }
    }
}

/// Limits and umask come from one rule, so one has to allow all of a request.
fn one_rule<'p>(before: Option<&'p Rule>, rule: &'p Rule) -> Result<&'p Rule, Denied> {
    match before {
        Some(before) if before.name != rule.name => {
            let message = format!(
                "these paths are allowed by different rules, '{}' and '{}': transfer them one by one",
                before.name, rule.name
            );
            Err(Denied { message, rule: None })
        }
        _ => Ok(rule),
    }
}

/// The path that is meant, from the root and without empty and `.` parts. What `..` leads to depends
/// on links, so there is no deciding on it.
fn absolute(account: &Account, path: &[u8]) -> Result<Vec<u8>, Denied> {
    let home = account.home.as_os_str().as_bytes();
    let from = if path.starts_with(b"/") { b"".as_slice() } else { home };
    let mut whole = Vec::new();
    let parts = from.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/'));
    for part in parts.filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            let message =
                "a remote path may not have the part '..': name the place itself".to_owned();
            return Err(Denied { message, rule: None });
        }
        whole.push(b'/');
        whole.extend_from_slice(part);
    }
    if whole.is_empty() {
        whole.push(b'/');
    }
    Ok(whole)
}

/// Whether a path means what is in a folder, rather than the folder: its last part is `.`, or it is the
/// home or the root.
fn is_contents(path: &[u8]) -> bool {
    let last = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty());
    last.is_none_or(|last| last == b".")
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"/" => [folder, name].concat(),
        _ => [folder, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests;
