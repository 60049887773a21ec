//! Which transfers are allowed, and what becomes of them.

use super::*;
use crate::policy::engine::Source;
use rexec_protocol::Algorithm;
use rexec_protocol::files::Store;
use std::path::Path;

const POLICY: &str = r#"
[[rule]]
name = "no-secrets"
effect = "deny"
users = ["alice"]
read = ["/srv/**/secret"]
[[rule]]
name = "logs"
users = ["alice"]
as = ["deploy"]
read = ["/var/log/**", "/etc/*.conf"]
[[rule]]
name = "app"
users = ["alice"]
as = ["deploy"]
read = ["/srv/**"]
write = ["/srv/app/**", "/srv/one"]
[[rule]]
name = "home"
users = ["bob"]
as = ["deploy"]
write = ["/home/deploy/in/x"]
[[rule]]
name = "everything"
users = ["carol"]
as = ["deploy"]
commands = "any"
read = ["/**"]
write = ["/**"]
[[rule]]
name = "all-but"
effect = "deny"
users = ["dave"]
read = ["/etc/shadow"]
[[rule]]
name = "dave"
users = ["dave"]
as = ["deploy"]
read = ["/**"]
"#;

fn ask(user: &str, request: &FilesRequest) -> Result<(FilesRequest, String), String> {
    let path = Path::new("policy.toml");
    let source = Source { path: path.to_owned(), text: POLICY.to_owned() };
    let policy = Policy::parse(path, &[source]).unwrap();
    let account = Account {
        name: "deploy".to_owned(),
        home: "/home/deploy".into(),
        shell: "/bin/sh".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
    };
    let caller = Caller { user, groups: &[], from: None };
    decide(&policy, caller, &account, request)
        .map(|(request, rule)| (request, rule.name.clone()))
        .map_err(|denied| denied.message)
}

fn get(paths: &[&str]) -> Get {
    let paths = paths.iter().map(|path| ByteBuf::from(path.as_bytes())).collect();
    let digest = Algorithm::Sha256;
    Get { paths, recursive: false, glob: false, ask: false, digest, links: true }
}

fn got(user: &str, get: Get) -> Result<Get, String> {
    match ask(user, &FilesRequest::Get(get))? {
        (FilesRequest::Get(get), _) => Ok(get),
        other => panic!("{other:?}"),
    }
}

fn put(path: &str, name: &str) -> Put {
    let name = Some(ByteBuf::from(name.as_bytes())).filter(|name| !name.is_empty());
    let (path, target) = (ByteBuf::from(path.as_bytes()), Target::Either);
    Put {
        path,
        target,
        name,
        sources: Vec::new(),
        glob: false,
        recursive: false,
        links: true,
        store: Store::default(),
    }
}

fn was_put(user: &str, put: Put) -> Result<Put, String> {
    match ask(user, &FilesRequest::Put(put))? {
        (FilesRequest::Put(put), _) => Ok(put),
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_become_absolute_before_they_are_decided_on() {
    let paths = |user, path| got(user, get(&[path])).map(|get| get.paths[0].to_vec());
    assert_eq!(paths("carol", "x").unwrap(), b"/home/deploy/x");
    assert_eq!(paths("carol", "./a//b/").unwrap(), b"/home/deploy/a/b");
    assert_eq!(paths("carol", "").unwrap(), b"/home/deploy/.");
    assert_eq!(paths("carol", "/srv/.").unwrap(), b"/srv/.");
    assert_eq!(paths("carol", "/").unwrap(), b"/.");
    assert_eq!(paths("alice", "/var/log/./x").unwrap(), b"/var/log/x");
    assert!(paths("carol", "../x").unwrap_err().contains("'..'"));
    assert!(paths("alice", "/var/log/../../etc/shadow").unwrap_err().contains("'..'"));
    assert!(paths("alice", "x").unwrap_err().contains("may not read '/home/deploy/x'"));
}

#[test]
fn a_tree_needs_a_rule_for_all_of_it() {
    let tree = |path| got("alice", Get { recursive: true, ..get(&[path]) });
    assert!(tree("/var/log").is_ok() && tree("/var/log/app").is_ok());
    assert!(got("alice", get(&["/etc/a.conf"])).is_ok());
    assert!(tree("/etc/a.conf").unwrap_err().contains("read all of '/etc/a.conf'"));
    assert!(tree("/etc").is_err() && tree("/").is_err());
}

#[test]
fn a_tree_in_which_something_is_denied_is_denied() {
    let tree = |path| got("alice", Get { recursive: true, ..get(&[path]) });
    assert!(got("alice", get(&["/srv/app/x"])).is_ok());
    assert!(tree("/srv/app").unwrap_err().contains("'no-secrets'"));
    assert!(got("alice", get(&["/srv/app/secret"])).is_err());
}

#[test]
fn a_pattern_needs_a_rule_for_all_that_it_could_match() {
    let glob = |path| got("alice", Get { glob: true, ..get(&[path]) });
    assert!(glob("/var/log/*.log").is_ok());
    assert!(glob("/etc/*.conf").is_err() && glob("/*/log/x").is_err());
}

#[test]
fn links_in_a_path_are_for_those_who_may_reach_everything() {
    let links = |user, path| got(user, get(&[path])).unwrap().links;
    assert!(links("carol", "/x"));
    assert!(!links("alice", "/var/log/x"));
    assert!(!links("dave", "/x"), "a link could lead to what is denied");
    assert!(!was_put("alice", put("/srv/app/x", "x")).unwrap().links);
    let none = got("carol", Get { links: false, ..get(&["/x"]) }).unwrap();
    assert!(!none.links, "nobody gets what was not asked for");
}

/// Whether the destination is a folder is known only when it is too late to ask again.
#[test]
fn a_put_means_only_what_is_allowed() {
    let target = |user, path, name| was_put(user, put(path, name)).map(|put| put.target);
    assert_eq!(target("alice", "/srv/app", "x"), Ok(Target::Either));
    assert_eq!(target("alice", "/srv/one", "x"), Ok(Target::Exact));
    assert_eq!(target("bob", "in", "x"), Ok(Target::Into));
    assert!(target("bob", "in", "y").is_err());
    assert!(target("bob", "in", "").is_err(), "any name could come");
    assert!(target("alice", "/srv", "app").is_ok_and(|target| target == Target::Into));
    assert!(target("alice", "/srv", "other").is_err());
}

#[test]
fn what_is_there_is_compared_only_for_those_who_may_read_it() {
    let store = Store { update: Some(Update::Digest), ..Store::default() };
    let into = |user, path| was_put(user, Put { store, target: Target::Exact, ..put(path, "x") });
    assert!(into("alice", "/srv/one").is_ok());
    let refused = was_put("bob", Put { store, ..put("in/x", "x") }).unwrap_err();
    assert!(refused.contains("read"), "{refused}");
}

#[test]
fn special_modes_are_for_those_who_may_run_anything() {
    let store = Store { special: true, ..Store::default() };
    assert!(was_put("carol", Put { store, ..put("/x", "x") }).is_ok());
    assert!(was_put("alice", Put { store, ..put("/srv/app/x", "x") }).is_err());
}

#[test]
fn one_rule_allows_all_of_a_request() {
    let refused = got("alice", get(&["/var/log/x", "/srv/x"])).unwrap_err();
    assert!(refused.contains("one by one"), "{refused}");
    assert!(got("alice", get(&["/var/log/x", "/etc/a.conf"])).is_ok());
}
