//! How far from its role a server has gone. That something was no part of the role, the gate
//! knows; how strange it is, the service says: a resolver that is asked for without a need is
//! a forgotten need, a login elsewhere is none.

use std::ops::RangeInclusive;

use super::Severity;
use crate::abi::Reason;
use crate::drops::{DropEvent, ReasonCode};
use crate::net::{TCP, UDP};

const IGMP: u8 = 2;
/// 6in4, IP in IP, GRE, ESP, AH, L2TP: what packets hide in.
const TUNNELS: [u8; 6] = [4, 41, 47, 50, 51, 115];

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

/// How grave a single try is.
pub(super) fn rate_attempt(drop: &DropEvent) -> Severity {
    match drop.reason {
        // The role has this service, only not there: near.
        ReasonCode::Known(Reason::Destination) => Severity::Medium,
        ReasonCode::Known(Reason::NewFlow) => weigh_service(drop.protocol, drop.port, drop.any_protocol),
        ReasonCode::Known(Reason::Protocol) if TUNNELS.contains(&drop.protocol) => Severity::High,
        ReasonCode::Known(Reason::Protocol) if drop.protocol == IGMP => Severity::Low,
        _ => Severity::Medium,
    }
}

fn weigh_service(protocol: u8, port: u16, is_any: bool) -> Severity {
    match protocol {
        _ if is_any => Severity::Medium,
        TCP if CONTROL_TCP.iter().any(|ports| ports.contains(&port)) => Severity::Critical,
        TCP if HOUSEKEEPING_TCP.contains(&port) => Severity::Medium,
        TCP => Severity::High,
        UDP if CHATTER_UDP.contains(&port) => Severity::Low,
        UDP if HOUSEKEEPING_UDP.contains(&port) => Severity::Medium,
        UDP => Severity::High,
        // ICMP, SCTP
        _ => Severity::Medium,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example::syn;

    fn weigh(reason: Reason, protocol: u8, port: u16) -> Severity {
        let mut drop = syn();
        drop.reason = reason.into();
        (drop.protocol, drop.port) = (protocol, port);
        rate_attempt(&drop)
    }

    #[test]
    fn a_login_elsewhere_is_critical_and_the_farther_from_the_role_the_graver() {
        for port in [22, 445, 3389, 5905, 6667] {
            assert_eq!(weigh(Reason::NewFlow, TCP, port), Severity::Critical, "{port}");
        }
        assert_eq!(weigh(Reason::NewFlow, TCP, 31337), Severity::High);
        assert_eq!(weigh(Reason::NewFlow, UDP, 4000), Severity::High);
        assert_eq!(weigh(Reason::NewFlow, UDP, 123), Severity::Medium);
        assert_eq!(weigh(Reason::NewFlow, 1, 8), Severity::Medium);
        assert_eq!(weigh(Reason::NewFlow, UDP, 5353), Severity::Low);
    }

    #[test]
    fn a_permitted_service_at_another_place_is_near_whatever_its_port() {
        assert_eq!(weigh(Reason::Destination, TCP, 22), Severity::Medium);
    }

    #[test]
    fn a_tunnel_is_graver_than_a_protocol_that_nobody_knows() {
        assert_eq!(weigh(Reason::Protocol, 47, 0), Severity::High);
        assert_eq!(weigh(Reason::Protocol, 200, 0), Severity::Medium);
        assert_eq!(weigh(Reason::Protocol, IGMP, 0), Severity::Low);
    }
}
