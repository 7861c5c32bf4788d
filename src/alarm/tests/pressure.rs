//! Worms that samples show little of, clocks that are stepped, and servers that need more alarms than there is
//! room for.

use std::sync::Arc;

use super::*;
use crate::drops::Contacts;

/// The last packet of a ledger row.
fn last_packet_of(drop: &DropEvent) -> DropEvent {
    let unknown = DropEvent { source_port: None, tcp_flags: None, source_mac: None, ..drop.clone() };
    DropEvent { drops: 0, from: Origin::Ledger, ..unknown }
}

#[test]
fn a_fast_worm_that_is_sampled_once_a_second_is_detected_within_three() {
    let mut engine = Engine::default();
    let mut found_ms = None;
    for ms in (0..10_000).step_by(500) {
        let now = after_ms(ms);
        let mut drop = attempt_at(8291, ms as u32, 40000, now);
        let changes = if ms % 1000 == 0 {
            drop.drops = if ms == 0 { 1 } else { 1000 };
            engine.observe(&drop, now)
        } else {
            engine.observe_last_packet(&last_packet_of(&drop), now)
        };
        if changes.iter().any(|change| change.alarm.kind() == Kind::Spread) {
            found_ms = found_ms.or(Some(ms));
        }
    }
    assert!(found_ms.is_some_and(|ms| ms <= 3000), "{found_ms:?}");
    assert_eq!(only(&engine).packets, 9001, "a last packet counts nothing");
}

/// When a worm is detected whose row is polled ten times a second, with so many packets in between.
fn poll_attempts(packets: u64, destination: impl Fn(u32) -> u32) -> Option<u64> {
    let mut engine = Engine::default();
    engine.observe(&attempt_at(8291, destination(0), 40000, at(0)), at(0));
    let mut detected_ms = None;
    for poll in 1..100 {
        let now = after_ms(poll * 100);
        let drop = attempt_at(8291, destination(poll as u32), 40000, now);
        let changes = engine.observe_hot_row(&last_packet_of(&drop), packets, || None, now);
        let is_spread = only(&engine).kind() == Kind::Spread;
        detected_ms = detected_ms.or(is_spread.then_some(poll * 100));
        // and reported when half a second has passed since the alarm was opened
        let is_reported = changes.iter().any(|change| change.alarm.kind() == Kind::Spread);
        let is_due = detected_ms.is_some_and(|ms| poll * 100 == ms.max(500));
        assert!(is_reported == is_due || poll * 100 > 500 && !is_due, "{changes:?} at poll {poll}");
    }
    detected_ms
}

#[test]
fn a_fast_worm_that_is_polled_is_detected_within_a_second_and_single_attempts_are_no_worm() {
    assert_eq!(poll_attempts(20, |poll| poll), Some(400));
    // a slow one by its ten destinations
    assert_eq!(poll_attempts(2, |poll| poll), Some(900));
    // nine places in turn, or one for long and then others
    assert_eq!(poll_attempts(1, |poll| poll % 9), None);
    assert_eq!(poll_attempts(1, |poll| if poll < 90 { 0 } else { (poll - 90).min(8) }), None);
    assert_eq!(poll_attempts(1000, |poll| poll % 4), None);
}

#[test]
fn an_alarm_that_a_poll_escalates_is_emitted_with_its_count_and_no_other_poll_counts() {
    let mut engine = Engine::default();
    engine.observe(&attempt_at(8291, 0, 40000, at(0)), at(0));
    let mut taken = 0;
    for poll in 1..20 {
        let now = after_ms(poll * 100);
        let last_packet = last_packet_of(&attempt_at(8291, poll as u32, 40000, now));
        let take_unreported = || {
            taken += 1;
            Some(DropEvent { drops: 99, ..last_packet.clone() })
        };
        for change in engine.observe_hot_row(&last_packet, 20, take_unreported, now) {
            assert_eq!((change.alarm.kind(), change.alarm.packets), (Kind::Spread, 100));
        }
    }
    assert_eq!((taken, only(&engine).packets), (1, 100));
}

#[test]
fn a_server_that_floods_three_places_is_no_worm() {
    let mut engine = Engine::default();
    for second in 0..60 {
        let mut drop = attempt_at(8291, second % 3, 40000, at(u64::from(second)));
        drop.drops = 1000;
        engine.observe(&drop, at(u64::from(second)));
        let last_packet = last_packet_of(&attempt_at(8291, (second + 1) % 3, 40000, at(u64::from(second))));
        engine.observe_last_packet(&last_packet, at(u64::from(second)));
    }
    assert_ne!(only(&engine).kind(), Kind::Spread);
}

#[test]
fn a_last_packet_opens_nothing_and_one_syn_that_is_sent_again_stays_one_attempt() {
    let mut engine = Engine::default();
    assert!(engine.observe_last_packet(&last_packet_of(&syn()), at(0)).is_empty());
    assert!(engine.open_alarms().is_empty());
    for seconds in [0, 1, 3, 7, 15, 31, 63] {
        let drop = attempt_at(4444, 7, 40000, at(seconds));
        engine.observe(&drop, at(seconds));
        engine.observe_last_packet(&last_packet_of(&drop), after_ms(seconds * 1000 + 950));
    }
    let alarm = only(&engine);
    assert_eq!((alarm.kind(), alarm.events), (Kind::Attempt, 7));
}

#[test]
fn neither_kind_nor_severity_ever_falls_and_each_escalation_is_emitted_once() {
    let mut engine = Engine::default();
    let mut emitted = Vec::new();
    // a login at one place again and again: critical as an attempt, less so as a callback
    for number in 0..8_u16 {
        let now = at(u64::from(number) * 30);
        let changes = engine.observe(&attempt_at(22, 7, 40000 + number, now), now);
        emitted.extend(
            changes
                .into_iter()
                .map(|change| (change.step.name(), change.alarm.kind(), change.alarm.severity())),
        );
    }
    emitted.retain(|(step, ..)| *step != "updated");
    let critical = Severity::Critical;
    assert_eq!(emitted, [("opened", Kind::Attempt, critical), ("escalated", Kind::Callback, critical)]);
}

#[test]
fn a_critical_attempt_inside_a_scan_makes_the_scan_critical() {
    let mut engine = Engine::default();
    for port in 40_000..40_030_u16 {
        engine.observe(&attempt_at(port, 7, 40000, at(1)), at(1));
    }
    engine.tick(at(2));
    assert_eq!((only(&engine).kind(), only(&engine).severity()), (Kind::Scan, Severity::High));
    let changes = engine.observe(&attempt_at(22, 7, 40000, at(3)), at(3));
    assert_eq!(steps(&changes), [("escalated", 1, Kind::Scan)]);
    assert_eq!(changes[0].alarm.severity(), Severity::Critical);
}

#[test]
fn the_times_of_an_alarm_follow_a_clock_that_is_stepped() {
    let mut engine = Engine::default();
    engine.observe(&attempt_at(445, 7, 40000, at(0)), at(0));
    for step_s in [-7200_i64, 86_400 * 400] {
        let step =
            |clock: Clock| Clock { wall: clock.wall + jiff::SignedDuration::from_secs(step_s), ..clock };
        let now = step(at(10));
        engine.observe(&attempt_at(445, 7, 40000, now), now);
        let alarm = only(&engine);
        assert_eq!((alarm.first, alarm.last), (step(at(0)).wall, step(at(10)).wall));
    }
    // timers run on the other clock, and a slow correction is none
    assert!(engine.tick(at(20)).iter().all(|change| change.step == Step::Updated));
    let before = only(&engine).first;
    let mut slewed = at(21);
    slewed.wall += jiff::SignedDuration::from_millis(100);
    engine.tick(slewed);
    assert_eq!(only(&engine).first, before);
    assert_eq!(engine.tick(at(400)).len(), 1);
}

#[test]
fn every_port_at_any_number_of_destinations_takes_no_more_memory_than_a_few() {
    // Each at another place; a million do as well, and take a debug build half a minute.
    const MANY: u32 = 200_000;
    let mut engine = Engine::default();
    let mut changes = 0;
    for number in 0..MANY {
        let now = after_ms(u64::from(number) / 100);
        // every port, and addresses in no order
        let mut drop = attempt_at((number % 65_536) as u16, 0, 40000, now);
        drop.destination = Some(Ipv4Addr::from(number.wrapping_mul(2_654_435_761)).into());
        changes += engine.observe(&drop, now).len();
        if number % 100 == 0 {
            changes += engine.tick(now).len();
        }
    }
    let alarm = only(&engine);
    assert_eq!((alarm.kind(), alarm.packets), (Kind::Scan, u64::from(MANY)));
    assert!(is_about(alarm.destinations.len(), MANY as usize), "{}", alarm.destinations.len());
    assert!(is_about(alarm.ports.len(), 65_536), "{}", alarm.ports.len());
    assert!(changes < 20, "{changes} changes");
}

#[test]
fn a_server_that_does_too_much_has_one_part_for_the_rest_and_one_alarm() {
    let mut engine = Engine::default();
    let mut pages = 0;
    // backdoors are no part of a scan, so each port has its part
    for round in 0..5_u16 {
        for port in 0..500_u16 {
            let now = after_ms(u64::from(round) * 200_000 + u64::from(port) * 400);
            let mut drop = attempt_at(1000 + port, u32::from(port), 40000 + round, now);
            drop.reason = Reason::UnlistedService.into();
            drop.own_port = true;
            let mut changes = engine.observe(&drop, now);
            changes.extend(engine.flush(now));
            pages += changes.iter().filter(|change| matches!(change.step, Step::Escalated { .. })).count();
        }
    }
    let alarm = only(&engine);
    assert_eq!((alarm.kind(), alarm.packets, alarm.parts.len()), (Kind::Backdoor, 2500, 17));
    assert_eq!(alarm.parts.iter().filter(|part| part.scope == Scope::Rest).count(), 1);
    assert!((10..=64).contains(&pages), "{pages} pages");
}

#[test]
fn alarms_are_bounded_whatever_a_thousand_servers_send() {
    let mut engine = Engine::default();
    let mut sent = 0;
    for id in 1..=6000 {
        for (number, reason) in REASONS.iter().filter(|reason| reason.drops()).enumerate() {
            let mut drop = because(*reason);
            drop.server = server(id);
            drop.port = number as u16;
            sent += u64::from(Kind::of(&drop).is_some());
            engine.observe(&drop, at(1));
        }
    }
    let open = engine.open_alarms();
    assert!(open.len() <= 2048 + 1, "{}", open.len());
    assert!(open.iter().any(|alarm| alarm.is_for_all && alarm.subject() == "several servers"));
    assert_eq!(open.iter().map(|alarm| alarm.packets).sum::<u64>(), sent);
    let closed = engine.tick(at(400));
    assert!(engine.open_alarms().is_empty());
    assert!(closed.len() <= 2048 + 1);
    assert_eq!(engine.indices_len(), 0);
}

#[test]
fn an_alarm_for_all_others_takes_the_most_severe_kind_that_it_folds() {
    let mut engine = Engine::new(Thresholds { max_open: 1, ..Thresholds::default() });
    engine.observe(&syn(), at(0));
    let stray = DropEvent { server: server(2), ..because(Reason::NoFlow) };
    let opened = engine.observe(&stray, at(0));
    assert!(opened[0].alarm.is_for_all && opened[0].alarm.lead().scope == Scope::Rest);
    let backdoor = DropEvent { server: server(3), ..because(Reason::UnlistedService) };
    let escalated = engine.observe(&backdoor, at(1));
    assert_eq!(escalated[0].step, Step::Escalated { from: Kind::Stray });
    assert_eq!(escalated[0].alarm.severity(), Severity::Critical);
    assert!(escalated[0].alarm.seen().starts_with("several servers did more than alarms have room for"));
}

#[test]
fn the_frames_of_many_machines_take_no_server_its_room() {
    let mut engine = Engine::default();
    for number in 0..1000_u16 {
        let mut frame = because(Reason::Ethertype);
        (frame.server, frame.port, frame.protocol) = (None, 0x88b5, 0);
        frame.source_mac = Some([2, 0, 0, 0, (number >> 8) as u8, number as u8]);
        engine.observe(&frame, at(0));
    }
    assert_eq!(engine.open_alarms().len(), 64 + 1);
    assert_eq!(steps(&engine.observe(&syn(), at(0))), [("opened", 66, Kind::Attempt)]);
}

/// The largest record that an alarm can have.
#[test]
fn the_record_of_an_alarm_that_has_everything_is_bounded() {
    let mut engine = Engine::default();
    let mut now = at(0);
    for port in 0..20_u16 {
        for number in 0..40 {
            now = after_ms(u64::from(port) * 1000 + number);
            let mut drop = attempt_at(20_000 + port, 100 * u32::from(port) + number as u32, 40000, now);
            drop.reason = Reason::UnlistedService.into();
            drop.source = Some(format!("2001:db8::ffff:{number:x}").parse().unwrap());
            drop.destination =
                Some(format!("2001:db8:ffff:ffff:ffff:{port:x}:ffff:{number:x}").parse().unwrap());
            drop.frame = vec![0xff; 128];
            let first: Vec<IpAddr> = drop.destination.into_iter().collect();
            let frequent = vec![(first[0], u64::MAX); 8];
            let contacts = Contacts { first, frequent, is_estimate: true, is_full: true };
            drop.sources = Some(Arc::new(contacts));
            drop.destinations.clone_from(&drop.sources);
            engine.observe(&drop, now);
        }
    }
    engine.tick(now);
    let record = serde_json::to_string(&only(&engine)).unwrap();
    // as docs/operations.md has it
    assert!(record.len() <= 32 << 10, "{} bytes", record.len());
}
