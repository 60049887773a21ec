//! Any text as a policy: nothing panics, and what is read answers. And any rules and any question,
//! made from a small world in which much collides: the policy decides as the naive implementation
//! of the tests does.
//!
//! The folder of the agent that decides is compiled here by itself: the whole agent, with TLS in C,
//! would be no target for a fuzzer.

#![no_main]

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../crates/agent/src/policy/engine/mod.rs"]
mod engine;
#[path = "../../crates/agent/src/policy/engine/naive.rs"]
mod naive;

use engine::{Action, Answer, Caller, Local, Policy, Question, Source};
use naive::{Ask, What};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((first, rest)) if first % 2 == 0 => compare(rest),
        _ => read(&String::from_utf8_lossy(bytes)),
    }
});

fn read(text: &str) {
    let Ok(policy) = parse(text) else { return };
    let groups = ["deploy".to_owned()];
    let caller = Caller { user: "alice", groups: &groups, from: Some([10, 0, 0, 7].into()) };
    let local = Local { name: "deploy", is_root: false, shell: b"/bin/sh" };
    let argv: &[&[u8]] = &[b"systemctl", b"restart", b"web"];
    for action in [
        Action::Run { local, argv, env: &[b"LC_ALL"], terminal: true },
        Action::Read { local, path: b"/var/log/x", tree: true },
        Action::Connect { local, host: "db.internal", port: 5432 },
        Action::Listen { local, host: "localhost", port: 8080 },
        Action::Attach { owner: "bob", owner_groups: &groups, control: false },
    ] {
        let question = Question { caller, action };
        let decides = policy.explain(&question).find(|(_, mismatch)| mismatch.is_none());
        match (policy.answer(&question), decides) {
            (Answer::Allowed { rule }, Some((found, _))) => assert_eq!(rule, found),
            (Answer::Denied { rule: Some(rule), .. }, Some((found, _))) => {
                assert_eq!(rule, found.name);
            }
            (Answer::Denied { rule: None, reason }, None) => assert!(!reason.is_empty()),
            (answer, found) => panic!("{answer:?}, explained by {found:?}"),
        }
    }
    policy.failures();
}

fn compare(choices: &[u8]) {
    let mut choices = choices.iter();
    let mut pick = |count: usize| choices.next().map_or(0, |&choice| usize::from(choice) % count);
    let (rules, ask) = naive::choose(&mut pick);
    let text = naive::written(&rules);
    let policy = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(decide(&policy, &ask), naive::decide(&rules, &ask), "{text}\n{ask:?}");
}

fn parse(text: &str) -> Result<Policy, engine::PolicyError> {
    let path = Path::new("policy.toml");
    Policy::parse(path, &[Source { path: path.to_owned(), text: text.to_owned() }])
}

/// Whether it is allowed, and the index of the rule that decided, which is its name.
fn decide(policy: &Policy, ask: &Ask) -> (bool, Option<usize>) {
    let caller = Caller { user: ask.user, groups: &ask.groups, from: ask.from };
    let (name, is_root) = ask.local;
    let local = Local { name, is_root, shell: naive::SHELL.as_bytes() };
    let bytes = |words: &[&'static str]| words.iter().map(|word| word.as_bytes()).collect();
    let (words, names): (Vec<&[u8]>, Vec<&[u8]>) = match &ask.what {
        What::Run { argv, env, .. } => (bytes(argv), bytes(env)),
        _ => (Vec::new(), Vec::new()),
    };
    let action = match &ask.what {
        What::Run { terminal, .. } => {
            Action::Run { local, argv: &words, env: &names, terminal: *terminal }
        }
        What::Read(path) => Action::Read { local, path: path.as_bytes(), tree: false },
        What::Write(path) => Action::Write { local, path: path.as_bytes(), tree: false },
        What::Connect(host, port) => Action::Connect { local, host, port: *port },
        What::Listen(host, port) => Action::Listen { local, host, port: *port },
        What::Attach(owner, owner_groups) => Action::Attach { owner, owner_groups, control: false },
        What::Control(owner, owner_groups) => Action::Attach { owner, owner_groups, control: true },
        What::Room(name) => Action::Room { name, say: false },
        What::Say(name) => Action::Room { name, say: true },
        What::Wall => Action::Wall,
        What::Who => Action::Who,
        What::Console(action) => Action::Console { action },
    };
    match policy.answer(&Question { caller, action }) {
        Answer::Allowed { rule } => (true, rule.name.parse().ok()),
        Answer::Denied { rule, .. } => (false, rule.and_then(|name| name.parse().ok())),
    }
}
