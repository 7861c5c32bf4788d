//! HTTP/1.1 in the clear and HTTP/2 over TLS.

use super::service::{A_SECOND, BRIEF, ENOUGH};
use super::site::Site;
use super::website::{Protocol, Website, every_way};
use crate::support::patience::eventually;

const BYTES: usize = 16 << 20;

#[test]
fn downloads_and_uploads_arrive_whole_over_http_1_and_over_http_2_with_tls() {
    let site = Site::new();
    let web = Website::start(&site.testbed, BYTES);
    for (family, protocol) in every_way() {
        assert!(web.download(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
        assert!(web.upload(&site.testbed, &family, protocol, ENOUGH), "{} {protocol:?}", family.web);
    }
    site.assert_quiet();
    for (family, protocol) in every_way() {
        let port = if matches!(protocol, Protocol::Http1) { "tcp/80" } else { "tcp/443" };
        site.hangs_on("web1", ("web", "in", port), |wait| {
            web.download(&site.testbed, &family, protocol, wait)
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
            assert!(!web.download_slowly(&site.testbed, &family, protocol, A_SECOND, "1M"));
        }
    }
    for (family, protocol) in every_way() {
        assert!(web.download(&site.testbed, &family, protocol, ENOUGH));
    }
    site.assert_quiet();
    std::thread::scope(|scope| {
        for (family, protocol) in every_way() {
            let (web, site) = (&web, &site);
            scope.spawn(move || web.download_slowly(&site.testbed, &family, protocol, BRIEF, "100k"));
        }
        eventually("flows are open", || {
            site.testbed.show("flows").as_array().is_some_and(|flows| flows.len() >= 4)
        });
        web.stop();
    });
    site.assert_quiet();
    // a port of a service that nobody serves now is refused, and that is an answer too
    for (family, protocol) in every_way() {
        assert!(!web.download(&site.testbed, &family, protocol, BRIEF));
    }
    site.assert_quiet();
}
