//! When idle flows end.

use portcullis::abi::Reason::{self, NewFlow, NoFlow, Protocol, Reply, UnlistedService};

use super::{SECOND, TimedModel};
use crate::support::dmz::{self, V4, in_both_families, v4};
use crate::support::frame::{self, ACK, Endpoint, FIN, RST, SYN};

const SERVER: Endpoint = (V4.web, 80);
const PEER: Endpoint = (V4.peer, 4000);

/// Does something, waits, and asks what becomes of the server's frame: it lives for `seconds` of
/// silence, and no longer.
fn lives_for(seconds: u64, opening: impl Fn(&mut TimedModel), answer: &[u8], alive: Reason, dead: Reason) {
    for (wait, expected) in [(seconds, alive), (seconds + 1, dead)] {
        let mut timed = TimedModel::new();
        opening(&mut timed);
        timed.wait(wait);
        assert_eq!(timed.why(answer), expected, "after {wait} s");
        // Nor does the server wake what has ended.
        assert_eq!(timed.why(answer), expected, "after {wait} s");
    }
}

#[test]
fn tcp_flows_end_as_their_state_has_it() {
    let answer = frame::tcp(SERVER, PEER, ACK);
    let peer = |flags| frame::tcp(PEER, SERVER, flags);
    let server = |flags| frame::tcp(SERVER, PEER, flags);
    let lives = |seconds, opening: &dyn Fn(&mut TimedModel)| {
        lives_for(seconds, opening, &answer, Reply, NoFlow);
    };
    lives(432_000, &|timed| timed.establish(SERVER, PEER));
    lives(432_000, &|timed| {
        timed.establish(SERVER, PEER);
        timed.gets(&peer(FIN | ACK));
    });
    lives(120, &|timed| {
        timed.establish(SERVER, PEER);
        timed.why(&server(FIN | ACK));
    });
    lives(10, &|timed| {
        timed.establish(SERVER, PEER);
        timed.why(&server(RST));
    });
    // A peer's reset may be forged, and the server's socket stays open then.
    lives(432_000, &|timed| {
        timed.establish(SERVER, PEER);
        timed.gets(&peer(FIN | ACK));
        timed.gets(&peer(RST | ACK));
    });
    lives(10, &|timed| {
        timed.establish(SERVER, PEER);
        timed.gets(&peer(RST));
        timed.why(&server(RST));
    });
    lives(120, &|timed| {
        timed.establish(SERVER, PEER);
        timed.gets(&peer(RST));
        timed.why(&server(FIN | ACK));
    });
    lives(60, &|timed| timed.half_open(SERVER, PEER));
    lives(120, &|timed| {
        timed.model.set_pickup_until(timed.now + 1);
        timed.why(&answer);
    });
    lives(432_000, &|timed| {
        timed.model.set_pickup_until(timed.now + 1);
        timed.why(&answer);
        timed.gets(&peer(ACK));
    });
}

#[test]
fn each_end_keeps_a_flow_alive_and_a_reset_of_the_peer_does_not() {
    let mut timed = TimedModel::new();
    let answer = frame::tcp(SERVER, PEER, ACK);
    timed.establish(SERVER, PEER);
    timed.why(&frame::tcp(SERVER, PEER, FIN | ACK));
    for _ in 0..3 {
        timed.wait(100);
        assert_eq!(timed.why(&answer), Reply);
        timed.wait(100);
        timed.gets(&frame::tcp(PEER, SERVER, ACK));
    }
    timed.wait(100);
    timed.gets(&frame::tcp(PEER, SERVER, RST));
    timed.wait(20);
    assert_eq!(timed.why(&answer), Reply);
    timed.wait(100);
    timed.gets(&frame::tcp(PEER, SERVER, RST));
    timed.wait(21);
    assert_eq!(timed.why(&answer), NoFlow);
}

#[test]
fn time_stamps_are_written_once_a_second() {
    let mut timed = TimedModel::new();
    timed.establish(SERVER, PEER);
    let start = timed.now;
    let last = |timed: &TimedModel| timed.model.flows().values().next().expect("a flow").last_ns;
    timed.now += SECOND / 2;
    timed.why(&frame::tcp(SERVER, PEER, ACK));
    assert_eq!(last(&timed), start);
    timed.now += SECOND / 2;
    timed.why(&frame::tcp(SERVER, PEER, ACK));
    assert_eq!(last(&timed), start + SECOND);
}

#[test]
fn datagrams_live_longer_once_answered() {
    let query = frame::udp((V4.peer, 4000), (V4.ns, 53));
    let answer = frame::udp((V4.ns, 53), (V4.peer, 4000));
    lives_for(30, |timed| timed.gets(&query), &answer, Reply, NoFlow);
    let answered = |timed: &mut TimedModel| {
        timed.gets(&query);
        timed.why(&answer);
    };
    lives_for(120, answered, &answer, Reply, NoFlow);
}

#[test]
fn pings_live_for_thirty_seconds_and_other_protocols_for_ten_minutes() {
    let ping = |timed: &mut TimedModel| timed.gets(&frame::echo_request(V4.peer, V4.web, 9));
    lives_for(30, ping, &frame::echo_reply(V4.web, V4.peer, 9), Reply, NoFlow);
    let gre = |timed: &mut TimedModel| {
        timed.apply(&dmz::POLICY.replace("[\"tcp/80\"", "[\"gre\", \"tcp/80\""));
        timed.gets(&frame::raw_ip(V4.peer, V4.web, 47, &[]));
    };
    for (wait, expected) in [(600, Reply), (601, NoFlow), (1201, Protocol)] {
        let mut timed = TimedModel::new();
        gre(&mut timed);
        timed.wait(wait);
        assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, 47, &[])), expected);
    }
}

#[test]
fn unlisted_openings_are_forgotten() {
    let syn = |timed: &mut TimedModel| timed.gets(&frame::tcp(PEER, (V4.web, 8080), SYN));
    let answer = frame::tcp((V4.web, 8080), PEER, SYN | ACK);
    lives_for(60, syn, &answer, UnlistedService, NoFlow);
    let datagram = |timed: &mut TimedModel| timed.gets(&frame::udp(PEER, (V4.web, 8080)));
    lives_for(120, datagram, &frame::udp((V4.web, 8080), PEER), UnlistedService, NewFlow);
}

#[test]
fn a_late_answer_is_expected_by_whom_was_heard_in_this_epoch_or_the_one_before() {
    in_both_families(|family| {
        let query = frame::udp((family.peer, 4000), (family.ns, 53));
        let answer = |to, port| frame::udp((family.ns, 53), (to, port));
        // The question comes so many seconds after an epoch's beginning.
        for (into, wait, expected) in [
            (0, 31, NoFlow),
            (0, 600, NoFlow),
            (0, 1199, NoFlow),
            (0, 1200, NewFlow),
            (599, 600, NoFlow),
            (599, 601, NewFlow),
        ] {
            let mut timed = TimedModel::new();
            timed.now = timed.now.next_multiple_of(600 * SECOND) + into * SECOND;
            timed.gets(&query);
            timed.wait(wait);
            let outcome = timed.sends(&answer(family.peer, 4000));
            assert_eq!(outcome.reason, expected, "{wait} s after {into}");
            assert!(!outcome.quiet && !outcome.presumed);
            if expected == NoFlow {
                assert_eq!(outcome.port, 53);
                assert!(timed.model.ledger().keys().all(|key| key.own_port && !key.presumed));
            }
        }
        let mut timed = TimedModel::new();
        timed.gets(&query);
        assert_eq!(timed.why(&answer(family.peer, 4001)), NoFlow, "from whatever port it asked");
        assert_eq!(timed.why(&answer(family.other, 4000)), NewFlow, "who never asked");
        assert_eq!(timed.why(&frame::udp((family.ns, 54), (family.peer, 4000))), NewFlow, "no service");
        assert_eq!(timed.why(&frame::udp((family.web, 53), (family.peer, 4000))), NewFlow, "another server");
    });
}

#[test]
fn a_busy_flow_is_heard_as_often_as_it_is_written() {
    let query = frame::udp((V4.peer, 4000), (V4.ns, 53));
    let mut timed = TimedModel::new();
    timed.now = timed.now.next_multiple_of(600 * SECOND) - SECOND / 2;
    timed.gets(&query);
    timed.now += SECOND * 3 / 4;
    timed.gets(&query);
    // Only the first one counts, which was in the epoch before.
    timed.wait(1000);
    assert_eq!(timed.why(&frame::udp((V4.ns, 53), (V4.peer, 4000))), NewFlow);
}

#[test]
fn a_full_memory_knows_everybody_and_says_so() {
    let text = dmz::POLICY.replace("in  = [\"udp/53\"", "in  = [\"udp/53\", \"icmp/echo-request\"");
    let mut timed = TimedModel::with(&format!("{text}\n[tables]\nheard = 1\n"));
    timed.now = timed.now.next_multiple_of(600 * SECOND);
    let flood = |timed: &mut TimedModel, count| {
        (0..count).for_each(|number| timed.gets(&frame::udp((v4(203, 0, 113, number), 4000), (V4.ns, 53))));
    };
    let answer = frame::udp((V4.ns, 53), (V4.loghost, 4000));
    flood(&mut timed, 6);
    assert_eq!(timed.why(&answer), NewFlow);
    flood(&mut timed, 40);
    for answer in [&answer, &frame::echo_reply(V4.ns, V4.loghost, 1)] {
        let outcome = timed.sends(answer);
        assert_eq!((outcome.reason, outcome.presumed), (NoFlow, true));
    }
    assert!(timed.model.ledger().keys().any(|key| key.presumed));
    // No service, and a server that nobody asked: its part of the memory may be another one.
    assert_eq!(timed.why(&frame::udp((V4.ns, 54), (V4.loghost, 4000))), NewFlow);
    let other = frame::udp((V4.web, 53), (V4.loghost, 4000));
    assert_eq!(timed.why(&other), NewFlow);
    timed.wait(1200);
    assert_eq!(timed.why(&answer), NewFlow);
}
