//! Where a drop belongs: whom its alarm is about, and which part of it.

use super::Engine;
use crate::abi::Reason;
use crate::alarm::assess::Assessment;
use crate::alarm::detector::Scan;
use crate::alarm::meaning::Meaning;
use crate::alarm::subject::{Frames, PartKey, Subject};
use crate::alarm::{Likely, Severity};
use crate::drops::DropEvent;

/// Where a drop belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct DropPlace {
    pub subject: Subject,
    pub key: PartKey,
}

impl Engine {
    /// Where a drop belongs.
    pub(super) fn place(&self, drop: &DropEvent, meaning: &Meaning, found: &Assessment) -> DropPlace {
        let key = PartKey::of(drop, meaning);
        let server = DropPlace { subject: Subject::Server(drop.server_id()), key };
        if key.is_single_attempt(found.kind) && found.likely == Likely::Unknown && drop.server.is_some() {
            let is_scan = match self.newest(server.subject) {
                Some(incident) if incident.has_live(PartKey::Scan) => {
                    !incident.has_live(key) && incident.explains(drop, found)
                }
                // chatter between neighbours begins none
                _ => found.scan != Scan::No && found.severity > Severity::Low,
            };
            if is_scan {
                return DropPlace { key: PartKey::Scan, ..server };
            }
        }
        if found.severity == Severity::Low {
            return DropPlace { subject: low_subject(drop, meaning), key };
        }
        let is_attributable = drop.reason.known().is_some_and(Reason::is_attributable);
        if is_attributable && drop.server.is_some() || self.is_of_server(server, drop) {
            return server;
        }
        DropPlace { subject: self.sender(drop), key }
    }

    /// Whether an open incident of the server has the MAC of a frame that can't be attributed to the server.
    /// An address that somebody borrowed is never the server's doing.
    fn is_of_server(&self, server: DropPlace, drop: &DropEvent) -> bool {
        if drop.server.is_none() || drop.reason.known() == Some(Reason::Spoofed) {
            return false;
        }
        match (self.newest(server.subject), drop.source_mac) {
            (Some(incident), Some(mac)) => incident.has_mac(mac),
            (Some(incident), None) => incident.has_live(server.key),
            (None, _) => false,
        }
    }

    /// The subject of drops that can't be attributed to their server. A row of the ledger does not have the
    /// MAC, so it goes to the machine that last sent such a frame.
    fn sender(&self, drop: &DropEvent) -> Subject {
        let subject = Subject::of_sender(drop);
        let Subject::Sender { frames: Some(Frames { ethertype, source_mac: None }), .. } = subject else {
            return subject;
        };
        let of_type = self.open.values().filter(|incident| match incident.subject {
            Subject::Sender { frames: Some(frames), .. } => frames.ethertype == ethertype,
            Subject::Sender { frames: None, .. }
            | Subject::Server(_)
            | Subject::Low { .. }
            | Subject::Gate
            | Subject::Findings
            | Subject::Answers { .. }
            | Subject::Everything => false,
        });
        of_type.max_by_key(|incident| incident.last_ns()).map_or(subject, |incident| incident.subject)
    }
}

/// The subject of a drop that is low.
pub(super) fn low_subject(drop: &DropEvent, meaning: &Meaning) -> Subject {
    Subject::Low { server: drop.server_id(), kind: meaning.kind }
}
