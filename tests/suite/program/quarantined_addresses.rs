//! Row 7 for one machine of a server that is a prefix: its address, and its MAC.

use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{Reason, prefix_key, quarantine};
use portcullis::clock::now_ns;
use portcullis::gate::Target;

use crate::support::dmz::{Family, POLICY, V4, in_both_families, ip, v4, v6};
use crate::support::frame::{ACK, Endpoint, SERVER_MAC, SYN, TCP, UDP, from_mac, tcp, tcp_header, udp};
use crate::support::frame::{fragment, raw_ip};
use crate::support::test_gate::{SECOND_NS, TestGate};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x30];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x31];

/// Two machines of the server `farm`, a third one of its prefix that is a server of its own, and the others.
#[derive(Clone, Copy)]
struct Farm {
    machine: IpAddr,
    neighbour: IpAddr,
    carved_out: IpAddr,
    rest: Family,
}

fn policy() -> String {
    format!(
        "{POLICY}\n[servers.farm]\naddresses = [\"192.0.2.128/26\", \"2001:db8:1:a::/64\"]\nroles = [\"web\", \"dns\"]\n\
         [servers.own]\naddresses = [\"192.0.2.140\", \"2001:db8:1:a::140\"]\nroles = [\"dns\"]\n"
    )
}

fn with_farm(mut test: impl FnMut(TestGate, Farm)) {
    in_both_families(|rest| {
        let of = |last: u8| match rest.web {
            IpAddr::V4(_) => v4(192, 0, 2, last),
            // as it is written: 130 is 0x130
            IpAddr::V6(_) => v6(0x2001_0db8_0001_000a, u64::from_str_radix(&last.to_string(), 16).unwrap()),
        };
        test(
            TestGate::new(&policy()),
            Farm { machine: of(130), neighbour: of(131), carved_out: of(140), rest },
        );
    });
}

fn question(from: IpAddr, family: Family) -> Vec<u8> {
    udp((from, 40_000), (family.peer, 53))
}

#[test]
fn a_machine_of_a_prefix_is_cut_off_alone() {
    with_farm(|gate, farm| {
        let Farm { machine, neighbour, rest, .. } = farm;
        let visit = |server: IpAddr| -> (Endpoint, Endpoint) { ((server, 80), (rest.peer, 50_000)) };
        for server in [machine, neighbour] {
            let (server, peer) = visit(server);
            gate.establish(server, peer);
        }
        assert_eq!(gate.quarantine_address(machine, None, None).unwrap(), "farm");
        let (server, peer) = visit(machine);
        for frame in [
            tcp(server, peer, ACK),
            question(machine, rest),
            tcp((machine, 40_000), (rest.peer, 53), SYN),
            raw_ip(machine, rest.peer, 47, &[0; 8]),
        ] {
            let row = gate.drops(&frame, Reason::Quarantined);
            assert_eq!(row.key.server, gate.id_of("farm"));
        }
        let (server, peer) = visit(neighbour);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.passes(&question(neighbour, rest), Reason::Need);
        gate.passes(&question(rest.ns, rest), Reason::Need);
        assert_eq!(gate.quarantined().unwrap(), []);
        let listed = gate.quarantined_addresses().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].describe(), format!("{machine} (farm)"));

        let released = gate.release_addresses(machine.into()).unwrap();
        assert!(released.was && released.with_server.is_none());
        gate.passes(&question(machine, rest), Reason::Need);
        assert!(!gate.release_addresses(machine.into()).unwrap().was);
        assert_eq!(gate.quarantined_addresses().unwrap(), []);
    });
}

#[test]
fn the_management_of_a_machine_that_is_cut_off_stays_open() {
    with_farm(|gate, farm| {
        let (server, bastion) = ((farm.machine, 22), (farm.rest.bastion, 50_000));
        gate.establish(server, bastion);
        gate.quarantine_address(farm.machine, Some(SERVER_MAC), None).unwrap();
        gate.passes(&tcp(server, bastion, ACK), Reason::Reply);
        gate.establish(server, (farm.rest.bastion, 50_001));
        let segment = tcp_header(server, bastion, ACK, (1, 1));
        let first = [&segment[..], &[0; 4]].concat();
        gate.passes(&fragment(server.0, bastion.0, TCP, (9, 0, true), &first), Reason::Reply);
        gate.passes(&fragment(server.0, bastion.0, TCP, (9, 3, false), &[0; 16]), Reason::LaterFragment);
        gate.drops(&fragment(server.0, farm.rest.peer, UDP, (9, 3, false), &[0; 16]), Reason::Quarantined);
    });
}

#[test]
fn a_machine_that_takes_another_address_of_its_server_stays_cut_off_by_its_mac() {
    with_farm(|gate, farm| {
        let Farm { machine, neighbour, carved_out, rest } = farm;
        let opening = |from: IpAddr| tcp((from, 40_000), (rest.peer, 53), SYN);
        let peer = (rest.peer, 50_000);
        gate.establish((neighbour, 80), peer);
        // kept verdicts are as old as the quarantine allows
        for _ in 0..3 {
            gate.passes(&from_mac(&opening(neighbour), MAC), Reason::Need);
        }
        gate.quarantine_address(machine, Some(MAC), None).unwrap();
        for _ in 0..3 {
            gate.drops(&from_mac(&opening(neighbour), MAC), Reason::Quarantined);
            gate.drops(&from_mac(&opening(machine), OTHER_MAC), Reason::Quarantined);
            gate.passes(&from_mac(&opening(neighbour), OTHER_MAC), Reason::Need);
        }
        gate.drops(&from_mac(&question(neighbour, rest), MAC), Reason::Quarantined);
        gate.drops(&from_mac(&tcp((neighbour, 80), peer, ACK), MAC), Reason::Quarantined);
        gate.passes(&from_mac(&tcp((neighbour, 80), peer, ACK), OTHER_MAC), Reason::Reply);
        // other servers may be behind the same router
        gate.passes(&from_mac(&question(carved_out, rest), MAC), Reason::Need);
        gate.passes(&from_mac(&question(rest.ns, rest), MAC), Reason::Need);

        assert_eq!(gate.find_release(neighbour, MAC).unwrap(), Some(machine.to_string()));
        assert_eq!(gate.find_release(neighbour, OTHER_MAC).unwrap(), None);
        assert!(gate.release_addresses(machine.into()).unwrap().was);
        for _ in 0..3 {
            gate.passes(&from_mac(&opening(neighbour), MAC), Reason::Need);
        }
    });
}

#[test]
fn a_mac_is_free_when_the_last_of_its_addresses_is() {
    let gate = TestGate::new(&policy());
    let (machine, same, neighbour) = (ip("192.0.2.130"), ip("2001:db8:1:a::130"), ip("192.0.2.131"));
    gate.quarantine_address(machine, Some(MAC), None).unwrap();
    gate.quarantine_address(same, Some(MAC), Some(3600)).unwrap();
    let frame = from_mac(&question(neighbour, V4), MAC);
    gate.drops(&frame, Reason::Quarantined);
    gate.release_addresses(machine.into()).unwrap();
    gate.drops(&frame, Reason::Quarantined);
    gate.release_addresses(same.into()).unwrap();
    gate.passes(&frame, Reason::Need);
}

#[test]
fn a_machine_that_is_cut_off_takes_no_address_of_no_server_either() {
    in_both_families(|family| {
        let gate = TestGate::new(&policy().replace("[policy]", "[policy]\nunknown_sources = \"allow\""));
        let machine = if family.web.is_ipv4() { ip("192.0.2.130") } else { ip("2001:db8:1:a::130") };
        let frame = question(family.unknown, family);
        gate.passes(&from_mac(&frame, MAC), Reason::UnknownAllowed);
        gate.quarantine_address(machine, Some(MAC), None).unwrap();
        gate.drops(&from_mac(&frame, MAC), Reason::UnknownSource);
        gate.passes(&from_mac(&frame, OTHER_MAC), Reason::UnknownAllowed);
        gate.release_addresses(machine.into()).unwrap();
        gate.passes(&from_mac(&frame, MAC), Reason::UnknownAllowed);
    });
}

#[test]
fn no_drop_of_a_machine_that_is_cut_off_is_only_observed() {
    with_farm(|gate, farm| {
        gate.swap(&policy().replace("[policy]", "[policy]\nmode = \"observe\""));
        let frame = |from: IpAddr, flags| tcp((from, 40_000), (farm.rest.peer, 6667), flags);
        gate.would_drop(&frame(farm.machine, SYN), Reason::NewFlow);
        gate.quarantine_address(farm.machine, Some(MAC), None).unwrap();
        gate.drops(&frame(farm.machine, SYN), Reason::Quarantined);
        gate.drops(&frame(farm.machine, 0), Reason::Malformed);
        gate.drops(&from_mac(&frame(farm.neighbour, SYN), MAC), Reason::Quarantined);
        gate.drops(&from_mac(&frame(farm.neighbour, 0), MAC), Reason::Malformed);
        gate.would_drop(&frame(farm.neighbour, SYN), Reason::NewFlow);
        gate.would_drop(&frame(farm.neighbour, 0), Reason::Malformed);
    });
}

#[test]
fn an_address_that_no_server_has_is_refused_and_a_name_is_a_server() {
    let gate = TestGate::new(&policy());
    for (address, word) in [("192.0.2.99", "192.0.2.99"), ("fe80::1", "fe80::1"), ("192.0.2.1", "192.0.2.1")]
    {
        let text = gate.quarantine_address(ip(address), None, None).unwrap_err().to_string();
        assert!(
            text.contains(&format!("no server has the address {word}")) && text.contains("help:"),
            "{text}"
        );
    }
    assert_eq!(gate.quarantined_addresses().unwrap(), []);
    let target = |text: &str| gate.find_target(text).map_err(|error| error.to_string());
    assert_eq!(target("farm"), Ok(Target::Server("farm".to_owned())));
    let farm = Some("farm".to_owned());
    assert_eq!(target("192.0.2.130"), Ok(Target::Address(ip("192.0.2.130"), farm.clone())));
    assert_eq!(target("::ffff:192.0.2.130"), Ok(Target::Address(ip("192.0.2.130"), farm)));
    assert_eq!(target("192.0.2.140"), Ok(Target::Address(ip("192.0.2.140"), Some("own".to_owned()))));
    assert_eq!(target("192.0.2.99"), Ok(Target::Address(ip("192.0.2.99"), None)));
    assert_eq!(target("192.0.2.129/26"), Ok(Target::Prefix("192.0.2.128/26".parse().unwrap())));
    assert!(target("fram").unwrap_err().contains("did you mean `farm`"));
}

#[test]
fn a_release_of_the_server_frees_its_machines_and_one_of_a_machine_says_that_its_server_stays() {
    with_farm(|gate, farm| {
        let Farm { machine, neighbour, carved_out, rest } = farm;
        gate.quarantine_address(machine, Some(MAC), None).unwrap();
        gate.quarantine_address(carved_out, None, None).unwrap();
        gate.quarantine("farm", None).unwrap();
        gate.drops(&question(neighbour, rest), Reason::Quarantined);

        let released = gate.release_addresses(machine.into()).unwrap();
        assert_eq!((released.was, released.with_server.as_deref()), (true, Some("farm")));
        let released = gate.release_addresses(machine.into()).unwrap();
        assert_eq!((released.was, released.with_server.as_deref()), (false, Some("farm")));
        gate.drops(&question(machine, rest), Reason::Quarantined);

        gate.quarantine_address(machine, Some(MAC), None).unwrap();
        let released = gate.release("farm").unwrap();
        assert!(released.was && released.remaining.is_empty());
        assert_eq!(released.addresses, [machine.to_string()]);
        gate.passes(&question(machine, rest), Reason::Need);
        gate.passes(&from_mac(&question(neighbour, rest), MAC), Reason::Need);
        gate.drops(&question(carved_out, rest), Reason::Quarantined);
        assert!(gate.release("own").unwrap().was);
        gate.passes(&question(carved_out, rest), Reason::Need);
    });
}

#[test]
fn the_quarantine_of_an_address_ends_by_itself() {
    let gate = TestGate::new(&policy());
    let machine = ip("192.0.2.130");
    gate.quarantine_address(machine, Some(MAC), Some(3600)).unwrap();
    let of_mac = from_mac(&question(ip("192.0.2.131"), V4), MAC);
    gate.drops(&question(machine, V4), Reason::Quarantined);
    gate.drops(&of_mac, Reason::Quarantined);
    let left = gate.quarantined_addresses().unwrap()[0].left_s.unwrap();
    assert!((3_590..=3_600).contains(&left), "{left}");
    for map in [gate.maps.quarantined_addresses.handle(), gate.maps.quarantined_macs.handle()] {
        for key in map.keys().collect::<Vec<_>>() {
            let row = quarantine { until_ns: now_ns() - SECOND_NS, since_ns: 1, ..Default::default() };
            // SAFETY: a quarantine is integers without padding.
            map.update(&key, unsafe { plain::as_bytes(&row) }, MapFlags::EXIST).unwrap();
        }
    }
    gate.passes(&question(machine, V4), Reason::Need);
    gate.passes(&of_mac, Reason::Need);
    assert_eq!(gate.quarantined_addresses().unwrap(), []);
    // the next release removes what is over
    gate.release("ns1").unwrap();
    assert_eq!(gate.entries::<prefix_key, quarantine>("quarantined_addresses").len(), 0);
}
