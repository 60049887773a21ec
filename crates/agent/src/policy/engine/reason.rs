//! A refusal, in words for the one who is refused.
//!
//! They say what is not allowed and what to ask the administrator for. They name the rule that
//! denies, since it is about the caller, and never what other rules allow to others.

use super::question::{Action, Question};
use super::rule::{Mismatch, Rule};
use super::rules::Policy;
use rexec_protocol::outcome::{printable, shorten};

/// A deny rule decided.
pub(super) fn by_rule(question: &Question<'_>, rule: &Rule) -> String {
    format!(
        "{} may not {}: rule '{}' of this agent's policy denies it",
        question.caller.user,
        deed(&question.action),
        rule.name
    )
}

/// No rule decided; `nearest` is the condition at which the best of the allow rules failed.
pub(super) fn by_none(
    question: &Question<'_>,
    policy: &Policy,
    nearest: Option<Mismatch>,
) -> String {
    let Question { caller, action } = question;
    let user = caller.user;
    if policy.rules().is_empty() {
        return format!(
            "this agent has no policy, so nobody may do anything; {}",
            policy.how_to_begin()
        );
    }
    let fault = match nearest {
        None | Some(Mismatch::Who) => match caller.groups {
            [] => format!("no rule of this agent's policy is about {user}"),
            groups => format!(
                "no rule of this agent's policy is about {user} or the group {}",
                groups.join(", ")
            ),
        },
        Some(Mismatch::From) => match caller.from {
            Some(from) => format!("{user} may do nothing from {}", from.to_canonical()),
            None => format!("{user} may do nothing from an unknown address"),
        },
        Some(Mismatch::Action(verb)) => format!("{user} may not {verb} here"),
        Some(Mismatch::Local) => {
            let local = action.local().map_or("", |local| local.name);
            format!("{user} may not {} as '{}'", action.verb(), printable(local))
        }
        Some(Mismatch::Object) => format!("{user} may not {}{}", deed(action), hint(action)),
        Some(Mismatch::Terminal) => format!("{user} may run this only without a terminal"),
        Some(Mismatch::Variable(name)) => {
            let name = name.unwrap_or_default();
            let name = printable(&String::from_utf8_lossy(&name));
            format!("{user} may not set the variable {name} for this command")
        }
    };
    format!("{fault}; ask this agent's administrator for a rule that allows it")
}

/// One word is a line for a shell, which is what people overlook who know other tools.
fn hint(action: &Action<'_>) -> &'static str {
    match action {
        Action::Run { local, argv: [shell, b"-c", _], .. } if *shell == local.shell => {
            " (one word is a line for that shell; words of their own are asked about as they are: `rexec HOST WORD WORD…`, or `rexec --argv HOST WORD`)"
        }
        _ => "",
    }
}

/// What is to be done, in words that follow "may" and "may not".
pub(crate) fn deed(action: &Action<'_>) -> String {
    let shown = |bytes: &[u8]| printable(&shorten(String::from_utf8_lossy(bytes).into_owned()));
    match *action {
        Action::Run { local, argv, .. } => {
            format!("run '{}' as '{}'", shown(&argv.join(&b' ')), printable(local.name))
        }
        Action::Read { local, path, tree } => {
            format!("read {}'{}' as '{}'", all(tree), shown(path), printable(local.name))
        }
        Action::Write { local, path, tree } => {
            format!("write {}'{}' as '{}'", all(tree), shown(path), printable(local.name))
        }
        Action::Connect { local, host, port } => {
            let (host, local) = (shown(host.as_bytes()), printable(local.name));
            format!("connect to '{host}' port {port} as '{local}'")
        }
        Action::Listen { local, host, port } => {
            let (host, local) = (shown(host.as_bytes()), printable(local.name));
            format!("listen on '{host}' port {port} as '{local}'")
        }
        Action::Attach { owner, .. } => format!("{} of '{}'", action.verb(), printable(owner)),
        Action::Room { name, say: false } => format!("be in the room '{}'", printable(name)),
        Action::Room { name, .. } => format!("say anything in the room '{}'", printable(name)),
        Action::Wall | Action::Who => action.verb().to_owned(),
        Action::Console { action } => format!("use '{}' on the console", printable(action)),
    }
}

fn all(tree: bool) -> &'static str {
    if tree { "all of " } else { "" }
}
