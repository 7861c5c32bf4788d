//! Fault points: where a test may end the process, or have the kernel refuse. Each is just before a
//! change of the kernel's state, or of the file that keeps the quarantines.
//!
//! `PORTCULLIS_DIE_AT=N` ends the process before the Nth change, as `kill -9` would. So a test can try
//! each gap between two changes, and not only those that it hits by chance. `PORTCULLIS_NO_ROOM_AT=N`
//! stands for a bpffs that is full from the Nth new pin or folder on. No mount option makes one.
//! `PORTCULLIS_NO_TCX=1` stands for a kernel before 6.6. Builds without debug assertions, which is what
//! people install, have none of this.

use nix::errno::Errno;

#[cfg(debug_assertions)]
mod asked {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    /// Counts up to a number that the environment names.
    struct Countdown {
        at: LazyLock<Option<u64>>,
        count: AtomicU64,
    }

    impl Countdown {
        /// Which call this is, and at which call something is to happen.
        fn step(&self) -> Option<(u64, u64)> {
            let at = (*self.at)?;
            Some((self.count.fetch_add(1, Ordering::SeqCst) + 1, at))
        }
    }

    macro_rules! countdown {
        ($variable:literal) => {
            Countdown {
                at: LazyLock::new(|| std::env::var($variable).ok()?.parse().ok()),
                count: AtomicU64::new(0),
            }
        };
    }

    static DEATH: Countdown = countdown!("PORTCULLIS_DIE_AT");
    static LACK: Countdown = countdown!("PORTCULLIS_NO_ROOM_AT");

    pub(super) fn die_if_asked() {
        if DEATH.step().is_some_and(|(now, at)| now == at) {
            let _ = raise(Signal::SIGKILL);
        }
    }

    pub(super) fn is_room() -> bool {
        LACK.step().is_none_or(|(now, at)| now < at)
    }

    pub(super) fn is_tcx() -> bool {
        std::env::var_os("PORTCULLIS_NO_TCX").is_none()
    }
}

#[cfg(not(debug_assertions))]
mod asked {
    #[inline(always)]
    pub(super) fn die_if_asked() {}

    #[inline(always)]
    pub(super) fn is_room() -> bool {
        true
    }

    #[inline(always)]
    pub(super) fn is_tcx() -> bool {
        true
    }
}

/// Stands before every change of maps, pins, links and the file of quarantines.
#[inline(always)]
pub(crate) fn point() {
    asked::die_if_asked();
}

/// As [`point`], before every new inode in the bpffs.
#[inline(always)]
pub(crate) fn inode_point() -> Result<(), Errno> {
    point();
    if asked::is_room() { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Whether the kernel may be asked for TCX.
#[inline(always)]
pub(crate) fn is_tcx() -> bool {
    asked::is_tcx()
}
