//! Step 10's limits.

use portcullis::abi::Reason::{Need, Rate};

use super::TimedModel;
use crate::model::Verdict;
use crate::support::dmz::{V4, ip};
use crate::support::frame::{self, ACK, SYN};

fn mail(needs: &str) -> String {
    format!(
        "[roles.mail]\nout = [{needs}]\n[servers.mx]\naddresses = [\"192.0.2.10\", \"192.0.2.11\"]\n\
         roles = [\"mail\"]\n[servers.mx2]\naddresses = [\"192.0.2.12\"]\nroles = [\"mail\"]\n"
    )
}

/// How many SYNs pass before one is over the limit.
fn burst(timed: &mut TimedModel, from: &str) -> usize {
    let syn = frame::tcp((ip(from), 5000), (V4.peer, 25), SYN);
    let mut passed = 0;
    while passed < 1000 {
        match timed.why(&syn) {
            Need => passed += 1,
            reason => {
                assert_eq!(reason, Rate);
                break;
            }
        }
    }
    passed
}

#[test]
fn a_burst_of_n_comes_at_once_and_then_n_per_second() {
    let mut timed = TimedModel::with(&mail("\"tcp/25 limit 20/s\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 20);
    timed.now += super::SECOND / 10;
    assert_eq!(burst(&mut timed, "192.0.2.10"), 2);
    timed.wait(10);
    assert_eq!(burst(&mut timed, "192.0.2.10"), 20);
}

#[test]
fn per_minute_means_per_minute() {
    let mut timed = TimedModel::with(&mail("\"tcp/25 limit 2/m\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 2);
    timed.wait(29);
    assert_eq!(burst(&mut timed, "192.0.2.10"), 0);
    timed.wait(1);
    assert_eq!(burst(&mut timed, "192.0.2.10"), 1);
}

#[test]
fn a_token_bucket_belongs_to_one_server_and_outlives_the_policy() {
    let mut timed = TimedModel::with(&mail("\"tcp/25 limit 5/m\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 5);
    assert_eq!(burst(&mut timed, "192.0.2.11"), 0, "the same server");
    assert_eq!(burst(&mut timed, "192.0.2.12"), 5, "another one");
    timed.apply(&mail("\"udp/53\", \"tcp/25 limit 5/m\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 0);
    timed.apply(&mail("\"tcp/25 limit 6/m\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 6, "another need");
}

#[test]
fn of_several_needs_one_without_a_limit_counts_or_each_that_has_room() {
    for (needs, count) in [
        ("\"tcp/25 limit 2/s\", \"tcp/25 to 203.0.113.0/24 limit 3/s\"", 5),
        ("\"tcp/25 to 203.0.113.0/24 limit 3/s\", \"tcp/25 limit 2/s\"", 5),
        ("\"tcp/25 limit 2/s\", \"tcp/25 to 203.0.113.0/24\"", 1000),
        ("\"tcp/25 limit 2/s\", \"tcp/25 sport 5000\"", 1000),
        ("\"tcp/25 limit 2/s\", \"tcp/25 sport 5001\"", 2),
        ("\"tcp/25 limit 2/s\", \"tcp/25 sport 5000 limit 1/m\"", 3),
        ("\"tcp/25 limit 2/s\", \"tcp/25 limit 2/s\"", 2),
    ] {
        let mut timed = TimedModel::with(&mail(needs));
        assert_eq!(burst(&mut timed, "192.0.2.10"), count, "{needs}");
    }
    // The more generous one is spent first.
    let mut timed = TimedModel::with(&mail("\"tcp/25 limit 60/m\", \"tcp/25 limit 1/s\""));
    assert_eq!(burst(&mut timed, "192.0.2.10"), 61);
    timed.wait(1);
    assert_eq!(burst(&mut timed, "192.0.2.10"), 2);
}

#[test]
fn segments_of_an_open_connection_cost_nothing() {
    let mut timed = TimedModel::with(&mail("\"tcp/25 limit 1/m\""));
    for _ in 0..5 {
        assert!(!timed.why(&frame::tcp((V4.web, 5000), (V4.peer, 25), ACK)).drops());
    }
    assert_eq!(burst(&mut timed, "192.0.2.10"), 1);
    assert!(!timed.why(&frame::tcp((V4.web, 5000), (V4.peer, 25), ACK)).drops());
}

#[test]
fn what_is_over_the_limit_in_observe_spends_nothing() {
    let observing = format!("[policy]\nmode = \"observe\"\n{}", mail("\"tcp/25 limit 1/s\""));
    let mut timed = TimedModel::with(&observing);
    let syn = frame::tcp((V4.web, 5000), (V4.peer, 25), SYN);
    assert_eq!(timed.sends(&syn).reason, Need);
    for _ in 0..5 {
        let outcome = timed.sends(&syn);
        assert_eq!((outcome.reason, outcome.verdict), (Rate, Verdict::WouldDrop));
    }
    timed.wait(1);
    assert_eq!(timed.sends(&syn).reason, Need);
}
