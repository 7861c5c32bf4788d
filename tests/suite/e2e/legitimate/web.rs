//! HTTP/1.1 in the clear and HTTP/2 over TLS.

use super::service::{BRIEF_S, ENOUGH_S};
use super::site::Site;
use super::website::{Protocol, Website, every_way};

const BYTES: usize = 16 << 20;

#[test]
fn downloads_and_uploads_arrive_whole_over_http_1_and_over_http_2_with_tls() {
    let site = Site::new();
    let web = Website::start(&site.testbed, BYTES);
    for (family, protocol) in every_way() {
        assert!(web.download(&site.testbed, &family, protocol, ENOUGH_S), "{} {protocol:?}", family.web);
        assert!(web.upload(&site.testbed, &family, protocol, ENOUGH_S), "{} {protocol:?}", family.web);
    }
    site.assert_quiet();
    for (family, protocol) in every_way() {
        let port = if matches!(protocol, Protocol::Http1) { "tcp/80" } else { "tcp/443" };
        site.hangs_on("web1", ("web", "in", port), |patience_s| {
            web.download(&site.testbed, &family, protocol, patience_s)
        });
    }
}

#[test]
fn a_visitor_who_leaves_in_the_middle_and_a_server_that_does_raise_no_alarm() {
    let site = Site::new();
    let web = Website::start(&site.testbed, BYTES);
    for _ in 0..3 {
        for (family, protocol) in every_way() {
            // killed by timeout(1) with data under way
            assert!(!web.download_slowly(&site.testbed, &family, protocol, 1, "1M"));
        }
    }
    for (family, protocol) in every_way() {
        assert!(web.download(&site.testbed, &family, protocol, ENOUGH_S));
    }
    site.assert_quiet();
    std::thread::scope(|scope| {
        for (family, protocol) in every_way() {
            let (web, site) = (&web, &site);
            scope.spawn(move || web.download_slowly(&site.testbed, &family, protocol, BRIEF_S, "100k"));
        }
        crate::e2e::testbed::eventually("flows are open", || {
            site.testbed.show("flows").as_array().is_some_and(|flows| flows.len() >= 4)
        });
        web.stop();
    });
    site.assert_quiet();
    // a port of a service that nobody serves now is refused, and that is an answer too
    for (family, protocol) in every_way() {
        assert!(!web.download(&site.testbed, &family, protocol, BRIEF_S));
    }
    site.assert_quiet();
}
