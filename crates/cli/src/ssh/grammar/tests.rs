use super::super::options::{RequestTerminal, SessionType};
use super::*;
use crate::values::LogLevel;
use std::time::Duration;

fn line(words: &[&str]) -> Line {
    parse(words.iter().map(OsString::from)).unwrap_or_else(|why| panic!("{words:?}: {why}"))
}

/// Words of a shell line; `"` and `'` hold one together, each within the other too.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What each program passes, as it was recorded; `H` is the host. The command as one line follows.
const CALLERS: &[(&str, &str)] = &[
    (
        "-p 99 -o BatchMode=yes -l U H rsync --server -logDtpre.iLsfxCIvu . D/",
        "rsync --server -logDtpre.iLsfxCIvu . D/",
    ),
    ("-4 H rsync --server --daemon .", "rsync --server --daemon ."),
    ("-o SendEnv=GIT_PROTOCOL -4 -p 99 U@H \"git-upload-pack 'D'\"", "git-upload-pack 'D'"),
    ("U@H \"git-receive-pack 'D'\"", "git-receive-pack 'D'"),
    (
        "-oControlMaster=auto -oControlPath=D/sock-%C U@H \"git-lfs-transfer D upload\"",
        "git-lfs-transfer D upload",
    ),
    (
        "-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no -q -C -oBatchmode=yes -4 -v -oForwardAgent=no -p 99 -l U -s -- H sftp",
        "sftp",
    ),
    (
        "-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no -oForwardAgent=no -- H \"scp -v -r -p -t D\"",
        "scp -v -r -p -t D",
    ),
    ("-x -oClearAllForwardings=yes -n -- H scp D H2:D", "scp D H2:D"),
    (
        "\"-oForwardX11 no\" \"-oPermitLocalCommand no\" \"-oClearAllForwardings yes\" -q -C \"-obatchmode yes\" \"-oForwardAgent no\" \"-oPort 99\" -l U -s -- H sftp",
        "sftp",
    ),
    ("\"-oForwardX11 no\" \"-oForwardAgent no\" -- H /path/sftp-server", "/path/sftp-server"),
    (
        "-x -a -oClearAllForwardings=yes -oPort=99 -oCompression=yes -oServerAliveInterval=15 -2 -s -- U@H sftp",
        "sftp",
    ),
    ("-p 99 U@H borg serve --info", "borg serve --info"),
    ("-C -p 99 U@H \"hg -R D serve --stdio\"", "hg -R D serve --stdio"),
    ("-q -o ControlMaster=no -- U@H svnserve -t", "svnserve -t"),
    (
        "-C -o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=no -o KbdInteractiveAuthentication=no -o PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey -o PasswordAuthentication=no -o Port=99 -o 'IdentityFile=\"D\"' -o 'User=\"U\"' -o ConnectTimeout=10 -o 'ControlPath=\"D\"' -tt H \"/bin/sh -c 'echo ~ && sleep 0'\"",
        "/bin/sh -c 'echo ~ && sleep 0'",
    ),
    ("H \"dd of=D bs=65536\"", "dd of=D bs=65536"),
    ("-l U H -- exec perl -X -e worker,x 414243", "exec perl -X -e worker,x 414243"),
    ("H -- exec \"sh -c 'rm -f ./f'\"", "exec sh -c 'rm -f ./f'"),
    ("-oConnectTimeout=10 -2 -a -x -lU H echo hi", "echo hi"),
    (
        "-oStrictHostKeyChecking=no -oForwardAgent=no -oForwardX11=no -l U -oConnectTimeout=15 -oBatchMode=yes H \"echo hi\"",
        "echo hi",
    ),
    ("-n -tt H -- \"sh -c '[ -n $SSH_CONNECTION ]'\"", "sh -c '[ -n $SSH_CONNECTION ]'"),
    ("-n -tt -S none H -- mosh-server 'new' '-c' '8' -s", "mosh-server new -c 8 -s"),
    ("-l U -p 99 H -e none unison -server __new-rpc-mode", "unison -server __new-rpc-mode"),
    (
        "\"-o ConnectTimeout=30\" -T -l U -p 99 -- H docker system dial-stdio",
        "docker system dial-stdio",
    ),
    ("H -p 99 -l U -s sftp", "sftp"),
    ("H \"md5sum D\"", "md5sum D"),
    ("-oBatchMode=yes -o BatchMode=yes H rsync --server", "rsync --server"),
    ("-C H rdiff-backup --server", "rdiff-backup --server"),
    (
        "-oForwardX11=no -oForwardAgent=no -oClearAllForwardings=yes -oNoHostAuthenticationForLocalhost=yes -p 99 -l U -- H bzr serve --inet --directory=/ --allow-writes",
        "bzr serve --inet --directory=/ --allow-writes",
    ),
    ("-- U@H darcs transfer-mode --repodir D/", "darcs transfer-mode --repodir D/"),
    ("-l U -- H \"cvs server\"", "cvs server"),
    ("-l U -o ControlMaster=auto -o ControlPath=tramp.%C -o ControlPersist=no -e none H", ""),
    ("H ls -FLa D", "ls -FLa D"),
    ("-a -x -v -o PreferredAuthentications=, -o ControlPath=none U@H", ""),
    (
        "-a -x -i KEY -o ControlPath=none -o LogLevel=INFO -o PreferredAuthentications=publickey -o IdentitiesOnly=yes U@H exit",
        "exit",
    ),
];

#[test]
fn every_caller_is_understood() {
    for (text, command) in CALLERS {
        let words = split(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let line = line(&words);
        let place = line.place.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(place.host, "H", "{text}");
        assert_eq!(line.words.join(OsStr::new(" ")), *command, "{text}");
        assert!(line.options.missing.is_empty(), "{text}");
        let user = line.options.user.clone().or(place.user);
        assert_eq!(user.is_some(), text.contains('U'), "{text}");
        assert!(user.is_none_or(|user| user == "U"), "{text}");
        let port = text.contains("99").then_some(99);
        assert_eq!(line.options.port, port, "{text}");
        let is_subsystem = line.options.session() == SessionType::Subsystem;
        assert_eq!(is_subsystem, *command == "sftp", "{text}");
    }
}

#[test]
fn options_go_on_after_the_host_until_the_command() {
    let line = line(&["H", "-p", "99", "-tt", "--", "-x", "-y"]);
    assert_eq!(line.options.port, Some(99));
    assert_eq!(line.options.terminal, Some(RequestTerminal::Force));
    assert_eq!(line.words, ["-x", "-y"]);
}

#[test]
fn a_dash_before_the_host_ends_the_options_for_good() {
    let line = line(&["--", "H", "-p", "--", "99"]);
    assert_eq!((line.options.port, line.words.len()), (None, 3));
}

#[test]
fn options_after_the_command_began_are_its_own() {
    let line = line(&["H", "ls", "-l", "--", "-p", "9"]);
    assert_eq!((line.options.port, line.words.len()), (None, 5));
}

#[test]
fn letters_come_in_bundles() {
    let line = line(&["-nTqp99", "-vvv", "-lroot", "-oConnectTimeout=3", "H"]);
    let options = line.options;
    assert_eq!(options.no_stdin, Some(true));
    assert_eq!((options.port, options.user.as_deref()), (Some(99), Some("root")));
    assert_eq!(options.terminal, Some(RequestTerminal::No));
    assert_eq!(options.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(options.level, Some(LogLevel::Verbose(3)));
}

#[test]
fn the_first_of_two_counts() {
    let line = line(&["-p", "1", "-oPort=2", "-l", "a", "b@H", "-l", "c"]);
    assert_eq!((line.options.port, line.options.user.as_deref()), (Some(1), Some("a")));
}

#[test]
fn of_two_files_the_last_one_counts() {
    let options = line(&["-F", "a", "-F", "b", "-E", "c", "-E", "d", "H"]).options;
    let path = |text| Some(std::path::PathBuf::from(text));
    assert_eq!((options.file, options.log_file), (path("b"), path("d")));
}

#[test]
fn probes_need_no_more_than_they_say() {
    assert!(line(&["-V"]).options.version);
    assert!(line(&["-G", "-o", "ControlMaster=auto", "0.0.0.1"]).options.print);
    let check = line(&["-O", "check", "H"]).options;
    assert_eq!(check.control.as_deref(), Some("check"));
}

#[test]
fn what_is_wrong_is_named() {
    for (words, part) in [
        (&["-z", "H"][..], "unknown option -- z"),
        (&["H", "-p"], "requires an argument -- p"),
        (&["-p", "x", "H"], "-p: "),
        (&["-o", "NoSuchKey=1", "H"], "Bad configuration option: NoSuchKey"),
        (&["-o", "ControlPersist"], "missing argument"),
        (&["-J", "bastion", "H"], "-J: "),
        (&["-oProxyCommand=nc %h %p", "H"], "ProxyCommand"),
        (&["-J", "none", "-oProxyCommand=nc %h %p", "H"], "ProxyCommand"),
        (&["ssh://u@H/path"], "usage: "),
        (&["-oBatchMode=perhaps", "H"], "BatchMode"),
        (&["-w", "0:0", "H"], "-w: "),
        (&["-R", "1:/run/socket", "H"], "-R: "),
        (&["-L", "1:/run/socket", "H"], "-L: "),
        (&["-b", "192.0.2.1", "H"], "-b: "),
        (&["-1", "H"], "-1: "),
        (&["-N", "-s", "H", "sftp"], "-s: the session is none already"),
        (&["-oSessionType=default", "-N", "H"], "-N: the session is default already"),
    ] {
        let error = parse(words.iter().map(OsString::from)).unwrap_err();
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn what_is_not_to_be_had_is_said_once() {
    let line = line(&["-A", "-X", "-Y", "-oForwardAgent=yes", "H"]);
    assert_eq!(line.options.missing.len(), 2);
}

#[test]
fn no_host_in_between_is_what_there_is() {
    let line = line(&["-J", "none", "-oProxyJump=bastion", "H"]);
    assert_eq!(line.place.unwrap().host, "H");
}
