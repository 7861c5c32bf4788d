//! Steps 5 to 7: who sends it, and modes.

use portcullis::abi::Reason::{
    Elsewhere, Need, NewFlow, Quarantined, Reply, Spoofed, UnknownAllowed, UnknownSource,
};

use super::{SECOND, TimedModel};
use crate::model::Verdict;
use crate::support::dmz::{self, V4, in_both_families, ip};
use crate::support::frame::{self, ACK, ROUTER_MAC, SYN};

#[test]
fn a_source_that_no_server_has_goes_by_unknown_sources() {
    in_both_families(|family| {
        let frame = frame::udp((family.unknown, 5000), (family.peer, 53));
        let outcome = TimedModel::new().sends(&frame);
        assert_eq!((outcome.reason, outcome.quiet, outcome.server), (UnknownSource, false, None));
        let outcome = TimedModel::setting("unknown_sources = \"quiet\"").sends(&frame);
        assert_eq!((outcome.reason, outcome.quiet), (UnknownSource, true));
        assert_eq!(TimedModel::setting("unknown_sources = \"allow\"").why(&frame), UnknownAllowed);
    });
}

#[test]
fn a_link_local_source_is_quiet_where_any_role_is() {
    let mut timed = TimedModel::new();
    for (source, port, quiet) in [
        ("169.254.1.1", 5353, true),
        ("0.0.0.0", 137, true),
        ("169.254.1.1", 5354, false),
        ("192.0.2.99", 5353, false),
    ] {
        let outcome = timed.sends(&frame::udp((ip(source), port), (V4.peer, port)));
        assert_eq!((outcome.reason, outcome.quiet), (UnknownSource, quiet), "{source} {port}");
    }
}

#[test]
fn without_a_policy_every_server_is_unknown() {
    let mut timed = TimedModel::new();
    timed.model = crate::model::Model::new();
    assert_eq!(timed.why(&frame::udp((V4.ns, 5000), (V4.peer, 53))), UnknownSource);
}

const FARM: &str = r#"
[roles.any]
out = ["udp/53"]
[servers.one]
addresses = ["192.0.2.10"]
mac = "02:00:00:00:00:10"
vlan = 7
roles = ["any"]
[servers.farm]
addresses = ["192.0.2.0/24"]
mode = "observe"
"#;

#[test]
fn the_longest_prefix_decides_the_server() {
    // Wherever it stands in the file.
    let (head, farm) = FARM.split_once("[servers.farm]").expect("two servers");
    let (role, one) = head.split_once("[servers.one]").expect("a role");
    let turned = format!("{role}[servers.farm]{farm}[servers.one]{one}");
    check_longest_prefix(&mut TimedModel::with(FARM));
    check_longest_prefix(&mut TimedModel::with(&turned));
}

fn check_longest_prefix(timed: &mut TimedModel) {
    let server =
        |timed: &mut TimedModel, address| timed.sends(&frame::udp((ip(address), 9), (V4.peer, 9))).server;
    assert_eq!(server(timed, "192.0.2.10").as_deref(), Some("one"));
    assert_eq!(server(timed, "192.0.2.11").as_deref(), Some("farm"));
    assert_eq!(server(timed, "198.51.100.1"), None);
}

#[test]
fn another_mac_or_vlan_is_a_spoof() {
    let mut timed = TimedModel::with(FARM);
    let plain = frame::udp((V4.web, 5000), (V4.peer, 53));
    let good = frame::tagged(&plain, 0x8100, 7);
    // The priority is none of the VLAN's business.
    for frame in [&good, &frame::tagged(&plain, 0x8100, 0xe007)] {
        assert_eq!(timed.why(frame), Need);
    }
    for frame in [
        plain.clone(),
        frame::from_mac(&good, ROUTER_MAC),
        frame::tagged(&plain, 0x8100, 8),
        frame::tagged(&plain, 0x8100, 0),
        frame::tagged(&good, 0x88a8, 7),
    ] {
        assert_eq!(timed.why(&frame), Spoofed);
    }
}

#[test]
fn a_spoof_goes_by_the_policys_mode_and_not_the_servers() {
    let frame = frame::udp((V4.web, 5000), (V4.peer, 53));
    let observing = FARM.replace("vlan = 7", "vlan = 7\nmode = \"observe\"");
    assert_eq!(TimedModel::with(&observing).sends(&frame).verdict, Verdict::Drop);
    let policy = format!("[policy]\nmode = \"observe\"\n{}", FARM.replace("vlan = 7", "mode = \"enforce\""));
    let outcome = TimedModel::with(&policy).sends(&frame::from_mac(&frame, ROUTER_MAC));
    assert_eq!((outcome.reason, outcome.verdict), (Spoofed, Verdict::WouldDrop));
}

#[test]
fn the_servers_mode_overrides_the_policys() {
    let mut timed = TimedModel::with(FARM);
    let outcome = timed.sends(&frame::udp((ip("192.0.2.11"), 9), (V4.peer, 9)));
    assert_eq!((outcome.reason, outcome.verdict), (NewFlow, Verdict::WouldDrop));
    let key = timed.model.ledger().into_keys().next().expect("a row");
    assert!(key.would && key.server.as_deref() == Some("farm"));
    assert_eq!(timed.model.counters().into_keys().collect::<Vec<_>>(), [(NewFlow, true)]);
}

#[test]
fn in_quarantine_only_management_gets_an_answer() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        timed.establish((family.web, 80), (family.peer, 4000));
        timed.establish((family.web, 22), (family.bastion, 4000));
        let web = frame::tcp((family.web, 80), (family.peer, 4000), ACK);
        let ssh = frame::tcp((family.web, 22), (family.bastion, 4000), ACK);
        let log = frame::udp((family.web, 5000), (family.loghost, 514));
        timed.model.quarantine("web1", None);
        assert_eq!([&web, &ssh, &log].map(|frame| timed.why(frame)), [Quarantined, Reply, Quarantined]);
        // New management flows open; other servers don't care.
        timed.establish((family.web, 22), (family.bastion, 4001));
        assert_eq!(timed.why(&frame::udp((family.ns, 5000), (family.peer, 53))), Need);
        timed.model.release("web1");
        assert_eq!([&web, &ssh, &log].map(|frame| timed.why(frame)), [Reply, Reply, Need]);
    });
}

#[test]
fn a_quarantine_ends_at_its_time_and_holds_in_observe_and_across_policies() {
    let mut timed = TimedModel::setting("mode = \"observe\"");
    timed.model.quarantine("web1", Some(timed.now + 10 * SECOND));
    timed.apply(dmz::POLICY);
    timed.apply(&dmz::POLICY.replacen("[policy]", "[policy]\nmode = \"observe\"", 1));
    let syn = frame::tcp((V4.web, 5000), (V4.peer, 25), SYN);
    timed.wait(9);
    let outcome = timed.sends(&syn);
    assert_eq!((outcome.reason, outcome.verdict), (Quarantined, Verdict::Drop));
    timed.wait(2);
    let outcome = timed.sends(&syn);
    assert_eq!((outcome.reason, outcome.verdict), (NewFlow, Verdict::WouldDrop));
}

#[test]
fn a_spoof_in_quarantine_is_a_spoof() {
    let mut timed = TimedModel::with(FARM);
    timed.model.quarantine("one", None);
    assert_eq!(timed.why(&frame::udp((V4.web, 5000), (V4.peer, 53))), Spoofed);
}

#[test]
fn the_mac_of_a_server_in_quarantine_is_cut_off_under_addresses_that_are_not_its_own() {
    let [mine, other] = [[2, 0, 0, 0, 0, 0x30], [2, 0, 0, 0, 0, 0x31]];
    in_both_families(|family| {
        for (setting, passes) in [("unknown_sources = \"allow\"", true), ("mode = \"observe\"", false)] {
            let text = format!("[policy]\n{setting}");
            let text = dmz::POLICY.replace("[policy]", &text);
            let mut timed = TimedModel::with(
                &text.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:30\""),
            );
            let unknown = |mac| frame::from_mac(&frame::udp((family.unknown, 5000), (family.peer, 53)), mac);
            let borrowed = |mac| frame::from_mac(&frame::udp((family.web, 5000), (family.loghost, 514)), mac);
            assert_ne!(timed.sends(&unknown(mine)).verdict, Verdict::Drop);
            assert_eq!(timed.why(&borrowed(mine)), Need);
            timed.model.quarantine("ns1", None);
            let outcome = timed.sends(&unknown(mine));
            assert_eq!(
                (outcome.verdict, outcome.reason, outcome.server),
                (Verdict::Drop, UnknownSource, None)
            );
            let outcome = timed.sends(&borrowed(mine));
            assert_eq!((outcome.verdict, outcome.reason), (Verdict::Drop, Quarantined));
            assert_eq!(outcome.server.as_deref(), Some("ns1"));
            assert_eq!(timed.why(&borrowed(other)), Need);
            let reason = if passes { UnknownAllowed } else { UnknownSource };
            let outcome = timed.sends(&unknown(other));
            assert_eq!(outcome.reason, reason);
            assert_ne!(outcome.verdict, Verdict::Drop);
        }
    });
}

#[test]
fn in_quarantine_answers_are_counted_under_the_servers_own_port_and_quiet() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        timed.gets(&frame::echo_request(family.peer, family.web, 9));
        timed.model.quarantine("web1", None);
        let outcome = |timed: &mut TimedModel, frame: &[u8]| {
            let outcome = timed.sends(frame);
            assert_eq!(outcome.reason, Quarantined);
            (outcome.port, outcome.quiet)
        };
        for flags in [ACK, SYN | ACK] {
            let answer = frame::tcp((family.web, 80), (family.peer, 4000), flags);
            assert_eq!(outcome(&mut timed, &answer), (80, true));
        }
        let pong = frame::echo_reply(family.web, family.peer, 9);
        assert!(outcome(&mut timed, &pong).1);
        // What it opens, and what no service says, is loud.
        for loud in [
            frame::tcp((family.web, 80), (family.peer, 4000), SYN),
            frame::tcp((family.web, 8080), (family.peer, 4000), SYN | ACK),
            frame::udp((family.web, 5000), (family.peer, 4000)),
        ] {
            assert_eq!(outcome(&mut timed, &loud), (4000, false));
        }
        // A first fragment without its flags may be a SYN.
        let segment = frame::tcp_header((family.web, 80), (family.peer, 4000), SYN, (1, 0));
        let short = frame::fragment(family.web, family.peer, frame::TCP, (1, 0, true), &segment[..8]);
        assert!(!outcome(&mut timed, &short).1);
    });
}

#[test]
fn a_drop_of_what_goes_to_another_host_is_no_sign_of_anything() {
    let mut timed = TimedModel::with(FARM);
    timed.model.set_own_macs([[2, 0, 0, 0, 0, 1]]);
    let neighbour = [2, 0, 0, 0, 0, 0x77];
    let to = |mac: [u8; 6]| {
        let frame = frame::tcp((V4.ns, 5000), (V4.peer, 25), SYN);
        frame::patched(&frame, 0, &mac)
    };
    let outcome = timed.sends(&to([2, 0, 0, 0, 0, 1]));
    let (plain, verdict) = (outcome.reason, outcome.verdict);
    assert!(plain.drops());
    assert_eq!(timed.sends(&to(neighbour)).reason, plain, "nobody knows whose that is");
    let arp = frame::from_mac(&frame::link_frame(0x0806, &[0; 46]), neighbour);
    timed.sends(&arp);
    let outcome = timed.sends(&to(neighbour));
    assert_eq!((outcome.reason, outcome.port, outcome.verdict), (Elsewhere, 0, verdict));
    for ours in [[0, 0, 0x5e, 0, 1, 7], [0, 0, 0x5e, 0, 2, 7], [0xff; 6], [2, 0, 0, 0, 0, 1]] {
        assert_eq!(timed.sends(&to(ours)).reason, plain);
    }
    assert_eq!(timed.sends(&to([0, 0, 0x5e, 0, 3, 7])).reason, plain, "never heard of");
    // Ours after all: a device above the NIC has it.
    timed.model.set_own_macs([[2, 0, 0, 0, 0, 1], neighbour]);
    assert_eq!(timed.sends(&to(neighbour)).reason, plain);
    // Nothing is known of our own.
    timed.model.set_own_macs([[2, 0, 0, 0, 0, 1]]);
    assert_eq!(timed.sends(&to(neighbour)).reason, Elsewhere);
    timed.model.set_own_macs([]);
    assert_eq!(timed.sends(&to(neighbour)).reason, plain);
}

#[test]
fn in_a_bridge_a_host_of_the_policy_is_elsewhere_once_it_was_heard() {
    let mut timed = TimedModel::with(FARM);
    timed.model.set_own_macs([[2, 0, 0, 0, 0, 1]]);
    let named = [2, 0, 0, 0, 0, 0x10];
    let frame = frame::patched(&frame::tcp((V4.ns, 5000), (V4.peer, 25), SYN), 0, &named);
    assert_eq!(timed.sends(&frame).reason, Elsewhere);
    timed.model.set_bridged(true);
    assert_eq!(timed.sends(&frame).reason, NewFlow);
    timed.sends(&frame::from_mac(&frame::link_frame(0x0806, &[0; 46]), named));
    assert_eq!(timed.sends(&frame).reason, Elsewhere);
    // heard behind another port as well, so it is forwarded
    timed.model.set_own_macs([[2, 0, 0, 0, 0, 1], named]);
    assert_eq!(timed.sends(&frame).reason, NewFlow);
}
