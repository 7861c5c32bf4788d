//! Which drops are folded into one alarm.

use super::meaning::Meaning;
use super::{Kind, Scope};
use crate::drops::{DropEvent, ReasonCode};

/// What one alarm stands for. Servers are given by id; 0 is the id of no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Service { server: u32, protocol: u8, port: u16, reason: ReasonCode },
    Reason { server: u32, reason: ReasonCode },
    Ports { server: u32 },
    Server { server: u32 },
    Everything,
}

impl Key {
    /// The alarm that a drop belongs to by itself.
    pub(super) fn of(drop: &DropEvent, meaning: &Meaning) -> Key {
        let (server, reason) = (drop.server_id(), drop.reason);
        if meaning.by_service && !drop.any_protocol {
            Key::Service { server, protocol: drop.protocol, port: drop.port, reason }
        } else {
            Key::Reason { server, reason }
        }
    }

    pub(super) fn scope(self) -> Scope {
        match self {
            Key::Service { .. } => Scope::Service,
            Key::Reason { .. } => Scope::Reason,
            Key::Ports { .. } => Scope::Ports,
            Key::Server { .. } => Scope::Server,
            Key::Everything => Scope::Everything,
        }
    }

    /// Whether a scan would explain an alarm of this kind.
    pub(super) fn is_single_attempt(self, kind: Kind) -> bool {
        let is_attempt = matches!(self, Key::Service { reason, .. } if reason.is_attempt());
        is_attempt && matches!(kind, Kind::Attempt | Kind::Fetch)
    }
}
