//! Quarantine writer: a thread that keeps quarantines, edits and grants for the next reboot, and evidence for `learn`,
//! because a disk may hang.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use log::warn;

use crate::gate::{Gate, GateError, GatePlace};

/// How long the end of the daemon waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread, as the daemon has it.
pub(super) struct QuarantineWriter {
    /// `None`: no more is asked.
    ask: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

impl QuarantineWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn start(place: GatePlace) -> std::io::Result<QuarantineWriter> {
        // one request that waits stands for all later ones: each writes what the kernel has then
        let (ask, asked) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel(1);
        thread::Builder::new().name("quarantines".to_owned()).spawn(move || {
            while let Ok(()) = asked.recv() {
                save(&place);
            }
            let _ = end.send(());
        })?;
        Ok(QuarantineWriter { ask: Some(ask), ended })
    }

    /// Has the quarantines saved, soon.
    pub(super) fn save(&self) {
        if let Some(ask) = &self.ask {
            let _ = ask.try_send(());
        }
    }
}

impl Drop for QuarantineWriter {
    fn drop(&mut self) {
        self.ask = None;
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Its own view of the gate: another command may have detached it meanwhile.
fn save(place: &GatePlace) {
    let gate = match Gate::open(place) {
        Ok(gate) => gate,
        Err(GateError::NotAttached { .. }) => return,
        Err(error) => {
            warn!("quarantines, edits and grants hold, but are not saved for the next reboot: {error}");
            return;
        }
    };
    if let Err(error) = gate.save_quarantines(place) {
        warn!("quarantines, edits and grants hold, but are not saved for the next reboot: {error}");
    }
    if let Err(error) = gate.save_evidence(place) {
        warn!("the kernel keeps what `learn` asks for, but it is not saved for the next reboot: {error}");
    }
}
