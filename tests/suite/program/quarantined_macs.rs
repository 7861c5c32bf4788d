//! Rows 5 and 7: the machine of a server in quarantine, by its MAC, under addresses that are not its own.

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, in_both_families, ip};
use crate::support::frame::{ACK, SYN, from_mac, link_frame, tcp, udp};
use crate::support::test_gate::TestGate;

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x30];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x31];
const ODD_ETHERTYPE: u16 = 0x88b5;

/// ns1 has a MAC, and settings of `[policy]`. `bound` has the same addresses' other MAC, `shared` both.
fn policy(settings: &str) -> String {
    let text = POLICY.replace("[policy]", &format!("[policy]\n{settings}"));
    let text = text.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:30\"");
    format!(
        "{text}\n[servers.bound]\naddresses = [\"192.0.2.60\", \"2001:db8:1::60\"]\nmac = \"02:00:00:00:00:31\"\n\
         roles = [\"dns\"]\n[servers.shared]\naddresses = [\"192.0.2.61\", \"2001:db8:1::61\"]\n\
         mac = [\"02:00:00:00:00:31\", \"02:00:00:00:00:30\"]\nroles = [\"dns\"]\n\
         [servers.free]\naddresses = [\"192.0.2.62\", \"2001:db8:1::62\"]\nroles = [\"dns\"]\n"
    )
}

fn of(family: Family, last: &str) -> IpAddr {
    ip(&if family.web.is_ipv4() { format!("192.0.2.{last}") } else { format!("2001:db8:1::{last}") })
}

fn question(from: IpAddr, family: Family) -> Vec<u8> {
    udp((from, 40_000), (family.peer, 53))
}

fn opening(from: IpAddr, family: Family) -> Vec<u8> {
    tcp((from, 40_000), (family.peer, 53), SYN)
}

#[test]
fn a_server_in_quarantine_gets_out_under_no_unknown_address() {
    in_both_families(|family| {
        let gate = TestGate::new(&policy("unknown_sources = \"allow\""));
        let frames = [question(family.unknown, family), opening(family.unknown, family)];
        for frame in &frames {
            gate.passes(&from_mac(frame, MAC), Reason::UnknownAllowed);
        }
        gate.quarantine("ns1", None).unwrap();
        for frame in &frames {
            for _ in 0..3 {
                gate.drops(&from_mac(frame, MAC), Reason::UnknownSource);
                gate.passes(&from_mac(frame, OTHER_MAC), Reason::UnknownAllowed);
            }
        }
        // nor under another policy
        gate.swap(&policy("unknown_sources = \"allow\"\nmode = \"observe\""));
        gate.drops(&from_mac(&frames[0], MAC), Reason::UnknownSource);
        gate.release("ns1").unwrap();
        for frame in &frames {
            gate.passes(&from_mac(frame, MAC), Reason::UnknownAllowed);
        }
    });
}

#[test]
fn the_mac_of_a_server_in_quarantine_is_not_only_observed_whatever_it_sends() {
    in_both_families(|family| {
        let gate = TestGate::new(&policy("mode = \"observe\""));
        let odd = |from: IpAddr| tcp((from, 40_000), (family.peer, 53), 0);
        let frames = [
            (question(family.unknown, family), Reason::UnknownSource),
            (odd(family.unknown), Reason::Malformed),
            (odd(of(family, "62")), Reason::Malformed),
            (link_frame(ODD_ETHERTYPE, &[0; 46]), Reason::Ethertype),
            (question(of(family, "60"), family), Reason::Spoofed),
            (tcp((of(family, "61"), 40_000), (family.peer, 25), SYN), Reason::NewFlow),
        ];
        for (frame, reason) in &frames {
            gate.would_drop(&from_mac(frame, MAC), *reason);
        }
        gate.quarantine("ns1", Some(3_600)).unwrap();
        for (frame, reason) in &frames[..5] {
            gate.drops(&from_mac(frame, MAC), *reason);
        }
        // of a server that has the MAC as well
        gate.would_drop(&from_mac(&frames[5].0, MAC), frames[5].1);
        for (frame, reason) in &frames[..3] {
            gate.would_drop(&from_mac(frame, OTHER_MAC), *reason);
        }
        gate.release("ns1").unwrap();
        for (frame, reason) in &frames {
            gate.would_drop(&from_mac(frame, MAC), *reason);
        }
    });
}

#[test]
fn a_server_in_quarantine_gets_out_under_no_address_of_a_server_without_macs() {
    in_both_families(|family| {
        for settings in ["", "mode = \"observe\""] {
            let gate = TestGate::new(&policy(settings));
            let (free, shared) = (of(family, "62"), of(family, "61"));
            let peer = (family.peer, 50_000);
            gate.establish((family.web, 80), peer);
            gate.quarantine("ns1", None).unwrap();
            for frame in [question(free, family), opening(free, family), tcp((family.web, 80), peer, ACK)] {
                for _ in 0..3 {
                    let row = gate.drops(&from_mac(&frame, MAC), Reason::Quarantined);
                    assert_eq!(row.key.server, gate.id_of("ns1"), "it is that machine's doing");
                }
            }
            for _ in 0..3 {
                gate.passes(&from_mac(&opening(free, family), OTHER_MAC), Reason::Need);
                gate.passes(&from_mac(&opening(shared, family), MAC), Reason::Need);
                gate.passes(&from_mac(&opening(shared, family), OTHER_MAC), Reason::Need);
            }
            gate.passes(&from_mac(&tcp((family.web, 80), peer, ACK), OTHER_MAC), Reason::Reply);
            assert_eq!(gate.find_release(free, MAC).unwrap().as_deref(), Some("ns1"));
            assert_eq!(gate.find_release(free, OTHER_MAC).unwrap(), None);
            gate.release("ns1").unwrap();
            for _ in 0..3 {
                gate.passes(&from_mac(&opening(free, family), MAC), Reason::Need);
            }
        }
    });
}

#[test]
fn a_mac_of_several_servers_is_cut_off_under_no_servers_address_with_each_of_them() {
    in_both_families(|family| {
        let gate = TestGate::new(&policy("unknown_sources = \"allow\""));
        gate.quarantine("shared", None).unwrap();
        for mac in [MAC, OTHER_MAC] {
            gate.drops(&from_mac(&question(family.unknown, family), mac), Reason::UnknownSource);
        }
        gate.passes(&from_mac(&question(family.ns, family), MAC), Reason::Need);
        gate.passes(&from_mac(&question(of(family, "60"), family), OTHER_MAC), Reason::Need);
        gate.release("shared").unwrap();
        gate.passes(&from_mac(&question(family.unknown, family), MAC), Reason::UnknownAllowed);
        assert_eq!(
            gate.entries::<portcullis::abi::mac_key, portcullis::abi::quarantine>("quarantined_macs").len(),
            0
        );
    });
}

#[test]
fn a_machine_that_was_seen_with_a_servers_address_is_cut_off_with_it_under_no_servers_address() {
    in_both_families(|family| {
        let text = POLICY.replace("[policy]", "[policy]\nunknown_sources = \"allow\"");
        let gate = TestGate::new(&text);
        let unknown = from_mac(&question(family.unknown, family), MAC);
        let of_another = from_mac(&udp((family.web, 40_000), (family.loghost, 514)), MAC);
        gate.quarantine("ns1", None).unwrap();
        gate.passes(&unknown, Reason::UnknownAllowed);
        gate.note_machines("ns1", &[MAC]).unwrap();
        gate.drops(&unknown, Reason::UnknownSource);
        gate.passes(&of_another, Reason::Need);
        gate.passes(&from_mac(&question(family.unknown, family), OTHER_MAC), Reason::UnknownAllowed);
        // in observe too, and under another name
        gate.swap(
            &text.replace("[policy]", "[policy]\nmode = \"observe\"").replace("servers.ns1", "servers.ns9"),
        );
        gate.drops(&unknown, Reason::UnknownSource);
        // one address of it that is released on its own account frees nothing else
        gate.quarantine_address(family.web, Some(MAC), None).unwrap();
        gate.drops(&of_another, Reason::Quarantined);
        gate.release_addresses(family.web.into()).unwrap();
        gate.passes(&of_another, Reason::Need);
        gate.drops(&unknown, Reason::UnknownSource);
        // a quarantine anew has another time
        gate.swap(&text);
        gate.quarantine("ns1", Some(3_600)).unwrap();
        let rows = gate.entries::<portcullis::abi::mac_key, portcullis::abi::quarantine>("quarantined_macs");
        let row = rows.iter().find(|(key, _)| key.server == 0).expect("a row");
        assert_ne!(row.1.until_ns, 0);
        gate.release("ns1").unwrap();
        gate.passes(&unknown, Reason::UnknownAllowed);
        assert_eq!(
            gate.entries::<portcullis::abi::mac_key, portcullis::abi::quarantine>("quarantined_macs").len(),
            0
        );
    });
}

#[test]
fn the_mac_that_a_later_policy_gives_to_a_server_in_quarantine_is_cut_off_with_it() {
    in_both_families(|family| {
        let text = POLICY.replace("[policy]", "[policy]\nunknown_sources = \"allow\"");
        let gate = TestGate::new(&text);
        let unknown = from_mac(&question(family.unknown, family), MAC);
        gate.quarantine("ns1", None).unwrap();
        gate.passes(&unknown, Reason::UnknownAllowed);
        let bound = text.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:30\"");
        gate.swap(&bound);
        gate.drops(&unknown, Reason::UnknownSource);
        gate.swap(&text);
        gate.passes(&unknown, Reason::UnknownAllowed);
    });
}

#[test]
fn a_machine_that_was_seen_is_cut_off_in_observe_where_it_spoofs_or_sends_what_is_not_ip() {
    in_both_families(|family| {
        let gate =
            TestGate::new(&policy("mode = \"observe\"").replace("02:00:00:00:00:30", "02:00:00:00:00:32"));
        let frames = [
            (question(of(family, "60"), family), Reason::Spoofed),
            (link_frame(ODD_ETHERTYPE, &[0; 46]), Reason::Ethertype),
            (tcp((family.unknown, 1), (family.peer, 2), 0), Reason::Malformed),
        ];
        gate.quarantine("free", None).unwrap();
        for (frame, reason) in &frames {
            gate.would_drop(&from_mac(frame, MAC), *reason);
        }
        gate.note_machines("free", &[MAC]).unwrap();
        for (frame, reason) in &frames {
            gate.drops(&from_mac(frame, MAC), *reason);
        }
        gate.release("free").unwrap();
        for (frame, reason) in &frames {
            gate.would_drop(&from_mac(frame, MAC), *reason);
        }
    });
}
