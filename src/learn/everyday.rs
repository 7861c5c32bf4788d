//! Services that are common in a DMZ, each with the name of its role. A reverse shell to one of their ports looks like a
//! client, so this list never decides alone: `judge` says what else has to hold.

use std::net::IpAddr;

use crate::abi::one_way_port;
use crate::net::{TCP, UDP};

/// Protocol, port, and the role of those who offer it.
const EVERYDAY: &[(u8, u16, &str)] = &[
    (TCP, 80, "web"),
    (TCP, 443, "web"),
    (UDP, 443, "web"),
    (TCP, 8080, "web"),
    (TCP, 8443, "web"),
    (UDP, 53, "dns"),
    (TCP, 53, "dns"),
    (TCP, 853, "dns"),
    (TCP, 25, "mail"),
    (TCP, 465, "mail"),
    (TCP, 587, "mail"),
    (TCP, 110, "mail"),
    (TCP, 143, "mail"),
    (TCP, 993, "mail"),
    (TCP, 995, "mail"),
    (TCP, 4190, "mail"),
    (TCP, 3306, "db"),
    (TCP, 5432, "db"),
    (TCP, 1433, "db"),
    (TCP, 1521, "db"),
    (TCP, 6379, "db"),
    (TCP, 27017, "db"),
    (TCP, 11211, "db"),
    (TCP, 9200, "db"),
    (TCP, 389, "directory"),
    (TCP, 636, "directory"),
    (TCP, 88, "directory"),
    (UDP, 88, "directory"),
    (TCP, 464, "directory"),
    (UDP, 123, "time"),
    (UDP, 514, "log"),
    (TCP, 514, "log"),
    (TCP, 601, "log"),
    (TCP, 6514, "log"),
    (TCP, 5044, "log"),
    (TCP, 21, "ftp"),
    (TCP, 990, "ftp"),
    (TCP, 873, "files"),
    (TCP, 2049, "files"),
    (TCP, 3128, "proxy"),
    (TCP, 5671, "queue"),
    (TCP, 5672, "queue"),
    (TCP, 9092, "queue"),
    (TCP, 1883, "queue"),
    (TCP, 8883, "queue"),
    (UDP, 1194, "vpn"),
    (UDP, 51820, "vpn"),
    (UDP, 500, "vpn"),
    (UDP, 4500, "vpn"),
    (UDP, 1812, "radius"),
    (UDP, 1813, "radius"),
    (UDP, 161, "monitored"),
    (UDP, 162, "monitored"),
    (TCP, 4949, "monitored"),
    (TCP, 5665, "monitored"),
    (TCP, 5666, "monitored"),
    (TCP, 6556, "monitored"),
    (TCP, 9100, "monitored"),
    (TCP, 10050, "monitored"),
    (TCP, 10051, "monitored"),
    (TCP, 8086, "monitored"),
    (TCP, 4505, "configured"),
    (TCP, 4506, "configured"),
    (TCP, 8140, "configured"),
    (TCP, 9101, "backup"),
    (TCP, 9102, "backup"),
    (TCP, 9103, "backup"),
    (TCP, 22, "ssh"),
];

/// Datagrams that nobody answers: log lines, traps, flow records, measurements. The programs count by the same ports.
const ONE_WAY: [one_way_port; 8] = [
    one_way_port::ONE_WAY_TRAP,
    one_way_port::ONE_WAY_SYSLOG,
    one_way_port::ONE_WAY_NETFLOW,
    one_way_port::ONE_WAY_IPFIX,
    one_way_port::ONE_WAY_SFLOW,
    one_way_port::ONE_WAY_STATSD,
    one_way_port::ONE_WAY_NETFLOW_OTHER,
    one_way_port::ONE_WAY_GELF,
];

/// Where servers of one kind talk to each other.
const AMONG_SERVERS: [(u8, u16); 3] = [(TCP, 25), (UDP, 53), (TCP, 53)];

/// The port of name servers.
pub(super) const DNS: u16 = 53;
/// The ports of ssh.
pub(super) const SSH: u16 = 22;

/// The role of those who offer a service.
pub(super) fn find_role(protocol: u8, port: u16) -> Option<&'static str> {
    EVERYDAY.iter().find(|(p, at, _)| (*p, *at) == (protocol, port)).map(|(_, _, role)| *role)
}

/// Whether a service is for those who run the server. Servers of any kind offer it.
pub(super) fn is_for_administration(protocol: u8, port: u16) -> bool {
    matches!(find_role(protocol, port), Some("ssh" | "monitored" | "configured" | "backup"))
}

/// The place of a role among all, by which a server is named.
pub(super) fn rank_role(role: &str) -> usize {
    EVERYDAY.iter().position(|(_, _, known)| *known == role).unwrap_or(usize::MAX)
}

/// Whether nobody answers such a datagram.
pub(super) fn is_one_way(protocol: u8, port: u16) -> bool {
    protocol == UDP && ONE_WAY.iter().any(|known| known.0 == u32::from(port))
}

/// Whether servers of one kind ask each other, so that many destinations are no worm.
pub(super) fn is_among_servers(protocol: u8, port: u16) -> bool {
    AMONG_SERVERS.contains(&(protocol, port))
}

/// The network of an address as those count who ask from how many networks a service is used.
pub(super) fn network_of(address: IpAddr) -> (bool, u32) {
    match address {
        IpAddr::V4(address) => (true, u32::from(address) >> 16),
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 96;
            (false, u32::try_from(bits).unwrap_or(u32::MAX))
        }
    }
}
