use std::sync::Arc;

use super::*;
use crate::alarm::likely::tests::{datagram, ntp_query, question};
use crate::drops::Contacts;
use crate::drops::example::syn;

fn note(detector: &mut Detector, drop: &DropEvent, now_ns: u64) -> Finding {
    detector.note(drop, None, (now_ns, 0), &Thresholds::default())
}

fn host(number: u8) -> Option<IpAddr> {
    Some([198, 51, 100, number].into())
}

/// A SYN to a host, from a port of its own.
fn syn_to(destination: Option<IpAddr>, port: u16, source_port: u16) -> DropEvent {
    DropEvent { port, destination_port: Some(port), destination, source_port: Some(source_port), ..syn() }
}

#[test]
fn one_syn_sent_seven_times_is_one_attempt() {
    let mut detector = Detector::default();
    for seconds in [0, 1, 3, 7, 15, 31, 63] {
        let finding = note(&mut detector, &syn(), 1000 * S + seconds * S);
        assert_eq!(finding.callback, None);
    }
}

#[test]
fn new_connections_to_one_destination_are_attempts() {
    let mut detector = Detector::default();
    for number in 0..5_u16 {
        let drop = syn_to(host(7), 445, 40000 + number);
        let finding = note(&mut detector, &drop, (1000 + u64::from(number) * 10) * S);
        assert_eq!(finding.callback.is_some(), number == 4);
    }
}

#[test]
fn connections_that_are_opened_together_are_one_attempt() {
    let mut detector = Detector::default();
    for number in 0..100_u16 {
        let drop = syn_to(host(7), 445, 40000 + number);
        let finding = note(&mut detector, &drop, 1000 * S + u64::from(number));
        assert_eq!(finding.callback, None);
    }
}

#[test]
fn a_download_from_one_place_is_a_callback_only_if_it_goes_on_for_long() {
    let found_at = |port: u16, gap_s: u64| {
        let mut detector = Detector::default();
        (0..60_u16).find(|number| {
            let drop = syn_to(host(7), port, 40000 + number);
            note(&mut detector, &drop, (1000 + u64::from(*number) * gap_s) * S).callback.is_some()
        })
    };
    assert_eq!(found_at(4444, 60), Some(4));
    assert_eq!(found_at(443, 60), Some(9));
    // as often as a package manager in a hurry, but for longer
    assert_eq!(found_at(443, 10), Some(30));
}

#[test]
fn attempts_are_counted_anew_after_an_hour_of_silence() {
    let mut detector = Detector::default();
    for number in 0..20_u16 {
        let drop = syn_to(host(7), 4444, 40000 + number);
        let finding = note(&mut detector, &drop, (1000 + u64::from(number) * 3700) * S);
        assert_eq!(finding.callback, None, "{number}");
    }
}

#[test]
fn a_streak_of_new_destinations_ends_with_an_older_one_and_not_with_the_last_one_again() {
    let is_spread = |destinations: &[u8]| {
        let mut detector = Detector::default();
        let mut spread = false;
        for (number, number_of_host) in destinations.iter().enumerate() {
            let drop = DropEvent { destination: host(*number_of_host), drops: 20, ..syn() };
            spread |= note(&mut detector, &drop, 1000 * S + number as u64).spread;
        }
        spread
    };
    assert!(is_spread(&[1, 2, 3, 4, 5]));
    assert!(is_spread(&[1, 1, 2, 2, 3, 3, 4, 4, 5]));
    assert!(!is_spread(&[1, 2, 3, 4, 1, 5, 6, 7, 8]));
}

#[test]
fn ten_destinations_are_a_spread_if_few_machines_called_them() {
    let is_spread = |machines: u8| {
        let mut detector = Detector::default();
        (0..10_u8).any(|number| {
            let mut drop = syn_to(host(number), 445, 40000);
            drop.source = Some([192, 0, 2, 128 + number % machines].into());
            note(&mut detector, &drop, (1000 + u64::from(number) * 20) * S).spread
        })
    };
    assert!(is_spread(1) && is_spread(5));
    assert!(!is_spread(10), "each machine has called one");
}

#[test]
fn the_first_destinations_of_a_new_row_are_a_spread_at_once_and_those_of_an_old_one_are_not() {
    let list = |count: u8| {
        Arc::new(Contacts { first: (1..=count).filter_map(host).collect(), ..Contacts::default() })
    };
    let row = |count: u8| DropEvent {
        from: Origin::Ledger,
        drops: 20,
        destinations: Some(list(count)),
        ..syn_to(host(1), 22, 0)
    };
    let noted = |age_s: u64, counts: &[u8]| {
        let mut detector = Detector::default();
        let mut findings = counts.iter().enumerate().map(|(second, count)| {
            let now_ns = (1000 + second as u64) * S;
            detector.note(&row(*count), None, (now_ns, age_s * S), &Thresholds::default()).spread
        });
        findings.position(|spread| spread)
    };
    assert_eq!(noted(2, &[16]), Some(0));
    assert_eq!(noted(7200, &[16, 16, 16]), None);
    // the others have come since
    assert_eq!(noted(7200, &[2, 4, 16]), Some(2));
    assert_eq!(noted(2, &[9, 9]), None);
    // of machines that nobody can tell apart
    let mut detector = Detector::default();
    let machines = (1..=8_u8).map(|number| [192, 0, 2, number].into()).collect();
    let several =
        DropEvent { sources: Some(Arc::new(Contacts { first: machines, ..Contacts::default() })), ..row(16) };
    assert!(!detector.note(&several, None, (1000 * S, S), &Thresholds::default()).spread);
}

#[test]
fn ten_services_of_one_destination_are_a_scan_and_those_of_many_machines_are_not() {
    let services_until_scan = |machines: u8, gap_s: u64| {
        let mut detector = Detector::default();
        (0..60_u16).find(|number| {
            let mut drop = syn_to(host(7), 1000 + number, 40000);
            drop.source = Some([192, 0, 2, 128 + (*number as u8) % machines].into());
            note(&mut detector, &drop, (1000 + u64::from(*number) * gap_s) * S).scan != Scan::No
        })
    };
    assert_eq!(services_until_scan(1, 0), Some(9));
    assert_eq!(services_until_scan(1, 5), Some(9));
    // twenty within five minutes
    assert_eq!(services_until_scan(1, 14), Some(19));
    assert_eq!(services_until_scan(1, 40), None);
    assert_eq!(services_until_scan(20, 5), None);
}

#[test]
fn a_callback_among_many_other_attempts_is_found() {
    let mut detector = Detector::default();
    let mut found = false;
    for number in 0..100_u16 {
        let mut drop = syn_to(host(7), 445, 40000 + number);
        if number % 4 != 0 {
            drop.destination = Some(Ipv4Addr::from(u32::from(number)).into());
        }
        // so slowly that it is no spread
        let finding = note(&mut detector, &drop, (1000 + u64::from(number) * 40) * S);
        assert!(!finding.spread);
        found |= finding.callback == host(7);
    }
    assert!(found);
}

#[test]
fn a_client_of_a_time_server_is_taken_for_one_at_its_pace_alone() {
    let likely_after = |gap_s: u64, payload: &[u8]| {
        let mut detector = Detector::default();
        let mut likely = Likely::Unknown;
        for number in 0..200 {
            let finding = note(&mut detector, &datagram(123, payload), (1000 + number * gap_s) * S);
            likely = finding.likely;
            let is_callback = finding.callback.is_some();
            assert!(!is_callback || likely == Likely::Unknown, "never a reverse shell");
        }
        likely
    };
    assert_eq!(likely_after(64, &ntp_query()), Likely::TimeServer);
    assert_eq!(likely_after(10, &ntp_query()), Likely::TimeServer);
    assert_eq!(likely_after(2, &ntp_query()), Likely::Unknown);
    assert_eq!(likely_after(64, b"beacon"), Likely::Unknown);
}

#[test]
fn packets_that_no_sample_shows_count_for_the_pace() {
    let mut detector = Detector::default();
    let question = datagram(53, &question("deb.vendor.example", 1, true));
    assert_eq!(note(&mut detector, &question, 1000 * S).likely, Likely::Resolver);
    let row = DropEvent { from: Origin::Ledger, frame: Vec::new(), drops: 5, ..question.clone() };
    assert_eq!(note(&mut detector, &row, 1001 * S).likely, Likely::Resolver);
    let many = DropEvent { drops: 300, ..row };
    let finding = note(&mut detector, &many, 1002 * S);
    assert!(finding.likely == Likely::Unknown && finding.is_odd);
    assert!(note(&mut detector, &question, 90_000 * S).is_odd, "it stays so");
}

#[test]
fn a_server_that_tries_everything_everywhere_costs_little() {
    let mut detector = Detector::default();
    for number in 0..200_000_u32 {
        let mut drop = syn();
        drop.port = (number % 65_536) as u16;
        drop.destination = Some(Ipv4Addr::from(number.wrapping_mul(77)).into());
        note(&mut detector, &drop, 1000 * S + u64::from(number));
    }
    let thresholds = Thresholds::default();
    assert!(detector.services.len() <= MAX_SERVICES);
    assert!(detector.last_services.len() <= thresholds.scan_services);
    assert!(detector.targets.len() <= MAX_TARGETS);
    assert!(detector.targets.iter().all(|target| target.services.len() <= thresholds.target_services));
    let contacts = detector.services.entry((6, 65_535)).contacts.len();
    assert!(contacts <= MAX_CONTACTS);
}
