//! Who an alarm is about, and which drops are one part of it.

use super::Kind;
use super::answers::About;
use super::gate_trouble::GateTrouble;
use super::meaning::Meaning;
use crate::abi::Reason;
use crate::drops::{DropEvent, ReasonCode};

/// No server has this id. So alarms about names and resolvers take no room of another alarm's.
const OF_ANSWERS: u32 = u32::MAX;

/// Who an alarm is about. Servers are given by id; 0 is the id of no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// A server, which sent these packets itself.
    Server(u32),
    /// A server, and drops of one kind that are of low severity. They neither join an incident nor keep
    /// one open.
    Low { server: u32, kind: Kind },
    /// Whoever sent frames that can't be attributed to the server with their address.
    Sender { server: u32, reason: ReasonCode, frames: Option<Frames> },
    /// The gate itself.
    Gate,
    /// What `doctor` has found.
    Findings,
    /// A name or a resolver; `None`: those for which there is no room.
    Answers { kind: Kind, about: Option<About> },
    /// All others, when too many alarms are open.
    Everything,
}

/// Frames that are not IP. A keep-alive of one machine must not hide the tunnel of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frames {
    pub ethertype: u16,
    /// `None` where unknown.
    pub source_mac: Option<[u8; 6]>,
}

impl Subject {
    /// The subject of drops that can't be attributed to their server.
    pub(super) fn of_sender(drop: &DropEvent) -> Subject {
        let is_frame = drop.reason.known() == Some(Reason::Ethertype);
        let frames = is_frame.then_some(Frames { ethertype: drop.port, source_mac: drop.source_mac });
        Subject::Sender { server: drop.server_id(), reason: drop.reason, frames }
    }

    /// The same without the machine, for whom there is no room.
    pub(super) fn without_machine(self) -> Subject {
        match self {
            Subject::Sender { server, reason, frames: _ } => Subject::Sender { server, reason, frames: None },
            other => other,
        }
    }

    /// The subject of trouble of the gate.
    pub(super) fn of_trouble(trouble: GateTrouble) -> Subject {
        if trouble.is_finding() { Subject::Findings } else { Subject::Gate }
    }

    /// The server whose alarms are counted together.
    pub(super) fn server(self) -> u32 {
        match self {
            Subject::Server(server) | Subject::Low { server, .. } | Subject::Sender { server, .. } => server,
            Subject::Gate | Subject::Findings | Subject::Everything => 0,
            Subject::Answers { .. } => OF_ANSWERS,
        }
    }
}

/// Which drops are one part of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PartKey {
    /// One service (protocol and port), for one reason.
    Service { protocol: u8, port: u16, reason: ReasonCode },
    /// All drops for one reason.
    Reason(ReasonCode),
    /// Single attempts at many services.
    Scan,
    /// Trouble of the gate.
    Trouble(GateTrouble),
    /// Answers that opened nothing.
    Answers,
    /// What has no room.
    Rest,
}

impl PartKey {
    /// The part that a drop belongs to by itself.
    pub(super) fn of(drop: &DropEvent, meaning: &Meaning) -> PartKey {
        if meaning.by_service && !drop.any_protocol {
            PartKey::Service { protocol: drop.protocol, port: drop.port, reason: drop.reason }
        } else {
            PartKey::Reason(drop.reason)
        }
    }

    /// Whether a scan would explain a part of this kind.
    pub(super) fn is_single_attempt(self, kind: Kind) -> bool {
        let is_attempt = match self {
            PartKey::Service { reason, .. } | PartKey::Reason(reason) => {
                reason.is_attempt() || reason.known() == Some(Reason::Protocol)
            }
            PartKey::Scan | PartKey::Trouble(_) | PartKey::Answers | PartKey::Rest => false,
        };
        is_attempt && matches!(kind, Kind::Attempt | Kind::Fetch)
    }
}
