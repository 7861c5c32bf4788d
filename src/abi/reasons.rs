//! Why a packet passed or was dropped. The list is written once, as `enum reason` of
//! `bpf/contract.h`. `build.rs` makes this enum of it, and one table here has the properties of each
//! reason. A reason without a row does not compile.

use std::fmt;

use serde::{Serialize, Serializer};

include!(concat!(env!("OUT_DIR"), "/reason.rs"));

/// The properties of a reason.
struct ReasonRow {
    drops: bool,
    attributable: bool,
    attempt: bool,
    ip: bool,
    sentence: &'static str,
}

impl ReasonRow {
    /// The packet was to open a flow.
    const fn of_attempts(self) -> ReasonRow {
        ReasonRow { attempt: true, ..self }
    }

    /// The frame holds no IP packet, so the ledger's port is its EtherType.
    const fn of_other_frames(self) -> ReasonRow {
        ReasonRow { ip: false, ..self }
    }
}

/// A reason to pass.
const fn pass(sentence: &'static str) -> ReasonRow {
    ReasonRow { drops: false, attributable: false, attempt: false, ip: true, sentence }
}

/// A reason to drop a packet of any machine: the server with its source address need not have sent it.
const fn drop_of_anyone(sentence: &'static str) -> ReasonRow {
    ReasonRow { drops: true, attributable: false, attempt: false, ip: true, sentence }
}

/// A reason to drop a packet that came with the MAC and the VLAN of the server, where it has them.
const fn drop_of_server(sentence: &'static str) -> ReasonRow {
    ReasonRow { drops: true, attributable: true, attempt: false, ip: true, sentence }
}

impl Reason {
    const fn row(self) -> ReasonRow {
        match self {
            Reason::LinkLayer => {
                pass("ARP, LLDP, 802.1X, slow protocols and 802.3 belong to the link").of_other_frames()
            }
            Reason::Neighbour => pass("IPv6 neighbour discovery and MLD belong to the link"),
            Reason::Dhcp => pass("`dhcp` is on, and this packet stays on the link"),
            Reason::UnknownAllowed => {
                pass("no server has this source address, and unknown_sources is \"allow\"")
            }
            Reason::LaterFragment => pass("the first fragment of this packet passed"),
            Reason::Reply => pass("it answers a flow that a peer opened to an `in` service"),
            Reason::Pickup => pass("flows that were open when the gate was attached are taken over"),
            Reason::Need => pass("an `out` need of the server permits it"),
            Reason::OwnConnection => pass("it belongs to a connection that an `out` need permits"),
            Reason::FlowError => pass("the ICMP error is about a permitted flow"),
            Reason::Router => pass("it is VRRP of a router of the policy"),
            Reason::Handover => pass(
                "conntrack has it as an answer in a flow that a peer opened at another router, or before the gate",
            ),

            Reason::Ethertype => {
                drop_of_anyone("the DMZ may send IP and the protocols of the link, and this is neither")
                    .of_other_frames()
            }
            Reason::Malformed => drop_of_anyone("a header is cut short or contradicts itself"),
            Reason::SourceRoute => {
                drop_of_anyone("a source route sends the packet elsewhere than its address says")
            }
            Reason::RogueRouter => drop_of_anyone("a server must not announce routers or redirects"),
            Reason::UnknownSource => drop_of_anyone("no server has this source address"),
            Reason::Spoofed => drop_of_anyone("the policy binds the address to another MAC or VLAN"),

            Reason::Quarantined => {
                drop_of_server("the server is in quarantine, and only its management gets an answer")
            }
            Reason::Fragment => {
                drop_of_server("its first fragment was not seen or did not pass, or it hides a header")
            }
            Reason::Rate => drop_of_server("the server has used up the `limit` of this need"),
            Reason::UnlistedService => {
                drop_of_server("something on the server listens where the policy lists no `in` service")
            }
            Reason::Backscatter => {
                drop_of_server("a healthy server answers noise like this, so it is never an alarm")
            }
            Reason::Stranger => drop_of_server("the service is not for this peer"),
            Reason::NoFlow => drop_of_server("the gate knows no flow that a peer opened here"),
            Reason::Protocol => drop_of_server("no need names this protocol"),
            Reason::Destination => {
                drop_of_server("an `out` need has this port, but not this destination").of_attempts()
            }
            Reason::NewFlow => drop_of_server("no `out` need permits the server to start this").of_attempts(),
            Reason::Elsewhere => drop_of_anyone("the frame goes to the MAC of another host on the link"),
            Reason::Denied => drop_of_server("an edit denies what would have passed, for a time"),
            Reason::Question => {
                drop_of_server("of its resolvers the server may ask the names of the policy alone")
            }
        }
    }

    /// The reason with this number, or `None` for one that this version does not know.
    pub fn from_number(number: u8) -> Option<Reason> {
        REASONS.iter().copied().find(|reason| reason.number() == number)
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Reason> {
        REASONS.iter().copied().find(|reason| reason.name() == name)
    }

    /// Its number in counters, ledger and samples.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether packets are dropped for it. The others pass.
    pub const fn drops(self) -> bool {
        self.row().drops
    }

    /// Whether a drop can be attributed to the server that has the source address. Other drops may be
    /// of a machine that borrowed it. As `is_attributable()` of `bpf/reason.h`, to which a test compares
    /// this.
    pub const fn is_attributable(self) -> bool {
        self.row().attributable
    }

    /// Whether somebody outside can cause a drop for it, while the server runs only what its role says.
    /// `own_port`: the ledger counts it under the server's own port. As `is_caused_outside()` of
    /// `bpf/reason.h`, to which a test compares this.
    pub const fn is_caused_outside(self, own_port: bool) -> bool {
        match self {
            Reason::Backscatter | Reason::Stranger | Reason::Fragment => true,
            Reason::Quarantined | Reason::NoFlow | Reason::Denied => own_port,
            Reason::LinkLayer
            | Reason::Neighbour
            | Reason::Dhcp
            | Reason::UnknownAllowed
            | Reason::LaterFragment
            | Reason::Reply
            | Reason::Pickup
            | Reason::Need
            | Reason::OwnConnection
            | Reason::FlowError
            | Reason::Router
            | Reason::Handover
            | Reason::Ethertype
            | Reason::Malformed
            | Reason::SourceRoute
            | Reason::RogueRouter
            | Reason::UnknownSource
            | Reason::Spoofed
            | Reason::Rate
            | Reason::UnlistedService
            | Reason::Protocol
            | Reason::Destination
            | Reason::NewFlow
            | Reason::Question
            | Reason::Elsewhere => false,
        }
    }

    /// Whether the packet was an attempt to open a flow. The destinations of attempts tell a worm.
    pub const fn is_attempt(self) -> bool {
        self.row().attempt
    }

    /// Whether the frame holds an IP packet. Otherwise the ledger has its EtherType in place of a port.
    pub const fn is_about_ip(self) -> bool {
        self.row().ip
    }

    /// Its meaning for people: one sentence about the packet, without a full stop.
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why a packet was dropped: a reason, or the number of one that is newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// A reason of this version.
    Known(Reason),
    /// The number of a reason of a newer version.
    Unknown(u8),
}

impl ReasonCode {
    /// Its number in the ledger and in samples.
    pub fn number(self) -> u8 {
        match self {
            ReasonCode::Known(reason) => reason.number(),
            ReasonCode::Unknown(number) => number,
        }
    }

    /// The reason, if this version knows it.
    pub fn known(self) -> Option<Reason> {
        match self {
            ReasonCode::Known(reason) => Some(reason),
            ReasonCode::Unknown(_) => None,
        }
    }

    /// As [`Reason::is_attempt`]. A reason that this version does not know is no attempt.
    pub fn is_attempt(self) -> bool {
        self.known().is_some_and(Reason::is_attempt)
    }

    /// As [`Reason::is_about_ip`]. A reason that this version does not know is about IP.
    pub fn is_about_ip(self) -> bool {
        self.known().is_none_or(Reason::is_about_ip)
    }
}

impl From<u8> for ReasonCode {
    fn from(number: u8) -> ReasonCode {
        Reason::from_number(number).map_or(ReasonCode::Unknown(number), ReasonCode::Known)
    }
}

impl From<Reason> for ReasonCode {
    fn from(reason: Reason) -> ReasonCode {
        ReasonCode::Known(reason)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReasonCode::Known(reason) => f.pad(reason.name()),
            ReasonCode::Unknown(number) => f.pad(&format!("unknown_{number}")),
        }
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_the_reason() {
        for &reason in REASONS {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(Reason::from_number(0), None);
        assert_eq!(Reason::from_number(255), None);
    }

    #[test]
    fn numbers_below_32_pass_and_only_a_drop_is_attributed_to_a_server() {
        for reason in REASONS {
            assert_eq!(reason.drops(), reason.number() >= 32, "{reason}");
            assert!(reason.drops() || !reason.is_attributable(), "{reason}");
        }
    }

    #[test]
    fn a_drop_is_attributed_to_nobody_before_the_sender_is_known() {
        let anyone: Vec<_> =
            REASONS.iter().filter(|reason| reason.drops() && !reason.is_attributable()).collect();
        assert_eq!(
            anyone,
            [
                &Reason::Ethertype,
                &Reason::Malformed,
                &Reason::SourceRoute,
                &Reason::RogueRouter,
                &Reason::UnknownSource,
                &Reason::Spoofed,
                &Reason::Elsewhere,
            ]
        );
    }

    #[test]
    fn the_page_of_verdicts_has_a_row_for_each_reason() {
        let page = include_str!("../../docs/verdicts.md");
        for reason in REASONS {
            let named = |line: &str| {
                let cell = line.strip_prefix("| `").and_then(|rest| rest.split(" |").next());
                cell.is_some_and(|cell| format!("`{cell}").contains(&format!("`{reason}`")))
            };
            assert!(page.lines().any(named), "docs/verdicts.md has no row for `{reason}`");
        }
    }

    #[test]
    fn every_number_is_a_reason_code_and_leads_back() {
        for number in 0..=255 {
            assert_eq!(ReasonCode::from(number).number(), number);
        }
        assert_eq!(ReasonCode::from(47).known(), Some(Reason::NewFlow));
    }
}
