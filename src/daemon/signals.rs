//! Signals, as questions that the daemon's loop asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT and SIGTERM stop, SIGHUP reloads.
pub struct Signals {
    stop: Arc<AtomicBool>,
    /// SIGHUP is blocked, waits here, and never reaches a handler.
    hangups: SignalFd,
}

impl Signals {
    /// To be called before any thread is started: they inherit what is blocked.
    pub fn install() -> anyhow::Result<Signals> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGHUP);
        mask.thread_block().context("could not block SIGHUP")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let hangups = SignalFd::with_flags(&mask, flags).context("could not listen for SIGHUP")?;
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::clone(&stop);
        ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst))
            .context("could not listen for SIGINT and SIGTERM")?;
        Ok(Signals { stop, hangups })
    }

    pub fn asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether SIGHUP came since the last time; several count as one.
    pub fn asked_to_reload(&self) -> bool {
        let mut asked = false;
        while let Ok(Some(_)) = self.hangups.read_signal() {
            asked = true;
        }
        asked
    }
}
