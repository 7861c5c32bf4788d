//! ping where it is allowed, and not where it is not.

use super::service::{ENOUGH_S, run_client};
use super::site::Site;
use crate::e2e::testbed::{FAMILIES, Testbed};

fn pings(testbed: &Testbed, from: &str, to: &str, patience_s: u32, size: &str) -> bool {
    run_client(
        &testbed.internet,
        patience_s,
        &["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-s", size, "-I", from, to],
    )
    .is_some_and(|said| said.contains("3 received"))
}

#[test]
fn a_server_that_may_be_pinged_answers_in_fragments_too() {
    let site = Site::new();
    for family in FAMILIES {
        for size in ["0", "56", "1472", "4000", "20000"] {
            assert!(pings(&site.testbed, family.peer, family.web, ENOUGH_S, size), "{} {size}", family.web);
        }
    }
    site.assert_quiet();
    for family in FAMILIES {
        let need = if family.web.contains(':') { "icmpv6/echo-request" } else { "icmp/echo-request" };
        site.hangs_on("web1", ("web", "in", need), |patience_s| {
            pings(&site.testbed, family.peer, family.web, patience_s, "56")
        });
    }
}

#[test]
fn a_server_that_may_not_be_pinged_does_not_answer_and_that_is_no_alarm() {
    let site = Site::new();
    for family in FAMILIES {
        assert!(pings(&site.testbed, family.peer, family.web, ENOUGH_S, "56"));
        assert!(!pings(&site.testbed, family.peer, family.mail, 1, "56"));
    }
    site.assert_silent();
    let drops = site.testbed.drops();
    assert!(!drops.is_empty() && drops.iter().all(|row| row.0["reason"] == "backscatter"), "{drops:#?}");
}
