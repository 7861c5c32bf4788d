//! Where a test may end the process: before its Nth change of the kernel's state.
//!
//! `PORTCULLIS_DIE_AT=N` does what `kill -9` would do at that moment, so that each gap between two
//! changes is tried, and not only those that chance hits. Builds without debug assertions, which
//! is what people install, have none of this.

/// Stands before everything that changes maps, pins and links.
#[cfg(debug_assertions)]
pub fn point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    static DIE_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("PORTCULLIS_DIE_AT").ok()?.parse().ok());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if let Some(die_at) = *DIE_AT
        && COUNT.fetch_add(1, Ordering::SeqCst) + 1 == die_at
    {
        let _ = raise(Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point() {}
