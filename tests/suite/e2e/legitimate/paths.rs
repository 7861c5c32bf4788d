//! Path MTU discovery: a hop beyond the router has a smaller MTU.

use super::service::{ENOUGH, run_client};
use super::site::Site;
use super::website::{Website, every_way};
use crate::e2e::testbed::{Cut, FAMILIES, Family, Testbed};

const BYTES: usize = 8 << 20;

/// Makes the spliced machine a router with an MTU of 1280 towards the peers.
fn add_narrow_hop(testbed: &Testbed) {
    let hop = testbed.splice(Cut::Internet);
    hop.set_sysctl("ipv4/ip_forward", "1");
    hop.set_sysctl("ipv6/conf/all/forwarding", "1");
    // the peers' next hop is this machine, by the router's addresses; likewise the other way
    hop.ip("link set far mtu 1280 address 02:00:00:00:00:02\n\
         address add 203.0.113.130/30 dev near\n\
         address add 2001:db8:ffff::2/64 dev near nodad\n\
         neighbour add 203.0.113.129 lladdr 02:00:00:00:00:02 dev near nud permanent\n\
         neighbour add 2001:db8:ffff::1 lladdr 02:00:00:00:00:02 dev near nud permanent\n\
         neighbour add 203.0.113.134 lladdr 02:00:00:00:00:03 dev far nud permanent\n\
         neighbour add 2001:db8:fffe::2 lladdr 02:00:00:00:00:03 dev far nud permanent\n\
         address add 203.0.113.133/30 dev far\n\
         address add 2001:db8:fffe::1/64 dev far nodad\n\
         route add 192.0.2.0/24 via 203.0.113.129\n\
         route add 2001:db8:1::/64 via 2001:db8:ffff::1\n\
         route add default via 203.0.113.134\n\
         route add default via 2001:db8:fffe::2\n");
    testbed.internet.ip("address flush dev eth0\n\
         address add 203.0.113.134/30 dev eth0\n\
         address add 2001:db8:fffe::2/64 dev eth0 nodad\n\
         neighbour add 203.0.113.133 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
         neighbour add 2001:db8:fffe::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
         route replace 192.0.2.0/24 via 203.0.113.133\n\
         route replace 2001:db8:1::/64 via 2001:db8:fffe::1\n");
    testbed.wait_for_carrier();
}

/// What the server has learned of the path to the peer.
fn knows_path(testbed: &Testbed, family: &Family) -> bool {
    let command = ["ip", "route", "get", family.peer, "from", family.web];
    run_client(&testbed.dmz, ENOUGH, &command).is_some_and(|said| said.contains("mtu 1280"))
}

#[test]
fn a_server_learns_of_a_narrow_hop_and_transfers_arrive_whole() {
    let mut site = Site::without_gate();
    add_narrow_hop(&site.testbed);
    let web = Website::start(&site.testbed, BYTES);
    site.start_daemon();
    site.outlast_pickup();
    assert!(FAMILIES.iter().all(|family| !knows_path(&site.testbed, family)), "known before");
    for (family, protocol) in every_way() {
        assert!(web.download(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
        assert!(web.upload(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
        assert!(knows_path(&site.testbed, &family), "{}", family.web);
    }
    site.assert_quiet();
}
