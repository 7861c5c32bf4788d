use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::NeighbourAddress;

use super::super::links::to_link;
use super::*;

fn link(index: u32, below: Option<u32>, member_of: Option<u32>) -> Link {
    Link { index, below, member_of, ..Link::default() }
}

#[test]
fn interfaces_above_are_found_at_any_height_and_those_beside_are_not() {
    // NIC 2 in bridge 3, VLAN 4 on the bridge, macvlan 5 on the VLAN; NIC 6 in the bridge, NIC 7 alone
    let links = [
        link(1, None, None),
        link(2, None, Some(3)),
        link(3, None, None),
        link(4, Some(3), None),
        link(5, Some(4), None),
        link(6, None, Some(3)),
        link(7, None, None),
        link(8, Some(7), None),
    ];
    assert_eq!(find_above(2, &links), [2, 3, 4, 5].into());
    assert_eq!(find_above(7, &links), [7, 8].into());
    assert_eq!(find_above(9, &links), [9].into(), "gone");
}

#[test]
fn interfaces_below_are_found_at_any_depth_and_those_beside_are_not() {
    // NICs 2 and 3 in bond 4, VLAN 5 on the bond, in bridge 6 with NIC 7; VLAN 8 on the bond
    let links = [
        link(2, None, Some(4)),
        link(3, None, Some(4)),
        link(4, None, None),
        link(5, Some(4), Some(6)),
        link(6, None, None),
        link(7, None, Some(6)),
        link(8, Some(4), None),
    ];
    assert_eq!(find_below(6, &links), [2, 3, 4, 5, 7].into());
    assert_eq!(find_below(8, &links), [2, 3, 4].into());
    assert_eq!(find_below(4, &links), [2, 3].into());
    assert_eq!(find_below(7, &links), BTreeSet::new());
}

#[test]
fn the_loopback_interface_is_listed() {
    let links = list_links().unwrap();
    let lo = links.iter().find(|link| link.index == 1).unwrap();
    assert_eq!((lo.mac, lo.below, lo.member_of), (Some([0; 6]), None, None));
}

#[test]
fn a_device_above_one_of_another_namespace_is_above_none_of_this_one() {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.attributes =
        vec![LinkAttribute::Link(2), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)])];
    assert_eq!(to_link(&message).below, Some(2));
    message.attributes.push(LinkAttribute::LinkNetNsId(0));
    assert_eq!(to_link(&message).below, None);
}

fn entry(ifindex: u32, flags: NeighbourFlags, nud: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    (entry.header.ifindex, entry.header.flags, entry.header.state) = (ifindex, flags, nud);
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    entry
}

#[test]
fn a_mac_that_the_nic_takes_is_neither_a_group_nor_one_that_a_bridge_or_a_switch_has_learnt() {
    let (own, learnt) = (NeighbourFlags::Own, NeighbourFlags::Controller);
    let (permanent, reachable) = (NeighbourState::Permanent, NeighbourState::Reachable);
    let (mac, group) = ([2, 0, 0, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]);
    let taken = BridgeEntry { interface: 2, mac, is_taken: true };
    assert_eq!(read_bridge_entry(&entry(2, own, permanent, mac)), Some(taken));
    // a switch of this machine lists its hosts so, and static ones without a state of age
    for other in [
        entry(2, own, reachable, mac),
        entry(2, own, NeighbourState::Noarp, mac),
        entry(2, own | NeighbourFlags::ExtLearned, NeighbourState::None, mac),
        entry(2, learnt, permanent, mac),
        entry(2, own | learnt, permanent, mac),
        entry(2, NeighbourFlags::empty(), permanent, mac),
    ] {
        assert_eq!(read_bridge_entry(&other), Some(BridgeEntry { is_taken: false, ..taken }), "{other:?}");
    }
    assert_eq!(read_bridge_entry(&entry(2, own, permanent, group)), None);
    let mut tunnelled = entry(2, own, permanent, mac);
    let far = NeighbourAddress::Inet([192, 0, 2, 1].into());
    tunnelled.attributes.push(NeighbourAttribute::Destination(far));
    assert_eq!(read_bridge_entry(&tunnelled), None);
}

#[test]
fn hosts_behind_other_ports_of_the_bridge_are_forwarded_and_those_behind_the_own_are_neighbours() {
    let mac = |last: u8| [2, 0, 0, 0, 0, last];
    let number = |last: u8| to_mac_number(mac(last));
    let device = |index: u32, member_of| Link { mac: Some(mac(index as u8)), ..link(index, None, member_of) };
    // NIC 2 and NIC 6 in bridge 3, NIC 7 in bond 8, which is in the bridge too
    let bridge = Link { kind: Some(InfoKind::Bridge), ..device(3, None) };
    let links =
        [device(2, Some(3)), bridge.clone(), device(6, Some(3)), device(7, Some(8)), device(8, Some(3))];
    let host = |interface, last| BridgeEntry { interface, mac: mac(last), is_taken: false };
    let entries = [
        host(2, 20),
        host(6, 60),
        host(8, 80),
        host(9, 90),
        BridgeEntry { is_taken: true, ..host(2, 22) },
        BridgeEntry { is_taken: true, ..host(6, 66) },
        host(2, 3),
    ];
    let around = put_together(2, &links, &entries, find_above(2, &links));
    let expected = LinkSurvey {
        nic: number(2),
        devices: [2, 3, 22].map(number).into(),
        above: [2, 3].into(),
        is_bridged: true,
        behind_others: [60, 80].map(number).into(),
        neighbours: [20].map(number).into(),
    };
    assert_eq!(around, expected);
    // alone in its bridge, the NIC forwards nothing past this machine; nor does one of two in a bond
    let alone = put_together(2, &links[..2], &entries, find_above(2, &links[..2]));
    assert!(!alone.is_bridged && alone.behind_others.is_empty());
    let bond = [device(2, Some(3)), device(3, None), device(6, Some(3))];
    assert!(!put_together(2, &bond, &entries, find_above(2, &bond)).is_bridged);
}

#[test]
fn a_host_behind_another_port_stays_there_for_minutes_though_the_bridge_forgets_it() {
    let shift = own_mac_flag::OWN_MAC_SEEN_SHIFT.0;
    let seen = LinkSurvey {
        nic: 2,
        devices: [2, 3].into(),
        is_bridged: true,
        behind_others: [60].into(),
        ..LinkSurvey::default()
    };
    let first = merge_macs(&BTreeMap::new(), &seen, 1_000);
    assert_eq!(first, [(2, 3), (3, 1), (60, 1_000 << shift)].into());
    assert_eq!(merge_macs(&first, &seen, 1_059)[&60], 1_000 << shift, "written seldom");
    assert_eq!(merge_macs(&first, &seen, 1_060)[&60], 1_060 << shift);
    let unseen = LinkSurvey { behind_others: BTreeSet::new(), ..seen.clone() };
    assert_eq!(merge_macs(&first, &unseen, 1_299)[&60], 1_000 << shift);
    assert_eq!(merge_macs(&first, &unseen, 1_300).get(&60), None);
    // a device that is gone is forgotten at once
    let fewer = LinkSurvey { devices: [2].into(), ..seen };
    assert_eq!(merge_macs(&first, &fewer, 1_001).get(&3), None);
}

#[test]
fn the_kernel_understands_the_question_for_entries_of_bridges() {
    let lo = list_bridge_entries().unwrap().into_iter().filter(|entry| entry.interface == 1);
    assert_eq!(lo.count(), 0);
}
