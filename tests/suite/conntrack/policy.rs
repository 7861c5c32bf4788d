//! Policies by chance, and a reading of their text that owes nothing to the program's own.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::{Table, Value};

use crate::support::chance::Chance;
use crate::support::dmz::ip;
use crate::support::frame::{ICMP, ICMPV6, TCP, UDP};

pub const ESP: u8 = 50;
pub const GRE: u8 = 47;

/// Whom needs name, in both families.
pub const NAMED_PEERS: [[&str; 2]; 5] = [
    ["203.0.113.7", "2001:db8:f::7"],
    ["203.0.113.49", "2001:db8:50::49"],
    ["198.51.100.20", "2001:db8:2::20"],
    ["198.51.100.21", "2001:db8:2::21"],
    ["198.51.100.30", "2001:db8:2::30"],
];

/// The ends of markers, by which a stage knows that all before them has gone by.
pub const MARKER_SERVER: &str = "192.0.2.250";
pub const MARKER_PEER: &str = "198.51.100.250";
pub const MARKER_PORT: u16 = 9;

/// Servers but the one of the markers. The third has an address within the prefix of the fourth.
const SERVERS: [(&str, &str); 4] = [
    ("web1", r#""192.0.2.10", "2001:db8:1::10""#),
    ("ns1", r#""192.0.2.53", "2001:db8:1::53""#),
    ("mx1", r#""192.0.2.133", "2001:db8:1::85""#),
    ("farm", r#""192.0.2.128/29", "2001:db8:1::80/125""#),
];

const SERVICES: [&str; 16] = [
    "tcp/80",
    "tcp/443",
    "tcp/25",
    "tcp/53",
    "tcp/8000-8010",
    "tcp/5432 from 198.51.100.20, 2001:db8:2::20",
    "tcp/1024-1100 from 203.0.113.48/30, 2001:db8:50::/48",
    "udp/53",
    "udp/53",
    "udp/4500",
    "udp/161 from @loghosts",
    "icmp/echo-request",
    "icmpv6/echo-request",
    "icmp/timestamp-request",
    "esp",
    "esp from @bastion",
];

const OPENINGS: [&str; 16] = [
    "tcp/25",
    "tcp/53",
    "udp/53",
    "udp/514 to @loghosts",
    "tcp/443 to @loghosts",
    "tcp/6514 to 198.51.100.20, 2001:db8:2::20",
    "tcp/8000-8100 to 203.0.113.0/24, 2001:db8:50::/48",
    "udp/123 to 198.51.100.30, 2001:db8:2::30",
    "udp/30000-30010",
    "icmp/echo-request",
    "icmpv6/echo-request",
    "icmp/echo-request to @loghosts",
    "icmpv6/echo-request to @bastion",
    "esp to @loghosts",
    "gre to 203.0.113.7, 2001:db8:f::7",
    "tcp/22 to @bastion",
];

/// A policy of the language that the documentation has, by chance.
pub fn make_policy(chance: &mut Chance) -> String {
    let mut text = String::from(
        "[policy]\n\
         management = [\"tcp/22 from @bastion\"]\n\
         pickup = 0\n\n\
         [sets]\n\
         bastion = [\"203.0.113.7\", \"2001:db8:f::/64\"]\n\
         loghosts = [\"198.51.100.20/31\", \"2001:db8:2::20\", \"2001:db8:2::21\"]\n\n",
    );
    for (name, addresses) in SERVERS {
        let (services, openings) = (pick_needs(chance, &SERVICES, 3..8), pick_needs(chance, &OPENINGS, 2..7));
        text.push_str(&format!(
            "[roles.{name}]\nin = [{services}]\nout = [{openings}]\n\n\
             [servers.{name}]\naddresses = [{addresses}]\nroles = [\"{name}\"]\n\n"
        ));
    }
    text + &format!(
        "[roles.marker]\nout = [\"udp/{MARKER_PORT} to {MARKER_PEER}\"]\n\n\
         [servers.marker]\naddresses = [\"{MARKER_SERVER}\"]\nroles = [\"marker\"]\n"
    )
}

fn pick_needs(chance: &mut Chance, from: &[&str], count: std::ops::Range<usize>) -> String {
    let mut needs: Vec<String> = Vec::new();
    for _ in 0..chance.within(count) {
        let need = format!("\"{}\"", chance.pick(from));
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    needs.join(", ")
}

/// A line of `in` or `out`.
#[derive(Clone, Debug)]
pub struct Need {
    pub protocol: u8,
    /// The first and the last one: ports, or an ICMP type. `None`: any.
    pub ports: Option<(u16, u16)>,
    /// `None`: anybody.
    pub peers: Option<Vec<IpNet>>,
}

impl Need {
    fn read(text: &str, sets: &Table) -> Need {
        let (what, peers) = match text.split_once(" from ").or_else(|| text.split_once(" to ")) {
            Some((what, peers)) => {
                (what, Some(peers.split(", ").flat_map(|peer| read_peer(peer, sets)).collect()))
            }
            None => (text, None),
        };
        let (protocol, port) = what.split_once('/').map_or((what, None), |(name, port)| (name, Some(port)));
        let protocol = match protocol {
            "tcp" => TCP,
            "udp" => UDP,
            "icmp" => ICMP,
            "icmpv6" => ICMPV6,
            "esp" => ESP,
            "gre" => GRE,
            other => panic!("no protocol {other}"),
        };
        let ports = port.map(|port| match (port, protocol) {
            ("echo-request", ICMP) => (8, 8),
            ("echo-request", _) => (128, 128),
            ("timestamp-request", _) => (13, 13),
            _ => {
                let (first, last) = port.split_once('-').unwrap_or((port, port));
                (first.parse().expect("a port"), last.parse().expect("a port"))
            }
        });
        Need { protocol, ports, peers }
    }

    /// Whether it is about this port of this peer.
    pub fn permits(&self, protocol: u8, port: u16, peer: IpAddr) -> bool {
        self.protocol == protocol
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
            && self.peers.as_ref().is_none_or(|peers| peers.iter().any(|net| net.contains(&peer)))
    }
}

fn read_peer(text: &str, sets: &Table) -> Vec<IpNet> {
    match text.strip_prefix('@') {
        Some(name) => read_strings(&sets[name]).iter().map(|member| read_net(member)).collect(),
        None => vec![read_net(text)],
    }
}

fn read_net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(ip(text)))
}

fn read_strings(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}

/// A server with the needs of its roles.
#[derive(Clone, Debug)]
pub struct Server {
    pub addresses: Vec<IpNet>,
    pub services: Vec<Need>,
    pub openings: Vec<Need>,
}

impl Server {
    /// The address that it has in stories.
    pub fn home(&self, v6: bool) -> IpAddr {
        let family = self.addresses.iter().find(|net| net.addr().is_ipv6() == v6);
        let net = family.expect("an address of this family");
        net.hosts().nth(usize::from(net.prefix_len() != net.max_prefix_len())).expect("a host")
    }

    pub fn serves(&self, protocol: u8, port: u16, peer: IpAddr) -> bool {
        self.services.iter().any(|need| need.permits(protocol, port, peer))
    }

    pub fn may_open(&self, protocol: u8, port: u16, peer: IpAddr) -> bool {
        self.openings.iter().any(|need| need.permits(protocol, port, peer))
    }
}

/// What a policy's text says.
#[derive(Clone, Debug)]
pub struct Policy {
    pub text: String,
    pub servers: Vec<Server>,
}

impl Policy {
    pub fn read(text: &str) -> Policy {
        let table: Table = text.parse().expect("TOML");
        let sets = table["sets"].as_table().expect("sets");
        let read_needs = |list: &Value| -> Vec<Need> {
            read_strings(list).iter().map(|need| Need::read(need, sets)).collect()
        };
        let management = read_needs(&table["policy"]["management"]);
        let servers = table["servers"].as_table().expect("servers");
        let read_server = |server: &Value| {
            let addresses = read_strings(&server["addresses"]).iter().map(|net| read_net(net)).collect();
            let mut read = Server { addresses, services: management.clone(), openings: Vec::new() };
            for role in read_strings(&server["roles"]) {
                let role = table["roles"][&role].as_table().expect("a role");
                for (kind, needs) in [("in", &mut read.services), ("out", &mut read.openings)] {
                    needs.extend(role.get(kind).map(read_needs).unwrap_or_default());
                }
            }
            read
        };
        let servers = servers.iter().map(|(_, server)| read_server(server)).collect();
        Policy { text: text.to_owned(), servers }
    }

    /// Those that stories are about: all but that of the markers.
    pub fn actors(&self) -> Vec<usize> {
        let marker = ip(MARKER_SERVER);
        let is_actor = |at: &usize| !self.servers[*at].addresses.iter().any(|net| net.contains(&marker));
        (0..self.servers.len()).filter(is_actor).collect()
    }
}
