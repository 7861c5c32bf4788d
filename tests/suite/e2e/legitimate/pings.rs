//! ping where it is allowed, and not where it is not.

use super::service::{A_SECOND, ENOUGH, run_client};
use super::site::Site;
use crate::e2e::testbed::{Testbed, in_both_families};
use crate::support::patience::Wait;

fn pings(testbed: &Testbed, from: &str, to: &str, wait: Wait, size: &str) -> bool {
    run_client(
        &testbed.internet,
        wait,
        &["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-s", size, "-I", from, to],
    )
    .is_some_and(|said| said.contains("3 received"))
}

#[test]
fn a_server_that_may_be_pinged_answers_in_fragments_too() {
    let site = Site::new();
    in_both_families(|family| {
        for size in ["0", "56", "1472", "4000", "20000"] {
            assert!(pings(&site.testbed, family.peer, family.web, ENOUGH, size), "{} {size}", family.web);
        }
    });
    site.assert_quiet();
    in_both_families(|family| {
        let need = if family.web.contains(':') { "icmpv6/echo-request" } else { "icmp/echo-request" };
        site.hangs_on("web1", ("web", "in", need), |wait| {
            pings(&site.testbed, family.peer, family.web, wait, "56")
        });
    });
}

#[test]
fn a_server_that_may_not_be_pinged_does_not_answer_and_that_is_no_alarm() {
    let site = Site::new();
    in_both_families(|family| {
        assert!(pings(&site.testbed, family.peer, family.web, ENOUGH, "56"));
        // in fragments, too
        for size in ["56", "3000"] {
            assert!(!pings(&site.testbed, family.peer, family.mail, A_SECOND, size));
        }
    });
    site.assert_silent();
    let drops = site.testbed.drops();
    assert!(!drops.is_empty() && drops.iter().all(|row| row.0["reason"] == "backscatter"), "{drops:#?}");
}
