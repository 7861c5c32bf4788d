//! MACs, routers and EtherTypes: what is on the link beside the servers' needs.

use super::{BASE, complaints, diff, help, read};

fn with_server(lines: &str) -> String {
    format!("[servers.s]\naddresses = [\"192.0.2.1\"]\n{lines}\n")
}

/// A policy whose router has these keys; the first one is in line 9.
fn with_router(lines: &str) -> String {
    format!("{BASE}[routers.peer]\n{lines}\n")
}

const ROUTER: &str =
    "addresses = [\"192.0.2.3\", \"fe80::2:3\"]\nmac = [\"02:00:00:00:0f:03\", \"00:00:5e:00:01:0a\"]";

fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&read(old), &read(new)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_server_has_one_mac_or_a_list_of_them() {
    let macs = |lines: &str| -> Vec<[u8; 6]> {
        read(&with_server(lines)).servers[0].macs.iter().map(|(mac, _)| *mac).collect()
    };
    let (own, shared) = ([2, 0, 0, 0, 0, 1], [0, 0, 0x5e, 0, 1, 0x33]);
    assert_eq!(macs(""), [[0; 6]; 0]);
    assert_eq!(macs("mac = \"02:00:00:00:00:01\""), [own]);
    assert_eq!(macs("mac = [\"02:00:00:00:00:01\"]"), [own]);
    assert_eq!(macs("mac = [\"02:00:00:00:00:01\", \"00:00:5e:00:01:33\"]"), [own, shared]);
}

#[test]
fn a_list_of_macs_is_refused_at_the_one_that_is_wrong() {
    let text = with_server("mac = [\"02:00:00:00:00:01\", \"03:00:00:00:00:01\"]");
    assert_eq!(complaints(&text), ["3:30: `03:00:00:00:00:01` can't be the source of a frame"]);
    let text = with_server("mac = [\"02:00:00:00:00:01\", \"02-00-00-00-00-01\"]");
    assert_eq!(complaints(&text), ["3:30: `02-00-00-00-00-01` is in this list already"]);
    assert_eq!(complaints(&with_server("mac = []")), ["3:1: `mac` has no MAC"]);
    assert_eq!(help(&with_server("mac = []")), "add a MAC, or remove the key");
    assert_eq!(complaints(&with_server("mac = 7")), ["3:7: `mac` must be text or a list, not a number"]);
}

#[test]
fn the_order_of_macs_makes_no_difference_but_each_mac_does() {
    let one = with_server("mac = \"02:00:00:00:00:01\"");
    let both = with_server("mac = [\"02:00:00:00:00:01\", \"02:00:00:00:00:02\"]");
    let turned = with_server("mac = [\"02:00:00:00:00:02\", \"02:00:00:00:00:01\"]");
    assert!(changes(&both, &turned).is_empty());
    assert_eq!(changes(&one, &both), ["~ s mac 02:00:00:00:00:01 -> 02:00:00:00:00:01, 02:00:00:00:00:02"]);
}

#[test]
fn a_router_is_read_with_its_link_local_address_and_its_virtual_mac() {
    let policy = read(&with_router(ROUTER));
    let router = &policy.routers[0];
    let addresses: Vec<String> = router.addresses.iter().map(|(address, _)| address.to_string()).collect();
    assert_eq!(
        (router.name.as_str(), &addresses[..]),
        ("peer", &["192.0.2.3".into(), "fe80::2:3".into()][..])
    );
    assert_eq!(router.macs[1].0, [0, 0, 0x5e, 0, 1, 0x0a]);
    let single = read(&with_router("addresses = \"192.0.2.3\"\nmac = \"02:00:00:00:0f:03\""));
    assert_eq!((single.routers[0].addresses.len(), single.routers[0].macs.len()), (1, 1));
}

#[test]
fn a_router_needs_addresses_and_a_mac() {
    assert_eq!(complaints(&with_router("addresses = \"192.0.2.3\"")), ["8:1: [routers.peer] has no `mac`"]);
    assert_eq!(
        complaints(&with_router("mac = \"02:00:00:00:0f:03\"")),
        ["8:1: [routers.peer] has no `addresses`"]
    );
    let text = with_router("addresses = []\nmac = \"02:00:00:00:0f:03\"");
    assert_eq!(complaints(&text), ["9:1: router `peer` has no address"]);
    let text = with_router("addresses = \"192.0.2.3\"\nmac = \"02:00:00:00:0f:03\"\nvlan = 7");
    assert_eq!(complaints(&text), ["11:1: unknown key `vlan` in [routers.peer]"]);
}

#[test]
fn a_routers_address_is_its_own() {
    let with = |addresses: &str| {
        complaints(&format!(
            "{BASE}[servers.farm]\naddresses = [\"192.0.2.128/26\"]\n[routers.peer]\naddresses = {addresses}\n\
             mac = \"02:00:00:00:0f:03\"\n"
        ))
    };
    assert_eq!(with("\"192.0.2.10\""), ["11:14: server `web1` already has `192.0.2.10`"]);
    assert_eq!(with("\"192.0.2.130\""), ["11:14: server `farm` already has `192.0.2.130`"]);
    assert_eq!(with("\"192.0.2.0/30\""), ["11:14: a router has addresses, and `192.0.2.0/30` is a prefix"]);
    assert_eq!(with("\"224.0.0.18\""), ["11:14: `224.0.0.18` is multicast: no packet has such a source"]);
    assert_eq!(with("[\"192.0.2.3\", \"192.0.2.3\"]"), ["11:28: this router already has `192.0.2.3`"]);
    let second = format!("{}[routers.other]\n{ROUTER}\n", with_router(ROUTER));
    assert_eq!(
        complaints(&second),
        ["12:15: router `peer` already has `192.0.2.3`", "12:28: router `peer` already has `fe80::2:3`"]
    );
}

#[test]
fn a_changed_router_is_a_difference() {
    let with = with_router(ROUTER);
    let shown = "192.0.2.3, fe80::2:3 mac 00:00:5e:00:01:0a, 02:00:00:00:0f:03";
    assert_eq!(changes(BASE, &with), [format!("~ routers.peer none -> {shown}")]);
    assert_eq!(changes(&with, BASE), [format!("~ routers.peer {shown} -> none")]);
    let turned = with.replace("[\"192.0.2.3\", \"fe80::2:3\"]", "[\"fe80::2:3\", \"192.0.2.3\"]");
    assert!(turned != with && changes(&with, &turned).is_empty());
}

#[test]
fn routers_are_in_the_summary() {
    let text = super::describe(&read(&with_router(ROUTER)), super::Detail::Full);
    let line = "\nrouters\n  peer  192.0.2.3, fe80::2:3  mac 02:00:00:00:0f:03, 00:00:5e:00:01:0a\n";
    assert!(text.contains(line), "{text}");
    assert!(!super::describe(&read(BASE), super::Detail::Full).contains("routers"));
}

#[test]
fn quiet_ethertypes_are_numbers_of_ethertypes() {
    let with = |list: &str| format!("{BASE}[policy]\nquiet_ethertypes = {list}\n");
    let read = |list: &str| read(&with(list)).settings.quiet_ethertypes.0;
    assert_eq!(read("[]"), [0; 0]);
    assert_eq!(read("[0x8899, 34969, 0x0600, 0xffff]"), [0x8899, 0x0600, 0xffff], "each once");
    let message = "each element of `quiet_ethertypes` must be from 0x0600 to 0xffff";
    assert_eq!(
        complaints(&with("[0x05ff, 0x10000, -1]")),
        [format!("9:21: {message}"), format!("9:29: {message}"), format!("9:38: {message}")]
    );
    assert_eq!(
        complaints(&with("[\"0x8899\"]")),
        ["9:21: each element of `quiet_ethertypes` must be a whole number, not text"]
    );
    assert_eq!(
        complaints(&with("0x8899")),
        ["9:20: `quiet_ethertypes` must be a list of whole numbers, not a number"]
    );
    let list = |count: u32| format!("{:?}", (0x9000..0x9000 + count).collect::<Vec<u32>>());
    assert_eq!(read(&list(16)).len(), 16);
    assert_eq!(complaints(&with(&list(17))), ["9:20: `quiet_ethertypes` has 17, and at most 16 fit"]);
}

#[test]
fn services_of_the_link_are_needs_without_clauses() {
    let with =
        |needs: &str| format!("{BASE}mac = \"02:00:00:00:00:10\"\n[policy]\nlink_services = {needs}\n");
    let policy = read(&with("[\"udp/domain\", \"udp/ntp\"]"));
    assert_eq!(policy.settings.link_services.0.len(), 2);
    let text = super::describe(&policy, super::Detail::Full);
    assert!(
        text.contains("\nevery server asks its link udp/53\n                           udp/123\n"),
        "{text}"
    );
    assert!(!super::describe(&read(BASE), super::Detail::Full).contains("its link"));
    for (need, clause) in
        [("udp/53 to fe80::1", "to"), ("udp/53 sport 53", "sport"), ("udp/53 limit 5/s", "limit")]
    {
        let text = with(&format!("[\"{need}\"]"));
        assert_eq!(complaints(&text), [format!("10:19: a need of `link_services` has no `{clause}`")]);
    }
    assert_eq!(complaints(&with("[\"udp/53 from fe80::1\"]")).len(), 1, "`from` belongs to `in`");
}

#[test]
fn services_of_the_link_need_a_server_with_a_mac() {
    let text = format!("{BASE}[policy]\nlink_services = [\"udp/53\"]\n");
    assert_eq!(
        complaints(&text),
        ["9:19: `link_services` knows servers by their MACs, and no server has a `mac`"]
    );
    assert_eq!(help(&text), "give the servers that need these services a `mac`");
    read(&text.replace("[\"udp/53\"]", "[]"));
}
