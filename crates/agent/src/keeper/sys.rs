//! The system calls that have no safe wrapper; all the `unsafe` of this crate is here.
//!
//! Everything below runs in the zygote and in keepers, which have one thread each: that is what
//! makes `fork` harmless here and nowhere else.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};
use rexec_protocol::message::Usage;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Forks. `None` in the child.
#[allow(unsafe_code)]
pub(super) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Forks with the child in another cgroup from its first instruction. Unlike a write to
/// `cgroup.procs` this moves no process between cgroups, for which many kernels wait milliseconds.
#[allow(unsafe_code)]
pub(super) fn fork_into(cgroup: BorrowedFd<'_>) -> nix::Result<Option<Pid>> {
    /// `struct clone_args` of clone3(2), version 2; the libc crate lacks it on some targets.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and a stack of its own this is fork(2). It skips the handlers of
    // pthread_atfork, which matter to processes with more than one thread only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// Gives this process a session keyring of its own, empty: one user's commands must not see what
/// another's have put into the agent's; see session-keyring(7). A kernel without keyrings has none
/// to share.
#[allow(unsafe_code)]
pub(super) fn own_session_keyring() -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed, and nothing else is pointed to.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, unnamed) };
    match Errno::result(joined) {
        Err(Errno::ENOSYS) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// How long the kernel's description of a process's scheduling is, with room for what it may come to hold.
pub(super) const SCHEDULING: usize = 128;

/// This process's policy, niceness, priority and what else belongs to it, as sched_getattr(2) describes it.
#[allow(unsafe_code)]
pub(super) fn scheduling() -> nix::Result<[u8; SCHEDULING]> {
    let mut attributes = [0; SCHEDULING];
    let (into, length) = (attributes.as_mut_ptr(), SCHEDULING as libc::c_uint);
    // SAFETY: the kernel writes no more than it is told that there is room for.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, into, length, 0) })?;
    Ok(attributes)
}

/// This process's priority at disks; see ioprio_get(2).
#[allow(unsafe_code)]
pub(super) fn io_priority() -> nix::Result<libc::c_long> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_get(2) touches no memory of ours.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) })
}

/// Ends this process with neither destructors nor exit handlers, which belong to the parent.
#[allow(unsafe_code)]
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no conditions.
    unsafe { libc::_exit(status) }
}

/// Gives every signal its default action: exec resets handlers, but not what is ignored.
#[allow(unsafe_code)]
pub(super) fn default_signals() {
    // The system call itself, because libc hides the two signals that it uses for its threads,
    // and those may have been inherited as ignored, too.
    const SIGSET_BYTES: usize = 8;
    let default = [0_usize; 8];
    for number in 1..=64 {
        let (action, none) = (default.as_ptr(), std::ptr::null::<usize>());
        // SAFETY: the kernel reads a `struct sigaction`, which is shorter than this and in which
        // all zeros are SIG_DFL: no handler that could run anything. KILL and STOP fail, as they
        // may.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action, none, SIGSET_BYTES) };
    }
}

/// Closes every descriptor from `first` on. Kernels before 5.9 cannot, and nothing is closed.
#[allow(unsafe_code)]
pub(super) fn close_from(first: u32) {
    // SAFETY: the only caller is at the start of its process, where no value owns any of them.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Marks every descriptor from `first` on close-on-exec. Kernels before 5.11 cannot; there it is
/// left to the descriptors themselves, which are all opened that way.
#[allow(unsafe_code)]
pub(super) fn close_on_exec_from(first: u32) {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: this closes nothing now, so no owner of a descriptor is deceived.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// What [`wait_any`] found.
pub(super) enum Wait {
    /// This child ended, with this wait(2) status, and is reaped.
    Ended(Pid, i32, Usage),
    /// There are children, and all of them run.
    Running,
    /// There is no child.
    Childless,
}

/// Reaps one child if one has ended. [`Usage::wall_ms`] is left to the caller.
#[allow(unsafe_code)]
pub(super) fn wait_any() -> Wait {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types.
    match unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) } {
        0 => Wait::Running,
        pid if pid > 0 => {
            let ms = |time: libc::timeval| {
                (time.tv_sec as u64).saturating_mul(1000).saturating_add(time.tv_usec as u64 / 1000)
            };
            let usage = Usage {
                wall_ms: 0,
                user_ms: ms(usage.ru_utime),
                system_ms: ms(usage.ru_stime),
                max_rss_kib: usage.ru_maxrss as u64,
            };
            Wait::Ended(Pid::from_raw(pid), status, usage)
        }
        // EINTR cannot be with WNOHANG; ECHILD is what is left.
        _ => Wait::Childless,
    }
}

/// Signals a process group. (nix knows no real-time signals.)
#[allow(unsafe_code)]
pub(super) fn signal_group(group: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: killpg(2) touches no memory of ours.
    Errno::result(unsafe { libc::killpg(group.as_raw(), signal) }).map(drop)
}

/// Signals a process by its id, which the caller knows to be the right one.
#[allow(unsafe_code)]
pub(super) fn signal_process(pid: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// A handle to a process that stays with it however its id is used later.
#[allow(unsafe_code)]
pub(super) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this descriptor, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Signals the process of a handle.
#[allow(unsafe_code)]
pub(super) fn pidfd_signal(process: &OwnedFd, signal: i32) -> nix::Result<()> {
    let fd = process.as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and nothing else is pointed to.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    Errno::result(done).map(drop)
}

/// Signals the process group that the process of a handle leads or has led. Before Linux 6.9 it
/// fails.
#[allow(unsafe_code)]
pub(super) fn pidfd_signal_group(leader: &OwnedFd, signal: i32) -> nix::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
    let fd = leader.as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let flags = PIDFD_SIGNAL_PROCESS_GROUP;
    // SAFETY: a null siginfo is allowed, and nothing else is pointed to.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, flags) };
    Errno::result(done).map(drop)
}

/// Takes ownership of descriptors that recvmsg(2) has just made.
#[allow(unsafe_code)]
pub(super) fn own(fds: Vec<RawFd>) -> impl Iterator<Item = OwnedFd> {
    // SAFETY: the only caller passes the contents of a SCM_RIGHTS message, once.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
