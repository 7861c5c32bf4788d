//! Addresses and prefixes as they are printed.

use std::ops::RangeInclusive;

use ipnet::IpNet;

/// A prefix as people write it: without `/32` or `/128`.
pub fn show_prefix(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// The prefixes that hold a prefix, the longest first. It is none of them.
pub fn list_around(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    (0..prefix.prefix_len()).rev().filter_map(move |bits| Some(IpNet::new(prefix.addr(), bits).ok()?.trunc()))
}

/// The first and the last of all prefixes that lie in a prefix, in their order. It is the first one.
pub fn range_of(prefix: IpNet) -> RangeInclusive<IpNet> {
    prefix.trunc()..=IpNet::from(prefix.broadcast())
}

/// A prefix without some others, in as few prefixes as possible.
pub fn subtract(from: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let inside: Vec<IpNet> =
        holes.iter().copied().filter(|hole| from.contains(hole) || hole.contains(&from)).collect();
    if inside.is_empty() {
        return vec![from];
    }
    if inside.iter().any(|hole| hole.contains(&from)) {
        return Vec::new();
    }
    // a hole is longer, so there is a longer length
    let halves = from.subnets(from.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| subtract(half, &inside)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn prefixes_around_and_inside_are_found_by_their_order() {
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        let around: Vec<IpNet> = list_around(net("192.0.2.160/27")).collect();
        assert_eq!(around.len(), 27);
        assert_eq!((around[0], around[26]), (net("192.0.2.128/26"), net("0.0.0.0/0")));
        let all = prefixes(&[
            "192.0.2.0/24",
            "192.0.2.128/25",
            "192.0.2.128/26",
            "192.0.2.128/27",
            "192.0.2.128/32",
            "192.0.2.191/32",
            "192.0.2.192/26",
            "2001:db8::/32",
        ]);
        let all: std::collections::BTreeSet<IpNet> = all.into_iter().collect();
        let inside: Vec<IpNet> = all.range(range_of(net("192.0.2.128/26"))).copied().collect();
        let expected = ["192.0.2.128/26", "192.0.2.128/27", "192.0.2.128/32", "192.0.2.191/32"];
        assert_eq!(inside, prefixes(&expected));
    }

    #[test]
    fn a_prefix_without_others_is_all_the_rest_of_it() {
        let left = |from: &str, holes: &[&str]| subtract(from.parse().unwrap(), &prefixes(holes));
        let whole = "192.0.2.128/26";
        assert_eq!(left(whole, &[]), prefixes(&[whole]));
        assert_eq!(left(whole, &["192.0.2.0/26", "192.0.2.192/32", "2001:db8::/32"]), prefixes(&[whole]));
        assert_eq!(left(whole, &[whole]), []);
        assert_eq!(left(whole, &["192.0.2.0/24"]), []);
        assert_eq!(left(whole, &["192.0.2.128/27", "192.0.2.160/27"]), []);
        assert_eq!(left(whole, &["192.0.2.128/27"]), prefixes(&["192.0.2.160/27"]));
        assert_eq!(
            left("192.0.2.0/29", &["192.0.2.1/32", "192.0.2.6/31"]),
            prefixes(&["192.0.2.0/32", "192.0.2.2/31", "192.0.2.4/31"])
        );
        assert_eq!(left("2001:db8:1::/64", &["2001:db8:1::7/128"]).len(), 64);
        assert_eq!(left("0.0.0.0/0", &["0.0.0.0/1"]), prefixes(&["128.0.0.0/1"]));
    }

    #[test]
    fn an_address_is_printed_without_its_length() {
        let show = |text: &str| show_prefix(&text.parse().unwrap());
        assert_eq!(show("192.0.2.1/32"), "192.0.2.1");
        assert_eq!(show("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(show("2001:DB8:0::1/128"), "2001:db8::1");
        assert_eq!(show("2001:DB8:0::/64"), "2001:db8::/64");
    }
}
