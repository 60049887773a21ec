//! From a request to a permit, and what the documentation shows.

use super::engine::Source;
use super::*;
use rexec_protocol::message::{Terminal, TerminalSize};
use std::path::Path;

const POLICY: &str = r#"
[[rule]]
name = "forced"
users = ["robot"]
as = ["deploy"]
commands = "any"
force = ["/usr/local/bin/wrapper", "--strict"]
umask = "027"
[rule.limits]
timeout = "10s"
memory = "1MiB"
[[rule]]
name = "script"
users = ["alice"]
as = ["deploy"]
commands = [["script:sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "*"]]
[[rule]]
name = "line"
users = ["alice"]
as = ["deploy"]
commands = [["$SHELL", "-c", "uptime"]]
env = ["LANG"]
[[rule]]
name = "ports"
users = ["robot", "alice"]
as = ["deploy"]
commands = [["true"]]
force = ["false"]
forward = ["db.internal:5432", "*.web:8000-8010"]
listen = ["localhost:8080"]
"#;

fn parse(text: &str) -> Result<Policy, PolicyError> {
    let path = Path::new("policy.toml");
    Policy::parse(path, &[Source { path: path.to_owned(), text: text.to_owned() }])
}

fn deploy() -> Arc<Account> {
    Arc::new(Account {
        name: "deploy".to_owned(),
        home: "/srv".into(),
        shell: "/bin/bash".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
    })
}

fn ask(user: &str, spec: ExecSpec) -> Result<Permit, Denied> {
    let caller = Caller { user, groups: &[], from: Some([127, 0, 0, 1].into()) };
    permit(&parse(POLICY).unwrap(), caller, &deploy(), spec, None)
}

fn argv(words: &[&str]) -> Command {
    Command::Argv(words.iter().map(|word| ByteBuf::from(word.as_bytes())).collect())
}

fn script(text: &str, args: &[&str]) -> Command {
    let args = args.iter().map(|word| ByteBuf::from(word.as_bytes())).collect();
    Command::Script { text: ByteBuf::from(text.as_bytes()), args }
}

/// What runs everything, and what runs a forced command, says nothing about connections.
#[test]
fn a_connection_needs_a_rule_of_its_own() {
    let connect =
        |host: &str, port| ExecSpec::new(Command::Connect { host: host.to_owned(), port });
    for (host, port) in [("db.internal", 5432), ("DB.internal", 5432), ("a.web", 8010)] {
        let permit = ask("robot", connect(host, port)).unwrap();
        assert_eq!((permit.rule(), permit.spec()), ("ports", &connect(host, port)));
        assert_eq!(permit.original(), None);
    }
    for (host, port) in [("db.internal", 22), ("127.0.0.1", 5432), ("web", 8000)] {
        let denied = ask("robot", connect(host, port)).unwrap_err();
        assert!(denied.message.contains(&format!("'{host}' port {port}")), "{denied}");
    }
    assert!(ask("mallory", connect("db.internal", 5432)).is_err());
}

/// So it is with ports of this machine, and with each connection that comes to one.
#[test]
fn a_port_needs_a_rule_of_its_own_and_so_does_each_connection_to_it() {
    let policy = parse(POLICY).unwrap();
    let caller = Caller { user: "robot", groups: &[], from: None };
    let port = |host: &str, port| Port { host: host.to_owned(), port };
    let job = rexec_protocol::JobId::new("listens").unwrap();
    let accept = ExecSpec::new(Command::Accept { job, number: 7 });
    for (at, is_allowed) in [
        (port("localhost", 8080), true),
        (port("localhost", 8081), false),
        (port("*", 8080), false),
        (port("db.internal", 5432), false),
    ] {
        let listen = ExecSpec::new(Command::Listen { host: at.host.clone(), port: at.port });
        for (spec, of) in [(&listen, None), (&accept, Some(&at))] {
            let decided = permit(&policy, caller, &deploy(), spec.clone(), of);
            match decided {
                Ok(permit) => {
                    assert!(is_allowed, "{at:?} {spec:?}");
                    assert_eq!((permit.rule(), permit.spec()), ("ports", spec));
                    assert_eq!(permit.original(), None);
                }
                Err(denied) => {
                    assert!(!is_allowed && denied.message.contains("may not listen"), "{denied}");
                }
            }
        }
    }
    assert!(permit(&policy, caller, &deploy(), accept, None).is_err());
}

#[test]
fn a_forced_command_takes_the_place_of_what_was_asked() {
    let spec = ExecSpec::new(argv(&["say", "it's", "", "a b", "ok/1"]));
    let permit = ask("robot", spec).unwrap();
    assert_eq!(permit.spec().command, argv(&["/usr/local/bin/wrapper", "--strict"]));
    assert_eq!(permit.original(), Some(br"say 'it'\''s' '' 'a b' ok/1".as_slice()));
    assert_eq!((permit.rule(), permit.grant().umask), ("forced", Some(0o027)));
    assert_eq!(permit.grant().limits.memory, Some(1 << 20));
    let line = ask("robot", ExecSpec::new(Command::Line(ByteBuf::from("id; id")))).unwrap();
    assert_eq!(line.original(), Some(b"/bin/bash -c 'id; id'".as_slice()));
    assert_eq!(line.original_line(), Some(b"id; id".as_slice()));
}

/// A login shell is one word to policy; and who asks for none, asked for nothing.
#[test]
fn a_login_shell_is_a_command_of_one_word() {
    let login = ExecSpec::new(Command::Login {});
    assert!(ask("alice", login.clone()).is_err());
    let rule = "[[rule]]\nname = 'shell'\nusers = ['alice']\nas = ['deploy']\n\
                commands = [['$SHELL']]\n";
    let caller = Caller { user: "alice", groups: &[], from: None };
    let permit = permit(&parse(rule).unwrap(), caller, &deploy(), login.clone(), None).unwrap();
    assert_eq!(permit.spec(), &login);
    let forced = ask("robot", login).unwrap();
    assert_eq!(forced.spec().command, argv(&["/usr/local/bin/wrapper", "--strict"]));
    assert_eq!(forced.original(), None);
}

#[test]
fn a_rule_only_shortens_the_timeout() {
    for (asked, given) in [(None, 10_000), (Some(5_000), 5_000), (Some(60_000), 10_000)] {
        let mut spec = ExecSpec::new(argv(&["x"]));
        spec.timeout_ms = asked;
        assert_eq!(ask("robot", spec).unwrap().spec().timeout_ms, Some(given), "{asked:?}");
    }
    let spec = ExecSpec::new(Command::Line(ByteBuf::from("uptime")));
    let permit = ask("alice", spec.clone()).unwrap();
    assert_eq!(permit.spec(), &spec, "without limits and force a request stays as it is");
    assert_eq!(permit.original(), None);
}

#[test]
fn one_exact_script_is_allowed() {
    assert_eq!(ask("alice", ExecSpec::new(script("hello", &["x"]))).unwrap().rule(), "script");
    assert!(ask("alice", ExecSpec::new(script("hello!", &["x"]))).is_err());
    assert!(ask("alice", ExecSpec::new(script("hello", &[]))).is_err());
    // A program of that name is not that script.
    let name = "script:sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let denied = ask("alice", ExecSpec::new(argv(&[name, "x"]))).unwrap_err();
    assert!(denied.message.contains("may not begin with 'script:'"), "{denied}");
}

#[test]
fn a_line_is_not_its_words_and_a_variable_is_never_dropped() {
    assert!(ask("alice", ExecSpec::new(argv(&["uptime"]))).is_err());
    let mut spec = ExecSpec::new(Command::Line(ByteBuf::from("uptime")));
    spec.env = vec![(ByteBuf::from("LANG"), ByteBuf::from("C"))];
    assert_eq!(ask("alice", spec.clone()).unwrap().spec(), &spec);
    spec.env.push((ByteBuf::from("LD_PRELOAD"), ByteBuf::from("x")));
    let denied = ask("alice", spec).unwrap_err();
    assert!(denied.message.contains("may not set the variable LD_PRELOAD"), "{denied}");
    assert_eq!(denied.rule, None);
}

/// The blocks of TOML in the documents that are policies, each of its own.
fn examples() -> Vec<&'static str> {
    let policy = include_str!("../../../../docs/policy.md");
    let agent = include_str!("../../../../docs/agent.md");
    let readme = include_str!("../../../../README.md");
    let blocks =
        [policy, agent, readme].into_iter().flat_map(|text| text.split("```toml\n").skip(1));
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.filter(|block| block.contains("[[rule]]")).collect()
}

#[test]
fn the_examples_of_the_documentation_are_policies_whose_tests_pass() {
    let examples = examples();
    assert!(examples.len() >= 8, "{}", examples.len());
    let mut tests = 0;
    for example in examples {
        let policy = parse(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        let failures: Vec<String> = policy.failures().iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{failures:?}\n{example}");
        assert!(!policy.rules().is_empty(), "{example}");
        tests += policy.tests();
    }
    assert!(tests >= 15, "{tests}");
}

/// What asks is the name alone: whoever started a job needs no rule to come back to it, and everybody
/// else does.
#[test]
fn one_s_own_jobs_need_no_rule_but_can_be_denied() {
    let denied = "[[rule]]\nname = 'no'\neffect = 'deny'\nusers = ['bob']\ncontrol = ['own']\n";
    let policy = parse(denied).unwrap();
    let answer = |user: &str, owner, control| {
        let caller = Caller { user, groups: &[], from: None };
        attach(&policy, caller, (owner, &[]), control).map_err(|denied| denied.rule)
    };
    assert_eq!(answer("alice", "alice", true), Ok(()));
    assert_eq!(answer("alice", "Alice", false), Err(None));
    assert_eq!(answer("alice", "bob", false), Err(None));
    assert_eq!(answer("bob", "bob", false), Ok(()));
    assert_eq!(answer("bob", "bob", true), Err(Some("no".to_owned())));
}

/// A terminal is asked for by the spec, and only a rule with `terminal = true` gives one.
#[test]
fn a_terminal_needs_a_rule() {
    let text = "[[rule]]\nname = 'a'\nusers = ['*']\nas = ['deploy']\ncommands = 'any'\n";
    let asked = |text: &str, terminal| {
        let spec = ExecSpec { terminal, ..ExecSpec::new(argv(&["top"])) };
        let caller = Caller { user: "alice", groups: &[], from: None };
        permit(&parse(text).unwrap(), caller, &deploy(), spec, None).map(|permit| permit.rule)
    };
    let terminal = Some(Terminal {
        term: ByteBuf::from("xterm"),
        size: TerminalSize::default(),
        locale: Vec::new(),
    });
    assert!(asked(text, None).is_ok());
    let denied = asked(text, terminal.clone()).unwrap_err();
    assert!(denied.message.contains("without a terminal"), "{denied}");
    assert!(asked(&format!("{text}terminal = true\n"), terminal).is_ok());
}
