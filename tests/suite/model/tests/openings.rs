//! Steps 10, 11 and 16 to 18: what servers open, and the books.

use portcullis::abi::Reason::{
    Backscatter, Destination, FlowError, Need, NewFlow, NoFlow, OwnConnection, Protocol, Reply,
    UnlistedService,
};

use super::{TimedModel, policy};
use crate::model::{LedgerKey, Table};
use crate::support::dmz::{self, V4, V6, in_both_families};
use crate::support::frame::{self, ACK, ICMP, ICMPV6, RST, SYN};

#[test]
fn a_need_has_protocol_port_and_destination() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        assert_eq!(timed.why(&frame::udp((family.web, 5000), (family.loghost, 514))), Need);
        assert_eq!(timed.why(&frame::tcp((family.web, 5000), (family.loghost, 6514), SYN)), Need);
        assert_eq!(timed.why(&frame::udp((family.web, 5000), (family.peer, 514))), Destination);
        assert_eq!(timed.why(&frame::udp((family.web, 5000), (family.loghost, 515))), NewFlow);
        assert_eq!(timed.why(&frame::tcp((family.web, 5000), (family.loghost, 514), SYN)), NewFlow);
        assert_eq!(timed.why(&frame::udp((family.ns, 5000), (family.loghost, 514))), NewFlow);
        assert_eq!(timed.why(&frame::echo_request(family.web, family.peer, 9)), NewFlow);
        assert_eq!(timed.why(&frame::raw_ip(family.web, family.peer, 47, &[0; 4])), Protocol);
    });
}

#[test]
fn a_servers_own_connection_goes_on_towards_its_needs_port() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        for flags in [ACK, RST, SYN | ACK] {
            let segment = frame::tcp((family.ns, 5000), (family.peer, 53), flags);
            assert_eq!(timed.why(&segment), OwnConnection);
        }
        assert_eq!(timed.why(&frame::tcp((family.web, 5000), (family.loghost, 6514), ACK)), OwnConnection);
        assert_eq!(timed.why(&frame::tcp((family.web, 5000), (family.peer, 6514), ACK)), NoFlow);
    });
}

#[test]
fn a_bind_shell_does_not_hide_behind_a_needs_port() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        timed.gets(&frame::tcp((family.peer, 53), (family.ns, 5000), SYN));
        let answer = frame::tcp((family.ns, 5000), (family.peer, 53), SYN | ACK);
        assert_eq!(timed.why(&answer), UnlistedService);
    });
}

#[test]
fn a_syn_that_crosses_the_servers_own_is_no_bind_shell() {
    in_both_families(|family| {
        for own_first in [true, false] {
            let mut timed = TimedModel::new();
            let (server, peer) = ((family.ns, 5000), (family.peer, 53));
            if !own_first {
                timed.gets(&frame::tcp(peer, server, SYN));
            }
            assert_eq!(timed.why(&frame::tcp(server, peer, SYN)), Need);
            if own_first {
                timed.gets(&frame::tcp(peer, server, SYN));
            }
            timed.wait(119);
            timed.gets(&frame::tcp(peer, server, SYN));
            assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), OwnConnection);
            timed.wait(2);
            assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), UnlistedService);
        }
    });
}

#[test]
fn a_reply_comes_before_a_need() {
    let mut timed = TimedModel::new();
    timed.gets(&frame::udp((V4.peer, 53), (V4.ns, 53)));
    assert_eq!(timed.why(&frame::udp((V4.ns, 53), (V4.peer, 53))), Reply);
}

#[test]
fn needs_of_other_protocols_and_icmp_types_hold() {
    let mut timed = TimedModel::with(
        "[roles.vpn]\nout = [\"gre to 203.0.113.0/24\", \"icmp/echo-request\", \"icmpv6\", \"sctp/7\"]\n\
         [servers.one]\naddresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\nroles = [\"vpn\"]\n",
    );
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, 47, &[])), Need);
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.loghost, 47, &[])), Destination);
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, 50, &[])), Protocol);
    assert_eq!(timed.why(&frame::echo_request(V4.web, V4.peer, 1)), Need);
    assert_eq!(timed.why(&frame::icmp(V4.web, V4.peer, (13, 0), [0; 4], &[])), NewFlow);
    assert_eq!(timed.why(&frame::echo_request(V6.web, V6.peer, 1)), Need);
    // The ICMP of the other family is nobody's.
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, ICMPV6, &[0; 8])), Protocol);
    assert_eq!(timed.why(&frame::raw_ip(V6.web, V6.peer, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0])), Protocol);
    let sctp = |port: u8| [0, 9, 0, port, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, 132, &sctp(7))), Need);
    assert_eq!(timed.why(&frame::raw_ip(V4.web, V4.peer, 132, &sctp(8))), Protocol);
}

#[test]
fn a_quiet_need_raises_no_alarm_about_what_is_new() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        for (port, quiet) in [(137, true), (138, true), (139, false), (5353, true)] {
            let outcome = timed.sends(&frame::udp((family.web, port), (family.peer, port)));
            assert_eq!((outcome.reason, outcome.quiet), (NewFlow, quiet), "{port}");
        }
        let outcome = timed.sends(&frame::udp((family.ns, 137), (family.peer, 137)));
        assert!(!outcome.quiet, "another server's role");
        let outcome = timed.sends(&frame::tcp((family.web, 137), (family.peer, 137), SYN));
        assert!(!outcome.quiet, "another protocol");
    });
}

#[test]
fn the_deciding_needs_are_named_by_their_lines() {
    let line =
        |text: &str| 1 + dmz::POLICY.lines().position(|line| line.contains(text)).expect("a line") as u32;
    let mut timed = TimedModel::new();
    let outcome = timed.sends(&frame::udp((V4.web, 5000), (V4.loghost, 514)));
    assert_eq!(outcome.needs, [line("udp/514")]);
    let outcome = timed.sends(&frame::udp((V4.web, 5000), (V4.peer, 514)));
    assert_eq!(outcome.needs, [line("udp/514")]);
    let outcome = timed.sends(&frame::udp((V4.web, 5000), (V4.peer, 137)));
    assert_eq!(outcome.needs, [line("quiet")]);
    let outcome = timed.sends(&frame::udp((V4.web, 5000), (V4.peer, 99)));
    assert!(outcome.needs.is_empty());
    timed.half_open((V4.web, 22), (V4.bastion, 4000));
    let outcome = timed.sends(&frame::tcp((V4.web, 22), (V4.bastion, 4000), ACK));
    assert_eq!(outcome.needs, [line("management")]);
}

#[test]
fn every_drop_is_in_the_ledger_by_its_kind() {
    let mut timed = TimedModel::new();
    let drop = frame::udp((V4.web, 5000), (V4.peer, 99));
    let pass = frame::udp((V4.web, 5000), (V4.loghost, 514));
    let reset = frame::tcp((V4.web, 80), (V4.peer, 4000), RST);
    let segment = frame::tcp((V4.web, 80), (V4.peer, 4000), ACK);
    for frame in [&drop, &drop, &pass, &reset, &segment] {
        timed.sends(frame);
    }
    let key = |protocol, port, reason, own_port| LedgerKey {
        server: Some("web1".into()),
        protocol,
        port,
        reason,
        quiet: false,
        would: false,
        own_port,
        presumed: false,
    };
    let length = |frame: &[u8]| frame.len() as u64;
    let expected = [
        (key(6, 80, Backscatter, true), (1, length(&reset))),
        (key(6, 80, NoFlow, true), (1, length(&segment))),
        (key(17, 99, NewFlow, false), (2, 2 * length(&drop))),
    ];
    assert_eq!(timed.model.ledger(), expected.into());
    assert_eq!(timed.model.counters()[&(NewFlow, false)], (2, 2 * length(&drop)));
    assert_eq!(timed.model.counters()[&(Need, false)], (1, length(&pass)));
    // A new policy keeps them.
    timed.model.apply(&policy(dmz::POLICY), timed.now);
    assert_eq!(timed.model.ledger().len(), 3);
}

#[test]
fn a_need_with_a_sport_holds_from_that_port_alone() {
    let policy = "[roles.ftp]\nout = [\"tcp/1024-65535 to 203.0.113.0/24 sport 20\", \"udp/53 sport 5300-5301\"]\n\
                  [servers.ftp]\naddresses = [\"192.0.2.10\"]\nroles = [\"ftp\"]\n";
    let mut timed = TimedModel::with(policy);
    for (own, to, port, expected) in [
        (20, V4.peer, 1024, Need),
        (21, V4.peer, 1024, NewFlow),
        (20, V4.loghost, 1024, Destination),
        (21, V4.loghost, 1024, NewFlow),
        (20, V4.peer, 1023, NewFlow),
    ] {
        assert_eq!(timed.why(&frame::tcp((V4.web, own), (to, port), SYN)), expected, "{own} {to} {port}");
    }
    assert_eq!(timed.why(&frame::tcp((V4.web, 20), (V4.peer, 1024), ACK)), OwnConnection);
    assert_eq!(timed.why(&frame::tcp((V4.web, 21), (V4.peer, 1024), ACK)), NoFlow);
    // An error about an answer, and the answer itself, which opens nothing.
    for (own, expected) in [(5300, FlowError), (5301, FlowError), (5302, Backscatter)] {
        let answer = frame::udp((V4.peer, 53), (V4.web, own));
        assert_eq!(timed.why(&frame::unreachable(V4.web, V4.peer, &answer[frame::IP..])), expected);
        timed.gets(&answer);
        let unlisted = timed.model.flows().keys().any(|(table, _)| *table == Table::Unlisted);
        assert_eq!(unlisted, expected != FlowError);
    }
}
