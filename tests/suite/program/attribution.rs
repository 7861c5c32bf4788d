//! The two tables of a reason's properties: `bpf/reason.h` and `src/abi/reasons.rs` say the same.

use portcullis::abi::{REASONS, Reason, drop_flag, quota_key, row_quota};

use crate::support::dmz::V4;
use crate::support::frame::{
    ACK, Ipv4, RST, SYN, UDP, fragment, from_mac, icmp, link_frame, patched, raw_ip, tcp, udp, udp_datagram,
};
use crate::support::test_gate::TestGate;

const POLICY: &str = r#"
[roles.any]
in  = ["tcp/80", "tcp/22 from 203.0.113.7"]
out = ["udp/514 to 198.51.100.20", "tcp/25 limit 1/m"]

[servers.web1]
addresses = ["192.0.2.10"]
roles = ["any"]
"#;

/// A frame that this gate drops for the reason, with the source address of web1 where it has one.
/// `None`: a reason to pass.
fn provoke(gate: &TestGate, reason: Reason) -> Option<Vec<u8>> {
    let (server, peer) = (V4.web, V4.peer);
    let opening = |port| tcp((server, 40_000), (peer, port), SYN);
    Some(match reason {
        Reason::LinkLayer
        | Reason::Neighbour
        | Reason::Dhcp
        | Reason::UnknownAllowed
        | Reason::LaterFragment
        | Reason::Reply
        | Reason::Pickup
        | Reason::Need
        | Reason::OwnConnection
        | Reason::FlowError
        | Reason::Router
        | Reason::Handover => return None,
        Reason::Ethertype => link_frame(0x8137, &[0; 46]),
        Reason::Malformed => tcp((server, 40_000), (peer, 445), 0),
        Reason::SourceRoute => {
            let loose_route = [131, 7, 4, 198, 51, 100, 1, 0];
            let datagram = udp_datagram((server, 40_000), (peer, 53), b"");
            Ipv4::new(server, peer, UDP, &datagram).options(&loose_route).frame()
        }
        Reason::RogueRouter => icmp(server, peer, (5, 0), [0; 4], &[0; 28]),
        Reason::UnknownSource => tcp((V4.unknown, 40_000), (peer, 445), SYN),
        Reason::Spoofed => {
            gate.swap(&format!("{POLICY}mac = \"02:00:00:00:00:77\"\n"));
            opening(445)
        }
        Reason::Quarantined => {
            gate.quarantine("web1", None).expect("a quarantine");
            opening(445)
        }
        Reason::Fragment => fragment(server, peer, UDP, (1, 4, false), &[0; 16]),
        Reason::Rate => {
            gate.passes(&opening(25), Reason::Need);
            opening(25)
        }
        Reason::UnlistedService => {
            gate.to_server(&tcp((peer, 51_000), (server, 4444), SYN));
            tcp((server, 4444), (peer, 51_000), SYN | ACK)
        }
        Reason::Backscatter => tcp((server, 4444), (peer, 51_000), RST),
        Reason::Stranger => {
            gate.to_server(&tcp((peer, 51_000), (server, 22), SYN));
            tcp((server, 22), (peer, 51_000), SYN | ACK)
        }
        Reason::NoFlow => tcp((server, 80), (peer, 51_000), ACK),
        Reason::Protocol => raw_ip(server, peer, 47, &[0; 8]),
        Reason::Destination => udp((server, 40_000), (peer, 514)),
        Reason::NewFlow => opening(445),
        Reason::Denied => {
            gate.deny("web1", "out", "udp/514");
            udp((server, 40_000), (V4.loghost, 514))
        }
        Reason::Question => {
            gate.swap(
                &format!("{POLICY}[names]\nresolvers = [\"198.51.100.20\"]\nfrom = [\"lo\"]\n")
                    .replace("[roles.any]", "[roles.any]\ndns = \"named\"\n")
                    .replace("\"udp/514", "\"udp/53\", \"udp/514"),
            );
            udp((server, 40_000), (V4.loghost, 53))
        }
        Reason::Elsewhere => {
            // a frame to the MAC that an ARP frame came from
            let neighbour = [2, 0, 0, 0, 0, 0x77];
            gate.passes(&from_mac(&link_frame(0x0806, &[0; 46]), neighbour), Reason::LinkLayer);
            patched(&opening(445), 0, &neighbour)
        }
    })
}

#[test]
fn a_drop_uses_the_quota_of_its_server_where_it_can_be_attributed_to_it_and_another_if_outsiders_cause_it() {
    for &reason in REASONS {
        let gate = TestGate::new(POLICY);
        let Some(frame) = provoke(&gate, reason) else {
            assert!(!reason.drops() && !reason.is_attributable(), "{reason}");
            continue;
        };
        let row = gate.drops(&frame, reason);
        let quotas: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
        let users: Vec<u32> = quotas
            .iter()
            .filter(|(key, quota)| quota.rows > 0 && *key != quota_key::QUOTA_ROWS_ISSUED.0)
            .map(|(key, _)| *key)
            .collect();
        let owner = if reason.is_attributable() { gate.id_of("web1") } else { quota_key::QUOTA_UNKNOWN.0 };
        let own_port = u32::from(row.key.flags) & drop_flag::DROP_OWN_PORT.0 != 0;
        let is_outside = reason.is_caused_outside(own_port);
        let class = if is_outside { quota_key::QUOTA_OUTSIDE.0 } else { 0 };
        assert_eq!(users, [owner + class], "whose quota a drop as `{reason}` uses");
    }
}

#[test]
fn what_a_server_starts_by_itself_uses_another_quota_than_its_answers_under_the_same_reason() {
    let gate = TestGate::new(POLICY);
    let (server, peer) = (V4.web, V4.peer);
    // in no flow: an answer of a service, and a segment that no service sends
    let answer = gate.drops(&tcp((server, 80), (peer, 51_000), ACK), Reason::NoFlow);
    let segment = gate.drops(&tcp((server, 40_000), (peer, 445), ACK), Reason::NoFlow);
    gate.quarantine("web1", None).expect("a quarantine");
    let visitor = gate.drops(&tcp((server, 80), (peer, 51_000), SYN | ACK), Reason::Quarantined);
    let opening = gate.drops(&tcp((server, 40_000), (peer, 445), SYN), Reason::Quarantined);
    assert_eq!(
        [answer, segment, visitor, opening].map(|row| row.key.flags & 4 != 0),
        [true, false, true, false]
    );
    let quotas: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    let rows = |owner| quotas.iter().find(|(other, _)| *other == owner).expect("a quota").1.rows;
    let web = gate.id_of("web1");
    assert_eq!((rows(web), rows(web + quota_key::QUOTA_OUTSIDE.0)), (2, 2));
}
