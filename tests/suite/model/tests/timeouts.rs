//! When idle flows end.

use portcullis::abi::Reason::{self, Backscatter, NewFlow, NoFlow, Protocol, Reply, UnlistedService};

use super::Testbed;
use crate::support::dmz::{self, V4};
use crate::support::frame::{self, ACK, Endpoint, FIN, RST, SYN};

const SERVER: Endpoint = (V4.web, 80);
const PEER: Endpoint = (V4.peer, 4000);

/// Does something, waits, and asks what becomes of the server's frame: it lives for `seconds` of
/// silence, and no longer.
fn lives_for(seconds: u64, opening: impl Fn(&mut Testbed), answer: &[u8], alive: Reason, dead: Reason) {
    for (wait, expected) in [(seconds, alive), (seconds + 1, dead)] {
        let mut testbed = Testbed::new();
        opening(&mut testbed);
        testbed.wait(wait);
        assert_eq!(testbed.why(answer), expected, "after {wait} s");
        // Nor does the server wake what has ended.
        assert_eq!(testbed.why(answer), expected, "after {wait} s");
    }
}

#[test]
fn tcp_flows_end_as_their_state_has_it() {
    let answer = frame::tcp(SERVER, PEER, ACK);
    let peer = |flags| frame::tcp(PEER, SERVER, flags);
    let server = |flags| frame::tcp(SERVER, PEER, flags);
    let lives = |seconds, opening: &dyn Fn(&mut Testbed)| {
        lives_for(seconds, opening, &answer, Reply, NoFlow);
    };
    lives(432_000, &|testbed| testbed.establish(SERVER, PEER));
    lives(432_000, &|testbed| {
        testbed.establish(SERVER, PEER);
        testbed.gets(&peer(FIN | ACK));
    });
    lives(120, &|testbed| {
        testbed.establish(SERVER, PEER);
        testbed.why(&server(FIN | ACK));
    });
    lives(10, &|testbed| {
        testbed.establish(SERVER, PEER);
        testbed.why(&server(RST));
    });
    lives(10, &|testbed| {
        testbed.establish(SERVER, PEER);
        testbed.gets(&peer(FIN | ACK));
        testbed.gets(&peer(RST | ACK));
    });
    lives(432_000, &|testbed| {
        testbed.establish(SERVER, PEER);
        testbed.gets(&peer(RST));
        testbed.gets(&peer(ACK));
    });
    lives(60, &|testbed| testbed.half_open(SERVER, PEER));
    lives(120, &|testbed| {
        testbed.model.set_pickup_until(testbed.now + 1);
        testbed.why(&answer);
    });
    lives(432_000, &|testbed| {
        testbed.model.set_pickup_until(testbed.now + 1);
        testbed.why(&answer);
        testbed.gets(&peer(ACK));
    });
}

#[test]
fn each_end_keeps_a_flow_alive_but_the_server_not_after_the_peers_reset() {
    let mut testbed = Testbed::new();
    let answer = frame::tcp(SERVER, PEER, ACK);
    testbed.establish(SERVER, PEER);
    testbed.why(&frame::tcp(SERVER, PEER, FIN | ACK));
    for _ in 0..3 {
        testbed.wait(100);
        assert_eq!(testbed.why(&answer), Reply);
        testbed.wait(100);
        testbed.gets(&frame::tcp(PEER, SERVER, ACK));
    }
    testbed.gets(&frame::tcp(PEER, SERVER, RST));
    testbed.wait(8);
    assert_eq!(testbed.why(&answer), Reply);
    testbed.wait(3);
    assert_eq!(testbed.why(&answer), NoFlow);
}

#[test]
fn a_peer_that_is_heard_after_its_reset_never_sent_one() {
    let mut testbed = Testbed::new();
    testbed.establish(SERVER, PEER);
    testbed.gets(&frame::tcp(PEER, SERVER, RST));
    testbed.wait(11);
    assert_eq!(testbed.why(&frame::tcp(SERVER, PEER, ACK)), NoFlow);
    testbed.gets(&frame::tcp(PEER, SERVER, ACK));
    assert_eq!(testbed.why(&frame::tcp(SERVER, PEER, ACK)), Reply);
}

#[test]
fn time_stamps_are_written_once_a_second() {
    let mut testbed = Testbed::new();
    testbed.establish(SERVER, PEER);
    let start = testbed.now;
    let last = |testbed: &Testbed| testbed.model.flows().values().next().expect("a flow").last_ns;
    testbed.now += super::SECOND / 2;
    testbed.why(&frame::tcp(SERVER, PEER, ACK));
    assert_eq!(last(&testbed), start);
    testbed.now += super::SECOND / 2;
    testbed.why(&frame::tcp(SERVER, PEER, ACK));
    assert_eq!(last(&testbed), start + super::SECOND);
}

#[test]
fn datagrams_live_longer_once_answered() {
    let query = frame::udp((V4.peer, 4000), (V4.ns, 53));
    let answer = frame::udp((V4.ns, 53), (V4.peer, 4000));
    lives_for(30, |testbed| testbed.gets(&query), &answer, Reply, NewFlow);
    let answered = |testbed: &mut Testbed| {
        testbed.gets(&query);
        testbed.why(&answer);
    };
    lives_for(120, answered, &answer, Reply, NewFlow);
}

#[test]
fn pings_live_for_thirty_seconds_and_other_protocols_for_ten_minutes() {
    let ping = |testbed: &mut Testbed| testbed.gets(&frame::echo_request(V4.peer, V4.web, 9));
    lives_for(30, ping, &frame::echo_reply(V4.web, V4.peer, 9), Reply, Backscatter);
    let gre = |testbed: &mut Testbed| {
        testbed.apply(&dmz::POLICY.replace("[\"tcp/80\"", "[\"gre\", \"tcp/80\""));
        testbed.gets(&frame::raw_ip(V4.peer, V4.web, 47, &[]));
    };
    for (wait, expected) in [(600, Reply), (601, Protocol)] {
        let mut testbed = Testbed::new();
        gre(&mut testbed);
        testbed.wait(wait);
        assert_eq!(testbed.why(&frame::raw_ip(V4.web, V4.peer, 47, &[])), expected);
    }
}

#[test]
fn unlisted_openings_are_forgotten() {
    let syn = |testbed: &mut Testbed| testbed.gets(&frame::tcp(PEER, (V4.web, 8080), SYN));
    let answer = frame::tcp((V4.web, 8080), PEER, SYN | ACK);
    lives_for(60, syn, &answer, UnlistedService, NoFlow);
    let datagram = |testbed: &mut Testbed| testbed.gets(&frame::udp(PEER, (V4.web, 8080)));
    lives_for(120, datagram, &frame::udp((V4.web, 8080), PEER), UnlistedService, NewFlow);
}
