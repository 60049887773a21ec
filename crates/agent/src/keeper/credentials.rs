//! Becoming the user that a command runs as, for good.
//!
//! The order is the one that works: groups while still root, then the group, then the user, which
//! takes the right to change any of them. What the kernel then says is compared with what was asked
//! for, and regaining root is tried and must fail: a call that reports success and changes nothing
//! has been a way to root more than once. As `permanently_set_uid` of OpenSSH does it.

use crate::account::Account;
use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, getgroups, getresgid, getresuid, setgid, setgroups, setresgid, setresuid, setuid,
};
use serde::{Deserialize, Serialize};

/// A user, its group and all its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl From<&Account> for Credentials {
    fn from(account: &Account) -> Self {
        let Account { uid, gid, groups, .. } = account;
        Self { uid: *uid, gid: *gid, groups: groups.clone() }
    }
}

impl Credentials {
    pub(super) fn uid(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    /// The primary group.
    pub(super) fn gid(&self) -> Gid {
        Gid::from_raw(self.gid)
    }

    /// Makes them those of this process, which has one thread, and verifies that.
    pub(super) fn assume(&self) -> nix::Result<()> {
        let (uid, gid) = (self.uid(), self.gid());
        let mut groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        let (users, group) = (getresuid()?, getresgid()?);
        let sorted = |groups: &mut Vec<Gid>| {
            groups.sort_unstable_by_key(|gid| gid.as_raw());
            groups.dedup();
        };
        let mut now = getgroups()?;
        sorted(&mut groups);
        sorted(&mut now);
        let is_user = [users.real, users.effective, users.saved] == [uid; 3];
        let is_group = [group.real, group.effective, group.saved] == [gid; 3];
        if is_user && is_group && now == groups && (uid.is_root() || !can_regain(gid)) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// Whether a process that gave up root gets it, or root's group, back.
fn can_regain(gid: Gid) -> bool {
    let root_group = Gid::from_raw(0);
    let is_there = gid == root_group;
    setuid(Uid::from_raw(0)).is_ok() || (!is_there && setgid(root_group).is_ok())
}
