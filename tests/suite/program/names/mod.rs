//! Names as destinations: what resolvers answer opens addresses, and nothing else does.

mod answers;
mod attacks;
mod life;
mod lookups;
mod questions;
mod ranges;
mod streams;
mod tidy;

use std::net::IpAddr;

use portcullis::abi::{Reason, name_count, state, to_prefix_key};

use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, Message, datagram};
use crate::support::frame::{Endpoint, SYN, tcp};
use crate::support::test_gate::TestGate;

/// The addresses are of documentation, so the policy has to say that names may point to some of them.
pub(super) const POLICY: &str = r#"
[names]
resolvers = ["198.51.100.53", "2001:db8:53::53"]
from = ["lo"]
private = ["203.0.113.0/24", "2001:db8:50::/48"]

[sets]
mirrors = ["deb.vendor.example", "*.mirror.example", "198.51.100.80"]

[roles.client]
out = [
    "udp/53 to 198.51.100.53, 2001:db8:53::53",
    "tcp/53 to 198.51.100.53, 2001:db8:53::53",
    "tcp/443 to @mirrors",
    "udp/123 to ntp.vendor.example",
]

[roles.other]
out = ["udp/53", "tcp/25 to mx.vendor.example"]

[servers.client1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["client"]

[servers.client2]
addresses = ["192.0.2.11", "2001:db8:1::11"]
roles = ["client"]

[servers.mail]
addresses = ["192.0.2.25", "2001:db8:1::25"]
roles = ["other"]
"#;

/// The interface `lo`, by which the answers of POLICY's resolvers come.
pub(super) const RIGHT_WAY: u32 = 1;
/// Another interface.
pub(super) const WRONG_WAY: u32 = 2;

/// A server that asks a resolver, in one address family.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) server: IpAddr,
    pub(super) resolver: IpAddr,
    pub(super) port: u16,
}

pub(super) fn v4() -> Client {
    Client { server: ip("192.0.2.10"), resolver: ip("198.51.100.53"), port: 40_053 }
}

pub(super) fn v6() -> Client {
    Client { server: ip("2001:db8:1::10"), resolver: ip("2001:db8:53::53"), port: 40_053 }
}

impl Client {
    pub(super) fn end(&self) -> Endpoint {
        (self.server, self.port)
    }

    pub(super) fn dns(&self) -> Endpoint {
        (self.resolver, 53)
    }

    /// Sends a question, which passes.
    #[track_caller]
    pub(super) fn ask(&self, gate: &TestGate, message: &Message) {
        gate.passes(&datagram(self.end(), self.dns(), &message.bytes()), Reason::Need);
    }

    /// Gets an answer, by the right way.
    #[track_caller]
    pub(super) fn receive(&self, gate: &TestGate, message: &Message) {
        gate.to_server_from(&datagram(self.dns(), self.end(), &message.bytes()), RIGHT_WAY);
    }

    /// Asks for the addresses of a name, and gets them.
    #[track_caller]
    pub(super) fn look_up(&self, gate: &TestGate, name: &str, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
        let kind = if addresses.iter().any(IpAddr::is_ipv6) { AAAA } else { A };
        let query = Message::query(0x1234, name, kind);
        self.ask(gate, &query);
        self.receive(gate, &query.addresses(&addresses, 60));
    }

    /// The first segment of a connection.
    pub(super) fn syn(&self, to: &str, port: u16) -> Vec<u8> {
        let to = ip(to);
        let from = if to.is_ipv4() == self.server.is_ipv4() { self.server } else { sibling(self.server) };
        tcp((from, 50_000), (to, port), SYN)
    }
}

/// The address of the same server in the other family.
fn sibling(server: IpAddr) -> IpAddr {
    let all = [
        ("192.0.2.10", "2001:db8:1::10"),
        ("192.0.2.11", "2001:db8:1::11"),
        ("192.0.2.25", "2001:db8:1::25"),
    ];
    let pair = all.iter().find(|(a, b)| ip(a) == server || ip(b) == server).expect("a server");
    if server.is_ipv4() { ip(pair.1) } else { ip(pair.0) }
}

/// Makes a range of documentation as good as global: nothing says any more that names may not have it.
#[track_caller]
pub(super) fn make_global(gate: &TestGate, prefix: &str) {
    let word = gate.maps.state.get(&state::STATE_ACTIVE.0).expect("a word").expect("the word");
    let ranges = gate.maps.name_ranges.open_inner((word & 3) as u32 - 1).expect("a table");
    let key = to_prefix_key(&prefix.parse().expect("a prefix"));
    assert!(ranges.remove(&key).expect("a table"), "{prefix} is not refused");
}

/// How often something was counted.
pub(super) fn count(gate: &TestGate, what: name_count) -> u64 {
    gate.name_counts().expect("counts")[what.0 as usize]
}
