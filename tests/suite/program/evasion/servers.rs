//! A server that is known, with its own address, and wants out beyond its needs.

use std::net::IpAddr;

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, passes, web};
use crate::support::dmz::{Family, POLICY, V4, V6, ip};
use crate::support::frame::{ACK, SYN, from_mac, tagged, tcp, udp};

classes! {
    another_mac_or_vlan_than_the_policy_says_does_not_leave:
        "A server's address from another NIC or VLAN", list_borrowed;
    a_server_in_quarantine_answers_its_administrator_only: "A server in quarantine", list_quarantined;
    a_limited_need_lets_no_more_than_its_limit_out: "More than a limit, elsewhere than a need says", list_needs;
    dhcp_is_for_the_link: "DHCP as a way out", list_dhcp;
}

fn with(line: &str) -> String {
    POLICY.replace("[servers.ns1]", &format!("[servers.ns1]\n{line}"))
}

fn opening(family: Family, port: u16) -> Vec<u8> {
    tcp((family.ns, 40_000), (family.peer, port), SYN)
}

fn list_borrowed() -> Vec<Row> {
    let bound = |line: &str| Script::default().under(with(line));
    let (own, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mac = "mac = \"02:00:00:00:00:01\"";
    let asks = |family| opening(family, 53);
    vec![
        Row::both("from its own MAC", |family| bound(mac).passes(from_mac(&asks(family), own), Reason::Need)),
        Row::both("from another MAC", |family| {
            bound(mac).drops(from_mac(&asks(family), other), Reason::Spoofed)
        }),
        Row::both("from another MAC, right after one from its own", |family| {
            let permitted = from_mac(&asks(family), own);
            bound(mac).passes(permitted, Reason::Need).drops(from_mac(&asks(family), other), Reason::Spoofed)
        }),
        Row::both("in its own VLAN", |family| {
            bound("vlan = 7").passes(tagged(&asks(family), 0x8100, 7), Reason::Need)
        }),
        Row::both("in another VLAN", |family| {
            bound("vlan = 7").drops(tagged(&asks(family), 0x8100, 8), Reason::Spoofed)
        }),
        Row::both("in its own VLAN within another", |family| {
            let hop = tagged(&tagged(&asks(family), 0x8100, 7), 0x8100, 8);
            bound("vlan = 7").drops(hop, Reason::Spoofed)
        }),
        Row::both("without a tag", |family| bound("vlan = 7").drops(asks(family), Reason::Spoofed)),
    ]
}

fn list_quarantined() -> Vec<Row> {
    let managed = |family: Family| ((family.web, 22), (family.bastion, 51_000));
    vec![
        Row::both("what its needs permit", |family| {
            Script::default().quarantined("ns1").drops(opening(family, 53), Reason::Quarantined)
        }),
        Row::both("what its needs permitted a moment ago", |family| {
            passes(opening(family, 53), Reason::Need)
                .quarantined("ns1")
                .drops(opening(family, 53), Reason::Quarantined)
        }),
        Row::both("the answer in a flow", |family| {
            let (server, peer) = web(family);
            Script::default()
                .handshake(server, peer)
                .passes(tcp(server, peer, ACK), Reason::Reply)
                .quarantined("web1")
                .drops(tcp(server, peer, ACK), Reason::Quarantined)
        }),
        Row::both("the answer to the management", |family| {
            let (server, peer) = managed(family);
            Script::default()
                .handshake(server, peer)
                .quarantined("web1")
                .passes(tcp(server, peer, ACK), Reason::Reply)
        }),
        Row::both("a call to the management", |family| {
            Script::default()
                .quarantined("web1")
                .drops(tcp((family.web, 22), (family.bastion, 22), SYN), Reason::Quarantined)
        }),
        Row::both("what its needs permit, under the name that a new policy gives it", |family| {
            Script::default()
                .quarantined("ns1")
                .under(POLICY.replace("[servers.ns1]", "[servers.ns2]"))
                .drops(opening(family, 53), Reason::Quarantined)
        }),
        Row::both("from another address of its server, when one address is cut off with its MAC", |family| {
            let other = if family.ns == V4.ns { V6 } else { V4 };
            passes(opening(family, 53), Reason::Need)
                .cut_off(other.ns)
                .drops(opening(family, 53), Reason::Quarantined)
        }),
        Row::both("from another machine of that server", |family| {
            let other = if family.ns == V4.ns { V6 } else { V4 };
            let frame = from_mac(&opening(family, 53), [2, 0, 0, 0, 0, 2]);
            Script::default().cut_off(other.ns).passes(frame, Reason::Need)
        }),
    ]
}

fn list_needs() -> Vec<Row> {
    // each of its own port: what was spent of a limit stays spent
    let limited = |port: u16| {
        let out = format!("out = [\"tcp/{port} limit 2/m\"]");
        let script = Script::default().under(POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", &out));
        script.passes(opening(V4, port), Reason::Need).passes(opening(V4, port), Reason::Need)
    };
    vec![
        Row::v4("as many as a limit says", limited(53)),
        Row::v4("one more", limited(113).drops(opening(V4, 113), Reason::Rate)),
        Row::both("to a destination that a need names", |family| {
            passes(tcp((family.web, 40_000), (family.loghost, 6514), SYN), Reason::Need)
        }),
        Row::both("to another one", |family| {
            drops(tcp((family.web, 40_000), (family.peer, 6514), SYN), Reason::Destination)
        }),
        Row::both("to another one, right after one that it names", |family| {
            passes(tcp((family.web, 40_000), (family.loghost, 6514), SYN), Reason::Need)
                .drops(tcp((family.web, 40_000), (family.peer, 6514), SYN), Reason::Destination)
        }),
    ]
}

fn list_dhcp() -> Vec<Row> {
    let on = || Script::default().under(POLICY.replace("[policy]", "[policy]\ndhcp = true"));
    let v4 = |to: IpAddr| udp((V4.web, 68), (to, 67));
    let v6 = |to: IpAddr| udp((V6.web, 546), (to, 547));
    vec![
        Row::v4("to the broadcast address", on().passes(v4(ip("255.255.255.255")), Reason::Dhcp)),
        Row::v6("to all servers of the link", on().passes(v6(ip("ff02::1:2")), Reason::Dhcp)),
        Row::v4("to a host beyond", on().drops(v4(V4.peer), Reason::NewFlow)),
        Row::v6("to a host beyond", on().drops(v6(V6.peer), Reason::NewFlow)),
        Row::v6("to all servers of the site", on().drops(v6(ip("ff05::1:3")), Reason::NewFlow)),
        Row::v4("where the policy has no DHCP", drops(v4(ip("255.255.255.255")), Reason::NewFlow)),
    ]
}
