//! Row 1: protocols of switches and NICs that the policy drops without an alarm.

use portcullis::abi::Reason;

use crate::support::dmz::POLICY;
use crate::support::frame::{link_frame, tagged};
use crate::support::test_gate::TestGate;

const QUIET: u8 = 1;

fn policy(ethertypes: &[u16]) -> String {
    POLICY.replace("[policy]", &format!("[policy]\nquiet_ethertypes = {ethertypes:?}"))
}

#[test]
fn a_frame_of_a_quiet_ethertype_is_dropped_without_an_alarm() {
    // as many as there may be
    let all: Vec<u16> = (0..16).map(|number| 0x9007 + 16 * number).collect();
    let gate = TestGate::new(&policy(&all));
    let frame = |ethertype| link_frame(ethertype, &[0; 46]);
    for ethertype in all {
        let row = gate.drops(&frame(ethertype), Reason::Ethertype);
        assert_eq!((row.key.port, row.key.server, row.key.flags), (ethertype, 0, QUIET));
        assert_eq!(gate.drops(&tagged(&frame(ethertype), 0x8100, 7), Reason::Ethertype).key.flags, QUIET);
        for other in [ethertype - 1, ethertype + 1, ethertype.swap_bytes()] {
            let row = gate.drops(&frame(other), Reason::Ethertype);
            assert_eq!((row.key.port, row.key.flags), (other, 0));
        }
    }
    // what passes goes on to do so
    gate.passes(&frame(0x0806), Reason::LinkLayer);
}

#[test]
fn the_live_policy_says_which_ethertypes_are_quiet() {
    let gate = TestGate::new(&policy(&[0x8899]));
    let frame = link_frame(0x8899, &[0; 46]);
    assert_eq!(gate.drops(&frame, Reason::Ethertype).key.flags, QUIET);
    gate.swap(POLICY);
    assert_eq!(gate.drops(&frame, Reason::Ethertype).key.flags, 0);
    gate.swap(&policy(&[0x8899]).replace("[policy]", "[policy]\nmode = \"observe\""));
    assert_eq!(gate.would_drop(&frame, Reason::Ethertype).key.flags, QUIET | 2);
}
