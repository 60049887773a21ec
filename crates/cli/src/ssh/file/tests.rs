use super::*;
use crate::ssh::options::{RequestTerminal, SessionType};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("web*", "web1", true),
        ("web?", "web1", true),
        ("web?", "web", false),
        ("*.example.org", "a.b.example.org", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxbyy", false),
        ("web1", "web12", false),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
    }
}

fn read(text: &str, host: &str) -> Result<Options, String> {
    let mut options = Options::default();
    read_into(&mut options, text, host).map(|()| options)
}

fn read_into(options: &mut Options, text: &str, host: &str) -> Result<(), String> {
    Reader { host, home: None, is_named: true, unknown: Vec::new(), options }.text(text, "", 0)
}

#[test]
fn the_first_block_that_says_something_counts() {
    let text = "\
        # comment\n\
        User nobody-yet\n\
        Host web* !web9\n  HostName %h.example.org\n  Port=2222\n\
        Match exec \"true\"\n  Port 1\n\
        Host *\n  Port 9\n  User \"deploy\"\n  IdentityFile ~/x\n";
    let web = read(text, "web1").unwrap();
    assert_eq!(web.host_name.as_deref(), Some("%h.example.org"));
    assert_eq!((web.port, web.user.as_deref()), (Some(2222), Some("nobody-yet")));
    let other = read(text, "web9").unwrap();
    assert_eq!((other.host_name, other.port), (None, Some(9)));
    assert!(read("Host a\nPort x", "a").unwrap_err().starts_with("line 2: Port: "));
    assert_eq!(read("Host a\nPort x", "b").unwrap(), Options::default());
    assert_eq!(read("Match all\nPort 3", "b").unwrap().port, Some(3));
    assert_eq!(read("Match ALL # but\nPort 3", "b").unwrap().port, Some(3));
}

/// It counted as `Match all`, and what it holds was for every host. To ssh it is an error, too.
#[test]
fn a_block_for_nobody_is_an_error() {
    for (text, part) in [
        ("User x\nMatch\n Port 3", "line 2: Match: it has no condition"),
        ("Match # all\n Port 3", "line 1: Match: it has no condition"),
        ("Host b\nMatch =\n Port 3", "line 2: Match: it has no condition"),
        ("Host\n Port 3", "line 1: Host: it names no host"),
    ] {
        let why = read(text, "a").unwrap_err();
        assert!(why.starts_with(part), "{text}: {why}");
    }
    assert_eq!(read("Host # b\n Port 3", "b").unwrap().port, None);
}

#[test]
fn a_comment_is_no_part_of_a_value() {
    let text = "Host a # b\n HostName 127.0.0.1 # c\n User 'x # y'#z\n Port \"7\" #\n";
    let a = read(text, "a").unwrap();
    assert_eq!(a.host_name.as_deref(), Some("127.0.0.1"));
    assert_eq!((a.user.as_deref(), a.port), (Some("x # y#z"), Some(7)));
    assert_eq!(read(text, "b").unwrap(), Options::default());
    assert!(read("User a b", "h").unwrap_err().contains("'b'"));
    assert!(read("User # b", "h").unwrap_err().contains("no value"));
}

#[test]
fn a_capital_letter_is_another_one() {
    let text = "Host CASE\n Port 9\n";
    assert_eq!(read(text, "CASE").unwrap().port, Some(9));
    assert_eq!(read(text, "case").unwrap().port, None);
}

#[test]
fn hosts_in_between_are_refused_where_they_would_be_used() {
    for (text, is_refused) in [
        ("Host a\n ProxyJump bastion\n", true),
        ("Host a\n ProxyCommand nc %h %p\n", true),
        ("Host b\n ProxyJump bastion\n", false),
        ("Host a\n ProxyJump none # or not\nHost *\n ProxyJump bastion\n", false),
        ("Host a\n ProxyJump none\nHost *\n ProxyCommand nc x\n", true),
        ("Host a\n ProxyCommand none\nHost *\n ProxyJump bastion\n", false),
        ("Host *\n ProxyJump bastion\nHost a\n ProxyJump none\n", true),
    ] {
        let read = read(text, "a");
        assert_eq!(read.is_err(), is_refused, "{text}");
        assert!(read.err().is_none_or(|why| why.contains("ProxyCommand=none")));
    }
    let mut options = Options::default();
    options.direct.heed("proxycommand", "none").unwrap();
    assert!(read_into(&mut options, "ProxyJump bastion", "a").is_ok());
}

#[test]
fn keys_mean_what_they_mean_on_the_command_line() {
    let text = "\
        Host a\n  RequestTTY no # c\n  RemoteCommand echo \"a # b\"\n  StdinNull yes\n\
        Host *\n  RequestTTY force\n  SessionType none\n  ConnectTimeout 7\n  RemoteCommand x\n\
        \x20 LocalForward 8080 localhost:80\n  LocalForward 1 /run/socket\n  IdentityFile ~/x\n";
    let mut options = Options { session: Some(SessionType::Command), ..Options::default() };
    read_into(&mut options, text, "a").unwrap();
    assert_eq!(options.terminal, Some(RequestTerminal::No));
    assert_eq!(options.remote_command(), Some("echo \"a # b\""));
    assert_eq!((options.no_stdin, options.session()), (Some(true), SessionType::Command));
    assert_eq!(options.connect_timeout(), Some(Duration::from_secs(7)));
    assert_eq!((options.forwards.len(), options.identities.len()), (1, 1));
    let [said] = &options.warnings[..] else { panic!("{:?}", options.warnings) };
    assert!(said.contains("line 11: LocalForward: it is left out: "), "{said}");
    for (bad, part) in [
        ("Host a\nRequestTTY perhaps", "line 2: RequestTTY: it is yes, no, force or auto"),
        ("ConnectTimeout soon", "line 1: ConnectTimeout: "),
        ("SessionType", "line 1: SessionType: it has no value"),
        ("StdinNull maybe", "line 1: StdinNull: it is yes or no"),
    ] {
        let error = read(bad, "a").unwrap_err();
        assert!(error.contains(part), "{bad}: {error}");
    }
}

#[test]
fn what_is_skipped_and_may_matter_is_told() {
    for (text, part) in [
        ("Match exec true\n Port 9", Some("line 1: Match: ")),
        ("\nNoSuchKey 1", Some("line 2: NoSuchKey: ")),
        ("BindAddress 192.0.2.1", Some("BindAddress: ")),
        ("IgnoreUnknown UseKey*,Other\nUseKeychain yes", None),
        ("Host other\n Include /x\n NoSuchKey 1", None),
        ("Match all\n ForwardAgent yes\n SendEnv LANG LC_*", None),
        ("Tunnel no", None),
    ] {
        let said = read(text, "a").unwrap().warnings;
        assert_eq!(said.len(), usize::from(part.is_some()), "{text}: {said:?}");
        assert!(part.is_none_or(|part| said[0].starts_with(part) || said[0].contains(part)));
    }
}

#[test]
fn conditions() {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let mine = format!("localuser {me} user {me}");
    for (conditions, holds) in [
        ("all", true),
        ("!all", false),
        ("originalhost web*", true),
        ("originalhost db*,WEB1", true),
        ("!originalhost db*", true),
        ("originalhost *,!web1", false),
        // What was said of it so far.
        ("host web1.example.org", true),
        ("host web1", false),
        ("user deploy", false),
        (&mine, true),
        ("!localuser *", false),
        ("host *.org originalhost web1", true),
        ("host *.org originalhost web2", false),
        // It does not matter what else it depends on.
        ("originalhost web2 exec true", false),
        ("canonical", false),
        ("!canonical", true),
    ] {
        let text = format!("HostName %h.example.org\nMatch {conditions}\nPort 9\n");
        let web = read(&text, "web1").unwrap();
        assert_eq!(web.port.is_some(), holds, "{conditions}");
        assert!(web.warnings.is_empty(), "{conditions}: {:?}", web.warnings);
    }
    assert_eq!(read("User deploy\nMatch user deploy\nPort 9", "a").unwrap().port, Some(9));
    for (conditions, part) in [
        ("nosuch x", "line 1: Match: there is no condition 'nosuch'"),
        ("host", "line 1: Match: 'host' has no value"),
        ("host a user", "line 1: Match: 'user' has no value"),
    ] {
        let why = read(&format!("Match {conditions}\nPort 9"), "a").unwrap_err();
        assert!(why.starts_with(part), "{why}");
    }
    let skipped = read("Match host a final\nPort 9", "a").unwrap();
    assert_eq!((skipped.port, skipped.warnings.len()), (None, 1));
    assert!(skipped.warnings[0].contains("'final'"), "{:?}", skipped.warnings);
}

#[test]
fn files_are_included_as_a_part_of_their_block() {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    fs::create_dir_all(ssh.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(ssh.join(name), text).unwrap();
    let read = |text: &str| {
        write("config", text);
        let mut options = Options::default();
        super::read(&ssh.join("config"), false, Some(home.path().to_owned()), "a", &mut options)
            .map(|()| options)
    };
    write("conf.d/1", "Port 1\nHost b\n User of-b\n");
    write("conf.d/2", "Port 2\nUser of-all\nNoSuchKey\n");
    // In order; a block ends with its file.
    let all = read("Include conf.d/*\nHostName after").unwrap();
    assert_eq!((all.port, all.user.as_deref()), (Some(1), Some("of-all")));
    assert_eq!(all.host_name.as_deref(), Some("after"));
    let [said] = &all.warnings[..] else { panic!("{:?}", all.warnings) };
    assert!(said.contains("conf.d/2: line 3: "), "{said}");
    assert_eq!(read("Host b\nInclude conf.d/*").unwrap(), Options::default());
    assert_eq!(read("Include ~/.ssh/conf.d/2").unwrap().port, Some(2));
    assert_eq!(read("Include nothing/* none").unwrap(), Options::default());
    let others = fs::Permissions::from_mode(0o666);
    fs::set_permissions(ssh.join("conf.d/2"), others).unwrap();
    let why = read("Include conf.d/2").unwrap_err();
    assert!(why.contains("line 1: Include: ") && why.contains("chmod go-w"), "{why}");
    for (text, part) in [
        ("Include", "line 1: Include: it names no file"),
        ("Include config", "more than 16 deep"),
        ("\nInclude conf.d", "line 2: Include: cannot read "),
        ("Include [", "line 1: Include: [: "),
    ] {
        let why = read(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
    write("conf.d/1", "Port x");
    let why = read("Include conf.d/1").unwrap_err();
    assert!(
        why.contains("config: line 1: Include: ") && why.contains("conf.d/1: line 1: Port: "),
        "{why}"
    );
}
