//! What the documents show is run as it stands.

use crate::support::{TestAgent, program};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_demo_of_the_readme_works() {
    let agent = TestAgent::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let marked =
        readme.split("<!-- demo -->").nth(1).unwrap().split("<!-- /demo -->").next().unwrap();
    let demo: Vec<&str> = marked.lines().filter(|line| !line.starts_with("```")).collect();
    assert!(demo.iter().any(|line| line.contains("rexec 127.0.0.1")), "{demo:?}");
    let file = agent.path("demo.sh");
    std::fs::write(&file, demo.join("\n")).unwrap();
    // What `. certs/dev/env` sets up.
    let bin = program("rexec").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-e").arg(&file).current_dir(agent.dir.path()).stdin(Stdio::null());
    shell.env("PATH", path).env("REXEC_PORT", agent.port.to_string());
    shell.env("REXEC_IDENTITY", agent.path("alice.pem"));
    shell.env("REXEC_AUTHORITY", agent.path("authority.crt"));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// One word would be a line for a shell, which takes it for an option of its own.
#[test]
fn a_program_with_a_dash_in_front_runs_as_the_readme_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = readme.lines().find(|line| line.contains("-odd-name")).unwrap();
    let words = example.split('#').next().unwrap().replace("web1", "TARGET");
    let agent = TestAgent::start();
    let mut rexec = agent.rexec();
    for word in words.split_ascii_whitespace().skip(1) {
        let target = agent.target();
        rexec.arg(if word == "TARGET" { &target } else { word });
    }
    let output = rexec.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It gets as far as to look for a program of this name.
    assert_eq!(output.status.code(), Some(127), "{said}");
    assert!(said.contains("-odd-name"), "{said}");
}

#[test]
fn the_trial_of_certificates_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/certificates.md")).unwrap();
    let marked = text.split("<!-- try -->").nth(1).unwrap().split("<!-- /try -->").next().unwrap();
    let blocks = marked.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script: String = blocks.collect::<String>().replace("8599", &free.to_string());
    assert!(script.contains("ca revoke alice"), "{script}");
    let dir = tempfile::tempdir().unwrap();
    let bin = program("rexec").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // Whatever happens, the agent ends with the shell.
    let script = format!("trap 'kill $! 2>/dev/null || :' EXIT\n{script}");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &script]).current_dir(dir.path()).stdin(Stdio::null());
    shell.env_clear().env("PATH", path).env("HOME", dir.path());
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in ["it works\n", "with the new one, too\n", "1 revoked", "back again\n"] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    assert!(!said.contains("WRONG"), "{said}");
}

/// Submitted twice, run once; and looked on at.
#[test]
fn the_examples_of_jobs_work() {
    let agent = TestAgent::start();
    let example = |name: &str, words: &[&str]| {
        let output = Command::new(program(&format!("examples/{name}")))
            .arg(agent.target())
            .args(words)
            .env("REXEC_IDENTITY", agent.path("alice.pem"))
            .env("REXEC_AUTHORITY", agent.path("authority.crt"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let marks = agent.path("marks");
    let line = format!("echo ran >>{}; echo out; echo err >&2; exit 3", marks.display());
    for _ in 0..2 {
        assert_eq!(example("once", &["deploy-1", &line]), "status: Some(3)\nstdout: out\n");
    }
    assert_eq!(std::fs::read_to_string(&marks).unwrap(), "ran\n");
    assert!(example("watch", &[]).starts_with("deploy-1 alice echo ran"));
    let watched = example("watch", &["deploy-1"]);
    for part in [" stdout out\n", " stderr err\n", "all of it: exited with status 3\n"] {
        assert!(watched.contains(part), "{watched}");
    }
}

#[test]
fn the_tour_of_the_library_works() {
    let agent = TestAgent::start();
    let output = Command::new(program("examples/tour"))
        .arg(agent.target())
        .env("REXEC_IDENTITY", agent.path("alice.pem"))
        .env("REXEC_AUTHORITY", agent.path("authority.crt"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "words: <two words><*>",
        "status: Some(7)",
        "echo: one",
        "echo: two",
        "sed succeeded: true",
        "signal: Some(\"TERM\")",
        "timed out: true",
        "nothing ran: true (the command was not started: ",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
}

/// As far as the systemd that is here can tell, and the settings that a restart needs are there.
#[test]
fn the_unit_leaves_commands_alone_and_is_one_that_systemd_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let unit = std::fs::read_to_string(root.join("packaging/rexec-agent.service")).unwrap();
    for line in [
        "KillMode=process\n",
        "Delegate=yes\n",
        "DelegateSubgroup=rexec-agent\n",
        "ExecReload=/bin/kill -HUP $MAINPID\n",
    ] {
        assert!(unit.contains(line), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("rexec-agent.service");
    let agent = program("rexec-agent").display().to_string();
    let unit = unit.replace("/usr/bin/rexec-agent", &agent).replace("Documentation=", "#");
    std::fs::write(&copy, unit).unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&copy).output() else {
        return eprintln!("skipped in part: there is no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about =
        |line: &&str| line.contains("rexec-agent.service") && !line.contains("DelegateSubgroup");
    let faults: Vec<&str> = said.lines().filter(about).collect();
    assert!(faults.is_empty(), "{faults:?}");
}
