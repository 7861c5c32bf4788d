//! Row 6: a server with several network cards.

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, in_both_families};
use crate::support::frame::{SYN, from_mac, tcp, udp};
use crate::support::test_gate::TestGate;

const FIRST: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
const SECOND: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
const THIRD: [u8; 6] = [0x02, 0, 0, 0, 0, 0x12];
const WEB: [u8; 6] = [0x02, 0, 0, 0, 0, 0x20];
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0x13];

#[test]
fn each_of_its_macs_is_the_servers_and_no_other_is() {
    let text = POLICY
        .replace(
            "[servers.ns1]",
            "[servers.ns1]\nmac = [\"02:00:00:00:00:10\", \"02:00:00:00:00:11\", \"02:00:00:00:00:12\"]",
        )
        .replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:20\"");
    let gate = TestGate::new(&text);
    in_both_families(|family| {
        gate.swap(&text);
        let frames = [
            (tcp((family.ns, 40_000), (family.peer, 53), SYN), None),
            (udp((family.ns, 40_000), (family.peer, 53)), None),
            (tcp((family.ns, 40_000), (family.peer, 445), SYN), Some(Reason::NewFlow)),
        ];
        // again and again, for the filter remembers verdicts
        for _ in 0..3 {
            for (frame, reason) in &frames {
                for mac in [FIRST, SECOND, THIRD] {
                    match reason {
                        None => gate.passes(&from_mac(frame, mac), Reason::Need),
                        Some(reason) => _ = gate.drops(&from_mac(frame, mac), *reason),
                    }
                }
                for mac in [NOBODY, WEB] {
                    let row = gate.drops(&from_mac(frame, mac), Reason::Spoofed);
                    assert_eq!(row.key.server, gate.id_of("ns1"));
                }
            }
        }
        // what is one server's is not another's
        let ping = udp((family.web, 40_000), (family.loghost, 514));
        gate.passes(&from_mac(&ping, WEB), Reason::Need);
        for mac in [FIRST, SECOND, THIRD] {
            gate.drops(&from_mac(&ping, mac), Reason::Spoofed);
        }
        // a policy with fewer takes the others away
        gate.swap(&text.replace(", \"02:00:00:00:00:12\"", ""));
        gate.passes(&from_mac(&frames[0].0, SECOND), Reason::Need);
        gate.drops(&from_mac(&frames[0].0, THIRD), Reason::Spoofed);
    });
}
