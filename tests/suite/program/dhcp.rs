//! A lease: its client renews it by unicast, and nobody takes that for an answer.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::udp;
use crate::support::test_gate::TestGate;

const QUIET: u8 = 1;
const OWN_PORT: u8 = 4;

/// Client's and server's port.
fn ports(family: Family) -> (u16, u16) {
    if family.web.is_ipv4() { (68, 67) } else { (546, 547) }
}

fn with_dhcp() -> String {
    POLICY.replace("[policy]", "[policy]\ndhcp = true")
}

#[test]
fn a_renewal_after_a_lease_is_dropped_quietly_and_is_no_back_door() {
    let gate = TestGate::new(&with_dhcp());
    in_both_families(|family| {
        let (client, server) = ports(family);
        let renewal = udp((family.web, client), (family.peer, server));
        for leased in [false, true] {
            if leased {
                gate.to_server(&udp((family.peer, server), (family.web, client)));
            }
            let row = gate.drops(&renewal, Reason::NewFlow);
            assert_eq!((row.key.port, row.key.flags), (server, if leased { QUIET } else { 0 }));
        }
        // however long ago that was, and nowhere else
        gate.forget_heard();
        let row = gate.drops(&renewal, Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags), (server, QUIET));
        for (from, to) in [(family.web, family.other), (family.ns, family.peer)] {
            let row = gate.drops(&udp((from, client), (to, server)), Reason::NewFlow);
            assert_eq!((row.key.port, row.key.flags), (server, 0));
        }
        // no address is none of those that are not known
        let nobody = ip(if family.web.is_ipv4() { "0.0.0.0" } else { "::" });
        assert_eq!(gate.drops(&udp((family.web, client), (nobody, server)), Reason::NewFlow).key.flags, 0);
    });
}

#[test]
fn a_flood_of_leases_makes_no_alarm_of_a_renewal() {
    let gate = TestGate::new(&with_dhcp());
    in_both_families(|family| {
        let (client, server) = ports(family);
        let renewal = |to| udp((family.web, client), (to, server));
        let lessors = [family.bastion, family.loghost, family.unknown, family.ns];
        for known in 1..=lessors.len() {
            gate.forget_flows();
            // each of them again and again
            for lessor in lessors[..known].iter().chain(&lessors[..known]) {
                gate.to_server(&udp((*lessor, server), (family.web, client)));
            }
            for lessor in &lessors {
                let flags = if lessors[..known].contains(lessor) { QUIET } else { 0 };
                assert_eq!(gate.drops(&renewal(*lessor), Reason::NewFlow).key.flags, flags, "{known}");
            }
        }
        // one more than the gate can tell apart
        gate.to_server(&udp((family.other, server), (family.web, client)));
        for lessor in lessors.iter().chain(&[family.peer]) {
            assert_eq!(gate.drops(&renewal(*lessor), Reason::NewFlow).key.flags, QUIET);
        }
        let row = gate.drops(&udp((family.ns, client), (family.peer, server)), Reason::NewFlow);
        assert_eq!(row.key.flags, 0, "another server has no lease");
    });
}

#[test]
fn who_has_answered_the_link_has_leased_to_every_server() {
    let gate = TestGate::new(&with_dhcp());
    for (family, link) in [(V4, "255.255.255.255"), (V6, "fe80::10")] {
        let (client, server) = ports(family);
        let renewal = |from, to| udp((from, client), (to, server));
        // a DHCP server's port and a client's, and the link
        gate.to_server(&udp((family.peer, server), (ip(link), server)));
        gate.to_server(&udp((family.peer, client), (ip(link), client)));
        gate.to_server(&udp((family.peer, server), (family.unknown, client)));
        assert_eq!(gate.drops(&renewal(family.web, family.peer), Reason::NewFlow).key.flags, 0);
        gate.to_server(&udp((family.peer, server), (ip(link), client)));
        for from in [family.web, family.ns] {
            assert_eq!(gate.drops(&renewal(from, family.peer), Reason::NewFlow).key.flags, QUIET);
            assert_eq!(gate.drops(&renewal(from, family.other), Reason::NewFlow).key.flags, 0);
        }
    }
}

#[test]
fn service_tracking_does_not_know_who_leased_and_is_quiet() {
    let gate = TestGate::new(&with_dhcp().replace("dhcp = true", "dhcp = true\ntracking = \"service\""));
    in_both_families(|family| {
        let (client, server) = ports(family);
        let row = gate.drops(&udp((family.web, client), (family.peer, server)), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags), (server, QUIET));
    });
}

#[test]
fn without_dhcp_in_the_policy_the_same_is_a_back_door() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let (client, server) = ports(family);
        let renewal = udp((family.web, client), (family.peer, server));
        assert_eq!(gate.drops(&renewal, Reason::NewFlow).key.flags, 0);
        gate.to_server(&udp((family.peer, server), (family.web, client)));
        let row = gate.drops(&renewal, Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags), (client, OWN_PORT));
    });
}

#[test]
fn without_dhcp_in_the_policy_no_renewal_is_quiet_whoever_has_leased() {
    in_both_families(|family| {
        let gate = TestGate::new(&with_dhcp());
        let (client, server) = ports(family);
        let renewal = udp((family.web, client), (family.peer, server));
        gate.to_server(&udp((family.peer, server), (family.web, client)));
        assert_eq!(gate.drops(&renewal, Reason::NewFlow).key.flags, QUIET);
        for tracking in ["strict", "service"] {
            gate.swap(&POLICY.replace("[policy]", &format!("[policy]\ntracking = \"{tracking}\"")));
            assert_eq!(gate.drops(&renewal, Reason::NewFlow).key.flags, 0, "{tracking}");
        }
    });
}

#[test]
fn dhcp_hides_no_other_back_door() {
    let gate = TestGate::new(&with_dhcp());
    in_both_families(|family| {
        let (client, server) = ports(family);
        // another port of the peer, another port of the server, both ports the wrong way round
        for (own, peers) in [(client, 4444), (4444, server), (server, client)] {
            gate.to_server(&udp((family.peer, peers), (family.web, own)));
            let row = gate.drops(&udp((family.web, own), (family.peer, peers)), Reason::UnlistedService);
            assert_eq!((row.key.port, row.key.flags), (own, OWN_PORT));
        }
        // the ports of the other family
        let (client, server) = if family.web.is_ipv4() { (546, 547) } else { (68, 67) };
        gate.to_server(&udp((family.peer, server), (family.web, client)));
        gate.drops(&udp((family.web, client), (family.peer, server)), Reason::UnlistedService);
    });
}

#[test]
fn a_need_permits_a_renewal() {
    let text = with_dhcp().replace("out   = [\"udp/514", "out   = [\"udp/67\", \"udp/547\", \"udp/514");
    let gate = TestGate::new(&text);
    in_both_families(|family| {
        let (client, server) = ports(family);
        let renewal = udp((family.web, client), (family.peer, server));
        gate.passes(&renewal, Reason::Need);
        gate.to_server(&udp((family.peer, server), (family.web, client)));
        gate.passes(&renewal, Reason::Need);
        // who has no such need has it not
        let row = gate.drops(&udp((family.ns, client), (family.peer, server)), Reason::NewFlow);
        assert_eq!(row.key.flags, 0);
    });
}
