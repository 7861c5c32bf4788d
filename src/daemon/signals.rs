//! Signals, as questions that the event loop asks.
//!
//! SIGINT and SIGTERM come through ctrlc, which has a thread of its own. SIGHUP is blocked in every
//! thread and waits in a signalfd, so it never interrupts anything. Threads inherit what is blocked:
//! [`Signals::install`] comes before the first thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT and SIGTERM stop the daemon, SIGHUP makes it reload.
pub(super) struct Signals {
    stop: Arc<AtomicBool>,
    hangups: SignalFd,
}

impl Signals {
    /// Listens for the signals from now on. To be called before any thread is started.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn install() -> anyhow::Result<Signals> {
        let hangups = block_hangups()?;
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::clone(&stop);
        ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst))
            .context("could not listen for SIGINT and SIGTERM")?;
        Ok(Signals { stop, hangups })
    }

    /// Whether SIGINT or SIGTERM came.
    pub(super) fn asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether SIGHUP came since the last time. Several count as one.
    pub(super) fn asked_to_reload(&self) -> bool {
        take_hangups(&self.hangups)
    }
}

fn block_hangups() -> anyhow::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGHUP);
    // Beyond a limit for files (RLIMIT_FSIZE) a write fails. Otherwise the signal would end the daemon.
    let mut blocked = mask;
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().context("could not block SIGHUP and SIGXFSZ")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&mask, flags).context("could not listen for SIGHUP")
}

fn take_hangups(hangups: &SignalFd) -> bool {
    let mut asked = false;
    while let Ok(Some(_)) = hangups.read_signal() {
        asked = true;
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hangups_wait_until_they_are_asked_for_and_count_as_one() {
        let hangups = block_hangups().unwrap();
        assert!(!take_hangups(&hangups));
        for _ in 0..3 {
            // to this thread alone, which has it blocked
            nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        }
        assert!(take_hangups(&hangups));
        assert!(!take_hangups(&hangups));
    }
}
