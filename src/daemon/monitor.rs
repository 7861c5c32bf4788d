//! How the gate is attached, as the daemon sees it every second: what changes is said and counted,
//! and what was taken off is put back.

use log::debug;

use super::Daemon;
use super::metrics::snapshot::count;
use crate::abi::settings_flag;
use crate::gate::{AttachMode, GateError, GatePlace, Hook};

impl Daemon<'_> {
    /// The mode never changes silently, and a gate that somebody lifted has no daemon.
    pub(super) fn check_attachment(&mut self) -> anyhow::Result<()> {
        if !self.gate.is_pinned_at(&self.place) {
            if self.place.is_detach_ordered() {
                notice!(
                    "portcullis: the gate on {} was lifted by another command; the daemon ends\n\
                     help: portcullis run -i {0} -p POLICY puts it down again",
                    self.interface
                );
                self.lifted = true;
                return Ok(());
            }
            anyhow::bail!(
                "the pins of the gate on {} are gone, and nobody typed `detach`; the daemon ends\n\
                 help: portcullis run -i {0} -p POLICY puts it down again",
                self.interface
            );
        }
        let mode = self.gate.find_mode(&self.place);
        if mode != self.mode {
            let consequence = match mode {
                AttachMode::No => "NOTHING IS DROPPED; was the interface deleted, or its program taken off?",
                AttachMode::Generic => "slower, and after the kernel has made a buffer of the packet",
                AttachMode::Native => "in the driver again",
            };
            notice!(
                "portcullis: warning: the gate on {} went from {} to {}: {consequence}",
                self.interface,
                self.mode.name(),
                mode.name()
            );
            self.mode = mode;
            count(&self.board.filter_changes);
        }
        // asked of the kernel: `apply` may have changed it
        if let Some(settings) = self.gate.live_settings()? {
            self.strict = settings.flags & settings_flag::SETTINGS_STRICT.0 != 0;
        }
        let tracker = self.gate.find_tracker(&self.place);
        if tracker != self.tracker {
            let consequence = match (tracker, self.strict) {
                (Hook::No, true) => {
                    "NEW FLOWS OF PEERS ARE NOT SEEN, and what servers answer is dropped; \
                     was its program taken off?"
                }
                (Hook::No, false) => "none is needed in service tracking",
                (Hook::Tcx | Hook::Clsact, _) => "it sees the flows of peers",
            };
            notice!(
                "portcullis: warning: the tracker on {} went from {} to {}: {consequence}",
                self.interface,
                self.tracker.name(),
                tracker.name()
            );
            self.tracker = tracker;
            count(&self.board.tracker_changes);
        }
        if mode == AttachMode::No || self.strict && tracker == Hook::No {
            self.try_to_reattach();
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let holds = match (self.mode, self.strict && self.tracker == Hook::No) {
            (AttachMode::No, _) => "NOT ATTACHED, nothing is dropped".to_owned(),
            (mode, true) => format!("{}, WITHOUT ITS TRACKER", mode.name()),
            (mode, false) => mode.name().to_owned(),
        };
        format!("gate on {}: {holds}; {} alarms open", self.interface, self.board.count_open())
    }

    /// An interface that was deleted and made again gets its gate back.
    fn try_to_reattach(&mut self) {
        let Ok(place) = GatePlace::of(&self.interface) else {
            return;
        };
        let restored = place.try_lock().and_then(|_lock| match self.gate.is_pinned_at(&place) {
            true => self.gate.reattach(&place),
            false => Err(GateError::NotAttached { interface: place.interface.clone() }),
        });
        match restored {
            Ok((mode, warnings)) => {
                for warning in warnings {
                    notice!("portcullis: warning: {warning}");
                }
                let tracker = self.gate.find_tracker(&place);
                notice!(
                    "portcullis: the gate on {} is down again: {}, tracker {}",
                    self.interface,
                    mode.name(),
                    tracker.name()
                );
                if mode != self.mode {
                    count(&self.board.filter_changes);
                }
                if tracker != self.tracker {
                    count(&self.board.tracker_changes);
                }
                (self.mode, self.tracker) = (mode, tracker);
                self.place = place;
                self.refusal.clear();
            }
            // whoever holds the lock changes what this is about
            Err(error @ (GateError::Locked { .. } | GateError::NotAttached { .. })) => debug!("{error}"),
            Err(error) => {
                let refusal = error.to_string();
                if refusal != self.refusal {
                    notice!("portcullis: warning: tried every second: {refusal}");
                    self.refusal = refusal;
                }
            }
        }
    }
}
