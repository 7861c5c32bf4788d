//! Alarms that quarantine, and neighbours that send in another server's name: nobody healthy is cut off.

use std::net::SocketAddr;

use serde_json::json;

use super::policies::dmz;
use super::quarantines::{MAC, farm};
use super::socket::{ARRIVES, NEVER, UdpServer, tcp_talks, udp, udp_talks};
use super::testbed::{Family, NIC, Testbed, V4, V6, in_both_families, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::frame::{SYN, from_mac, link_frame, patched, tcp};
use crate::support::patience::eventually;

const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
const ARP: u16 = 0x0806;
const LLMNR: u16 = 5355;

fn asked(policy: &str, kinds: &str) -> String {
    format!("{policy}\n[alarms]\nquarantine_on = [{kinds}]\nquarantine_for = \"1h\"\n")
}

fn forbidden(family: &Family, from: &str) -> Vec<u8> {
    tcp((ip(from), 40_000), (ip(family.peer), FORBIDDEN), SYN)
}

fn send(testbed: &Testbed, from: &str, to: &str) {
    udp(&testbed.dmz, from, 0).send_to(b"out", SocketAddr::new(ip(to), FORBIDDEN)).expect("a datagram");
}

#[test]
fn a_frame_from_another_mac_puts_no_server_into_quarantine_and_its_own_does() {
    let _machine = share_machine();
    in_both_families(|family| {
        let testbed = Testbed::new();
        let daemon = testbed.daemon(&asked(&dmz(), "\"attempt\""), &[]);
        testbed.wait_for_consumer();
        testbed.dmz.inject("eth0", &from_mac(&forbidden(&family, family.mail), NEIGHBOUR));
        let known = format!("the packet came from the MAC 02:00:00:00:00:66, and {} has {MAC}", family.mail);
        daemon.wait_for_line(&["mx1 was NOT put into quarantine:", &known]);
        assert_eq!(testbed.show("status")["quarantined"], json!([]));
        let alarms = testbed.show("alarms");
        let is_reported = alarms.as_array().expect("a list").iter().any(|alarm| {
            alarm["response"].as_str().is_some_and(|text| text.contains("NOT put into quarantine"))
        });
        assert!(is_reported, "{alarms:#}");
        // the server itself, by the same alarm
        eventually("mx1 is put into quarantine", || {
            send(&testbed, family.mail, family.peer);
            testbed.show("status")["quarantined"] == json!(["mx1"])
        });
    });
}

#[test]
fn no_machine_of_a_prefix_is_put_into_quarantine_by_its_neighbour() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&asked(&farm("farm"), "\"attempt\""), &[]);
    testbed.wait_for_consumer();
    testbed.dmz.inject("eth0", &from_mac(&forbidden(&V4, V4.mail), NEIGHBOUR));
    daemon.wait_for_line(&["192.0.2.25 (farm) was NOT put into quarantine", "02:00:00:00:00:66"]);
    // an address that no machine has
    let nobody = "192.0.2.60";
    eventually("the alarm tells of an address that nobody has", || {
        testbed.dmz.inject("eth0", &forbidden(&V4, nobody));
        !daemon
            .find(&["192.0.2.60 (farm) was NOT put into quarantine", "no machine answers for the address"])
            .is_empty()
    });
    // many at once do not cost the farm
    for last in 30..60 {
        testbed.dmz.inject("eth0", &from_mac(&forbidden(&V4, &format!("192.0.2.{last}")), NEIGHBOUR));
    }
    // a machine that the router has to ask for first: its MAC has other addresses, so it is left alone
    testbed.router.ip(&format!("neighbour del {} dev {NIC}\n", V4.mail));
    eventually("the machine is cut off", || {
        send(&testbed, V4.mail, V4.peer);
        testbed.quarantined_addresses().iter().any(|row| row["address"] == V4.mail)
    });
    let listed = testbed.quarantined_addresses();
    assert_eq!((listed.len(), &listed[0]["mac"]), (1, &json!(null)), "{listed:#?}");
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
}

#[test]
fn a_server_with_a_mac_in_the_policy_is_cut_off_by_that() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let bound = dmz().replacen("[servers.mx1]", &format!("[servers.mx1]\nmac = \"{MAC}\""), 1);
    let daemon = testbed.daemon(&asked(&bound, "\"attempt\""), &[]);
    testbed.wait_for_consumer();
    // the router may know another MAC of it: the policy knows better
    testbed
        .router
        .ip(&format!("neighbour replace {} lladdr 02:00:00:00:00:67 dev {NIC} nud permanent\n", V4.mail));
    testbed.dmz.inject("eth0", &from_mac(&forbidden(&V4, V4.mail), NEIGHBOUR));
    daemon.wait_for_line(&["spoof: mx1"]);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    send(&testbed, V4.mail, V4.peer);
    daemon.wait_for_line(&["mx1 was put into quarantine for 1h by this alarm"]);
}

#[test]
fn frames_that_do_not_go_to_the_router_put_nobody_into_quarantine() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.router.ip(&format!("link set {NIC} promisc on\n"));
    let daemon = testbed.daemon(&asked(&dmz(), "\"attempt\""), &[]);
    testbed.wait_for_consumer();
    // nobody is known to have this MAC, for a flood of others has pushed it out of the table
    testbed.dmz.inject("eth0", &patched(&forbidden(&V4, V4.mail), 0, &[2, 0, 0, 0, 0, 0xcc]));
    daemon.wait_for_line(&["attempt: mx1"]);
    daemon
        .wait_for_line(&["mx1 was NOT put into quarantine", "02:00:00:00:00:cc, which is not this router's"]);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
}

#[test]
fn a_low_alarm_of_a_kind_that_quarantines_puts_nobody_into_quarantine() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&asked(&dmz(), "\"attempt\""), &[]);
    testbed.wait_for_consumer();
    // chatter of the link, which a server that was only set up carelessly sends as well
    udp(&testbed.dmz, V4.web, 0).send_to(b"who", (V4.peer, LLMNR)).expect("a datagram");
    daemon.wait_for_line(&["low attempt: web1"]);
    // a more severe one still does
    send(&testbed, V4.mail, V4.peer);
    daemon.wait_for_line(&["mx1 was put into quarantine"]);
    assert_eq!(testbed.show("status")["quarantined"], json!(["mx1"]));
}

#[test]
fn a_server_in_quarantine_gets_out_under_no_address_that_nobody_has() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let allow = super::policies::dmz_with("unknown_sources = \"allow\"");
    let observe = super::policies::dmz_with("mode = \"observe\"");
    let tap = testbed.tap_internet();
    let _resolver = UdpServer::start(&testbed.internet, V4.resolver, 53);
    testbed.attach(&allow);
    let unknown = "192.0.2.99";
    let leaves = |port: u16| {
        let frame = tcp((ip(unknown), 40_000), (ip(V4.peer), port), SYN);
        testbed.dmz.inject("eth0", &frame);
        testbed.catch_up(&tap);
        tap.count(|one| one.source == ip(unknown) && one.destination_port == port) == 1
    };
    assert!(leaves(5001));
    let said = testbed.run("quarantine", &["web1"]).done();
    assert!(said.out.contains(&format!("its MAC {MAC} is cut off with it under addresses")), "{said:#?}");
    assert!(!leaves(5002));
    // another server of the same machine goes on
    let resolver = SocketAddr::new(ip(V4.resolver), 53);
    assert!(udp_talks(&testbed.dmz, V4.dns, resolver, ARRIVES));
    assert!(!udp_talks(&testbed.dmz, V4.web, resolver, NEVER));
    testbed.apply(&observe);
    assert!(!leaves(5003));
    // after a reboot as well, although no neighbour is known yet
    testbed.reboot();
    testbed.router.ip(&format!("neighbour flush dev {NIC} nud all\n"));
    testbed.attach(&observe);
    assert!(!leaves(5004));
    testbed.run("release", &["web1"]).done();
    assert!(leaves(5005));
    testbed.apply(&allow);
    assert!(leaves(5006));
}

#[test]
fn a_daemon_notes_the_mac_of_a_machine_that_was_silent_when_it_was_cut_off() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let policy = super::policies::dmz_with("unknown_sources = \"allow\"");
    let _daemon = testbed.daemon(&policy, &[]);
    testbed.wait_for_consumer();
    for web in [V4.web, V6.web] {
        testbed.router.ip(&format!("neighbour del {web} dev {NIC}\n"));
    }
    let said = testbed.run("quarantine", &["web1"]).done();
    assert!(!said.out.contains("MAC"), "{said:#?}");
    let why = |mac: &str| {
        let asked = ["--from", "192.0.2.99", "--to", V4.peer, "tcp/5001", "--mac", mac, "-j"];
        testbed.run("explain", &asked).done().json()["reason"].clone()
    };
    assert_eq!(why(MAC), "unknown_allowed");
    // a peer asks it, so the router has to find it
    assert!(!tcp_talks(&testbed.internet, ip(V4.peer), SocketAddr::new(ip(V4.web), 80), NEVER));
    eventually("its MAC is cut off too", || why(MAC) == "unknown_source");
    assert_eq!(why("02:00:00:00:00:66"), "unknown_allowed");
    eventually("and saved", || {
        std::fs::read_to_string(testbed.saved_quarantines()).is_ok_and(|text| text.contains(MAC))
    });
}

/// An ARP answer in the name of an address.
fn announcement(address: [u8; 4], mac: [u8; 6]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
    body.extend_from_slice(&mac);
    body.extend_from_slice(&address);
    body.extend_from_slice(&[0xff; 6]);
    body.extend_from_slice(&address);
    patched(&from_mac(&link_frame(ARP, &body), mac), 0, &[0xff; 6])
}

#[test]
fn a_machine_that_claims_its_neighbours_mac_takes_nobody_with_it_into_quarantine() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&asked(&farm("farm"), "\"attempt\""), &[]);
    testbed.wait_for_consumer();
    // 192.0.2.61 says that it is at the MAC of the other machines, and sends from there
    let hostile = "192.0.2.61";
    let mac: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
    testbed.router.ip(&format!("neighbour replace {hostile} lladdr 02:00:00:00:00:66 dev {NIC} nud stale\n"));
    testbed.dmz.inject("eth0", &announcement([192, 0, 2, 61], mac));
    eventually("the router believes it", || {
        testbed.dmz.inject("eth0", &from_mac(&forbidden(&V4, hostile), mac));
        testbed.dmz.inject("eth0", &announcement([192, 0, 2, 61], mac));
        !testbed.quarantined_addresses().is_empty()
    });
    daemon.wait_for_line(&["192.0.2.61 (farm) was put into quarantine for 1h"]);
    assert_eq!(testbed.quarantined_addresses()[0]["mac"], json!(null));
    let resolver = UdpServer::start(&testbed.internet, V4.resolver, 53);
    assert!(udp_talks(&testbed.dmz, V4.dns, SocketAddr::new(ip(V4.resolver), 53), ARRIVES));
    drop(resolver);
}
