//! A capture of real traffic gives the drops that the gate on the link had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::policies::dmz;
use super::services::{attempt_all, start_servers};
use super::tap::Tap;
use super::testbed::{Testbed, share_machine};
use crate::support::capture::{ETHERNET, Timed, pcap, write};
use crate::support::patience::eventually;

/// Packets by server, service and reason.
type Counts = BTreeMap<(String, String, String), u64>;

fn count_live(testbed: &Testbed) -> Counts {
    let mut counts = Counts::new();
    for row in testbed.show("drops").as_array().expect("a list") {
        let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        if ["tcp", "udp"].contains(&word("proto").as_str()) {
            let service = format!("{}/{}", word("proto"), row["port"]);
            *counts.entry((word("server"), service, word("reason"))).or_default() +=
                row["packets"].as_u64().expect("a number");
        }
    }
    counts
}

fn count_replayed(testbed: &Testbed, policy: &str, frames: &[Timed]) -> Counts {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = write(folder.path(), "link.pcap", &pcap(ETHERNET, frames));
    let found = testbed.router.portcullis(&["replay", "-j", "-p", policy, capture.to_str().expect("UTF-8")]);
    let found = found.done().json();
    assert!(found["before"].as_array().is_some_and(Vec::is_empty), "{}", found["before"]);
    let mut counts = Counts::new();
    for row in found["drops"].as_array().expect("a list") {
        let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        if word("service").starts_with("tcp/") || word("service").starts_with("udp/") {
            *counts.entry((word("server"), word("service"), word("reason"))).or_default() +=
                row["packets"].as_u64().expect("a number");
        }
    }
    counts
}

#[test]
fn a_capture_of_the_link_gives_the_drops_that_the_gate_had() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    let frames: Arc<Mutex<Vec<Timed>>> = Arc::default();
    let (kept, began) = (Arc::clone(&frames), Instant::now());
    // At the servers' end: the driver drops before the router's own tap could see it.
    let tap = Tap::watching(
        &testbed.dmz,
        "eth0",
        move |frame| {
            kept.lock().expect("the frames").push((began.elapsed().as_millis() as u64, frame.to_vec()));
        },
        |_| true,
    );
    testbed.attach(&dmz());
    attempt_all(&testbed, true);
    let policy = testbed.write("replay.toml", &dmz());
    // servers go on to answer for a while, so the two are compared until nothing comes in between
    let mut last = None;
    eventually("the capture gives the drops of the ledger", || {
        testbed.catch_up_inside(&tap);
        let taken = frames.lock().expect("the frames").clone();
        let (live, replayed) = (count_live(&testbed), count_replayed(&testbed, &policy, &taken));
        let is_same = live == replayed;
        last = Some((live, replayed));
        is_same
    });
    let (live, _) = last.expect("a comparison");
    let reasons: Vec<&str> = live.keys().map(|(_, _, reason)| reason.as_str()).collect();
    for reason in ["new_flow", "unlisted_service", "destination", "stranger"] {
        assert!(reasons.contains(&reason), "{live:#?}");
    }
}
