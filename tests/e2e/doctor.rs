//! What `doctor` finds, on both sides.

use crate::support::certs::{replace, user_params, write_private};
use crate::support::{TestAgent, cli, program};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use time::{Duration, OffsetDateTime};

/// Findings as `verdict check`, and all the words.
fn found(output: &Output) -> (Vec<String>, String) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}", json["verdict"].as_str().unwrap(), json["check"].as_str().unwrap())
    };
    (text.lines().map(line).collect(), text)
}

#[test]
fn the_users_side() {
    let agent = TestAgent::revoking("");
    let doctor = |target: &str, change: &dyn Fn(&mut Command)| {
        let mut command = agent.rexec();
        command.env("REXEC_CRL", agent.path("authority.crl"));
        command.args(["doctor", "--json", target]);
        change(&mut command);
        let output = command.output().unwrap();
        let (lines, words) = found(&output);
        assert_eq!(cli::code(&output) == 0, !words.contains("\"wrong\""), "{words}");
        (lines, words)
    };
    let (lines, words) = doctor(&agent.target(), &|_| {});
    let all = ["configuration", "files", "certificate", "validity", "authority", "revocation"];
    let there = ["name", "port", "tls", "clock"];
    let expected: Vec<_> = all.iter().chain(&there).map(|name| format!("ok {name}")).collect();
    assert_eq!(lines, expected, "{words}");

    let mut old = user_params(&["rexec:user:alice"]);
    old.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    old.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let mut early = user_params(&["rexec:user:alice"]);
    early.not_before = OffsetDateTime::now_utc() + Duration::hours(1);
    early.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    let mut last = user_params(&["rexec:user:alice"]);
    last.not_before = OffsetDateTime::now_utc() - Duration::hours(11);
    for (name, params) in [("old", old), ("early", early), ("last", last)] {
        let pem = agent.authority.issue(params);
        write_private(agent.dir.path(), &format!("{name}.pem"), &pem);
    }
    let identity = |name: &'static str| {
        let path = agent.path(name);
        move |command: &mut Command| {
            command.env("REXEC_IDENTITY", &path);
        }
    };
    let here = agent.target();
    fs::write(agent.path("typo.toml"), "prot = 9\n").unwrap();
    let typo = agent.path("typo.toml");
    for (row, target, change, line, part) in [
        (
            "no name",
            "no-such-host.invalid",
            &identity("alice.pem") as &dyn Fn(&mut Command),
            "wrong name",
            "has no address",
        ),
        ("no agent", "127.0.0.1:1", &identity("alice.pem"), "wrong port", "no agent listens there"),
        ("no file", &here, &identity("carol.pem"), "wrong configuration", "does not exist"),
        ("wrong kind", &here, &identity("agent.pem"), "wrong certificate", "not for users"),
        ("expired", &here, &identity("old.pem"), "wrong validity", "expired on"),
        ("expired there", &here, &identity("old.pem"), "wrong tls", "by its clock"),
        ("not yet", &here, &identity("early.pem"), "wrong validity", "set the clock"),
        ("soon over", &here, &identity("last.pem"), "note validity", "renew it"),
        (
            "no list",
            &here,
            &|command| {
                command.env_remove("REXEC_CRL");
            },
            "note revocation",
            "no revocation list",
        ),
        (
            "typing mistake",
            &here,
            &|command| {
                command.arg("--config").arg(&typo);
            },
            "wrong configuration",
            "prot",
        ),
    ] {
        let (lines, words) = doctor(target, change);
        assert!(lines.iter().any(|found| found == line), "{row}: {words}");
        assert!(words.contains(part), "{row}: {words}");
    }
    let other = TestAgent::with("");
    let (lines, words) = doctor(&other.target(), &|_| {});
    assert!(lines.contains(&"wrong tls".to_owned()), "another authority: {words}");
    let text = agent.rexec().args(["doctor", &here]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("\nok    tls: the agent's certificate is for 127.0.0.1"), "{text}");
}

#[test]
fn the_agents_side() {
    let agent = TestAgent::revoking("");
    let listen = agent.target();
    let doctor = |config: &str, crl: bool| {
        let path = agent.path("doctor.toml");
        let audit = agent.path("doctor/audit.jsonl");
        let (state, audit) = (agent.path("state"), audit.display());
        let folders = format!("state_dir = '{}'\n[audit]\nfile = '{audit}'", state.display());
        fs::write(&path, format!("{config}\n{folders}")).unwrap();
        let mut command = Command::new(program("rexec-agent"));
        command.arg("--config").arg(path).args(["--listen", &listen, "--identity"]);
        command.arg(agent.path("agent.pem")).arg("--authority").arg(agent.path("authority.crt"));
        command.arg("--policy").arg(agent.path("policy.toml"));
        command.arg("--policy-folder").arg(agent.path("policy.d"));
        if crl {
            command.arg("--crl").arg(agent.path("authority.crl"));
        }
        let output = command.args(["doctor", "--json"]).output().unwrap();
        let (lines, words) = found(&output);
        assert_eq!(cli::code(&output) == 0, !words.contains("\"wrong\""), "{words}");
        (lines, words)
    };
    let (lines, words) = doctor("", true);
    let all = [
        "configuration",
        "account",
        "files",
        "certificate",
        "validity",
        "authority",
        "revocation",
        "state folder",
        "policy",
        "audit log",
        "port",
    ];
    assert_eq!(lines, all.map(|name| format!("ok {name}")), "{words}");
    assert!(words.contains(&format!("an agent listens on it, process {}", agent.pid())), "{words}");
    assert!(doctor("", false).0.contains(&"note revocation".to_owned()));
    let (lines, words) = doctor("lisen = []", true);
    assert_eq!(lines, ["wrong configuration"]);
    assert!(words.contains("lisen"), "{words}");

    replace(agent.dir.path(), "authority.crl", &agent.authority.list([], -Duration::HOUR));
    let (lines, words) = doctor("", true);
    assert!(
        lines.contains(&"wrong files".to_owned()) && words.contains("was to be replaced"),
        "{words}"
    );
    replace(agent.dir.path(), "authority.crl", &agent.authority.list([], Duration::hours(20)));
    assert!(doctor("", true).0.contains(&"note revocation".to_owned()), "a list that ends today");
    fs::set_permissions(agent.path("agent.pem"), Permissions::from_mode(0o644)).unwrap();
    let (lines, words) = doctor("", true);
    assert!(lines.contains(&"wrong files".to_owned()) && words.contains("chmod 600"), "{words}");
}

/// What a rule names by its whole path, and allows. Where others are, the PATH of their user decides.
#[test]
fn programs_of_the_policy_that_are_not_here() {
    let agent = TestAgent::with_policy(
        r#"
        [[rule]]
        name = "some"
        users = ["alice"]
        as = ["root"]
        commands = [["/bin/true"], ["/opt/none/deploy", "*"], ["none"], ["/opt/*/x"], ["/etc/passwd"]]
        [[rule]]
        name = "one"
        users = ["bob"]
        as = ["root"]
        commands = "any"
        force = ["/opt/none/forced", "-x"]
        [[rule]]
        name = "no"
        effect = "deny"
        users = ["carol"]
        commands = [["/opt/none/denied"]]
        "#,
    );
    let mut command = Command::new(program("rexec-agent"));
    command.arg("--policy").arg(agent.path("policy.toml"));
    command.arg("--config").arg(agent.path("agent.toml")).args(["doctor", "--json"]);
    let (lines, words) = found(&command.output().unwrap());
    let notes = lines.iter().filter(|line| *line == "note program").count();
    assert_eq!(notes, 3, "{words}");
    for program in ["/opt/none/deploy", "/opt/none/forced", "/etc/passwd"] {
        assert!(words.contains(&format!("{program} cannot be executed here")), "{words}");
    }
}
