use std::collections::BTreeSet;

use super::*;
use crate::gate::{Around, Nic, NicKind, ServerRoute};

fn nic(index: u32, name: &str, prefixes: &[&str]) -> Nic {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Nic { index, name: name.to_owned(), prefixes, ..Nic::default() }
}

/// `dmz0` with the servers, and `wan0` with the internet.
fn around(more: Vec<Nic>) -> Around {
    let mut nics = vec![nic(2, "dmz0", &["192.0.2.0/24"]), nic(3, "wan0", &["203.0.113.0/30"])];
    nics.extend(more);
    Around { own: 2, nics, above: [2].into(), outward: [3].into(), ..Around::default() }
}

fn route(server: &str, prefix: &str, interface: Option<u32>) -> ServerRoute {
    ServerRoute { server: server.to_owned(), prefix: prefix.parse().unwrap(), interface }
}

fn ids(found: &[Finding]) -> Vec<FindingId> {
    found.iter().map(|finding| finding.id).collect()
}

#[test]
fn every_finding_has_an_id_of_its_own_and_stands_in_the_documentation() {
    let names: BTreeSet<&str> = FINDINGS.iter().map(|id| id.name()).collect();
    assert_eq!(names.len(), FINDINGS.len());
    let page = include_str!("../../docs/doctor.md");
    for id in FINDINGS {
        let row = format!("| `{}` | {} |", id.name(), id.severity());
        assert!(page.contains(&row), "docs/doctor.md has no row that begins with {row}");
    }
}

#[test]
fn every_part_has_a_finding_and_every_finding_a_part() {
    for id in FINDINGS {
        let finding = Finding { id: *id, about: String::new(), text: String::new(), remedy: String::new() };
        assert!(PARTS.contains(&finding.part()), "{}", finding.part());
    }
    for part in PARTS {
        let of = |id: &&FindingId| {
            Finding { id: **id, about: String::new(), text: String::new(), remedy: String::new() }.part()
                == part
        };
        assert!(FINDINGS.iter().any(|id| of(&id)), "{part}");
    }
}

#[test]
fn a_wrong_nic_hides_the_servers_that_are_elsewhere_for_they_have_the_same_cause() {
    let plain = around(vec![]);
    let here = [route("web1", "192.0.2.10/32", Some(2)), route("web2", "192.0.2.11/32", None)];
    assert_eq!(ids(&subnet::judge(&plain, &here)), []);
    let some = [route("web1", "192.0.2.10/32", Some(2)), route("db", "198.51.100.9/32", Some(3))];
    assert_eq!(ids(&subnet::judge(&plain, &some)), [FindingId::ServersElsewhere]);
    let all = [route("web1", "192.0.2.10/32", Some(3)), route("db", "198.51.100.9/32", None)];
    assert_eq!(ids(&subnet::judge(&plain, &all)), [FindingId::WrongNic]);
    assert_eq!(ids(&subnet::judge(&plain, &[])), [], "a policy without servers says nothing");
}

#[test]
fn a_second_nic_in_the_subnet_is_found_unless_it_has_a_gate_of_its_own_or_lies_above() {
    let second = nic(4, "dmz1", &["192.0.2.128/25"]);
    assert_eq!(ids(&subnet::judge(&around(vec![second.clone()]), &[])), [FindingId::SecondNic]);
    let gated = Nic { has_gate: true, ..second.clone() };
    assert_eq!(ids(&subnet::judge(&around(vec![gated]), &[])), []);
    let mut above = around(vec![second]);
    above.above.insert(4);
    assert_eq!(ids(&subnet::judge(&above, &[])), []);
}

#[test]
fn siblings_of_a_vlan_bypass_its_gate_and_ports_of_a_bridge_too() {
    let vlan = |index, name: &str| Nic { kind: NicKind::Vlan, below: Some(9), ..nic(index, name, &[]) };
    let mut vlans = around(vec![nic(9, "trunk", &[]), vlan(5, "trunk.8")]);
    vlans.nics[0] = vlan(2, "dmz0");
    assert_eq!(ids(&bypass::judge(&vlans)), [FindingId::VlanSibling]);
    vlans.nics.pop();
    assert_eq!(ids(&bypass::judge(&vlans)), [], "the only VLAN");

    let port = |index, name: &str| Nic { member_of: Some(9), ..nic(index, name, &[]) };
    let bridge = Nic { kind: NicKind::Bridge, ..nic(9, "br0", &[]) };
    let mut bridged = around(vec![bridge, port(5, "eth5")]);
    bridged.nics[0].member_of = Some(9);
    assert_eq!(ids(&bypass::judge(&bridged)), [FindingId::BridgePort]);
    bridged.nics.pop();
    assert_eq!(ids(&bypass::judge(&bridged)), [], "the only port");
}
