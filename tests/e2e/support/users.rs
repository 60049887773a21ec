//! Local users that exist for one agent only: its own `/etc/passwd`, `/etc/group` and
//! `/etc/shadow`, in a mount namespace that is gone with it. Takes root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Whether this test can have users of its own; says why if not.
pub fn available() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    let unshares = || {
        let mut try_it = Command::new("unshare");
        try_it.args(["--mount", "--propagation", "private", "mount", "--bind", "/tmp", "/tmp"]);
        try_it.output().is_ok_and(|output| output.status.success())
    };
    let available = is_root && unshares();
    if !available {
        eprintln!("skipped: users of its own take root and mount namespaces (unshare, mount)");
    }
    available
}

/// Who is there, beside root, in `dir`.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
deploy:x:61001:61001:deploys:@/home/deploy:/bin/sh
homeless:x:61002:61002::/nowhere/at/all:/bin/sh
many:x:61003:61003::/:/bin/sh
locked:x:61004:61001::/:/bin/sh
expired:x:61005:61001::/:/bin/sh
refused:x:61006:61001::/:/usr/sbin/nologin
minus:x:4294967295:61001::/:/bin/sh
wrapped:x:4294967294:61001::/:/bin/sh
high:x:2147483648:61001::/:/bin/sh
toor:x:0:0::/root:/bin/sh
default:x:61007:61001::/:
basher:x:61008:61001::@/home/basher:/bin/bash
";

const SHADOW: &str = "\
root:*:19000::::::
deploy:!:19000::::::
homeless:*:19000::::::
many:*:19000::::::
locked:!$6$x$y:19000::::::
expired:*:19000:::::1:
refused:*:19000::::::
";

/// Lets `deploy` run an agent in `dir`.
pub fn give_to_deploy(dir: &Path) {
    for path in ["", "agent.pem", "policy.toml", "agent.toml"].map(|name| dir.join(name)) {
        nix::unistd::chown(&path, Some(61_001.into()), Some(61_001.into())).unwrap();
    }
}

/// A command that lacks a program and its words, which then see these users.
pub fn launcher(dir: &Path) -> Command {
    let home = dir.join("home/deploy");
    fs::create_dir_all(&home).unwrap();
    nix::unistd::chown(&home, Some(61_001.into()), Some(61_001.into())).unwrap();
    // The way there must be open to them.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let many: String = (0..70).map(|n| format!("g{n}:x:{}:many\n", 62_000 + n)).collect();
    let group = format!("root:x:0:\ndeploy:x:61001:\nextra:x:61010:deploy\n{many}");
    let passwd = PASSWD.replace('@', dir.to_str().unwrap());
    for (name, content) in [("passwd", passwd.as_str()), ("group", &group), ("shadow", SHADOW)] {
        fs::write(dir.join(name), content).unwrap();
    }
    let script = "cd \"$1\" && for f in passwd group shadow; do mount --bind $f /etc/$f || exit; done; \
                  shift; exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(dir);
    command
}
