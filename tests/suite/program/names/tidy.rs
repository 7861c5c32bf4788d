//! The tool removes what is long over, and nothing else.

use portcullis::abi::{Reason, domain, flow_key, grant, granted, granted_key, name_connection, share_key};

use super::{POLICY, v4};
use crate::support::dmz::ip;
use crate::support::frame::{ACK, FIN, tcp};
use crate::support::test_gate::{SECOND_NS, TestGate};

const ADDRESS: &str = "203.0.113.80";
const OTHER: &str = "203.0.113.81";
const HOUR_NS: u64 = 3600 * SECOND_NS;

/// Lets time go by for the grant of an address.
fn age(gate: &TestGate, address: &str, by_ns: u64) {
    let key = portcullis::abi::to_address(ip(address));
    gate.change("grants", |grant: &mut grant| {
        if grant.address.word_be == key.word_be {
            for time in [&mut grant.answered_ns, &mut grant.open_until_ns] {
                *time = time.wrapping_sub(by_ns);
            }
        }
    });
}

fn count(gate: &TestGate) -> (usize, usize) {
    let lists = gate.entries::<granted_key, granted>("granted").len();
    (gate.entries::<share_key, grant>("grants").len(), lists)
}

#[test]
fn grants_that_are_over_for_an_hour_go_with_their_lists_and_others_stay() {
    let gate = TestGate::new(POLICY);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS, OTHER]);
    age(&gate, ADDRESS, HOUR_NS + 329 * SECOND_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").grants, 0, "a second too early");
    age(&gate, ADDRESS, 2 * SECOND_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").grants, 1);
    assert_eq!(count(&gate), (1, 1));
    gate.passes(&v4().syn(OTHER, 443), Reason::Need);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    assert_eq!(count(&gate), (2, 2));
}

#[test]
fn connections_that_have_ended_go_after_an_hour_and_idle_ones_after_five_days() {
    let gate = TestGate::new(POLICY);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    let end = ((v4().server, 50_000), (ip(ADDRESS), 443));
    let age = |by_ns: u64| {
        gate.change("name_connections", |row: &mut name_connection| {
            row.last_ns = row.last_ns.wrapping_sub(by_ns);
        });
    };
    age(4 * 24 * HOUR_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").connections, 0);
    gate.passes(&tcp(end.0, end.1, ACK | FIN), Reason::OwnConnection);
    assert_eq!(gate.tidy_grants().expect("tidied").connections, 0, "it has just ended");
    age(HOUR_NS + SECOND_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").connections, 1);
    assert!(gate.entries::<share_key, flow_key>("connection_places").is_empty());
    gate.drops(&tcp(end.0, end.1, ACK), Reason::NoFlow);

    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    age(5 * 24 * HOUR_NS + SECOND_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").connections, 1);
    assert!(gate.entries::<flow_key, name_connection>("name_connections").is_empty());
}

#[test]
fn a_name_goes_when_no_policy_and_no_grant_has_it() {
    let gate = TestGate::new(POLICY);
    let names = || gate.entries::<u32, domain>("domains").len();
    let before = names();
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    // no slot has the names any more
    for number in 0..3 {
        gate.swap(
            &POLICY
                .replace(".vendor.example", ".other.example")
                .replace("443", &format!("{}", 8443 + number)),
        );
    }
    gate.tidy_grants().expect("tidied");
    assert_eq!(names(), before + 1, "the one with a grant is left of the earlier names");
    age(&gate, ADDRESS, HOUR_NS + 331 * SECOND_NS);
    assert_eq!(gate.tidy_grants().expect("tidied").names, 1);
    assert_eq!(names(), before);
    gate.swap(POLICY);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}
