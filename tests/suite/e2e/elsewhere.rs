//! Frames between two servers that a switch floods to the router too, and the MACs that are the router's
//! own: of its NIC and of the devices above it.

use std::net::SocketAddr;

use super::calm::CalmCheck;
use super::command::Row;
use super::hub::{DATABASE_MAC, DATABASE_V4, DATABASE_V6, Hub};
use super::namespace::feed_ip;
use super::policies::dmz;
use super::socket::{ARRIVES, TcpServer, UdpServer, tcp_talks, udp_talks};
use super::tap::{TCP, Tap};
use super::testbed::{Family, NIC, Plug, Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::frame::{ROUTER_MAC, SERVER_MAC, SYN, from_mac, link_frame, patched, tcp};
use crate::support::patience::eventually;

/// Of a device above the NIC.
pub const UPPER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0x0a];
/// Of hosts that there are not.
const NOBODY: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 0xcc], [2, 0, 0, 0, 0, 0xdd], [2, 0, 0, 0, 0, 0xee]];
const ARP: u16 = 0x0806;

/// Beside the servers that most tests have, one that web1 has no business with.
fn policy() -> String {
    format!(
        "{}\n[roles.database]\nin = [\"tcp/5432\"]\n\n[servers.db1]\n\
         addresses = [\"{DATABASE_V4}\", \"{DATABASE_V6}\"]\nroles = [\"database\"]\n",
        dmz()
    )
}

/// A SYN that no policy permits.
fn forbidden(family: &Family, server: &str, port: u16, mac: [u8; 6]) -> Vec<u8> {
    patched(&tcp((ip(server), 40_000), (ip(family.peer), port), SYN), 0, &mac)
}

/// An ARP answer in the name of 192.0.2.250, to everybody.
fn announcement(mac: [u8; 6]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
    body.extend_from_slice(&mac);
    body.extend_from_slice(&[192, 0, 2, 250]);
    body.extend_from_slice(&[0xff; 6]);
    body.extend_from_slice(&[192, 0, 2, 250]);
    patched(&from_mac(&link_frame(ARP, &body), mac), 0, &[0xff; 6])
}

fn count(testbed: &Testbed, server: &str, reason: &str) -> u64 {
    let rows = testbed.drops();
    let ours = rows.iter().filter(|row| row.0["server"] == server && row.0["reason"] == reason);
    ours.map(Row::packets).sum()
}

/// Says to all servers of one machine at which MAC the router is.
fn move_router(testbed: &Testbed, nic: &str, mac: [u8; 6]) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    for router in [V4.router, V6.router] {
        testbed.dmz.ip(&format!("neighbour replace {router} lladdr {mac} dev {nic} nud permanent\n"));
    }
}

/// Servers talk to each other past a router that sees every frame of theirs. What goes to the router's
/// own MAC is judged and reported as ever, whoever claims this MAC. `vlan`: the device by which the servers'
/// machines are in one, and its id.
#[track_caller]
pub fn prove_elsewhere(testbed: &Testbed, hub: &Hub, own_mac: [u8; 6], vlan: Option<(&str, u16)>) {
    move_router(testbed, vlan.map_or("eth0", |(name, _)| name), own_mac);
    let database = hub.add_database(testbed, vlan);
    let check = CalmCheck::start(testbed, &policy());
    // the gate has heard of the neighbour before anybody talks to it, as on a link in use
    database.inject_all("eth0", (0..3).map(|_| announcement(DATABASE_MAC)));
    testbed.dmz.inject_all("eth0", (0..3).map(|_| announcement(SERVER_MAC)));
    let _servers = [
        TcpServer::start(&database, 5432),
        TcpServer::start(&testbed.dmz, 80),
        TcpServer::start(&testbed.internet, 25),
    ];

    for (web, address) in [(V4.web, DATABASE_V4), (V6.web, DATABASE_V6)] {
        let target = SocketAddr::new(ip(address), 5432);
        assert!(tcp_talks(&testbed.dmz, ip(web), target, ARRIVES), "{web} does not reach {address}");
    }
    // what a scan would be, were it for the router
    testbed.dmz.inject_all("eth0", (1..=30).map(|port| forbidden(&V4, V4.web, port, DATABASE_MAC)));
    eventually("frames between servers are counted", || {
        count(testbed, "web1", "elsewhere") >= 32 && count(testbed, "db1", "elsewhere") >= 2
    });
    check.assert_calm();
    let rows = testbed.drops();
    let odd: Vec<_> =
        rows.iter().filter(|row| row.0["server"] != "mx1" && row.0["reason"] != "elsewhere").collect();
    assert!(odd.is_empty(), "frames to a neighbour: {odd:#?}");
    assert!(rows.iter().all(|row| row.0["reason"] != "elsewhere" || row.0["port"] == 0), "{rows:#?}");

    in_both_families(|family| {
        let _log = UdpServer::start(&testbed.internet, family.loghost, 514);
        let (web, loghost) = (SocketAddr::new(ip(family.web), 80), SocketAddr::new(ip(family.loghost), 514));
        let exchanger = SocketAddr::new(ip(family.exchanger), 25);
        assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES), "no answer of {web}");
        assert!(udp_talks(&testbed.dmz, family.web, loghost, ARRIVES), "no way to {loghost}");
        assert!(tcp_talks(&testbed.dmz, ip(family.mail), exchanger, ARRIVES), "no way to {exchanger}");
    });
    check.assert_calm();

    // a server that says it has the router's MAC hides nothing by that
    testbed.dmz.inject("eth0", &announcement(own_mac));
    testbed.dmz.inject("eth0", &forbidden(&V4, V4.web, 22, own_mac));
    check.wait_for_alarm("critical", "attempt", "web1", "tcp/22");
    testbed.dmz.inject("eth0", &forbidden(&V6, V6.dns, 445, own_mac));
    check.wait_for_alarm("critical", "attempt", "ns1", "tcp/445");
    let dropped =
        [("web1", 22), ("ns1", 445)].map(|(name, port)| testbed.dropped(name, "tcp", port, "new_flow"));
    assert_eq!(dropped, [1, 1], "{:#?}", testbed.drops());
}

#[test]
fn what_a_switch_floods_is_no_alarm_and_what_is_for_the_router_is() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let hub = Hub::new(&testbed);
    testbed.router.ip(&format!("link set {NIC} promisc on\n"));
    prove_elsewhere(&testbed, &hub, ROUTER_MAC, None);
}

#[test]
fn a_gate_in_a_bridge_knows_the_macs_of_the_bridge() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let hub = Hub::new(&testbed);
    testbed.router.ip(&format!(
        "address flush dev {NIC}\n\
         link add lan address 02:00:00:00:00:aa type bridge forward_delay 0 mcast_snooping 0\n\
         link set {NIC} master lan\n"
    ));
    testbed.wire_router_to_dmz("lan");
    prove_elsewhere(&testbed, &hub, UPPER_MAC, None);
}

#[test]
fn a_gate_on_a_bridge_knows_the_macs_of_its_ports() {
    const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];
    let _machine = share_machine();
    let testbed = Testbed::plugged(Plug::Bridge);
    let tap = testbed.tap_internet();
    let check = CalmCheck::start(&testbed, &policy());
    testbed.dmz.inject("eth0", &announcement(PORT_MAC));
    in_both_families(|family| {
        // the router forwards what is sent there, so it has to be the router's
        let permitted = tcp((ip(family.mail), 40_000), (ip(family.exchanger), 25), SYN);
        testbed.dmz.inject("eth0", &patched(&permitted, 0, &PORT_MAC));
        eventually("a permitted packet leaves", || tap.count_to(ip(family.mail), TCP, 25) == 1);
        let name = if family.web == V4.web { "web1" } else { "ns1" };
        let server = if family.web == V4.web { family.web } else { family.dns };
        testbed.dmz.inject("eth0", &forbidden(&family, server, 22, PORT_MAC));
        check.wait_for_alarm("critical", "attempt", name, "tcp/22");
    });
}

#[test]
fn a_gate_under_a_macvlan_knows_its_mac() {
    let _machine = share_machine();
    for (mac, text) in [(UPPER_MAC, "02:00:00:00:00:aa"), (VIRTUAL_MAC, "00:00:5e:00:01:0a")] {
        let testbed = Testbed::new();
        let hub = Hub::new(&testbed);
        testbed.router.ip(&format!(
            "address flush dev {NIC}\n\
             link add second link {NIC} address {text} type macvlan mode private\n"
        ));
        testbed.wire_router_to_dmz("second");
        prove_elsewhere(&testbed, &hub, mac, None);
    }
}

#[test]
fn a_daemon_follows_the_macs_of_its_nic_and_of_devices_that_come_and_go() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _hub = Hub::new(&testbed);
    let daemon = testbed.daemon(&policy(), &[]);
    let [changed, added, inside] = NOBODY;
    let send = |port: u16, mac| testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, port, mac));
    let is_dropped_as = |reason: &str, port: u16, mac| {
        eventually(&format!("a frame to {mac:02x?} is {reason}"), || {
            let before = count(&testbed, "mx1", reason);
            send(port, mac);
            count(&testbed, "mx1", reason) > before
        });
    };
    testbed.dmz.inject_all("eth0", NOBODY.map(announcement));
    is_dropped_as("elsewhere", 1000, changed);
    is_dropped_as("elsewhere", 1001, added);
    is_dropped_as("elsewhere", 1002, inside);
    daemon.wait_for_line(&["low stray: mx1"]);

    testbed.router.ip(&format!("link set {NIC} address 02:00:00:00:00:cc\n"));
    is_dropped_as("new_flow", 1000, changed);
    daemon.wait_for_line(&["attempt: mx1", "tcp/1000"]);
    testbed
        .router
        .ip(&format!("link add second link {NIC} address 02:00:00:00:00:dd type macvlan mode bridge\n"));
    is_dropped_as("new_flow", 1001, added);
    // also that of a container
    let container = testbed.add_machine("c");
    testbed.router.ip(&format!(
        "link add third link {NIC} address 02:00:00:00:00:ee type macvlan mode bridge\n\
         link set third netns {}\n",
        container.name()
    ));
    container.ip("link set third up\n");
    is_dropped_as("new_flow", 1002, inside);
    // gone, it is the MAC of the neighbour again
    testbed.router.ip("link delete second\n");
    is_dropped_as("elsewhere", 1001, added);
    is_dropped_as("new_flow", 1000, changed);
}

#[test]
fn a_server_hides_nothing_behind_macs_of_its_own_making() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let check = CalmCheck::start(&testbed, &policy());
    let [nobody, announced, _] = NOBODY;
    in_both_families(|family| {
        let server = if family.web == V4.web { ("web1", family.web) } else { ("ns1", family.dns) };
        // nobody is known to have it: it may be the router's
        testbed.dmz.inject("eth0", &forbidden(&family, server.1, 22, nobody));
        check.wait_for_alarm("critical", "attempt", server.0, "tcp/22");
        // somebody says to have it: then no router forwards the frame, permitted or not
        testbed.dmz.inject("eth0", &announcement(announced));
        let before = count(&testbed, "mx1", "elsewhere");
        testbed.dmz.inject("eth0", &forbidden(&family, family.mail, 22, announced));
        eventually("it is counted", || count(&testbed, "mx1", "elsewhere") == before + 1);
        let permitted = tcp((ip(family.mail), 40_000), (ip(family.exchanger), 25), SYN);
        testbed.dmz.inject("eth0", &patched(&permitted, 0, &announced));
    });
    testbed.catch_up(&tap);
    let left = tap.count(|one| one.source_port == 40_000);
    assert_eq!(left, 0, "frames to other MACs left the router");
}

#[test]
fn a_gate_in_a_bridge_with_several_ports_judges_what_the_bridge_forwards() {
    const BEHIND: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
    let _machine = share_machine();
    let testbed = Testbed::new();
    let [nobody, on_link, in_policy] = NOBODY;
    testbed.router.ip(&format!(
        "address flush dev {NIC}\n\
         link add lan address 02:00:00:00:00:aa type bridge forward_delay 0 mcast_snooping 0\n\
         link set {NIC} master lan\n"
    ));
    testbed.wire_router_to_dmz("lan");
    let behind = testbed.add_machine("behind");
    feed_ip(&format!(
        "link add back0 netns {} type veth peer name eth0 address 02:00:00:00:00:bb netns {}\n",
        testbed.router.name(),
        behind.name()
    ));
    testbed.router.ip("link set back0 addrgenmode none\nlink set back0 master lan\nlink set back0 up\n");
    behind.ip("link set eth0 addrgenmode none\nlink set eth0 up\n");
    let bound = "[servers.db1]\nmac = \"02:00:00:00:00:ee\"";
    let daemon = testbed.daemon(&policy().replace("[servers.db1]", bound), &[]);
    let tap = Tap::new(&behind, "eth0");
    let send = |port: u16, mac| testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, port, mac));
    let is_dropped_as = |reason: &str, port: u16, mac| {
        eventually(&format!("a frame to {mac:02x?} is {reason}"), || {
            let before = count(&testbed, "mx1", reason);
            send(port, mac);
            count(&testbed, "mx1", reason) > before
        });
    };
    // what the gate lets pass reaches the machine behind the other port, so what it drops is judged
    behind.inject("eth0", &announcement(BEHIND));
    let permitted = tcp((ip(V4.mail), 40_000), (ip(V4.exchanger), 25), SYN);
    eventually("the bridge forwards", || {
        testbed.dmz.inject("eth0", &patched(&permitted, 0, &BEHIND));
        tap.count_to(ip(V4.mail), TCP, 25) > 0
    });
    is_dropped_as("new_flow", 1000, BEHIND);
    eventually("the daemon has seen where it is", || {
        let macs = testbed.open_gate().maps.own_macs.entries().expect("a table");
        macs.iter().any(|(mac, _)| *mac == portcullis::abi::to_mac_number(BEHIND))
    });
    // a server that claims that machine's MAC hides nothing by it, however often it does
    for round in 0..3 {
        testbed.dmz.inject_all("eth0", (0..20).map(|_| announcement(BEHIND)));
        let before = count(&testbed, "mx1", "elsewhere");
        is_dropped_as("new_flow", 1001 + round, BEHIND);
        assert_eq!(count(&testbed, "mx1", "elsewhere"), before);
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    // nobody knows this one, so the bridge floods it; of a host of the policy nothing was heard here
    is_dropped_as("new_flow", 1010, nobody);
    is_dropped_as("new_flow", 1011, in_policy);
    daemon.wait_for_line(&["attempt: mx1", "tcp/1000"]);
    // a host of this link is one of this link
    testbed.dmz.inject("eth0", &announcement(on_link));
    is_dropped_as("elsewhere", 1012, on_link);
}

#[test]
fn hosts_that_the_kernel_knows_are_known_from_the_first_frame_on() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.router.ip(&format!(
        "link set {NIC} promisc on\n\
         neighbour replace 192.0.2.201 lladdr 02:00:00:00:00:cc dev {NIC} nud permanent\n\
         neighbour replace 2001:db8:1::201 lladdr 02:00:00:00:00:dd dev {NIC} nud permanent\n"
    ));
    testbed.attach(&policy());
    let [of_v4, of_v6, nobody] = NOBODY;
    for (port, mac) in [(1000, of_v4), (1001, of_v6)] {
        testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, port, mac));
    }
    testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, 1002, nobody));
    eventually("all are counted", || count(&testbed, "mx1", "new_flow") == 1);
    assert_eq!(count(&testbed, "mx1", "elsewhere"), 2);
}

#[test]
fn a_status_says_when_macs_have_changed_and_nobody_follows_them() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&policy());
    let is_said =
        || testbed.show("status")["warnings"].to_string().contains("have changed since they were noted");
    assert!(!is_said());
    testbed
        .router
        .ip(&format!("link add second link {NIC} address 02:00:00:00:00:dd type macvlan mode bridge\n"));
    assert!(is_said());
    testbed.attach(&policy());
    assert!(!is_said());
    testbed.router.ip(&format!("link set {NIC} address 02:00:00:00:00:cc\n"));
    assert!(is_said());
    let _daemon = testbed.daemon(&policy(), &[]);
    eventually("the daemon follows", || !is_said());
}

#[test]
fn a_bridge_with_more_hosts_than_the_table_holds_is_no_reason_not_to_attach() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.router.ip(&format!(
        "link add lan type bridge forward_delay 0 mcast_snooping 0\nlink set {NIC} master lan\n\
         link add back0 type veth peer name back1\nlink set back0 master lan\nlink set back0 up\nlink set lan up\n"
    ));
    let hosts = (0..9_000_u32).map(|host| {
        format!("fdb add 02:00:00:01:{:02x}:{:02x} dev back0 master static\n", host >> 8, host & 0xff)
    });
    let batch = testbed.write("hosts", &hosts.collect::<String>());
    assert!(testbed.router.command("bridge").args(["-batch", &batch]).status().expect("bridge").success());
    let said = testbed.attach(&policy());
    assert!(said.err.contains("the MACs of this machine are not known"), "{said:#?}");
    // then each MAC may be this machine's
    testbed.dmz.inject("eth0", &announcement(DATABASE_MAC));
    testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, 1000, DATABASE_MAC));
    eventually("it is counted", || count(&testbed, "mx1", "new_flow") == 1);
    // and with fewer hosts they are known
    testbed.router.ip("link delete back0\n");
    let said = testbed.attach(&policy());
    assert!(!said.err.contains("are not known"), "{said:#?}");
    testbed.dmz.inject("eth0", &forbidden(&V4, V4.mail, 1000, DATABASE_MAC));
    eventually("it is counted", || count(&testbed, "mx1", "elsewhere") == 1);
}
