//! Who may: policy about paths, and the rights of the local user.

use super::*;
use crate::support::users;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const AS_DEPLOY: &str = "\
[[rule]]
name = 'files'
users = ['alice']
as = ['deploy', 'root']
read = ['/**']
write = ['/**']
";

/// A policy about the files in a folder, for whoever runs the tests.
fn confined(folder: &Path) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let folder = folder.display();
    format!(
        "[[rule]]\nname = 'in'\nusers = ['alice']\nas = ['{user}']\n\
         read = ['{folder}/read/**']\nwrite = ['{folder}/write/**']\n"
    )
}

#[test]
fn paths_are_decided_on_and_links_do_not_lead_out_of_them() {
    // Where the temporary folder is must not be behind a link.
    let dir = tempfile::tempdir_in(fs::canonicalize(std::env::temp_dir()).unwrap()).unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["read/d", "write", "other"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("read/d/f"), "f").unwrap();
    fs::write(path("other/secret"), "secret").unwrap();
    symlink(path("other"), path("read/link")).unwrap();
    symlink(path("other/secret"), path("read/file")).unwrap();
    symlink(path("other"), path("write/link")).unwrap();
    let agent = TestAgent::with_policy(&confined(dir.path()));
    let get = |from: &str, expected| {
        let to = path("got");
        let output = ends(rexec(&agent, "get -r").arg(there(path(from))).arg(&to), expected);
        let secret = fs::read_to_string(&to).is_ok_and(|text| text.contains("secret"))
            || to.join("secret").exists();
        assert!(!secret, "{from}");
        let _ = fs::remove_dir_all(&to);
        let _ = fs::remove_file(&to);
        said(&output)
    };
    get("read", 0);
    get("read/d", 0);
    assert!(get("other", 125).contains("may not read all of"));
    assert!(get("write", 125).contains("may not read"));
    assert!(get("read/../other/secret", 125).contains("'..'"));
    assert!(get("read/link/secret", 1).contains("symbolic link"));
    assert!(get("read/link/", 1).contains("symbolic link"));
    assert!(get("read/file", 1).contains("symbolic link"));
    let put = |to: &str, expected| {
        let output =
            ends(rexec(&agent, "put").arg(path("read/d/f")).arg(there(path(to))), expected);
        assert_eq!(fs::read_dir(path("other")).unwrap().count(), 1, "{to}");
        said(&output)
    };
    put("write/x", 0);
    assert!(put("other/x", 125).contains("may not write"));
    assert!(put("write/link/x", 1).contains("symbolic link"));
    put("write/link", 1);
    // Commands are another matter, and so is the way into a job.
    assert_eq!(code(&agent.run(["true"])), 125);
    let audit = fs::read_to_string(agent.path("audit.jsonl")).unwrap();
    let put = format!("\"argv\":[\"files\",\"put\",\"{}\"]", path("write/x").display());
    assert!(audit.contains(&put) && audit.contains("\"transfer\":true"), "{audit}");
    assert!(audit.contains("\"event\":\"denied\""));
}

#[test]
fn a_transfer_is_the_local_user_s() {
    if !users::available() {
        return;
    }
    let agent = TestAgent::with_users(AS_DEPLOY);
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("src"), "x").unwrap();
    // Into the home, as its owner.
    ends(rexec(&agent, "put").arg(path("src")).arg("127.0.0.1:mine"), 0);
    let mine = agent.path("home/deploy/mine").metadata().unwrap();
    assert_eq!((mine.uid(), mine.mode() & 0o777), (61_001, 0o644));
    // Not where only root may.
    fs::create_dir(path("roots")).unwrap();
    let output = ends(rexec(&agent, "put").arg(path("src")).arg(there(path("roots/x"))), 1);
    assert!(said(&output).contains("permission denied"), "{output:?}");
    fs::write(path("roots/secret"), "x").unwrap();
    fs::set_permissions(path("roots/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let output = ends(rexec(&agent, "get").arg(there(path("roots/secret"))).arg(path("got")), 1);
    assert!(said(&output).contains("permission denied"), "{output:?}");
    assert!(!path("got").exists());
    // Root replaces a file of another user, which stays that user's.
    let mut as_root = rexec(&agent, "put");
    let target = format!("root@127.0.0.1:{}", agent.path("home/deploy/mine").display());
    ends(as_root.arg(path("src")).arg(target), 0);
    assert_eq!(agent.path("home/deploy/mine").metadata().unwrap().uid(), 61_001);
}
