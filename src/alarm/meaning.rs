//! What a drop means: one table of reasons, and what protocol and port add to it.

use std::ops::RangeInclusive;

use super::Kind;
use super::severity::Severity;
use super::technique::{
    APPLICATION_LAYER, BELOW_APPLICATIONS, BRIDGING, DENIAL_OF_SERVICE, DNS, IN_THE_MIDDLE, MAIL, Technique,
    WEB,
};
use crate::abi::Reason;
use crate::drops::{DropEvent, DropVerdict};
use crate::net::{AH, ESP, GRE, IGMP, IPIP, L2TP, SCTP, SIT, TCP, UDP, VRRP, read_sctp_chunk};

/// The type of the chunk that opens an association.
const SCTP_INIT: u8 = 1;

/// Packets that hide other packets.
const TUNNELS: [u8; 6] = [IPIP, SIT, GRE, ESP, AH, L2TP];

/// What machines say to their neighbours unasked: DHCP, NetBIOS, SSDP, mDNS, LLMNR.
const CHATTER_UDP: [u16; 9] = [67, 68, 137, 138, 546, 547, 1900, 5353, 5355];

/// What many servers need and policies forget: names, time, logs, monitoring, directories.
const HOUSEKEEPING_TCP: [u16; 7] = [53, 88, 389, 514, 636, 853, 6514];
const HOUSEKEEPING_UDP: [u16; 7] = [53, 88, 123, 161, 162, 514, 853];

/// Control of other machines, their files and databases, and what intruders' tools listen on.
const CONTROL_TCP: [RangeInclusive<u16>; 22] = [
    22..=23,       // SSH, telnet
    135..=135,     // Windows RPC
    139..=139,     // NetBIOS sessions
    445..=445,     // SMB
    512..=513,     // rexec, rlogin
    1080..=1080,   // SOCKS
    1433..=1433,   // SQL Server
    1521..=1521,   // Oracle
    2049..=2049,   // NFS
    2375..=2376,   // Docker
    3306..=3306,   // MySQL
    3389..=3389,   // RDP
    4444..=4444,   // Metasploit's default
    5432..=5432,   // PostgreSQL
    5900..=5909,   // VNC
    5985..=5986,   // WinRM
    6379..=6379,   // Redis
    6660..=6669,   // IRC
    6697..=6697,   // IRC over TLS
    9001..=9001,   // Tor
    11211..=11211, // memcached
    27017..=27017, // MongoDB
];

/// What a drop for one reason means.
pub(super) struct Meaning {
    /// The kind of its alarm, unless the detector finds it to be part of something.
    pub kind: Kind,
    /// Each service has an alarm of its own. Otherwise all drops for the reason share one: a quarantined
    /// or broken server is one fact, whatever it goes on to send.
    pub by_service: bool,
    /// Where the kind leaves it open. `None`: it depends on the service.
    pub severity: Option<Severity>,
    /// Where the kind leaves it open. `None`: it depends on the port.
    pub technique: Option<Technique>,
    /// As that of a kind.
    pub action: &'static str,
    /// As that of a kind.
    pub why: &'static str,
}

/// What a drop for a reason of a newer version means.
pub(super) const UNKNOWN: Meaning = Meaning {
    kind: Kind::Attempt,
    by_service: false,
    severity: Some(Severity::Medium),
    technique: None,
    action: "tried {service}{to}, dropped as {reason}",
    why: EARLY_SIGN,
};

const EARLY_SIGN: &str =
    "Servers in a DMZ answer and rarely open connections, so this is an early sign of a takeover";
const NOT_UNDERSTOOD: &str = "A packet that can't be understood gets around filters, or hides a channel";
const UNWATCHED: &str = "A protocol that no role needs is a channel that nobody watches";

/// What a drop for this reason means; `None`: it is no sign of anything.
pub(super) const fn meaning_of(reason: Reason) -> Option<Meaning> {
    Some(match reason {
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
        // answers to forged packets, and packets of peers: noise that a server can't avoid
        | Reason::Backscatter
        | Reason::Stranger
        // whoever has denied it knows, and it would have passed before
        | Reason::Denied => return None,
        Reason::Ethertype => Meaning {
            technique: Some(BELOW_APPLICATIONS),
            action: "sent frames that are not IP ({service}){mac}",
            why: UNWATCHED,
            ..UNKNOWN
        },
        Reason::Malformed => Meaning {
            technique: Some(BELOW_APPLICATIONS),
            action: "sent malformed packets{mac}{to}",
            why: NOT_UNDERSTOOD,
            ..UNKNOWN
        },
        Reason::SourceRoute => Meaning {
            kind: Kind::Spoof,
            severity: Some(Severity::High),
            technique: Some(BRIDGING),
            action: "sent source-routed packets{mac}{to}",
            why: "A source route leads packets and their answers around the filters in between",
            ..UNKNOWN
        },
        Reason::RogueRouter => Meaning {
            kind: Kind::Spoof,
            severity: Some(Severity::High),
            technique: Some(IN_THE_MIDDLE),
            action: "acted as a router: {service}{mac}{to}",
            why: "A false router on the link can read and change what its neighbours send",
            ..UNKNOWN
        },
        Reason::UnknownSource => Meaning {
            kind: Kind::Spoof,
            technique: Some(DENIAL_OF_SERVICE),
            action: "used the source address {sources}{mac}{to}",
            why: "It is a machine that the policy does not know, or forged addresses as in a flood",
            ..UNKNOWN
        },
        Reason::Elsewhere => Meaning {
            kind: Kind::Stray,
            severity: Some(Severity::Low),
            technique: Some(BELOW_APPLICATIONS),
            action: "sent packets to another host of its link{to}",
            why: "A switch floods such frames, and this router does not forward them",
            ..UNKNOWN
        },
        Reason::Spoofed => Meaning {
            kind: Kind::Spoof,
            severity: Some(Severity::Critical),
            technique: Some(IN_THE_MIDDLE),
            action: "was impersonated{mac}{to}: its address {sources}, but not its MAC address or VLAN",
            why: "Somebody uses another server's address to get what that server may do",
            ..UNKNOWN
        },
        Reason::Quarantined => Meaning {
            action: "still sends {service}{to} from quarantine",
            why: "What it sends from quarantine shows what runs on it, and that it still runs",
            ..UNKNOWN
        },
        // The answers to a peer that asks fast enough use the number of one datagram for the next.
        Reason::Fragment => Meaning {
            kind: Kind::Stray,
            severity: Some(Severity::Low),
            technique: Some(BELOW_APPLICATIONS),
            action: "sent fragments without a permitted first one{to}",
            why: NOT_UNDERSTOOD,
            ..UNKNOWN
        },
        Reason::Rate => Meaning { kind: Kind::Burst, by_service: true, ..UNKNOWN },
        Reason::UnlistedService => Meaning { kind: Kind::Backdoor, by_service: true, ..UNKNOWN },
        Reason::NoFlow => Meaning {
            kind: Kind::Stray,
            technique: Some(BELOW_APPLICATIONS),
            action: "sent segments that belong to no flow{to}",
            why: "Idle connections end this way, and so does a channel that hides outside of connections",
            ..UNKNOWN
        },
        Reason::Protocol => Meaning {
            by_service: true,
            severity: None,
            technique: Some(BELOW_APPLICATIONS),
            action: "sent the protocol {service}{to}",
            why: UNWATCHED,
            ..UNKNOWN
        },
        Reason::Destination => Meaning {
            by_service: true,
            action: "tried {service}{to}, which its roles permit only elsewhere",
            why: "A permitted port used for another place may be a channel. \
                  Or the place has moved, and the policy has not",
            ..UNKNOWN
        },
        Reason::NewFlow => {
            Meaning { by_service: true, severity: None, action: "tried {service}{to}", ..UNKNOWN }
        }
        Reason::Question => Meaning { kind: Kind::Question, by_service: true, ..UNKNOWN },
    })
}

/// What a drop means; `None` if it is never an alarm.
pub(super) fn classify(drop: &DropEvent) -> Option<Meaning> {
    if drop.quiet {
        return None;
    }
    // The gate of a newer version has a reason that this one does not know. It did drop.
    let meaning = drop.reason.known().map_or(Some(UNKNOWN), meaning_of)?;
    // The first fragment may still come. Packets change their order on any way.
    if drop.reason.known() == Some(Reason::Fragment) && drop.presumed {
        return Some(Meaning {
            kind: Kind::Stray,
            severity: Some(Severity::Low),
            why: "Fragments may overtake each other, and the first one may have been lost",
            ..meaning
        });
    }
    // For `destination` a role has the port, so a download is the server's business.
    let is_fetch = drop.reason.known() == Some(Reason::NewFlow) && is_download(drop);
    // Linux answers to a peer's SCTP, whatever runs on it.
    let is_answer = drop.reason.known() == Some(Reason::Protocol) && is_sctp_answer(drop);
    Some(match (is_fetch, is_answer) {
        (true, _) => Meaning { kind: Kind::Fetch, ..meaning },
        (_, true) => Meaning { kind: Kind::Stray, ..meaning },
        _ => meaning,
    })
}

/// Whether a packet of SCTP is known to open nothing: its first chunk is no INIT. Without a sample nobody knows
/// who began.
fn is_sctp_answer(drop: &DropEvent) -> bool {
    drop.protocol == SCTP && !drop.any_protocol && read_sctp_chunk(&drop.frame) != Some(SCTP_INIT)
}

impl Kind {
    /// The kind of alarm that a drop is a sign of; `None` if it is never an alarm.
    pub fn of(drop: &DropEvent) -> Option<Kind> {
        classify(drop).map(|meaning| meaning.kind)
    }
}

/// Where tools are fetched from: FTP, HTTP and what speaks it, TFTP, rsync, git, QUIC.
pub(super) fn is_download(drop: &DropEvent) -> bool {
    let ports: &[u16] = match drop.protocol {
        TCP => &[20, 21, 80, 443, 873, 989, 990, 3128, 8000, 8080, 8443, 8888, 9418],
        UDP => &[69, 80, 443],
        _ => &[],
    };
    !drop.own_port && ports.contains(&drop.port)
}

/// Whether intruders use this service: to move on to other machines, to be controlled, to fetch tools, or to
/// hide packets in packets.
pub(super) fn is_dangerous(drop: &DropEvent) -> bool {
    let is_control = drop.protocol == TCP && CONTROL_TCP.iter().any(|ports| ports.contains(&drop.port));
    let is_known = !drop.any_protocol && !drop.is_frame();
    is_known && (is_control || is_download(drop) || TUNNELS.contains(&drop.protocol))
}

/// How severe an alarm of this kind is by this drop.
pub(super) fn rate(kind: Kind, drop: &DropEvent) -> Severity {
    let by_reason =
        || drop.reason.known().and_then(meaning_of).map_or(UNKNOWN.severity, |meaning| meaning.severity);
    // who announces itself as the master takes all traffic of the link
    if drop.reason.known() == Some(Reason::RogueRouter) && drop.protocol == VRRP {
        return Severity::Critical;
    }
    kind.severity().or_else(by_reason).unwrap_or_else(|| rate_service(drop))
}

/// How severe a scan is that this drop is part of.
pub(super) fn rate_scan(drop: &DropEvent) -> Severity {
    let severity = rate(Kind::Scan, drop);
    if drop.verdict == DropVerdict::WouldDrop { severity.lower() } else { severity }
}

/// The gate knows that something is outside of the roles. The service says how far outside: a resolver
/// that is asked without a need is a forgotten need, and a login elsewhere is not.
fn rate_service(drop: &DropEvent) -> Severity {
    if drop.reason.known() == Some(Reason::Protocol) {
        return match drop.protocol {
            IGMP => Severity::Low,
            protocol if TUNNELS.contains(&protocol) => Severity::High,
            _ => Severity::Medium,
        };
    }
    match drop.protocol {
        _ if drop.any_protocol => Severity::Medium,
        TCP if CONTROL_TCP.iter().any(|ports| ports.contains(&drop.port)) => Severity::Critical,
        TCP if HOUSEKEEPING_TCP.contains(&drop.port) => Severity::Medium,
        TCP => Severity::High,
        UDP if CHATTER_UDP.contains(&drop.port) => Severity::Low,
        UDP if HOUSEKEEPING_UDP.contains(&drop.port) => Severity::Medium,
        UDP => Severity::High,
        // ICMP, SCTP
        _ => Severity::Medium,
    }
}

/// The technique of a connection to this port, for a kind that leaves it open.
pub(super) fn name_channel(kind: Kind, drop: Option<&DropEvent>) -> Technique {
    let Some(drop) = drop.filter(|drop| matches!(drop.protocol, TCP | UDP)) else {
        return BELOW_APPLICATIONS;
    };
    match drop.port {
        53 | 853 | 5353 => DNS,
        25 | 110 | 143 | 465 | 587 | 993 | 995 => MAIL,
        80 | 443 | 3128 | 8000 | 8080 | 8443 | 8888 => WEB,
        // A shell on a bare socket speaks no protocol that applications know.
        _ if kind == Kind::Callback => BELOW_APPLICATIONS,
        _ => APPLICATION_LAYER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::REASONS;
    use crate::drops::ReasonCode;
    use crate::drops::example::syn;

    fn kind(reason: Reason, port: u16) -> Option<Kind> {
        let mut drop = syn();
        drop.reason = reason.into();
        drop.port = port;
        Kind::of(&drop)
    }

    fn severity(reason: Reason, protocol: u8, port: u16) -> Severity {
        let mut drop = syn();
        drop.reason = reason.into();
        (drop.protocol, drop.port) = (protocol, port);
        rate(Kind::Attempt, &drop)
    }

    #[test]
    fn every_reason_to_drop_is_an_alarm_but_noise_and_no_reason_to_pass_is() {
        for &reason in REASONS {
            let noise = matches!(reason, Reason::Backscatter | Reason::Stranger | Reason::Denied);
            assert_eq!(kind(reason, 445).is_some(), reason.drops() && !noise, "{reason}");
        }
    }

    #[test]
    fn a_fragment_without_a_permitted_first_one_is_a_stray_for_an_outsider_can_cause_it() {
        let mut drop = syn();
        drop.reason = Reason::Fragment.into();
        for presumed in [true, false] {
            drop.presumed = presumed;
            assert_eq!((Kind::of(&drop), rate(Kind::Stray, &drop)), (Some(Kind::Stray), Severity::Low));
        }
        // a late answer is a stray in any case
        drop.reason = Reason::NoFlow.into();
        assert_eq!(Kind::of(&drop), Some(Kind::Stray));
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
        assert_eq!(rate(Kind::Attempt, &drop), Severity::Medium);
    }

    #[test]
    fn another_servers_address_is_the_most_severe_spoof() {
        let of = |reason: Reason| {
            let mut drop = syn();
            drop.reason = reason.into();
            rate(Kind::Spoof, &drop)
        };
        for reason in [Reason::UnknownSource, Reason::RogueRouter, Reason::SourceRoute] {
            assert!(of(Reason::Spoofed) > of(reason));
        }
    }

    #[test]
    fn a_login_elsewhere_is_critical_and_the_farther_from_the_role_the_more_severe() {
        for port in [22, 445, 3389, 5905, 6667] {
            assert_eq!(severity(Reason::NewFlow, TCP, port), Severity::Critical, "{port}");
        }
        assert_eq!(severity(Reason::NewFlow, TCP, 31337), Severity::High);
        assert_eq!(severity(Reason::NewFlow, UDP, 4000), Severity::High);
        assert_eq!(severity(Reason::NewFlow, UDP, 123), Severity::Medium);
        assert_eq!(severity(Reason::NewFlow, 1, 8), Severity::Medium);
        assert_eq!(severity(Reason::NewFlow, UDP, 5353), Severity::Low);
    }

    #[test]
    fn a_permitted_service_at_another_place_is_near_whatever_its_port() {
        assert_eq!(severity(Reason::Destination, TCP, 22), Severity::Medium);
    }

    #[test]
    fn a_tunnel_is_more_severe_than_a_protocol_that_nobody_knows() {
        assert_eq!(severity(Reason::Protocol, 47, 0), Severity::High);
        assert_eq!(severity(Reason::Protocol, 200, 0), Severity::Medium);
        assert_eq!(severity(Reason::Protocol, IGMP, 0), Severity::Low);
    }
}
