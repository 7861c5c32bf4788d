//! Peers that are close together, as prefixes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// So few peers in a network are not joined.
const MIN_JOINED: usize = 4;
/// The widest prefixes that are proposed.
const WIDEST_V4: u8 = 24;
const WIDEST_V6: u8 = 56;

/// Peers that are close together as prefixes, each no wider than it must be.
pub(super) fn join_peers(peers: impl Iterator<Item = IpAddr>) -> (Vec<IpNet>, Option<String>) {
    let mut networks: BTreeMap<IpNet, Vec<IpAddr>> = BTreeMap::new();
    for peer in peers {
        let widest = if peer.is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        let network = IpNet::new(peer, widest).map_or_else(|_| IpNet::from(peer), |network| network.trunc());
        networks.entry(network).or_default().push(peer);
    }
    let (mut prefixes, mut remarks) = (Vec::new(), Vec::new());
    for peers in networks.into_values() {
        if peers.len() < MIN_JOINED {
            prefixes.extend(peers.into_iter().map(IpNet::from));
            continue;
        }
        let prefix = cover(&peers);
        let bits = prefix.max_prefix_len() - prefix.prefix_len();
        let all = match bits {
            0..=31 => (1_u64 << bits).to_string(),
            bits => format!("2^{bits}"),
        };
        remarks.push(format!("{prefix}: seen {} of {all}", peers.len()));
        prefixes.push(prefix);
    }
    prefixes.sort_unstable();
    (prefixes, (!remarks.is_empty()).then(|| remarks.join(", ")))
}

/// The longest prefix that holds all these addresses of one family.
fn cover(peers: &[IpAddr]) -> IpNet {
    let first = peers.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let longest = IpNet::from(first);
    let mut around = std::iter::once(longest).chain(crate::net::list_around(longest));
    around.find(|prefix| peers.iter().all(|peer| prefix.contains(peer))).unwrap_or(longest)
}
