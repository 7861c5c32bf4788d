//! Kinds of alarms and how grave they are.

use std::fmt;

use serde::{Serialize, Serializer};

use super::severity::rate_attempt;
use crate::abi::Reason;
use crate::drops::{DropEvent, ReasonCode};
use crate::net::{TCP, UDP};

/// What an alarm is taken for, the least telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Segments in no flow; idle connections end this way too.
    Stray,
    /// Single tries.
    Attempt,
    /// An `out` need beyond its limit.
    Burst,
    /// Web, FTP, TFTP and the like from a server that has no such need: a rootkit on its way.
    Fetch,
    /// An address that is not the sender's.
    Spoof,
    /// One destination again and again: a reverse shell.
    Callback,
    /// Many ports.
    Scan,
    /// Something listens that should not.
    Backdoor,
    /// One port, many destinations: a worm.
    Spread,
}

/// Every kind, the least telling first.
pub const KINDS: &[Kind] = &[
    Kind::Stray,
    Kind::Attempt,
    Kind::Burst,
    Kind::Fetch,
    Kind::Spoof,
    Kind::Callback,
    Kind::Scan,
    Kind::Backdoor,
    Kind::Spread,
];

impl Kind {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Stray => "stray",
            Kind::Attempt => "attempt",
            Kind::Burst => "burst",
            Kind::Fetch => "fetch",
            Kind::Spoof => "spoof",
            Kind::Callback => "callback",
            Kind::Scan => "scan",
            Kind::Backdoor => "backdoor",
            Kind::Spread => "spread",
        }
    }

    /// In plain words, for titles.
    pub const fn describe(self) -> &'static str {
        match self {
            Kind::Stray => "segments in no flow",
            Kind::Attempt => "a server tried what it may not do",
            Kind::Burst => "a server opens more than its limit",
            Kind::Fetch => "a server tries to download",
            Kind::Spoof => "an address that is not the sender's",
            Kind::Callback => "a server calls one destination again and again",
            Kind::Scan => "a server tries many ports",
            Kind::Backdoor => "a server answers on a port that it should not have",
            Kind::Spread => "a server tries one port on many destinations",
        }
    }

    /// What one drop is a sign of; `None` if it is never an alarm.
    pub fn of(drop: &DropEvent) -> Option<Kind> {
        if drop.quiet {
            return None;
        }
        let ReasonCode::Known(reason) = drop.reason else {
            // A newer gate knows why, and it did drop.
            return Some(Kind::Attempt);
        };
        match reason {
            Reason::Backscatter | Reason::Stranger => None,
            Reason::UnlistedService => Some(Kind::Backdoor),
            Reason::UnknownSource | Reason::Spoofed | Reason::RogueRouter | Reason::SourceRoute => {
                Some(Kind::Spoof)
            }
            Reason::Rate => Some(Kind::Burst),
            Reason::NoFlow => Some(Kind::Stray),
            // `destination` has a need for the port, so a download is its business.
            Reason::NewFlow if is_download(drop) => Some(Kind::Fetch),
            Reason::NewFlow
            | Reason::Destination
            | Reason::Protocol
            | Reason::Quarantined
            | Reason::Malformed
            | Reason::Fragment
            | Reason::Ethertype => Some(Kind::Attempt),
            passed if !passed.drops() => None,
            _ => Some(Kind::Attempt),
        }
    }
}

/// Where tools are fetched from: FTP, HTTP and what speaks it, TFTP, rsync, git, QUIC.
fn is_download(drop: &DropEvent) -> bool {
    let ports: &[u16] = match drop.protocol {
        TCP => &[20, 21, 80, 443, 873, 989, 990, 3128, 8000, 8080, 8443, 8888, 9418],
        UDP => &[69, 80, 443],
        _ => &[],
    };
    !drop.own_port && ports.contains(&drop.port)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How grave an alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// To be looked at when there is time.
    Low,
    /// To be explained.
    Medium,
    /// Probably taken over.
    High,
    /// Taken over, and dangerous to others.
    Critical,
}

/// Every severity, the least severe first.
pub const SEVERITIES: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

impl Severity {
    /// Of a kind of alarm that this drop belongs to.
    pub fn of(kind: Kind, drop: &DropEvent) -> Severity {
        match kind {
            Kind::Stray => Severity::Low,
            Kind::Attempt => rate_attempt(drop),
            Kind::Burst | Kind::Fetch | Kind::Callback | Kind::Scan => Severity::High,
            Kind::Spoof => match drop.reason.known() {
                // another server's address is the gravest
                Some(Reason::Spoofed) => Severity::Critical,
                Some(Reason::UnknownSource) => Severity::Medium,
                _ => Severity::High,
            },
            Kind::Backdoor | Kind::Spread => Severity::Critical,
        }
    }

    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// The severity with this name.
    pub fn from_name(name: &str) -> Option<Severity> {
        SEVERITIES.iter().copied().find(|severity| severity.name() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::REASONS;
    use crate::drops::example::syn;

    fn kind(reason: Reason, port: u16) -> Option<Kind> {
        let mut drop = syn();
        drop.reason = reason.into();
        drop.port = port;
        Kind::of(&drop)
    }

    #[test]
    fn every_reason_to_drop_is_an_alarm_but_noise_and_no_reason_to_pass_is() {
        for &reason in REASONS {
            let noise = matches!(reason, Reason::Backscatter | Reason::Stranger);
            assert_eq!(kind(reason, 445).is_some(), reason.drops() && !noise, "{reason}");
        }
    }

    #[test]
    fn a_quiet_drop_is_never_an_alarm() {
        for &reason in REASONS {
            let mut drop = syn();
            drop.reason = reason.into();
            drop.quiet = true;
            assert_eq!(Kind::of(&drop), None);
        }
    }

    #[test]
    fn a_download_without_a_need_is_a_fetch_and_one_to_the_wrong_place_is_an_attempt() {
        for port in [20, 21, 80, 443, 873, 8080] {
            assert_eq!(kind(Reason::NewFlow, port), Some(Kind::Fetch));
            assert_eq!(kind(Reason::Destination, port), Some(Kind::Attempt));
        }
        assert_eq!(kind(Reason::NewFlow, 69), Some(Kind::Attempt));
        let mut tftp = syn();
        (tftp.protocol, tftp.port) = (UDP, 69);
        assert_eq!(Kind::of(&tftp), Some(Kind::Fetch));
    }

    #[test]
    fn a_reason_of_a_newer_gate_is_an_attempt() {
        let mut drop = syn();
        drop.reason = ReasonCode::Unknown(63);
        assert_eq!(Kind::of(&drop), Some(Kind::Attempt));
    }

    #[test]
    fn another_servers_address_is_the_gravest_spoof() {
        let of = |reason: Reason| {
            let mut drop = syn();
            drop.reason = reason.into();
            Severity::of(Kind::Spoof, &drop)
        };
        for reason in [Reason::UnknownSource, Reason::RogueRouter, Reason::SourceRoute] {
            assert!(of(Reason::Spoofed) > of(reason));
        }
    }

    #[test]
    fn severities_have_the_words_that_the_policy_and_the_sinks_use() {
        assert_eq!(SEVERITIES.map(Severity::name), ["low", "medium", "high", "critical"]);
        assert!(SEVERITIES.is_sorted_by(|a, b| a < b));
        for severity in SEVERITIES {
            assert_eq!(Severity::from_name(severity.name()), Some(severity));
        }
        assert_eq!(Severity::from_name("grave"), None);
    }

    #[test]
    fn kinds_are_listed_once_each_and_in_order() {
        assert!(KINDS.is_sorted_by(|a, b| a < b));
        assert_eq!(KINDS.len(), Kind::Spread as usize + 1);
    }
}
