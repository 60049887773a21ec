//! Commands as another user, seen from inside. Only root can start them.

use super::*;
use crate::account::Account;
use std::collections::HashMap;

const UID: u32 = 61_001;
const GID: u32 = 61_002;

/// More groups than any fixed buffer that a library was found to have (CVE-2021-45707: 16).
fn groups() -> Vec<u32> {
    (0..70).map(|n| 62_000 + n).chain([GID]).collect()
}

fn is_root() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        eprintln!("skipped: only root can become another user");
    }
    is_root
}

fn account(uid: u32, gid: u32, groups: Vec<u32>) -> Account {
    let (home, shell) = ("/".into(), "/bin/sh".into());
    Account { name: "someone".into(), uid, gid, groups, home, shell }
}

fn as_someone(spec: LaunchSpec) -> LaunchSpec {
    LaunchSpec { credentials: Some(Credentials::from(&account(UID, GID, groups()))), ..spec }
}

/// The fields of `/proc/self/status`, with single blanks.
async fn status_of(spec: LaunchSpec) -> HashMap<String, String> {
    let zygote = zygote().await;
    let text = output(&zygote, spec).await;
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    fields.map(|(name, value)| (name.to_owned(), words(value))).collect()
}

#[tokio::test]
async fn a_command_is_its_user_and_nothing_more() {
    if !is_root() {
        return;
    }
    let status = status_of(as_someone(spec(&["cat", "/proc/self/status"]))).await;
    let mut expected = groups();
    expected.sort_unstable();
    let expected = expected.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let none = "0000000000000000";
    for (field, value) in [
        ("Uid", "61001 61001 61001 61001"),
        ("Gid", "61002 61002 61002 61002"),
        ("Groups", &expected),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapAmb", none),
        // sudo in a command must work, where the system lets it.
        ("NoNewPrivs", "0"),
        ("SigBlk", none),
        ("SigIgn", none),
        ("SigCgt", none),
        ("Umask", "0022"),
        ("Seccomp", "0"),
    ] {
        assert_eq!(status.get(field).map(String::as_str), Some(value), "{field}");
    }
}

#[tokio::test]
async fn root_s_groups_do_not_stay() {
    if !is_root() {
        return;
    }
    let alone = Credentials::from(&account(UID, GID, vec![GID]));
    let spec = LaunchSpec { credentials: Some(alone), ..spec(&["cat", "/proc/self/status"]) };
    assert_eq!(status_of(spec).await.get("Groups").map(String::as_str), Some("61002"));
}

#[tokio::test]
async fn a_user_cannot_get_root_back() {
    if !is_root() {
        return;
    }
    let zygote = zygote().await;
    let tries = "setpriv --reuid 0 true 2>/dev/null; echo $?; cat /etc/shadow 2>/dev/null; echo $?; \
                 kill -0 $PPID 2>/dev/null; echo $?; ls /proc/$PPID/fd 2>/dev/null; echo $?";
    let said = output(&zygote, as_someone(sh(tries))).await;
    let codes: Vec<&str> = said.lines().collect();
    assert_eq!(codes.len(), 4, "{said}");
    assert!(codes.iter().all(|code| *code != "0"), "{said}");
}

#[tokio::test]
async fn files_are_the_user_s_and_paths_are_seen_with_its_eyes() {
    if !is_root() {
        return;
    }
    let zygote = zygote().await;
    let scratch = Scratch::new("run-as");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o777)).unwrap();
    let here = scratch.0.to_str().unwrap();
    let made = LaunchSpec { umask: 0o027, ..as_someone(sh("touch made; stat -c '%u %g %a' made")) };
    let made = LaunchSpec { cwd: bytes(here), ..made };
    assert_eq!(output(&zygote, made).await, "61001 61002 640\n");

    // A program, and a directory, that root could use and the user cannot.
    let tool = scratch.file("tool", b"#!/bin/sh\necho ran\n", 0o700);
    let (reason, message) = failure(&zygote, as_someone(spec(&[&tool]))).await;
    assert_eq!(reason, NeverStarted::NotExecutable, "{message}");
    let private = scratch.0.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let inside = LaunchSpec { cwd: bytes(private.to_str().unwrap()), ..as_someone(spec(&["pwd"])) };
    let (reason, message) = failure(&zygote, inside.clone()).await;
    assert_eq!(reason, NeverStarted::Cwd, "{message}");
    let home = LaunchSpec { cwd_or_root: true, ..inside };
    assert_eq!(output(&zygote, home).await, "/\n");
}

/// Commands of different users must not find each other's keys in a keyring that they share.
#[tokio::test]
async fn a_command_has_a_session_keyring_of_its_own() {
    if !is_root() {
        return;
    }
    let zygote = zygote().await;
    // A process sees those keyrings that are its user's, and those that it was given.
    let seen = output(&zygote, as_someone(sh("grep ' _ses' /proc/keys; true"))).await;
    if !Path::new("/proc/keys").exists() {
        return eprintln!("skipped: this kernel has no keyrings");
    }
    let owners: Vec<_> = seen.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    assert!(owners.contains(&"61001") && !owners.contains(&"0"), "{seen}");
}

#[tokio::test]
async fn a_script_runs_as_its_user_too() {
    if !is_root() {
        return;
    }
    let zygote = zygote().await;
    let (text, args, name) = (bytes("#!/bin/sh\nid -u; echo $1\n"), vec![bytes("one")], bytes("s"));
    let program = Program::Script { text, args, name };
    let said = output(&zygote, as_someone(LaunchSpec { program, ..spec(&["x"]) })).await;
    assert_eq!(said, "61001\none\n");
}

/// Each of many commands at once, root's and others', has exactly its three descriptors.
#[tokio::test]
async fn no_descriptor_of_another_command_leaks_in() {
    let zygote = Arc::new(zygote().await);
    let switch = is_root();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..1000 {
        if running.len() == 200 {
            // The fourth is the directory that ls itself reads.
            assert_eq!(running.join_next().await.unwrap().unwrap(), "0\n1\n2\n3\n");
        }
        let zygote = Arc::clone(&zygote);
        running.spawn(async move {
            let list = sh("ls /proc/self/fd");
            let list = if switch && n % 2 == 0 { as_someone(list) } else { list };
            output(&zygote, LaunchSpec { stdin: n % 3 == 0, ..list }).await
        });
    }
    while let Some(said) = running.join_next().await {
        assert_eq!(said.unwrap(), "0\n1\n2\n3\n");
    }
}

#[tokio::test]
async fn a_tree_of_another_user_is_ended_like_any_other() {
    if !is_root() {
        return;
    }
    let zygote = zygote().await;
    let line = "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; echo $$; sleep 100' & wait";
    let mut running = launch(&zygote, as_someone(sh(line))).await;
    let escaped = announced(&mut running.stdout).await;
    running.keeper.end(Signal::TERM, GRACE).await.unwrap();
    exited(&mut running.keeper).await;
    tree_gone(&mut running.keeper).await;
    escaped.dies().await;
}
