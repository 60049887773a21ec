//! Questions to the user database; see getpwnam(3), getgrouplist(3). All of this blocks.

use super::{Account, AccountError, shadow};
use nix::unistd::{Gid, Uid, User, getgrouplist, getgroups};
use rexec_guard::holds;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Names longer than any system's.
const MAX_NAME: usize = 256;
/// The shells that exist to refuse logins.
const REFUSING: [&str; 2] = ["nologin", "false"];

impl Account {
    /// The account this process runs as.
    pub fn own() -> Result<Self, AccountError> {
        let uid = Uid::effective();
        let user = User::from_uid(uid).map_err(database)?.ok_or_else(|| {
            let words = format!("uid {uid} is not in it");
            AccountError::Database(io::Error::new(io::ErrorKind::NotFound, words))
        })?;
        let groups = getgroups().map_err(database)?;
        Ok(Self::new(user, &groups))
    }

    /// The account of this name, unless it is not for running commands.
    pub(crate) fn find(name: &str) -> Result<Self, AccountError> {
        if !holds("account.name", is_legal(name)) {
            return Err(AccountError::Name(name.to_owned()));
        }
        demand_descriptors().map_err(AccountError::Database)?;
        let user = User::from_name(name).map_err(database)?;
        let user = user.ok_or_else(|| AccountError::Unknown(name.to_owned()))?;
        if user.name != name {
            return Err(AccountError::OtherName { asked: name.to_owned(), found: user.name });
        }
        let c_name = CString::new(name).map_err(|_| AccountError::Name(name.to_owned()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(database)?;
        let account = Self::new(user, &groups);
        account.demand_range()?;
        account.demand_login()?;
        Ok(account)
    }

    fn new(user: User, groups: &[Gid]) -> Self {
        // An empty shell field means /bin/sh; see passwd(5).
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.iter().map(|gid| gid.as_raw()).collect(),
            home: user.dir,
            shell,
        }
    }

    fn demand_range(&self) -> Result<(), AccountError> {
        let ids = [self.uid, self.gid].into_iter().chain(self.groups.iter().copied());
        match ids.into_iter().find(|id| !holds("account.range", i32::try_from(*id).is_ok())) {
            Some(id) => Err(AccountError::Range { name: self.name.clone(), id }),
            None => Ok(()),
        }
    }

    fn demand_login(&self) -> Result<(), AccountError> {
        if !holds("account.nologin", !refuses_logins(&self.shell)) {
            let (name, shell) = (self.name.clone(), PathBuf::clone(&self.shell));
            return Err(AccountError::NoLogin { name, shell });
        }
        match shadow::disabled(&self.name).map_err(AccountError::Database)? {
            Some(why) => Err(AccountError::Disabled { name: self.name.clone(), why }),
            None => Ok(()),
        }
    }
}

/// Fails if a lookup could not open what it reads. The name services would not say so: they ask the
/// next one, and nss-systemd(8) for one knows a root of its own, who may not log in.
fn demand_descriptors() -> io::Result<()> {
    /// Of one lookup at a time: a file, a socket, and some to spare.
    const NEEDED: usize = 4;
    let opened: io::Result<Vec<File>> = (0..NEEDED).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}

fn database(errno: nix::errno::Errno) -> AccountError {
    AccountError::Database(errno.into())
}

/// Whether a user could have this name. What the user database makes of others is not asked: some
/// take a number for an id (`0`, `+0`), and some programs take a dash for an option.
fn is_legal(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_part = |c: char| is_first(c) || "._-@\\$".contains(c);
    let is_number = name.chars().all(|c| c.is_ascii_digit());
    name.starts_with(is_first) && name.chars().all(is_part) && !is_number && name.len() <= MAX_NAME
}

fn refuses_logins(shell: &Path) -> bool {
    shell.file_name().is_some_and(|name| REFUSING.iter().any(|refusing| name == *refusing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_user_can_have_are_not_looked_up() {
        let long = "a".repeat(257);
        for name in [
            "",
            "0",
            "+0",
            "-1",
            "4294967295",
            "-f root",
            "root\n",
            "a:b",
            "a/b",
            "a,b",
            "a\0",
            " a",
            &long,
        ] {
            assert!(matches!(Account::find(name), Err(AccountError::Name(_))), "{name:?}");
        }
        for name in ["root", "www-data", "_apt", "a.b@example.org", "EXAMPLE\\user", "host$", "7up"]
        {
            assert!(is_legal(name), "{name}");
        }
    }

    #[test]
    fn an_absent_user_is_said_to_be_absent() {
        let error = Account::find("no-such-user-here").unwrap_err();
        assert!(matches!(&error, AccountError::Unknown(name) if name == "no-such-user-here"));
    }

    #[test]
    fn shells_that_refuse() {
        for (shell, refuses) in [
            ("/usr/sbin/nologin", true),
            ("/bin/false", true),
            ("/bin/sh", false),
            ("/opt/nologin/sh", false),
        ] {
            assert_eq!(refuses_logins(shell.as_ref()), refuses, "{shell}");
        }
    }

    #[test]
    fn ids_that_mean_something_else_to_the_kernel_are_refused() {
        let with = |uid, gid, groups: &[u32]| Account {
            name: "odd".into(),
            uid,
            gid,
            groups: groups.to_vec(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        let minus_one = u32::MAX;
        for account in [
            with(minus_one, 1, &[]),
            with(1 << 31, 1, &[]),
            with(1, minus_one, &[]),
            with(1, 1, &[1, 1 << 31]),
        ] {
            assert!(
                matches!(account.demand_range(), Err(AccountError::Range { .. })),
                "{account:?}"
            );
        }
        assert!(with((1 << 31) - 1, 0, &[0]).demand_range().is_ok());
    }
}
