//! A process for a command, at the price of no memory: it borrows its parent's.
//!
//! fork(2) gives the child copies of all pages that it touches, and exec throws them away: 65 pages
//! and the half of what a launch cost. vfork(2) lets it use the parent's, and stops the parent until
//! it executes a program or exits. The C library's has no safe use from Rust and knows no cgroups, so
//! this is clone3(2) with the same flags and a stack of the child's own.
//!
//! A process of another user must not get at what it borrows: whoever changes its user is made
//! undumpable by the kernel, together with all that share its memory, and so cannot be traced.

use super::sys;
use nix::errno::Errno;
use nix::unistd::Pid;
use std::convert::Infallible;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// What a new process does. It never returns.
pub(super) type Life<'a> = &'a dyn Fn() -> Infallible;

/// Enough to set up a command; what is long is on the heap.
const STACK: usize = 256 * 1024;
/// Below it, to be run into.
const GUARD: usize = 64 * 1024;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Where there is no way here to give the child its stack, it is a fork.
const SHARED: u64 = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
    (libc::CLONE_VM | libc::CLONE_VFORK) as u64
} else {
    0
};

/// Starts a process that lives `life`. With `cgroup` it is in that from its first instruction on:
/// unlike a write to `cgroup.procs` this moves no process, for which many kernels wait milliseconds.
/// Kernels before 5.7 cannot.
///
/// Only for a process with one thread. What `life` changes in memory stays changed, and what it
/// allocates is never freed unless it does that itself.
pub(super) fn spawn(life: Life<'_>, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Pid> {
    let stack = Stack::new()?;
    let args = CloneArgs {
        flags: SHARED | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: libc::SIGCHLD as u64,
        stack: if SHARED == 0 { 0 } else { stack.bottom.addr() as u64 },
        stack_size: if SHARED == 0 { 0 } else { STACK as u64 },
        cgroup: cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    match clone3(&args, &life) {
        // Without clone3, which came with Linux 5.3 and which some sandboxes refuse.
        Err(Errno::ENOSYS | Errno::EPERM) if cgroup.is_none() => {
            let Some(pid) = sys::fork()? else { begin(&raw const life) };
            Ok(pid)
        }
        result => result,
    }
}

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

/// Where the child begins, on its stack.
#[allow(unsafe_code)]
extern "C" fn begin(life: *const Life<'_>) -> ! {
    // SAFETY: `clone3` passes what it borrows, and the parent is stopped in it.
    match unsafe { &*life }() {}
}

/// In the child it does not return.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn clone3(args: &CloneArgs, life: &Life<'_>) -> nix::Result<Pid> {
    let result: libc::c_long;
    // SAFETY: the parent stops until the child is done with its memory. The child uses none of the
    // parent's stack below this call, because it has its own from its first instruction on and never
    // returns; the parent's registers are its own.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {life}",
            "call {begin}",
            "ud2",
            "2:",
            life = in(reg) ptr::from_ref(life),
            begin = in(reg) begin as extern "C" fn(*const Life<'_>) -> !,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    parent(result)
}

/// In the child it does not return.
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
fn clone3(args: &CloneArgs, life: &Life<'_>) -> nix::Result<Pid> {
    let result: libc::c_long;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {life}",
            "blr {begin}",
            "brk 1",
            "2:",
            life = in(reg) ptr::from_ref(life),
            begin = in(reg) begin as extern "C" fn(*const Life<'_>) -> !,
            inlateout("x0") ptr::from_ref(args) => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
        );
    }
    parent(result)
}

/// In the child it does not return.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[allow(unsafe_code)]
fn clone3(args: &CloneArgs, life: &Life<'_>) -> nix::Result<Pid> {
    // SAFETY: without CLONE_VM this is fork(2). It skips the handlers of pthread_atfork, which matter
    // to processes with more than one thread only.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(args), size_of::<CloneArgs>()) };
    if result == 0 { begin(life) } else { Errno::result(result).map(pid) }
}

/// From what the kernel itself returns.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn parent(result: libc::c_long) -> nix::Result<Pid> {
    if result < 0 { Err(Errno::from_raw(-result as i32)) } else { Ok(pid(result)) }
}

fn pid(result: libc::c_long) -> Pid {
    Pid::from_raw(result as libc::pid_t)
}

/// Memory for a stack, with a guard below.
struct Stack {
    whole: *mut c_void,
    bottom: *mut c_void,
}

impl Stack {
    #[allow(unsafe_code)]
    fn new() -> nix::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a mapping of its own, at no given place.
        let whole = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, access, kind, -1, 0) };
        if whole == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Self { whole, bottom: whole.wrapping_byte_add(GUARD) };
        // SAFETY: nobody uses this part of it yet.
        Errno::result(unsafe { libc::mprotect(whole, GUARD, libc::PROT_NONE) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: whoever used it has executed a program or exited.
        unsafe { libc::munmap(self.whole, GUARD + STACK) };
    }
}

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::getpid;
    use std::cell::Cell;

    /// What is allocated is more than the stack has, and what is set is there when `spawn` returns.
    #[test]
    fn a_process_borrows_the_memory_of_its_parent_and_has_a_stack_of_its_own() {
        let (found, kept) = (Cell::new(None), [1_u64, 2, 3]);
        let life = || {
            let large = vec![7_u8; 2 * STACK];
            let sum: u64 =
                kept.iter().sum::<u64>() + large.iter().map(|n| u64::from(*n)).sum::<u64>();
            found.set(Some((getpid(), sum)));
            sys::exit_now(5)
        };
        let pid = spawn(&life, None).unwrap();
        assert_eq!(found.get(), Some((pid, 6 + 7 * 2 * STACK as u64)));
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 5)));
    }
}
