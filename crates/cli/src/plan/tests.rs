//! Tests of plans.

use super::*;
use crate::args::{self, Request};
use rexec_client::DEFAULT_PORT;

/// A configuration folder with the files that are needed by default.
fn home() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rexec")).unwrap();
    for file in ["identity.pem", "authority.crt"] {
        std::fs::write(dir.path().join("rexec").join(file), "").unwrap();
    }
    dir
}

fn plan_in(home: &Path, line: &[&str]) -> Result<Plan, String> {
    let env = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.into());
    let words = std::iter::once("rexec").chain(line.iter().copied()).map(OsString::from);
    match args::parse(&words.collect::<Vec<_>>()) {
        Ok(Request::Run(run)) => Plan::new(*run, &env),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn plan(line: &[&str]) -> Result<Plan, String> {
    plan_in(home().path(), line)
}

#[test]
fn one_word_is_a_line_and_several_are_an_argv() {
    let work = |line: &[&str]| plan(line).unwrap().work;
    assert_eq!(work(&["w", "a b"]), Work::Line("a b".into()));
    assert_eq!(work(&["w", "a", "b c"]), Work::Argv("a".into(), vec!["b c".into()]));
    assert_eq!(work(&["--shell", "w", "a", "b c"]), Work::Line("a b c".into()));
    assert_eq!(work(&["--argv", "w", "a b"]), Work::Argv("a b".into(), vec![]));
    assert_eq!(work(&["w", "--", "a"]), Work::Line("a".into()));
    assert!(plan(&["w", "", "x"]).unwrap_err().contains("empty"));
}

#[test]
fn a_digest_that_is_shown_is_sha256() {
    let hash = |line: &[&str]| plan(line).unwrap().hash;
    assert_eq!(hash(&["w", "x"]), None, "the agent's choice");
    for shown in [&["--digest"][..], &["--json"], &["--status-fd", "3"], &["-d"], &["--id", "a"]] {
        assert_eq!(hash(&[shown, &["w", "x"]].concat()), Some(Algorithm::Sha256), "{shown:?}");
    }
    assert_eq!(hash(&["--hash", "blake3", "--digest", "w", "x"]), Some(Algorithm::Blake3));
    assert_eq!(hash(&["--hash", "sha256", "w", "x"]), Some(Algorithm::Sha256));
}

#[test]
fn without_a_command_it_is_a_login_shell() {
    for line in [&["al@w"][..], &["al@w", "--"], &["--shell", "al@w"]] {
        assert_eq!(plan(line).unwrap().work, Work::Login, "{line:?}");
    }
}

#[test]
fn a_detached_login_shell_is_refused() {
    for line in [&["-d", "w"][..], &["-d", "-tt", "w"], &["-d", "w", "--"], &["-d", "--json", "w"]]
    {
        assert!(plan(line).unwrap_err().contains("-d needs a command"), "{line:?}");
    }
    for then in ["kill", "lease=1h"] {
        let error = plan(&["-d", "--on-disconnect", then, "w", "x"]).unwrap_err();
        assert!(error.contains("can mean nothing"), "{error}");
    }
    assert!(plan(&["-d", "--on-disconnect", "keep", "w", "x"]).unwrap().detach);
    assert!(plan(&["-d", "-t", "w", "x"]).unwrap().terminal.is_some(), "nobody sits at it");
    assert!(plan(&["-d", "w", "x"]).unwrap().detach);
    assert!(plan(&["-d", "--script", "/dev/null", "w"]).unwrap().detach);
}

#[test]
fn a_terminal_as_ssh_decides_it() {
    let wish = |line: &[&str], stdin_is_terminal| {
        let words = std::iter::once("rexec").chain(line.iter().copied()).map(OsString::from);
        let Ok(Request::Run(run)) = args::parse(&words.collect::<Vec<_>>()) else { panic!() };
        terminal::wish(&run.options.command, run.words.is_empty(), stdin_is_terminal)
    };
    for (line, at_a_terminal, in_a_pipe) in [
        (&["w"][..], Wish::Yes, Wish::No),
        (&["-T", "w"], Wish::No, Wish::No),
        (&["w", "x"], Wish::No, Wish::No),
        (&["-t", "w", "x"], Wish::Yes, Wish::InVain),
        (&["-t", "w"], Wish::Yes, Wish::InVain),
        (&["-tt", "w", "x"], Wish::Yes, Wish::Yes),
        (&["-ttT", "w", "x"], Wish::No, Wish::No),
    ] {
        assert_eq!((wish(line, true), wish(line, false)), (at_a_terminal, in_a_pipe), "{line:?}");
    }
}

#[test]
fn a_terminal_brings_type_and_locale_from_here() {
    let home = home();
    let env = |name: &str| match name {
        "XDG_CONFIG_HOME" => Some(home.path().into()),
        "TERM" => Some("vt100".into()),
        "LC_TIME" => Some("C".into()),
        "LANG" => Some("".into()),
        _ => None,
    };
    let words = ["rexec", "-tt", "-e", "none", "w", "x"].map(OsString::from);
    let Ok(Request::Run(run)) = args::parse(&words) else { panic!() };
    let made = Plan::new(*run, &env).unwrap();
    let terminal = made.terminal.unwrap();
    assert_eq!((terminal.term, terminal.keys.escape), ("vt100".into(), None));
    assert_eq!(terminal.locale, [("LC_TIME".into(), "C".into())]);
    assert_eq!(made.on_full, OnFull::DiscardOldest);
    assert!(plan(&["-tt", "--json", "w", "x"]).unwrap_err().contains("leave -t out"));
}

#[test]
fn letters_go_before_o_and_that_before_the_target() {
    let made =
        plan(&["-o", "Port=2", "-o", "port=3", "-l", "bob", "-o", "User=eve", "al@w:9", "x"])
            .unwrap();
    assert_eq!((made.endpoint.port, made.user.as_deref()), (2, Some("bob")));
    let made = plan(&["al@w:9", "x"]).unwrap();
    assert_eq!((made.endpoint.port, made.user.as_deref()), (9, Some("al")));
    assert_eq!(plan(&["w", "x"]).unwrap().endpoint.port, DEFAULT_PORT);
}

#[test]
fn variables_come_from_both_kinds_of_option() {
    let made =
        plan(&["--env", "A=2", "-o", "SetEnv=A=1", "--env", "NOT_SET_HERE", "w", "x"]).unwrap();
    assert_eq!(made.env, [("A".into(), "1".into()), ("A".into(), "2".into())]);
}

#[test]
fn the_way_back_has_what_was_typed() {
    let home = home();
    let identity = home.path().join("my id.pem");
    std::fs::write(&identity, "").unwrap();
    let identity = identity.to_str().unwrap();
    let made = plan_in(home.path(), &["-p", "99", "-i", identity, "-q", "-l", "bob", "al@w", "x"])
        .unwrap();
    assert_eq!(made.again, format!("rexec attach -p 99 -i '{identity}' al@w"));
    assert_eq!(plan(&["-o", "Port=9", "w:9", "x"]).unwrap().again, "rexec attach -o Port=9 w:9");
}

#[test]
fn attempts_add_up() {
    let made = plan(&["--retry", "2", "--reconnect-for", "10s", "w", "x"]).unwrap();
    assert_eq!((made.retries, made.endpoint.reconnect_for.as_secs()), (2, 30));
}

#[test]
fn a_script_is_read_here() {
    let home = home();
    let file = home.path().join("s.sh");
    std::fs::write(&file, b"echo \xff\n").unwrap();
    let script = file.to_str().unwrap();
    let made = plan_in(home.path(), &["--script", script, "w", "a b"]).unwrap();
    assert_eq!(made.work, Work::Script { text: b"echo \xff\n".to_vec(), args: vec!["a b".into()] });
    std::fs::write(&file, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(plan_in(home.path(), &["--script", script, "w"]).unwrap_err().contains("larger"));
    assert!(plan(&["--script", "/nowhere", "w"]).unwrap_err().contains("/nowhere"));
}

#[test]
fn missing_files_are_named_with_a_way_to_get_them() {
    let empty = tempfile::tempdir().unwrap();
    let error = plan_in(empty.path(), &["w", "x"]).unwrap_err();
    let file = empty.path().join("rexec/identity.pem");
    assert!(error.contains(file.to_str().unwrap()) && error.contains("rexec ca"), "{error}");
    let error = plan(&["--authority", "/nowhere.crt", "w", "x"]).unwrap_err();
    assert!(error.contains("/nowhere.crt") && error.contains("authority"), "{error}");
}

#[test]
fn a_relative_folder_has_no_meaning_there() {
    assert!(plan(&["--cwd", "src", "w", "x"]).unwrap_err().contains("absolute"));
}
