//! A lease: its client renews it by unicast, and nobody takes that for an answer.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, in_both_families};
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
            assert_eq!((row.key.port, row.key.flags), (server, QUIET));
        }
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
        // who has no such need has it not, and is quiet
        let row = gate.drops(&udp((family.ns, client), (family.peer, server)), Reason::NewFlow);
        assert_eq!(row.key.flags, QUIET);
    });
}
