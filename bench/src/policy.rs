//! A decision among 500 rules: the one that fits is the last, or there is none.

use crate::Result;
use crate::table::{Table, Wanted, median, progress};
use rexec_agent::policy::engine::Source;
use rexec_agent::policy::{Action, Answer, Caller, Local, Policy, Question};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const RULES: usize = 500;

/// What the rules before the last are about; `N` is their number.
const OTHERS: &str = "users = ['user-N']";
const EVERYBODY: &str = "users = ['*']\nfrom = ['127.0.0.0/8']";
const COMMANDS: &str = "[['systemctl', 'restart', 'web-N'], ['journalctl', '-u', '*', '**']]";

pub(crate) fn measure(quick: bool, table: &mut Table) -> Result<()> {
    let (rounds, each) = if quick { (5, 100) } else { (50, 1_000) };
    progress(&format!("policy: {rounds} rounds of {each} decisions among {RULES} rules"));
    table.head(format!("policy: one decision among {RULES} rules, median of {rounds}"));
    for (what, about, last) in [
        ("rules about others", OTHERS, true),
        ("rules about everybody", EVERYBODY, true),
        ("rules about everybody, none fits", EVERYBODY, false),
    ] {
        let policy = policy(about, last)?;
        let mut found = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            for _ in 0..each {
                if is_allowed(black_box(&policy)) != last {
                    return Err("the decision is wrong".into());
                }
            }
            found.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(each));
        }
        table.ratio(&format!("{what}, \u{b5}s"), median(found), Wanted::AtMost(100.0));
    }
    Ok(())
}

fn policy(about: &str, last: bool) -> Result<Policy> {
    let mut text = String::new();
    let mut rule = |number: usize, about: &str, commands: &str| {
        let number = number.to_string();
        let (about, commands) = (about.replace('N', &number), commands.replace('N', &number));
        writeln!(
            text,
            "[[rule]]\nname = '{number}'\n{about}\nas = ['deploy']\ncommands = {commands}"
        )
    };
    for number in 1..RULES {
        rule(number, about, COMMANDS)?;
    }
    let fits = if last { "[['systemctl', 'restart', '*']]" } else { COMMANDS };
    rule(RULES, "groups = ['deploy']", fits)?;
    let path = Path::new("policy.toml").to_owned();
    Ok(Policy::parse(&path.clone(), &[Source { path, text }])?)
}

fn is_allowed(policy: &Policy) -> bool {
    let groups = ["staff", "oncall", "deploy"].map(str::to_owned);
    let from = Some([127, 0, 0, 1].into());
    let caller = Caller { user: "alice", groups: &groups, from };
    let local = Local { name: "deploy", is_root: false, shell: b"/bin/sh" };
    let argv: &[&[u8]] = &[b"systemctl", b"restart", b"db"];
    let action = Action::Run { local, argv, env: &[], terminal: false };
    matches!(policy.answer(&Question { caller, action }), Answer::Allowed { .. })
}
