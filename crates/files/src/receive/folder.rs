//! An open folder, and what is under a name in it.

use super::cannot;
use super::scraps::{Scrap, Scraps};
use crate::open::{SAFE, c_string};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::libc::nlink_t;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use rexec_guard::holds;
use rexec_protocol::files::Meta;
use rexec_protocol::{Algorithm, Digest, Hasher};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) fd: OwnedFd,
    /// The file system that it is on.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// It was made for this transfer: nobody has anything in it.
    pub(crate) is_new: bool,
    /// What it looked like when it was opened.
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

impl Folder {
    pub(crate) fn new(fd: OwnedFd, is_new: bool) -> nix::Result<Self> {
        let stat = fstat(&fd)?;
        let (device, inode, mode) = (stat.st_dev, stat.st_ino, stat.st_mode & 0o7777);
        Ok(Self { fd, device, inode, is_new, mode, mtime: mtime(&stat) })
    }
}

fn mtime(stat: &FileStat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())
}

/// A place for something: a name in a folder.
#[derive(Debug)]
pub(crate) struct Slot {
    /// `None`: the folder is not there.
    pub(crate) folder: Option<Arc<Folder>>,
    pub(crate) name: Vec<u8>,
    /// Below the destination, for reports.
    pub(crate) path: Vec<u8>,
    pub(crate) yields: Yields,
}

/// Whether what is of another kind makes way for what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yields {
    /// It was named as the destination itself.
    Never,
    /// It would with `delete`: it is in a tree that comes.
    OnDelete,
    /// It is in a tree from which is removed what was not sent.
    Anything,
}

/// Such as /dev/stdout: who names it means what it leads to, and wants the link to stay.
fn leads_to_device(folder: &Folder, name: &CStr) -> bool {
    let stat = fstatat(&folder.fd, name, AtFlags::empty());
    let kind = stat.map(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()));
    kind.is_ok_and(|kind| !matches!(kind, SFlag::S_IFREG | SFlag::S_IFDIR))
}

/// Where /dev/stdout leads if that is a regular file: by a "magic" link of /proc to what a process has open. Such
/// a link is no more to be replaced than one to a device. Before Linux 5.6 nobody can tell.
fn leads_to_open_file(folder: &Folder, name: &CStr) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Links that lead to each other get the same answer, and one without it.
    openat2(&folder.fd, name, how).err() == Some(Errno::ELOOP)
        && fstatat(&folder.fd, name, AtFlags::empty()).err() != Some(Errno::ELOOP)
}

/// What is under a name already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Old {
    pub(crate) is_file: bool,
    pub(crate) is_folder: bool,
    pub(crate) size: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// How many names it has.
    pub(crate) links: nlink_t,
    /// When anything of it was changed last, which nobody can set.
    changed: (i64, i64),
}

impl Old {
    pub(super) fn has_time_of(&self, meta: &Meta) -> bool {
        self.mtime == (meta.mtime, meta.nsec)
    }

    /// Whether it is still that file, and as it was: the number of one that was removed is given anew.
    pub(super) fn is_still(&self, now: &FileStat) -> bool {
        let changed = (now.st_ctime, now.st_ctime_nsec);
        let size = now.st_size.unsigned_abs();
        (now.st_dev, now.st_ino, size, changed)
            == (self.device, self.inode, self.size, self.changed)
    }
}

const NO_FOLDER: &str = "its folder is not there";
const NO_FILE: &str = "there is a device, FIFO or socket of this name, and no file takes its place: name another place";
/// Said of a destination, which cp and get have a better name for.
pub(super) const OPEN_FILE: &str = "this name leads to what a process has open, as /dev/stdout does, and no file takes its place: \
     name another place; for get and cp, - is stdout";

impl Yields {
    /// What to do where something of another kind is in the way.
    fn how(self) -> &'static str {
        match self {
            Self::Never => "remove it first, or name another place",
            Self::OnDelete | Self::Anything => "remove it first; --delete replaces it",
        }
    }
}

/// A folder that was entered.
#[derive(Debug)]
pub(super) struct Entered {
    /// `None`: it is not there, and nothing is made.
    pub(super) folder: Option<Folder>,
    /// Something else gave way to it, or would.
    pub(super) cleared: bool,
}

impl Slot {
    /// No place at all.
    pub(super) fn nowhere() -> Self {
        Self { folder: None, name: Vec::new(), path: Vec::new(), yields: Yields::Never }
    }

    /// What is there goes, whatever it is.
    pub(super) fn clears(&self) -> bool {
        self.yields == Yields::Anything
    }

    pub(super) fn folder(&self) -> Result<&Arc<Folder>, String> {
        self.folder.as_ref().ok_or_else(|| NO_FOLDER.to_owned())
    }

    /// What is there already. Only a file or a link can be replaced, unless anything goes.
    pub(super) fn look(&self) -> Result<Option<Old>, String> {
        // In a folder that was made just now, for its owner alone, a look at each name finds nothing.
        let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_new) else {
            return Ok(None);
        };
        let name = c_string(&self.name).map_err(|errno| cannot("use this name", errno))?;
        let stat = match fstatat(&folder.fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(cannot("look at what is there", errno)),
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let (clears, how) = (self.clears(), self.yields.how());
        if kind == SFlag::S_IFLNK && self.yields == Yields::Never && leads_to_device(folder, &name)
        {
            return Err(NO_FILE.to_owned());
        }
        if kind == SFlag::S_IFLNK
            && self.yields == Yields::Never
            && leads_to_open_file(folder, &name)
        {
            return Err(OPEN_FILE.to_owned());
        }
        match kind {
            SFlag::S_IFDIR if !clears => Err(format!("there is a folder of this name: {how}")),
            _ if clears || matches!(kind, SFlag::S_IFREG | SFlag::S_IFLNK) => Ok(Some(Old {
                is_file: kind == SFlag::S_IFREG,
                is_folder: kind == SFlag::S_IFDIR,
                size: stat.st_size.unsigned_abs(),
                mtime: mtime(&stat),
                mode: stat.st_mode & 0o7777,
                owner: (stat.st_uid, stat.st_gid),
                device: stat.st_dev,
                inode: stat.st_ino,
                links: stat.st_nlink,
                changed: (stat.st_ctime, stat.st_ctime_nsec),
            })),
            // Such as /dev/null, which nobody is to be told to remove.
            _ if self.yields == Yields::Never => Err(NO_FILE.to_owned()),
            _ => Err(format!("there is a device, FIFO or socket of this name: {how}")),
        }
    }

    /// The folder of this name, made if it is not there, to have `mode` once it is complete.
    pub(super) fn enter(
        &self,
        dry_run: bool,
        mode: u32,
        scraps: &Scraps,
    ) -> Result<Entered, String> {
        let entered = |folder| Entered { folder, cleared: false };
        let Some(parent) = &self.folder else { return Ok(entered(None)) };
        let name = c_string(&self.name).map_err(|errno| cannot("use this name", errno))?;
        let made = match mkdir_unless(dry_run, parent, &name, incomplete(mode)) {
            Ok(made) => made,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(cannot("make this folder", errno)),
        };
        let mut flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | SAFE;
        if !holds("files.no_link_as_folder", false) {
            flags |= OFlag::O_NOFOLLOW;
        }
        match openat(&parent.fd, name.as_c_str(), flags, Mode::empty())
            .and_then(|fd| Folder::new(fd, made))
        {
            Ok(folder) => Ok(entered(Some(folder))),
            Err(Errno::ENOENT) if dry_run => Ok(entered(None)),
            Err(Errno::ELOOP | Errno::ENOTDIR) if self.clears() => {
                let folder = if dry_run {
                    None
                } else {
                    Some(clear_for_folder(parent, &name, mode, scraps)?)
                };
                Ok(Entered { folder, cleared: true })
            }
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(match self.look() {
                Ok(Some(Old { is_file: false, .. })) => format!(
                    "there is a symbolic link of this name, and no folder; it is not followed: \
                     name what it leads to, or {}",
                    self.yields.how()
                ),
                _ => format!(
                    "there is something of this name that is no folder: {}",
                    self.yields.how()
                ),
            }),
            Err(errno) => Err(cannot("enter this folder", errno)),
        }
    }

    /// A link of another name, to be renamed. `None`: it is there already, with this time if one is
    /// given; `Some(None)`: only said.
    pub(super) fn link(
        &self,
        target: &[u8],
        time: Option<&Meta>,
        dry_run: bool,
        scraps: &Scraps,
    ) -> Result<Option<Option<Scrap>>, String> {
        let old = self.look()?;
        let Some(folder) = self.folder.as_ref() else {
            return if dry_run { Ok(Some(None)) } else { Err(NO_FOLDER.to_owned()) };
        };
        let name = c_string(&self.name).map_err(|errno| cannot("use this name", errno))?;
        if old.is_some_and(|old| !old.is_file && time.is_none_or(|time| old.has_time_of(time)))
            && readlinkat(&folder.fd, name.as_c_str()).is_ok_and(|to| to.as_bytes() == target)
        {
            return Ok(None);
        }
        if dry_run {
            return Ok(Some(None));
        }
        let target = c_string(target).map_err(|errno| cannot("make this link", errno))?;
        scraps
            .link(folder, &target)
            .map(|scrap| Some(Some(scrap)))
            .map_err(|errno| cannot("make this link", errno))
    }

    /// The digest of the file that is there.
    pub(super) fn digest(&self, algorithm: Algorithm) -> Result<Digest, String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | SAFE;
        let name = c_string(&self.name).map_err(|errno| cannot("use this name", errno))?;
        let opened = openat(&self.folder()?.fd, name.as_c_str(), flags, Mode::empty());
        let mut file = File::from(opened.map_err(|errno| cannot("read what is there", errno))?);
        let failed = |error| format!("cannot read what is there: {}", crate::error::why(error));
        hash(&mut file, Hasher::new(algorithm)).map(|hasher| hasher.prefix()).map_err(failed)
    }
}

/// Hashes all that is to be read.
pub(super) fn hash(file: &mut File, mut hasher: Hasher) -> std::io::Result<Hasher> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A new folder in the place of what is none. The name stands for the one or the other at any time.
fn clear_for_folder(
    parent: &Arc<Folder>,
    name: &CStr,
    mode: u32,
    scraps: &Scraps,
) -> Result<Folder, String> {
    let failed = |errno| cannot("make a folder for the place of what is there", errno);
    let (fd, scrap) = scraps.folder(parent, incomplete(mode)).map_err(failed)?;
    scrap.exchange(name)?;
    Folder::new(fd, true).map_err(failed)
}

fn mkdir_unless(dry_run: bool, parent: &Folder, name: &CStr, mode: Mode) -> nix::Result<bool> {
    if dry_run {
        return Ok(false);
    }
    mkdirat(&parent.fd, name, mode).map(|()| true)
}

/// The mode of a folder that is to have `mode` once it is complete: until then nobody else puts anything into it. If it
/// never is, others can still enter it, and a later transfer goes on in it as in any that is there.
pub(super) fn incomplete(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o755) | Mode::S_IRWXU
}

/// The umask of this process, which can only be read here; see proc_pid_status(5). 022 before Linux
/// 4.7.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
}
