//! What the perf buffer gets: of each kind of drop one sample a second, with all that an alarm says.

use std::time::Duration;

use portcullis::abi::Reason;
use portcullis::abi::{drop_flag, sample, verdict};
use portcullis::clock::now_ns;
use portcullis::drops::ReasonCode;
use portcullis::drops::{Sample, decode};
use portcullis::gate::{Consumer, ProgramStatistics};

use crate::support::cpu::on_one_cpu;
use crate::support::dmz::{POLICY, V4, in_both_families};
use crate::support::frame::{
    ACK, PSH, ROUTER_MAC, SERVER_MAC, SYN, TCP, UDP, icmp, icmp_protocol, link_frame, packet, tagged, tcp,
    udp,
};
use crate::support::frame::{ethernet, udp_datagram};
use crate::support::test_gate::{SECOND_NS, TestGate};

/// The loopback of the namespace, which a test run takes for the interface.
const LOOPBACK: u32 = 1;
/// `SAMPLE_FRAME_BYTES`
const MOST_OF_A_FRAME: usize = 128;

/// What has arrived. An event is in the buffer when the program that wrote it has ended.
fn take(consumer: &Consumer<'_>) -> Vec<Sample> {
    let received = consumer.poll(Duration::ZERO).expect("a poll");
    assert_eq!(received.lost, 0, "of a buffer that is nearly empty");
    let whole = size_of::<sample>() + MOST_OF_A_FRAME;
    // the kernel rounds up to eight bytes, less the four of the length
    assert!(
        received.samples.iter().all(|bytes| bytes.len() <= whole + 8),
        "more of a frame than a sample has"
    );
    received.samples.iter().map(|bytes| decode(bytes).expect("a sample")).collect()
}

/// The one sample of a frame that is dropped or would be.
#[track_caller]
fn sample_of(gate: &TestGate, consumer: &Consumer<'_>, frame: &[u8]) -> Sample {
    let before_ns = now_ns();
    gate.programs.run_filter(frame, 1).expect("a run");
    let mut samples = take(consumer);
    assert_eq!(samples.len(), 1, "{samples:?}");
    let sample = samples.remove(0);
    // the coarse clock is some milliseconds behind
    assert!(sample.time_ns + SECOND_NS > before_ns && sample.time_ns <= now_ns());
    sample
}

/// What a sample has of a frame that has neither addresses nor a server.
fn bare(frame: &[u8], reason: Reason) -> Sample {
    Sample {
        time_ns: 0,
        drops: 1,
        source: None,
        destination: None,
        interface: LOOPBACK,
        server: 0,
        rule: 0,
        edit: 0,
        length: frame.len() as u32,
        source_port: 0,
        destination_port: 0,
        ethertype: 0,
        vlan: 0,
        port: 0,
        verdict: verdict::VERDICT_DROP.0 as u8,
        reason: ReasonCode::Known(reason),
        flags: 0,
        protocol: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        ip_version: 0,
        source_mac: SERVER_MAC,
        destination_mac: ROUTER_MAC,
        in_rest: false,
        frame: frame[..frame.len().min(MOST_OF_A_FRAME)].to_vec(),
    }
}

#[track_caller]
fn assert_sample(gate: &TestGate, consumer: &Consumer<'_>, frame: &[u8], expected: Sample) {
    let sample = sample_of(gate, consumer, frame);
    assert_eq!(sample, Sample { time_ns: sample.time_ns, ..expected });
}

#[test]
fn what_only_a_quarantine_forbids_names_no_line_and_an_answer_to_a_visitor_is_no_sample() {
    let gate = TestGate::dmz();
    let (server, peer) = V4.visit();
    gate.establish(server, peer);
    gate.quarantine("web1", None).unwrap();
    gate.quarantine("ns1", None).unwrap();
    let consumer = gate.consume_samples().expect("a perf buffer");
    let question = udp((V4.ns, 40_000), (V4.peer, 53));
    let sample = sample_of(&gate, &consumer, &question);
    assert_eq!((sample.reason, sample.rule), (ReasonCode::Known(Reason::Quarantined), 0));
    let answer = tcp(server, peer, ACK);
    assert_eq!(gate.explain(&answer, false, None).unwrap().rule, 0);
    gate.drops(&answer, Reason::Quarantined);
    assert!(take(&consumer).is_empty(), "visitors go on to ask, which is no sign of an attack");
}

#[test]
fn a_sample_says_all_that_there_is_to_say_of_a_frame() {
    let gate = TestGate::dmz();
    let consumer = gate.consume_samples().expect("a perf buffer");
    let web = gate.id_of("web1");
    in_both_families(|family| {
        let version = if family.web.is_ipv4() { 4 } else { 6 };
        let ethertype = if family.web.is_ipv4() { 0x0800 } else { 0x86dd };
        // a port for each family: they share their kinds
        let port = 6660 + u16::from(version);
        let frame = tagged(&tcp((family.web, 40_000), (family.peer, port), SYN | PSH), 0x8100, 0x6123);
        let expected = Sample {
            source: Some(family.web),
            destination: Some(family.peer),
            server: web,
            source_port: 40_000,
            destination_port: port,
            ethertype,
            vlan: 0x6123,
            port,
            protocol: TCP,
            tcp_flags: SYN | PSH,
            ip_version: version,
            ..bare(&frame, Reason::NewFlow)
        };
        assert_sample(&gate, &consumer, &frame, expected);

        let frame = icmp(family.web, family.peer, (200, 7), [1, 2, 3, 4], &[]);
        let expected = Sample {
            source: Some(family.web),
            destination: Some(family.peer),
            server: web,
            ethertype,
            port: 200,
            protocol: icmp_protocol(family.web),
            icmp_type: 200,
            icmp_code: 7,
            ip_version: version,
            ..bare(&frame, Reason::NewFlow)
        };
        assert_sample(&gate, &consumer, &frame, expected);
    });
    let frame = link_frame(0x9000, &[7; 46]);
    let expected = Sample { ethertype: 0x9000, port: 0x9000, ..bare(&frame, Reason::Ethertype) };
    assert_sample(&gate, &consumer, &frame, expected);
}

#[test]
fn a_sample_names_the_need_whose_limit_a_packet_was_over() {
    let gate = TestGate::new(&POLICY.replace("out   = [", "out   = [\"udp/123\", \"udp/700 limit 1/m\", "));
    let consumer = gate.consume_samples().expect("a perf buffer");
    let frame = udp((V4.web, 700), (V4.peer, 700));
    gate.passes(&frame, Reason::Need);
    let rule = gate.explain(&frame, false, None).expect("an answer").rule;
    let sample = sample_of(&gate, &consumer, &frame);
    assert_eq!((sample.reason, sample.protocol), (ReasonCode::Known(Reason::Rate), UDP));
    assert!(rule != 0);
    assert_eq!(sample.rule, rule);
}

#[test]
fn a_sample_has_the_first_128_bytes_of_a_frame_or_all_of_it() {
    let gate = TestGate::dmz();
    let consumer = gate.consume_samples().expect("a perf buffer");
    for (length, port) in [(60, 1), (127, 2), (128, 3), (129, 4), (1514, 5), (4_000, 6)] {
        let payload: Vec<u8> = (0..length - 42).map(|at| at as u8).collect();
        let datagram = udp_datagram((V4.web, 40_000), (V4.peer, port), &payload);
        let frame = ethernet(&packet(V4.web, V4.peer, UDP, &datagram));
        let sample = sample_of(&gate, &consumer, &frame);
        assert_eq!((sample.length as usize, sample.frame.len()), (length, length.min(MOST_OF_A_FRAME)));
        assert_eq!(sample.frame[..], frame[..sample.frame.len()]);
    }
}

#[test]
fn a_sample_tells_a_drop_from_what_is_only_observed() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    let consumer = gate.consume_samples().expect("a perf buffer");
    let sample = sample_of(&gate, &consumer, &tcp((V4.web, 40_000), (V4.peer, 6667), SYN));
    assert_eq!(u32::from(sample.verdict), verdict::VERDICT_WOULD_DROP.0);
    assert_eq!(u32::from(sample.flags), drop_flag::DROP_WOULD.0);
}

#[test]
fn a_kind_of_drop_is_sampled_once_a_second_and_says_how_many_it_stands_for() {
    let gate = TestGate::dmz();
    let consumer = gate.consume_samples().expect("a perf buffer");
    // what is known and what takes the full path, each with a kind beside it
    let kinds = |port| [tcp((V4.web, 40_000), (V4.peer, port), SYN), udp((V4.web, 40_000), (V4.peer, port))];
    for (frame, beside) in kinds(6667).iter().zip(&kinds(6668)) {
        assert_eq!(sample_of(&gate, &consumer, frame).drops, 1);
        for later_ns in [60 * SECOND_NS, SECOND_NS / 2] {
            // a machine that hesitates must not let the second go by
            gate.move_samples(now_ns() + later_ns);
            for _ in 0..2 {
                gate.programs.run_filter(frame, 1).expect("a run");
            }
            assert_eq!(take(&consumer), [], "another one within a second");
        }
        // another kind waits for nobody
        assert_eq!(sample_of(&gate, &consumer, beside).drops, 1);
        gate.move_samples(now_ns() - 3 * SECOND_NS / 2);
        assert_eq!(sample_of(&gate, &consumer, frame).drops, 5);
        gate.move_samples(now_ns() - 3 * SECOND_NS / 2);
        assert_eq!(sample_of(&gate, &consumer, frame).drops, 1);
    }
}

#[test]
fn what_is_quiet_and_what_passes_is_no_sample() {
    let gate = TestGate::dmz();
    let consumer = gate.consume_samples().expect("a perf buffer");
    in_both_families(|family| {
        gate.drops(&udp((family.web, 40_000), (family.peer, 5353)), Reason::NewFlow);
        gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
    });
    assert_eq!(take(&consumer), []);
    assert_eq!(gate.program_statistics().expect("a statistic"), ProgramStatistics::default());
}

#[test]
fn samples_are_counted_as_sent_or_as_without_a_reader() {
    let gate = TestGate::dmz();
    let frame = |port| tcp((V4.web, 40_000), (V4.peer, port), SYN);
    gate.programs.run_filter(&frame(1), 1).expect("a run");
    let statistic = ProgramStatistics { samples_no_reader: 1, ..ProgramStatistics::default() };
    assert_eq!(gate.program_statistics().expect("a statistic"), statistic);
    let consumer = gate.consume_samples().expect("a perf buffer");
    sample_of(&gate, &consumer, &frame(2));
    assert_eq!(
        gate.program_statistics().expect("a statistic"),
        ProgramStatistics { samples_sent: 1, ..statistic }
    );
    drop(consumer);
    gate.programs.run_filter(&frame(3), 1).expect("a run");
    let statistic =
        ProgramStatistics { samples_sent: 1, samples_no_reader: 2, ..ProgramStatistics::default() };
    assert_eq!(gate.program_statistics().expect("a statistic"), statistic);
}

#[test]
fn samples_for_which_there_is_no_room_are_counted_as_lost() {
    const KINDS: u16 = 3_000;
    let gate = TestGate::sized(POLICY, &[("ledger", 32_768)]);
    let consumer = gate.consume_samples().expect("a perf buffer");
    // one CPU's buffer fills up
    on_one_cpu(|| {
        for port in 1..=KINDS {
            let frame = tcp((V4.web, 40_000), (V4.peer, 10_000 + port), SYN);
            gate.programs.run_filter(&frame, 1).expect("a run");
        }
    });
    let statistic = gate.program_statistics().expect("a statistic");
    assert_eq!((statistic.samples_no_reader, statistic.ledger_full), (0, 0));
    assert!(statistic.samples_lost > 0, "{statistic:?}");
    assert_eq!(statistic.samples_sent + statistic.samples_lost, u64::from(KINDS));
    let received = consumer.poll(Duration::ZERO).expect("a poll");
    assert_eq!(received.samples.len() as u64, statistic.samples_sent);
}
