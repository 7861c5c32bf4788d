//! Links that lose frames and mix up their order, on either side of the gate.

use super::relay::Relay;
use super::service::ENOUGH;
use super::site::Site;
use super::website::{Website, every_way};
use crate::e2e::testbed::Cut;

const BYTES: usize = 12 << 20;

fn transfer(cut: Cut) {
    let mut site = Site::without_gate();
    let relay = Relay::splice(&site.testbed, cut);
    let web = Website::start(&site.testbed, BYTES);
    site.start_daemon();
    site.outlast_pickup();
    std::thread::scope(|scope| {
        for (family, protocol) in every_way() {
            let (site, web) = (&site, &web);
            scope.spawn(move || {
                assert!(
                    web.download(&site.testbed, &family, protocol, ENOUGH),
                    "{} {protocol:?}",
                    family.web
                );
                assert!(web.upload(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
            });
        }
    });
    // one connection after the other: handshakes and ends get lost as well
    for (family, protocol) in std::iter::repeat_n((), 12).flat_map(|()| every_way()) {
        assert!(web.visit(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
    }
    relay.assert_was_bad();
    site.assert_quiet();
}

#[test]
fn transfers_arrive_whole_when_the_servers_cable_loses_and_reorders() {
    transfer(Cut::Dmz);
}

#[test]
fn transfers_arrive_whole_when_the_internet_loses_and_reorders() {
    transfer(Cut::Internet);
}
