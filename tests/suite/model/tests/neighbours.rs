//! Who else is on the link: routers of the policy, servers by their link-local addresses, further MACs.

use portcullis::abi::Reason::{
    Ethertype, Need, Neighbour, NewFlow, Quarantined, RogueRouter, Router, Spoofed, UnknownAllowed,
    UnknownSource,
};

use super::TimedModel;
use crate::model::{Outcome, Verdict};
use crate::support::dmz::{self, V4, V6, ip};
use crate::support::frame::{self, SYN, UDP, from_mac};

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0x0f, 3];
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0x0a];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];

fn with_router() -> TimedModel {
    TimedModel::with(&format!(
        "{}\n[routers.other]\naddresses = [\"192.0.2.3\", \"fe80::2:3\"]\n\
         mac = [\"02:00:00:00:0f:03\", \"00:00:5e:00:01:0a\"]\n",
        dmz::POLICY
    ))
}

fn advertisement(from: &str, to: &str, hops: u8) -> Vec<u8> {
    let packet = frame::packet(ip(from), ip(to), 112, &[0x31; 12]);
    let at = if ip(from).is_ipv4() { 8 } else { 7 };
    frame::ethernet(&frame::patched(&packet, at, &[hops]))
}

fn verdict(outcome: &Outcome) -> (portcullis::abi::Reason, bool) {
    (outcome.reason, outcome.quiet)
}

#[test]
fn vrrp_of_a_router_passes_and_what_else_it_says_is_quiet() {
    let mut timed = with_router();
    for (router, group, peer) in
        [("192.0.2.3", "224.0.0.18", "203.0.113.50"), ("fe80::2:3", "ff02::12", "2001:db8:50::50")]
    {
        for mac in [ROUTER_MAC, VIRTUAL_MAC] {
            let mut says = |frame: &[u8]| verdict(&timed.sends(&from_mac(frame, mac)));
            assert_eq!(says(&advertisement(router, group, 255)), (Router, false));
            assert_eq!(says(&advertisement(router, group, 254)), (UnknownSource, true));
            assert_eq!(says(&advertisement(router, peer, 255)), (UnknownSource, true));
            assert_eq!(says(&frame::udp((ip(router), 5000), (ip(peer), 53))), (UnknownSource, true));
            let kinds = if ip(router).is_ipv4() { [5, 9] } else { [137, 134] };
            for kind in kinds {
                let message = frame::icmp(ip(router), ip(peer), (kind, 0), [0; 4], &[0; 16]);
                assert_eq!(says(&message), (RogueRouter, true));
            }
        }
        let mut says = |frame: &[u8]| verdict(&timed.sends(&from_mac(frame, OTHER_MAC)));
        assert_eq!(says(&advertisement(router, group, 255)), (UnknownSource, false));
    }
}

#[test]
fn from_a_routers_mac_alone_what_goes_to_the_link_is_quiet_but_for_vrrp() {
    let mut timed = with_router();
    let mut says = |from: &str, to: &str| {
        let datagram = frame::udp((ip(from), 5000), (ip(to), 53));
        let advert = advertisement(from, to, 255);
        [datagram, advert].map(|frame| verdict(&timed.sends(&from_mac(&frame, ROUTER_MAC))))
    };
    for (from, to, quiet) in [
        ("192.0.2.99", "224.0.0.22", true),
        ("192.0.2.99", "224.0.1.22", false),
        ("fe80::99", "ff02::16", true),
        ("fe80::99", "ff05::16", false),
        ("fe80::99", "fe80::1", false),
    ] {
        assert_eq!(says(from, to), [(UnknownSource, quiet), (UnknownSource, false)], "{to}");
    }
}

#[test]
fn a_router_of_the_policy_finds_neighbours_from_any_of_its_addresses_and_asks_for_members_quietly() {
    let routers = "[\"192.0.2.3\", \"fe80::2:3\", \"2001:db8:1::3\"]";
    let text =
        format!("{}\n[routers.other]\naddresses = {routers}\nmac = \"02:00:00:00:0f:03\"\n", dmz::POLICY);
    let mut timed = TimedModel::with(&text);
    let discovery = |from: &str, to: &str, kind: u8, hops: u8| {
        let message = frame::icmp_message(ip(from), ip(to), (kind, 0), [0; 4], &[0xfe; 16]);
        frame::Ipv6::new(ip(from), ip(to), frame::ICMPV6, &message).hop_limit(hops).frame()
    };
    let mut says = |frame: &[u8]| verdict(&timed.sends(&from_mac(frame, ROUTER_MAC)));
    for (from, to, kind, hops, expected) in [
        ("2001:db8:1::3", "ff02::1:ff00:1", 135, 255, (Neighbour, false)),
        ("2001:db8:1::3", "ff02::1:ff00:1", 135, 254, (UnknownSource, true)),
        ("2001:db8:1::3", "2001:db8:50::50", 136, 255, (UnknownSource, true)),
        ("2001:db8:1::1", "2001:db8:1::2", 136, 255, (UnknownSource, true)),
        ("2001:db8:1::1", "2001:db8:1::2", 136, 254, (UnknownSource, false)),
        ("2001:db8:1::1", "2001:db8:50::50", 136, 255, (UnknownSource, false)),
        ("fe80::2:9", "ff0e::1:2", 130, 1, (UnknownSource, true)),
        ("fe80::2:9", "ff0e::1:2", 130, 2, (UnknownSource, false)),
    ] {
        assert_eq!(says(&discovery(from, to, kind, hops)), expected, "{from} {to} {kind} {hops}");
    }
}

#[test]
fn vrrp_of_a_server_is_a_rogue_routers_unless_it_needs_it() {
    let mut timed = with_router();
    let advert = advertisement("192.0.2.10", "224.0.0.18", 255);
    assert_eq!(timed.why(&advert), RogueRouter);
    timed.apply(&dmz::POLICY.replace("out   = [", "out   = [\"vrrp to 224.0.0.18\", "));
    assert_eq!(timed.why(&advert), Need);
}

fn with_link_services(setting: &str) -> TimedModel {
    TimedModel::with(
        &dmz::POLICY
            .replace("[policy]", &format!("[policy]\n{setting}\nlink_services = [\"udp/53\"]"))
            .replace("[servers.ns1]", "[servers.ns1]\nmac = [\"02:00:00:00:00:11\", \"02:00:00:00:00:10\"]"),
    )
}

#[test]
fn a_server_asks_the_link_from_a_link_local_address_by_its_mac() {
    let mut timed = with_link_services("");
    let ask = |from: &str, to: &str, port| frame::udp((ip(from), 5000), (ip(to), port));
    let outcome = timed.sends(&ask("fe80::10", "fe80::1", 53));
    assert_eq!((outcome.reason, outcome.server.as_deref()), (Need, Some("ns1")));
    for (from, to, port, expected) in [
        ("fe80::10", "ff02::fb", 53, Need),
        ("febf::1", "fe80::1", 53, Need),
        ("fe80::10", "fe80::1", 54, UnknownSource),
        ("fe80::10", "ff05::fb", 53, UnknownSource),
        ("fe80::10", "2001:db8:50::50", 53, UnknownSource),
        ("fec0::1", "fe80::1", 53, UnknownSource),
        ("::", "fe80::1", 53, UnknownSource),
        ("169.254.7.7", "169.254.7.1", 53, UnknownSource),
    ] {
        assert_eq!(timed.why(&ask(from, to, port)), expected, "{from} {to} {port}");
    }
    assert_eq!(timed.why(&from_mac(&ask("fe80::10", "fe80::1", 53), OTHER_MAC)), UnknownSource);
    let datagram = frame::udp_datagram((ip("fe80::10"), 5000), (ip("fe80::1"), 53), &[0; 8]);
    let first = frame::fragment(ip("fe80::10"), ip("fe80::1"), UDP, (1, 0, true), &datagram);
    assert_eq!(timed.why(&first), UnknownSource);
}

#[test]
fn quarantine_closes_the_services_of_the_link_in_any_mode() {
    for setting in ["", "mode = \"observe\""] {
        let mut timed = with_link_services(setting);
        let question = frame::udp((ip("fe80::10"), 5000), (ip("fe80::1"), 53));
        timed.model.quarantine("web1", None);
        assert_eq!(timed.sends(&question).reason, Need);
        timed.model.quarantine("ns1", None);
        let outcome = timed.sends(&question);
        assert_eq!((outcome.reason, outcome.verdict), (Quarantined, Verdict::Drop));
        assert_eq!((outcome.server.as_deref(), outcome.quiet), (Some("ns1"), false));
    }
}

#[test]
fn each_mac_of_a_server_is_its_own_and_no_other_is() {
    let mut timed = with_link_services("");
    let question = frame::udp((V4.ns, 5000), (V4.peer, 53));
    for (mac, expected) in
        [([2, 0, 0, 0, 0, 0x10], Need), ([2, 0, 0, 0, 0, 0x11], Need), (OTHER_MAC, Spoofed)]
    {
        assert_eq!(timed.why(&from_mac(&question, mac)), expected);
    }
}

#[test]
fn a_listed_ethertype_is_dropped_quietly() {
    let mut timed = TimedModel::setting("quiet_ethertypes = [0x8899, 0x9000]");
    for (kind, quiet) in [(0x8899, true), (0x9000, true), (0x8898, false)] {
        assert_eq!(verdict(&timed.sends(&frame::link_frame(kind, &[0; 46]))), (Ethertype, quiet));
    }
}

#[test]
fn an_address_is_cut_off_with_whatever_server_has_it_and_a_machine_with_its_own() {
    let allow = |text: &str| text.replace("[policy]", "[policy]\nunknown_sources = \"allow\"");
    let mut timed = TimedModel::with(&allow(dmz::POLICY));
    let question = |from| frame::udp((from, 5000), (V4.peer, 53));
    timed.model.quarantine_addresses("192.0.2.53/32".parse().unwrap(), Some(timed.now + 60 * super::SECOND));
    assert_eq!(timed.why(&question(V4.ns)), Quarantined);
    assert_eq!(timed.why(&frame::udp((V6.ns, 5000), (V6.peer, 53))), Need, "another address of it");
    // Its server is gone, and the order is not.
    timed.apply(&allow(&dmz::POLICY.replace("\"192.0.2.53\", ", "")));
    assert_eq!(timed.why(&question(V4.ns)), UnknownSource);
    assert_eq!(timed.why(&question(V4.unknown)), UnknownAllowed);
    timed.wait(60);
    assert_eq!(timed.why(&question(V4.ns)), UnknownAllowed);
    // Of two orders the longer one counts, be it over.
    timed.apply(dmz::POLICY);
    timed.model.quarantine_addresses("192.0.2.0/24".parse().unwrap(), None);
    assert_eq!(timed.why(&question(V4.ns)), Need);
    assert_eq!(timed.why(&frame::tcp((V4.web, 5000), (V4.peer, 25), SYN)), Quarantined);
    timed.model.release_addresses("192.0.2.0/24".parse().unwrap());
    // By a MAC, within one server.
    timed.model.quarantine_machine("ns1", OTHER_MAC, None);
    assert_eq!(timed.why(&from_mac(&question(V4.ns), OTHER_MAC)), Quarantined);
    assert_eq!(timed.why(&question(V4.ns)), Need);
    let other = from_mac(&frame::tcp((V4.web, 5000), (V4.peer, 25), SYN), OTHER_MAC);
    assert_eq!(timed.why(&other), NewFlow);
    timed.apply(&allow(dmz::POLICY));
    assert_eq!(timed.why(&from_mac(&question(V4.unknown), OTHER_MAC)), UnknownSource);
    assert_eq!(timed.why(&question(V4.unknown)), UnknownAllowed);
}

#[test]
fn resets_and_errors_of_a_server_in_quarantine_are_quiet() {
    let mut timed = TimedModel::new();
    timed.model.quarantine("web1", None);
    for port in [80, 7] {
        let outcome = timed.sends(&frame::tcp((V4.web, port), (V4.peer, 4000), frame::RST));
        assert_eq!((outcome.reason, outcome.port, outcome.quiet), (Quarantined, port, true));
    }
    let outcome = timed.sends(&frame::unreachable(V4.web, V4.peer, &[]));
    assert_eq!((outcome.reason, outcome.port, outcome.quiet), (Quarantined, 3, true));
    assert!(timed.model.ledger().keys().all(|key| key.own_port));
}
