//! Captures under a policy: the programs themselves, by the time of the capture.

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::abi::Reason;
use portcullis::gate::ReplayGate;
use portcullis::policy_file::{CompiledPolicy, read_and_compile};
use portcullis::replay::{Comparison, Replay, Request, compare, replay};
use tempfile::TempDir;

use crate::support::capture::{
    BEGIN_NS, COOKED, COOKED2, ETHERNET, RAW_IP, Timed, cooked, cooked2, pcap, pcapng, sent_on, write,
};
use crate::support::dmz::{self, Family, V4, in_both_families, ip};
use crate::support::dns::{A, Message, datagram};
use crate::support::frame::{
    ACK, Endpoint, PSH, ROUTER_MAC, RST, SERVER_MAC, SYN, fragment, from_mac, patched, tagged, tcp,
    tcp_numbered, udp,
};

const SECOND: u64 = 1000;

/// A frame on its way to a server: the router sends it.
fn inbound(frame: &[u8]) -> Vec<u8> {
    patched(&patched(frame, 0, &SERVER_MAC), 6, &ROUTER_MAC)
}

/// Policies and captures in a folder of their own.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Scene {
        Scene { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn policy(&self, text: &str) -> CompiledPolicy {
        let path = write(self.path(), "dmz0.toml", text.as_bytes());
        read_and_compile(&path).expect("a file").unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        write(self.path(), "capture.pcap", bytes)
    }

    #[track_caller]
    fn replay(&self, policy: &str, bytes: &[u8]) -> Replay {
        let files = [self.file(bytes)];
        replay(&self.policy(policy), &Request { files: &files, own_mac: None }).expect("a replay")
    }

    #[track_caller]
    fn compare(&self, policy: &str, against: &str, bytes: &[u8]) -> Comparison {
        let files = [self.file(bytes)];
        let (policy, against) = (self.policy(policy), self.policy(against));
        compare(&policy, &against, &Request { files: &files, own_mac: None }).expect("a comparison")
    }

    /// The program itself: status, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let output = command.arg("replay").args(arguments).current_dir(self.path()).output().expect("a run");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// What was dropped: server, service, reason, first destination, packets, followers.
fn drops(replay: &Replay) -> Vec<(String, String, String, String, u64, u64)> {
    let mut rows: Vec<_> = replay
        .drops
        .iter()
        .map(|row| {
            let server = row.server.clone().unwrap_or_default();
            let to = row.destinations.first.first().map_or(String::new(), |to| to.address.clone());
            (server, row.service.clone(), row.reason.to_string(), to, row.packets, row.followers)
        })
        .collect();
    rows.sort();
    rows
}

fn row(
    server: &str,
    service: &str,
    reason: &str,
    to: impl ToString,
    packets: u64,
    followers: u64,
) -> (String, String, String, String, u64, u64) {
    (server.to_owned(), service.to_owned(), reason.to_owned(), to.to_string(), packets, followers)
}

/// A peer's visit of a service, from SYN to data, and how long after the begin it starts.
fn visit(after_ms: u64, server: Endpoint, peer: Endpoint) -> Vec<Timed> {
    [
        inbound(&tcp_numbered(peer, server, SYN, (1000, 0))),
        tcp_numbered(server, peer, SYN | ACK, (5000, 1001)),
        inbound(&tcp_numbered(peer, server, ACK, (1001, 5001))),
        inbound(&tcp_numbered(peer, server, ACK | PSH, (1001, 5001))),
        tcp_numbered(server, peer, ACK | PSH, (5001, 1002)),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, frame)| (after_ms + number as u64, frame))
    .collect()
}

/// A day in little: a visit, a log line, a forbidden connection that the capture shows whole, and a forbidden
/// datagram with its answer.
fn day(family: Family) -> Vec<Timed> {
    let (server, peer) = family.visit();
    let mut frames = visit(0, server, peer);
    let (ssh, resolver) = ((family.other, 22), (family.other, 53));
    let (from, asker) = ((family.web, 40_000), (family.web, 40_001));
    frames.extend([
        (100, udp((family.web, 5000), (family.loghost, 514))),
        (200, tcp(from, ssh, SYN)),
        (201, inbound(&tcp(ssh, from, SYN | ACK))),
        (202, tcp(from, ssh, ACK)),
        (203, tcp(from, ssh, ACK | PSH)),
        (300, udp(asker, resolver)),
        (301, inbound(&udp(resolver, asker))),
        (400, udp(asker, resolver)),
    ]);
    frames
}

fn drops_of_day(family: Family) -> Vec<(String, String, String, String, u64, u64)> {
    vec![
        row("web1", "tcp/22", "new_flow", family.other, 1, 2),
        row("web1", "udp/53", "new_flow", family.other, 2, 0),
    ]
}

#[test]
fn what_a_policy_would_have_dropped_is_said_by_server_service_reason_and_destination() {
    in_both_families(|family| {
        let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &day(family)));
        assert_eq!(drops(&found), drops_of_day(family));
        let totals = &found.totals;
        assert_eq!((totals.packets, totals.passed, totals.dropped), (13, 3, 3));
        assert_eq!((totals.followers, totals.to_servers, totals.neither), (2, 5, 0));
        assert!(found.before.is_empty() && found.damages.is_empty() && found.notes.is_empty());
        assert_eq!(found.from.as_deref(), Some("2026-11-22T15:00:00Z"));
        assert_eq!(found.to.as_deref(), Some("2026-11-22T15:00:00.4Z"));
    });
}

#[test]
fn every_format_and_link_type_gives_the_same_drops() {
    in_both_families(|family| {
        let frames = day(family);
        let is_out = |frame: &[u8]| frame[6..12] == ROUTER_MAC;
        let with = |convert: &dyn Fn(&[u8]) -> Vec<u8>| -> Vec<Timed> {
            frames.iter().map(|(time, frame)| (*time, convert(frame))).collect()
        };
        let kind = |frame: &[u8]| if is_out(frame) { 4 } else { 0 };
        let ng: Vec<_> = frames.iter().map(|(time, frame)| (*time, 0, frame.clone())).collect();
        for (name, bytes) in [
            ("cooked", pcap(COOKED, &with(&|frame| cooked(frame, kind(frame))))),
            ("cooked v2", pcap(COOKED2, &with(&|frame| cooked2(frame, kind(frame), 7)))),
            ("raw IP", pcap(RAW_IP, &with(&|frame| frame[14..].to_vec()))),
            ("pcapng", pcapng(&[ETHERNET as u16], &ng)),
        ] {
            let found = Scene::new().replay(dmz::POLICY, &bytes);
            assert_eq!(drops(&found), drops_of_day(family), "{name}");
            assert_eq!(found.totals.passed, 3, "{name}");
        }
    });
}

#[test]
fn a_capture_of_any_counts_what_the_router_sends_on_once() {
    const OUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
    let mut frames = Vec::new();
    for (time, frame) in day(V4) {
        let other = sent_on(&frame, OUTER, ROUTER_MAC);
        match frame[6..12] == ROUTER_MAC {
            // from outside: in at the outer NIC, then out to the DMZ
            true => {
                let mut before = frame.clone();
                before[22] += 1;
                frames.extend([(time, 3, 0, from_mac(&before, OUTER)), (time, 2, 4, frame)]);
            }
            false => frames.extend([(time, 2, 0, frame), (time, 3, 4, other)]),
        }
    }
    let any: Vec<Timed> =
        frames.iter().map(|(time, index, kind, frame)| (*time, cooked2(frame, *kind, *index))).collect();
    let both: Vec<_> =
        frames.iter().map(|(time, index, _, frame)| (*time, u32::from(index - 2), frame.clone())).collect();
    for (name, bytes) in [("any", pcap(COOKED2, &any)), ("both NICs", pcapng(&[1, 1], &both))] {
        let found = Scene::new().replay(dmz::POLICY, &bytes);
        assert_eq!(drops(&found), drops_of_day(V4), "{name}");
        let totals = &found.totals;
        assert_eq!((totals.passed, totals.to_servers), (3, 5), "{name}");
        assert_eq!(totals.copies + totals.arriving, 13, "{name}");
    }
}

#[test]
fn a_packet_from_server_to_server_is_judged_on_its_way_in_and_tracked_on_its_way_out() {
    const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x53];
    let (asker, ns) = ((V4.web, 40_000), (V4.ns, 53));
    let (mut question, mut answer) = (udp(asker, ns), udp(ns, asker));
    question = from_mac(&question, SERVER_MAC);
    answer = from_mac(&answer, OTHER_MAC);
    let frames = [
        (0, question.clone()),
        (1, sent_on(&question, ROUTER_MAC, OTHER_MAC)),
        (2, answer.clone()),
        (3, sent_on(&answer, ROUTER_MAC, SERVER_MAC)),
    ];
    let allowed = dmz::POLICY.replace("out   = [", "out   = [\"udp/53\", ");
    for (name, convert) in [("ethernet", None), ("raw IP", Some(14))] {
        let link = if convert.is_some() { RAW_IP } else { ETHERNET };
        let frames: Vec<Timed> =
            frames.iter().map(|(time, frame)| (*time, frame[convert.unwrap_or(0)..].to_vec())).collect();
        let found = Scene::new().replay(&allowed, &pcap(link, &frames));
        assert_eq!(drops(&found), [], "{name}");
        assert_eq!((found.totals.passed, found.totals.to_servers), (2, 2), "{name}");
        // the router would not have sent on what the gate drops, so nobody asked
        let found = Scene::new().replay(dmz::POLICY, &pcap(link, &frames));
        let dropped: u64 = found.drops.iter().map(|row| row.packets).sum();
        assert_eq!(
            (dropped, found.totals.followers, found.totals.copies),
            (1, 1, 2),
            "{name}: {:#?}",
            found.drops
        );
    }
}

#[test]
fn timeouts_are_those_of_the_capture() {
    in_both_families(|family| {
        let (ns, peer) = family.question();
        let late = (peer.0, 51_001);
        let frames = vec![
            (0, inbound(&udp(peer, ns))),
            (1, inbound(&udp(late, ns))),
            (20 * SECOND, udp(ns, peer)),
            (60 * SECOND, udp(ns, late)),
        ];
        let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
        assert_eq!(drops(&found), [row("ns1", "udp/53", "no_flow", peer.0, 1, 0)]);
        assert_eq!(found.totals.passed, 1);
    });
}

#[test]
fn limits_are_those_of_the_capture() {
    let policy = dmz::POLICY.replace("\"tcp/6514 to @loghosts\"", "\"tcp/6514 to @loghosts limit 1/s\"");
    let syn = |port: u16| tcp((V4.web, port), (V4.loghost, 6514), SYN);
    let slow: Vec<Timed> = (0..20).map(|number| (number * 2 * SECOND, syn(40_000 + number as u16))).collect();
    let fast: Vec<Timed> = (0..20).map(|number| (number, syn(40_000 + number as u16))).collect();
    let scene = Scene::new();
    assert_eq!(scene.replay(&policy, &pcap(ETHERNET, &slow)).totals.dropped, 0);
    let found = scene.replay(&policy, &pcap(ETHERNET, &fast));
    assert!(found.totals.dropped >= 15, "{:?}", found.totals);
    assert!(found.drops.iter().all(|row| row.reason == Reason::Rate.into()));
}

#[test]
fn a_later_fragment_goes_with_its_first_for_as_long_as_the_capture_says() {
    let (from, to) = ((V4.web, 5000), (V4.loghost, 514));
    let udp_bytes = udp(from, to)[34..].to_vec();
    let first = |id| fragment(from.0, to.0, 17, (id, 0, true), &udp_bytes);
    let later = |id| fragment(from.0, to.0, 17, (id, 2, false), &[0; 8]);
    let frames = vec![(0, first(1)), (1, first(2)), (10 * SECOND, later(1)), (40 * SECOND, later(2))];
    let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
    let reasons: Vec<_> = found.drops.iter().map(|row| (row.reason.to_string(), row.packets)).collect();
    assert_eq!(reasons, [("fragment".to_owned(), 1)]);
    assert_eq!(found.totals.passed, 3);
}

#[test]
fn what_began_before_the_capture_is_listed_apart_and_raises_no_alarm() {
    in_both_families(|family| {
        let (server, peer) = family.visit();
        let (own, ssh) = ((family.web, 40_000), (family.other, 22));
        let frames = vec![
            (10, tcp(server, peer, ACK | PSH)),
            (11, tcp(server, peer, ACK | PSH)),
            (20, tcp(own, ssh, ACK)),
            (30, udp((family.ns, 53), (family.peer, 4000))),
            // long after the pickup, an idle connection speaks again
            (600 * SECOND, tcp(server, (peer.0, 52_000), ACK)),
        ];
        let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
        assert_eq!(drops(&found), []);
        assert!(found.alarms.is_empty(), "{:#?}", found.alarms);
        let mut before: Vec<_> = found
            .before
            .iter()
            .map(|row| (row.service.clone(), row.reason.to_string(), row.verdict, row.packets))
            .collect();
        before.sort();
        let line = |service: &str, reason: &str, verdict, packets| {
            (service.to_owned(), reason.to_owned(), verdict, packets)
        };
        assert_eq!(
            before,
            [
                line("tcp/22", "no_flow", "drop", 1),
                line("tcp/80", "no_flow", "drop", 1),
                line("tcp/80", "pickup", "pass", 1),
                line("udp/53", "no_flow", "drop", 1),
            ]
        );
        // its negation: the capture shows how the connection began, and that it timed out
        let mut frames = visit(0, server, peer);
        frames.push((6 * 24 * 3600 * SECOND, tcp_numbered(server, peer, ACK, (5002, 1002))));
        let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
        assert_eq!(drops(&found), [row("web1", "tcp/80", "no_flow", peer.0, 1, 0)]);
    });
}

#[test]
fn alarms_are_raised_by_the_time_of_the_capture_as_the_daemon_would_have() {
    let worm = |number: u64| {
        let to = (ip(&format!("198.51.100.{}", 100 + number)), 445);
        (10 * SECOND + number * 50, tcp((V4.web, 40_000 + number as u16), to, SYN))
    };
    let mut frames: Vec<Timed> = (0..40).map(worm).collect();
    frames.extend(visit(1200 * SECOND, (V4.web, 80), (V4.peer, 51_000)));
    let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
    let steps: Vec<_> = found.alarms.iter().map(|change| change.step.name()).collect();
    assert_eq!((steps.first(), steps.last()), (Some(&"opened"), Some(&"closed")), "{steps:?}");
    let last = &found.alarms[found.alarms.len() - 1].alarm;
    assert_eq!((last.kind().name(), last.packets), ("spread", 40));
    assert_eq!(&*last.interface, "dmz0", "policies have the names of their interfaces");
    let begin = jiff_of(BEGIN_NS + 10_000_000_000);
    assert_eq!(last.first.to_string(), begin);
    let opened = &found.alarms[0];
    let delay = opened.time.duration_since(opened.alarm.first);
    assert!(delay.as_millis() <= 200, "{delay}");
    // five minutes of quiet end it, and not the end of the file
    let closed = found.alarms[found.alarms.len() - 1].time.duration_since(last.last);
    assert!((300..=302).contains(&closed.as_secs()), "{closed}");
    assert_eq!(found.open_alarms, 0);
    assert_eq!(drops(&found).len(), 1);
    assert_eq!(found.drops[0].destinations.count, 40);
}

fn jiff_of(time_ns: u64) -> String {
    portcullis::clock::Clock { mono_ns: time_ns, wall: "1970-01-01T00:00:00Z".parse().expect("a time") }
        .to_wall(2 * time_ns)
        .to_string()
}

#[test]
fn two_policies_are_compared_packet_by_packet_with_need_and_reason() {
    let scene = Scene::new();
    let bytes = pcap(ETHERNET, &day(V4));
    let other = dmz::POLICY.replace("out   = [", &format!("out   = [\"tcp/22 to {}\", ", V4.other));
    let found = scene.compare(dmz::POLICY, &other, &bytes);
    assert_eq!(found.differences.len(), 2, "{:#?}", found.differences);
    for difference in &found.differences {
        assert_eq!((difference.server.as_deref(), &*difference.service), (Some("web1"), "tcp/22"));
        assert_eq!((difference.policy.verdict, difference.against.verdict), ("drop", "pass"));
        assert_eq!(difference.policy.reason, Some(Reason::NewFlow.into()));
        assert_eq!(difference.against.need, Some(format!("tcp/22 to {}", V4.other)));
        assert!(difference.against.source.as_deref().is_some_and(|source| source.contains("dmz0.toml:")));
    }
    assert_eq!(found.differences.iter().map(|difference| difference.packets).sum::<u64>(), 3);
    assert!(scene.compare(dmz::POLICY, dmz::POLICY, &bytes).is_same());
}

#[test]
fn a_policy_that_observes_says_what_it_would_have_dropped() {
    let policy = dmz::POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
    let found = Scene::new().replay(&policy, &pcap(ETHERNET, &day(V4)));
    assert_eq!(drops(&found), drops_of_day(V4));
    assert!(found.drops.iter().all(|row| row.verdict == "would_drop"));
    assert_eq!((found.totals.dropped, found.totals.would_drop), (0, 3));
}

#[test]
fn a_bound_mac_is_compared_where_the_capture_has_it_and_taken_as_right_where_it_has_not() {
    let policy =
        dmz::POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:10\"\nvlan = 7");
    let frame = udp((V4.web, 5000), (V4.loghost, 514));
    let right = tagged(&frame, 0x8100, 7);
    let wrong = from_mac(&right, [2, 0, 0, 0, 0, 0x66]);
    let scene = Scene::new();
    let found = scene.replay(&policy, &pcap(ETHERNET, &[(0, right), (1, wrong), (2, frame.clone())]));
    assert_eq!(drops(&found), [row("web1", "udp/514", "spoofed", V4.loghost, 2, 0)]);
    let spoofed = cooked(&from_mac(&frame, [2, 0, 0, 0, 0, 0x66]), 0);
    let found = scene.replay(&policy, &pcap(COOKED, &[(0, cooked(&frame, 0)), (1, spoofed)]));
    assert_eq!(drops(&found), [row("web1", "udp/514", "spoofed", V4.loghost, 1, 0)]);
    let found = scene.replay(&policy, &pcap(RAW_IP, &[(0, frame[14..].to_vec())]));
    assert_eq!((found.totals.passed, found.totals.dropped), (1, 0));
    assert!(found.notes.iter().any(|note| note.contains("`spoofed` can't be found")), "{:?}", found.notes);
}

#[test]
fn a_stranger_of_the_dmz_is_known_by_its_mac() {
    let (server, peer) = V4.visit();
    let spoof = udp((ip("198.51.100.99"), 5000), (V4.other, 9));
    let mut frames = visit(0, server, peer);
    // the same MAC as web1's: this frame comes from the DMZ
    frames.push((10, spoof.clone()));
    // the router's: it is none of ours
    frames.push((11, inbound(&spoof)));
    let found = Scene::new().replay(dmz::POLICY, &pcap(ETHERNET, &frames));
    assert_eq!(drops(&found), [row("", "udp/9", "unknown_source", V4.other, 1, 0)]);
    assert_eq!(found.totals.neither, 1);
}

#[test]
fn explain_and_filter_of_a_replay_agree_about_every_frame() {
    let scene = Scene::new();
    let compiled = scene.policy(dmz::POLICY);
    let gate = ReplayGate::load(&compiled.policy, &compiled.tables).expect("a gate");
    in_both_families(|family| {
        let mut frames = day(family);
        frames.push((500, tcp((family.web, 80), (family.other, 4000), SYN | ACK)));
        frames.push((501, tcp((family.web, 9), (family.other, 4000), RST)));
        frames.push((600, udp((family.unknown, 9), (family.other, 4000))));
        for (after_ms, frame) in frames {
            gate.set_clock(1_000_000_000_000 + after_ms * 1_000_000);
            if frame[6..12] == ROUTER_MAC {
                gate.track(&frame).expect("a run");
                continue;
            }
            let answer = gate.explain(&frame).expect("an answer");
            let decision = gate.filter(&frame).expect("a decision");
            assert_eq!(
                (answer.verdict, answer.reason, answer.server, answer.rule, answer.port, answer.quiet),
                (
                    decision.verdict,
                    decision.reason,
                    decision.server,
                    decision.rule,
                    decision.port,
                    decision.quiet
                )
            );
        }
    });
    let dropped = gate.gate().count_dropped().expect("counters");
    assert_eq!(dropped, 2 * 8);
    let rows = gate.gate().ledger().expect("the ledger");
    assert!(rows.iter().all(|(_, row)| row.last_ns >= 1_000_000_000_000 && row.last_ns < 1_001_000_000_000));
    assert_eq!(rows.iter().map(|(_, row)| row.packets).sum::<u64>(), dropped);
}

#[test]
fn the_command_prints_what_it_found_and_says_by_its_status_how_it_ended() {
    let scene = Scene::new();
    write(scene.path(), "dmz0.toml", dmz::POLICY.as_bytes());
    let wider = dmz::POLICY.replace("out   = [", "out   = [\"tcp/22\", ");
    write(scene.path(), "wider.toml", wider.as_bytes());
    let bytes = pcap(ETHERNET, &day(V4));
    write(scene.path(), "day.pcap", &bytes);
    write(scene.path(), "cut.pcap", &bytes[..bytes.len() - 1]);

    let (status, text, errors) = scene.run(&["-p", "dmz0.toml", "day.pcap"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    crate::support::snapshot::assert_text("replay", &without_host(&text));
    let (status, json, _) = scene.run(&["-j", "-p", "dmz0.toml", "day.pcap"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((status, value["drops"].as_array().map(Vec::len)), (Some(0), Some(2)));

    let (status, text, errors) = scene.run(&["-p", "dmz0.toml", "cut.pcap"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("tcp/22"), "{text}");
    let place = bytes.len() - 16 - day(V4)[12].1.len();
    assert!(errors.contains(&format!("cut.pcap: damaged at byte {place}, after packet 12: ")), "{errors}");

    let (status, text, _) = scene.run(&["-p", "dmz0.toml", "--against", "wider.toml", "day.pcap"]);
    assert_eq!(status, Some(1));
    crate::support::snapshot::assert_text("replay-against", &text);
    for (arguments, expected) in [
        (&["-p", "dmz0.toml", "--against", "dmz0.toml", "day.pcap"][..], 0),
        (&["-p", "dmz0.toml", "--against", "dmz0.toml", "cut.pcap"], 2),
        (&["-p", "dmz0.toml", "--against", "missing.toml", "day.pcap"], 2),
        (&["-p", "missing.toml", "day.pcap"], 1),
        (&["-p", "dmz0.toml", "missing.pcap"], 1),
        (&["-p", "dmz0.toml", "dmz0.toml"], 1),
        (&["-p", "dmz0.toml"], 2),
    ] {
        assert_eq!(scene.run(arguments).0, Some(expected), "{arguments:?}");
    }
}

/// Alarms name this machine.
fn without_host(text: &str) -> String {
    let replace = |line: &str| match line.split_once(" alarm #") {
        Some((head, rest)) if head.split(' ').count() == 3 => {
            let time = head.split(' ').next().unwrap_or_default();
            format!("{time} HOST dmz0 alarm #{rest}")
        }
        _ => line.to_owned(),
    };
    text.lines().map(|line| replace(line) + "\n").collect()
}

#[test]
fn a_capture_may_come_by_standard_input_and_in_several_files() {
    let scene = Scene::new();
    let frames = day(V4);
    let compiled = scene.policy(dmz::POLICY);
    let (first, second) = frames.split_at(6);
    let files = [
        write(scene.path(), "second.pcap", &pcap(ETHERNET, second)),
        write(scene.path(), "first.pcap", &pcap(ETHERNET, first)),
    ];
    let found = replay(&compiled, &Request { files: &files, own_mac: None }).expect("a replay");
    assert_eq!(drops(&found), drops_of_day(V4));

    let input =
        std::fs::File::open(write(scene.path(), "all.pcap", &pcap(ETHERNET, &frames))).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["replay", "-j", "-p", "dmz0.toml", "-"]).current_dir(scene.path()).stdin(input);
    let output = command.output().expect("a run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["totals"]["dropped"], 3);
}

/// The addresses are of documentation, so the policy has to say that names may point to them.
const NAMED: &str = r#"
[names]
resolvers = ["198.51.100.53"]
private = ["203.0.113.0/24"]
[roles.updated]
out = ["udp/53 to 198.51.100.53", "tcp/443 to deb.vendor.example"]
[servers.web1]
addresses = ["192.0.2.10"]
roles = ["updated"]
"#;

#[test]
fn names_are_learnt_from_the_answers_in_the_capture_and_open_until_their_time_is_over() {
    let (web, resolver) = ((ip("192.0.2.10"), 40_053), (ip("198.51.100.53"), 53));
    let syn = |to: &str, port: u16| tcp((web.0, port), (ip(to), 443), SYN);
    let query = Message::query(7, "deb.vendor.example", A);
    let answer = query.addresses(&[ip("203.0.113.80")], 60);
    let frames: Vec<Timed> = vec![
        (0, syn("203.0.113.80", 50_000)),
        (40 * SECOND, datagram(web, resolver, &query.bytes())),
        (40 * SECOND + 1, inbound(&datagram(resolver, web, &answer.bytes()))),
        (40 * SECOND + 2, syn("203.0.113.80", 50_001)),
        (40 * SECOND + 3, syn("203.0.113.81", 50_002)),
        // an hour after the last opening
        (3680 * SECOND, syn("203.0.113.80", 50_003)),
    ];
    let scene = Scene::new();
    let replay = scene.replay(NAMED, &pcap(ETHERNET, &frames));
    // too early, another address, and too late
    assert_eq!(drops(&replay), [row("web1", "tcp/443", "destination", "203.0.113.80", 3, 0)]);
}
