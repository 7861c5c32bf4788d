//! Packets that leave the router by the NIC that they came in by: those of a server to itself, in a
//! stranger's name, and those between two subnets of one DMZ.

use std::net::SocketAddr;

use super::calm::CalmCheck;
use super::command::Row;
use super::hub::Hub;
use super::policies::dmz_with;
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, tcp_talks, udp, udp_talks};
use super::testbed::{Family, NIC, Namespace, Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::frame::{self, ACK, ROUTER_MAC, SYN, patched};
use crate::support::patience::eventually;

/// Source and destination port of what the server sends itself.
const PORTS: (u16, u16) = (4000, 53);
const UPPER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

fn route_everything(testbed: &Testbed) {
    for nic in ["all", NIC] {
        testbed.router.set_sysctl(&format!("ipv4/conf/{nic}/rp_filter"), "0");
        testbed.router.set_sysctl(&format!("ipv4/conf/{nic}/send_redirects"), "0");
    }
}

/// A name server asks itself in the name of a peer beyond, so that its answer would leave.
#[track_caller]
fn prove_no_flow(testbed: &Testbed, mac: [u8; 6]) {
    let tap = testbed.tap_internet();
    in_both_families(|family| {
        let (peer, server) = ((ip(family.peer), PORTS.0), (ip(family.dns), PORTS.1));
        let name_server = udp(&testbed.dmz, family.dns, PORTS.1);
        let _name_server = TcpServer::start(&testbed.dmz, PORTS.1);
        let question = frame::udp(peer, server);
        testbed.dmz.inject("eth0", &patched(&question, 0, &mac));
        // the router has sent it back
        let (_, asker) = name_server.recv_from(&mut [0; 64]).expect("its own question");
        assert_eq!(asker, SocketAddr::new(peer.0, peer.1));
        let before = testbed.dropped("ns1", "udp", PORTS.0, "new_flow");
        name_server.send_to(b"secret", asker).expect("a datagram");
        eventually("its answer is no answer", || testbed.dropped("ns1", "udp", PORTS.0, "new_flow") > before);

        let count = || {
            let rows = testbed.drops();
            let ours = rows.iter().filter(|row| row.0["server"] == "ns1" && row.0["proto"] == "tcp");
            ours.map(Row::packets).sum::<u64>()
        };
        let before = count();
        testbed.dmz.inject("eth0", &patched(&frame::tcp(peer, server, SYN), 0, &mac));
        eventually("its own SYN+ACK is dropped", || count() > before);
        testbed.dmz.inject("eth0", &patched(&frame::tcp(peer, server, ACK), 0, &mac));
    });
    testbed.catch_up(&tap);
    let left = tap.count(|one| one.source_port == PORTS.1);
    assert_eq!(left, 0, "a server has answered itself");
    assert_eq!(testbed.show("flows"), serde_json::json!([]));
}

/// What a peer asks is answered, so the silence above has its cause.
#[track_caller]
fn prove_answers(testbed: &Testbed) {
    in_both_families(|family| {
        let _name_server = UdpServer::start(&testbed.dmz, family.dns, PORTS.1);
        let server = SocketAddr::new(ip(family.dns), PORTS.1);
        assert!(udp_talks(&testbed.internet, family.resolver, server, ARRIVES), "{server} is silent");
    });
}

#[test]
fn a_server_cannot_open_its_own_flow_in_a_strangers_name() {
    let _machine = share_machine();
    // either lets the packets of strangers pass
    let allowing = dmz_with("unknown_sources = \"allow\"");
    let observing = dmz_with("mode = \"observe\"")
        .replace("roles = [\"dns\", \"managed\"]\n", "roles = [\"dns\", \"managed\"]\nmode = \"enforce\"\n");
    for policy in [allowing, observing] {
        let testbed = Testbed::new();
        route_everything(&testbed);
        testbed.attach(&policy);
        prove_no_flow(&testbed, ROUTER_MAC);
        prove_answers(&testbed);
    }
}

#[test]
fn nor_can_it_by_the_devices_above_the_nic() {
    let _machine = share_machine();
    for device in [
        format!("link add above link {NIC} address 02:00:00:00:00:aa type macvlan mode private\n"),
        format!(
            "link add above address 02:00:00:00:00:aa type bridge forward_delay 0 mcast_snooping 0\n\
             link set {NIC} master above\n"
        ),
    ] {
        let testbed = Testbed::new();
        testbed.router.ip(&format!("address flush dev {NIC}\n{device}"));
        testbed.wire_router_to_dmz("above");
        route_everything(&testbed);
        testbed.attach(&dmz_with("unknown_sources = \"allow\""));
        for router in [V4.router, V6.router] {
            testbed
                .dmz
                .ip(&format!("neighbour replace {router} lladdr 02:00:00:00:00:aa dev eth0 nud permanent\n"));
        }
        prove_no_flow(&testbed, UPPER_MAC);
        prove_answers(&testbed);
    }
}

const DATABASE: Family = Family { web: "203.0.113.66", router: "203.0.113.65", ..V4 };
const DATABASE6: Family = Family { web: "2001:db8:3::66", router: "2001:db8:3::65", ..V6 };

/// A second subnet at the router's NIC, with a database server in it.
fn add_subnet(testbed: &Testbed, hub: &Hub) -> Namespace {
    let machine = testbed.add_machine("db");
    // hosts that go by redirects look for each other on the link, in vain
    for host in [&machine, &testbed.dmz] {
        for nic in ["all", "default"] {
            host.set_sysctl(&format!("ipv6/conf/{nic}/accept_redirects"), "0");
        }
    }
    testbed.dmz.set_sysctl("ipv6/conf/eth0/accept_redirects", "0");
    hub.plug(&machine, "eth0", "02:00:00:00:00:77");
    // by which a router looks for its neighbours
    testbed.router.ip(&format!("address add fe80::1/64 dev {NIC} nodad\n"));
    for (family, bits, flag) in [(DATABASE, 28, ""), (DATABASE6, 64, "nodad")] {
        testbed.router.ip(&format!("address add {}/{bits} dev {NIC} {flag}\n", family.router));
        machine.ip(&format!(
            "address add {}/{bits} dev eth0 {flag}\nroute add default via {}\n",
            family.web, family.router
        ));
    }
    machine
}

#[test]
fn servers_in_two_subnets_of_one_dmz_talk_as_their_policy_says() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let hub = Hub::new(&testbed);
    route_everything(&testbed);
    let database = add_subnet(&testbed, &hub);
    // web1 may ask the database by its name, and nobody else may be asked so
    let policy = format!(
        "{}\n[roles.database]\nin = [\"tcp/5432 from web1\", \"udp/5432\"]\n\n[servers.db1]\n\
         addresses = [\"{}\", \"{}\"]\nroles = [\"database\"]\n",
        dmz_with("unknown_sources = \"allow\"").replace(
            r#"in = ["tcp/80", "tcp/443"]"#,
            "in = [\"tcp/80\", \"tcp/443\"]\nout = [\"tcp/5432 to db1\", \"udp/5432 to db1\"]"
        ),
        DATABASE.web,
        DATABASE6.web
    );
    let check = CalmCheck::start(&testbed, &policy);
    let _servers = [5432, 22].map(|port| TcpServer::start(&database, port));
    in_both_families(|family| {
        let address = if family.web == V4.web { DATABASE.web } else { DATABASE6.web };
        let at = |port| SocketAddr::new(ip(address), port);
        let _datagrams = UdpServer::start(&database, address, 5432);
        assert!(tcp_talks(&testbed.dmz, ip(family.web), at(5432), ARRIVES), "{:#?}", testbed.drops());
        assert!(udp_talks(&testbed.dmz, family.web, at(5432), ARRIVES), "{:#?}", testbed.drops());
        assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
    });
    check.assert_calm();
    let _beyond = TcpServer::start(&testbed.internet, 5432);
    for (family, address, name, server) in
        [(V4, DATABASE.web, "mx1", V4.mail), (V6, DATABASE6.web, "ns1", V6.dns)]
    {
        let database = SocketAddr::new(ip(address), 5432);
        assert!(!tcp_talks(&testbed.dmz, ip(server), database, NEVER), "{name} has no such need");
        check.wait_for_alarm("critical", "attempt", name, "tcp/5432");
        let peer = SocketAddr::new(ip(family.peer), 5432);
        let before = testbed.dropped("web1", "tcp", 5432, "destination");
        assert!(!tcp_talks(&testbed.dmz, ip(family.web), peer, NEVER), "db1 alone is named");
        // the second one may find the server in quarantine
        assert!(family.web == V6.web || testbed.dropped("web1", "tcp", 5432, "destination") > before);
    }
}
