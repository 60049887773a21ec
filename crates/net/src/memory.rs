//! How the allocator treats the buffers of bulk transfer.

/// Keeps memory that was freed, up to a few tens of MiB, for the next buffer.
///
/// glibc gives freed memory back to the kernel early, and rustls takes a new buffer for every
/// record: bulk transfer then faults in each page again, which was measured to cost a sixth of the
/// throughput. Call it once, at the start of a program; other C libraries ignore it. See mallopt(3).
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    {
        const MIB: libc::c_int = 1024 * 1024;
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, 4 * MIB),
            (libc::M_TRIM_THRESHOLD, 32 * MIB),
            (libc::M_TOP_PAD, MIB),
        ] {
            // SAFETY: mallopt takes two integers by value, and refuses those it does not like.
            #[allow(unsafe_code, reason = "libc is the only way to the allocator's settings")]
            let set = unsafe { libc::mallopt(parameter, value) };
            debug_assert_eq!(set, 1, "mallopt knows the parameter");
        }
    }
}
