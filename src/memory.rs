//! The memory of this process.

/// Gives the kernel back what was freed, after something large was dropped. The allocator keeps it
/// otherwise.
pub fn return_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
