//! Which addresses a name may have: the programs and the tool give the same answer.

use std::net::IpAddr;

use portcullis::abi::{from_address, grant, own_network, prefix_key, share_key, to_prefix_key};

use super::{POLICY, v4};
use crate::support::chance::Chance;
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, Message};
use crate::support::test_gate::TestGate;

const RANGES: &str = r#"
private = ["203.0.113.0/24", "2001:db8:50::/48", "10.20.0.0/16"]
nat64 = ["2001:db8:64::/48", "2001:db8:65:100::/56", "64:ff9b:1::/96"]
ttl"#;

/// At the edges of ranges, and inside.
const ADDRESSES: &[&str] = &[
    "0.0.0.1",
    "1.0.0.1",
    "9.255.255.255",
    "10.0.0.1",
    "10.20.0.1",
    "10.21.0.0",
    "100.63.255.255",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.1.1",
    "172.15.255.255",
    "172.31.255.255",
    "172.32.0.0",
    "192.0.0.8",
    "192.0.1.1",
    "192.0.2.10",
    "192.0.2.200",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.20.0.1",
    "198.51.100.1",
    "203.0.113.80",
    "223.255.255.255",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "8.8.4.4",
    "9.9.9.9",
    "::1",
    "::7f00:1",
    "64:ff9b::808:404",
    "64:ff9b::a00:1",
    "64:ff9b::a14:1",
    "64:ff9b:1::808:404",
    "64:ff9b:1::c000:20a",
    "100::1",
    "2001:0:1::1",
    "2001:db8:1::10",
    "2001:db8:50::1",
    "2001:db8:64:808:4:400::",
    "2001:db8:64:a00:0:100::",
    "2001:db8:65:108:8:404::",
    "2001:db8:65:10a:14:1::",
    "2002:808:404::1",
    "2600::1",
    "2a00::1",
    "3fff::1",
    "4000::1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "::ffff:8.8.4.4",
    "::ffff:10.20.0.1",
];

/// By chance in all bits, or next to an address of the list.
fn draw(chance: &mut Chance) -> IpAddr {
    match (ip(chance.pick(ADDRESSES)), chance.below(3)) {
        (IpAddr::V4(_), 0) => IpAddr::V4((chance.next() as u32).into()),
        (IpAddr::V4(ip), _) => IpAddr::V4((u32::from(ip) ^ 1 << chance.below(32)).into()),
        (IpAddr::V6(ip), _) => IpAddr::V6((u128::from(ip) ^ 1 << chance.below(128)).into()),
    }
}

#[test]
fn the_tool_finds_for_each_address_what_the_programs_find() {
    let policy = POLICY.replace("private = [\"203.0.113.0/24\", \"2001:db8:50::/48\"]\n", "");
    let policy = policy.replace("[sets]", &format!("{} = [300, 86400]\n[sets]", RANGES.trim_start()));
    let gate = TestGate::new(&policy);
    for (network, kind) in
        [("9.9.9.9/32", own_network::OWN_NETWORK_ADDRESS), ("2600::/64", own_network::OWN_NETWORK_LINK)]
    {
        let key: prefix_key = to_prefix_key(&network.parse().expect("a prefix"));
        gate.maps.own_networks.put(&key, &kind.0, libbpf_rs::MapFlags::ANY).expect("an entry");
    }
    let mut chance = Chance::new(64);
    let drawn: Vec<IpAddr> = (0..1_000).map(|_| draw(&mut chance)).collect();
    let (mut granted, mut refused) = (0, 0);
    for (number, address) in ADDRESSES.iter().map(|text| ip(text)).chain(drawn).enumerate() {
        gate.change("grants", |grant: &mut grant| {
            (grant.open_until_ns, grant.address) = (1, Default::default());
        });
        let kind = if address.is_ipv4() { A } else { AAAA };
        let query = Message::query(number as u16, "deb.vendor.example", kind);
        v4().ask(&gate, &query);
        v4().receive(&gate, &query.addresses(&[address], 60));
        let grants = gate.entries::<share_key, grant>("grants");
        let by_programs = grants.iter().any(|(_, grant)| from_address(&grant.address) == Some(address));
        assert_eq!(gate.may_be_granted(address).expect("an answer"), by_programs, "{address}");
        *(if by_programs { &mut granted } else { &mut refused }) += 1;
    }
    assert!(granted > 200 && refused > 200, "{granted} granted, {refused} refused");
}
