//! Worms, scans and callbacks, and attempts that are none of them.

use super::*;

#[test]
fn a_worm_is_one_alarm_that_escalates_once() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for number in 0..5000 {
        let now = after_ms(u64::from(number) * 100);
        changes.extend(engine.observe(&attempt_at(445, number, 40000, now), now));
    }
    let count = |name: &str| changes.iter().filter(|change| change.step.name() == name).count();
    assert_eq!((count("opened"), count("escalated"), count("closed")), (1, 1, 0));
    assert!(count("updated") <= 8, "{}", count("updated"));
    let escalated = &changes[1];
    assert_eq!(escalated.step, Step::Escalated { from: Kind::Attempt });
    assert_eq!(escalated.alarm.events, 10);
    assert_eq!(escalated.alarm.severity(), Severity::Critical);
    assert_eq!(escalated.alarm.technique().id, "T1210");
    let alarm = only(&engine);
    assert!(alarm.destinations.is_estimate() && is_about(alarm.destinations.len(), 5000));
    let rest = alarm.destinations.len() - 3;
    assert!(alarm.seen().contains(&format!("and about {rest} more")), "{}", alarm.seen());
}

#[test]
fn ten_destinations_in_an_hour_are_no_worm() {
    let mut engine = Engine::default();
    for number in 0..10 {
        let now = at(u64::from(number) * 280);
        engine.observe(&attempt_at(445, number, 40000, now), now);
    }
    assert_eq!(only(&engine).kind(), Kind::Attempt);
}

#[test]
fn a_worm_at_a_download_port_escalates_the_fetch() {
    let mut engine = Engine::default();
    let mut kinds = Vec::new();
    for number in 0..10 {
        let now = at(u64::from(number));
        for change in engine.observe(&attempt_at(80, number, 40000, now), now) {
            kinds.push((change.step.name(), change.alarm.kind()));
        }
    }
    assert_eq!(kinds, [("opened", Kind::Fetch), ("escalated", Kind::Spread)]);
}

#[test]
fn a_scan_takes_the_place_of_its_single_attempts_in_the_same_alarm() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for port in 40_000..42_000_u16 {
        let now = after_ms(u64::from(port) * 10);
        let mut one = attempt_at(port, 7, 40000, now);
        // the first one from before the daemon: the scan takes that along
        one.while_away = port == 40_000;
        changes.extend(engine.observe(&one, now));
        changes.extend(engine.flush(now));
    }
    let escalated: Vec<&Change> =
        changes.iter().filter(|change| matches!(change.step, Step::Escalated { .. })).collect();
    assert_eq!(escalated.len(), 1, "{:#?}", steps(&changes));
    assert_eq!(escalated[0].alarm.kind(), Kind::Scan);
    assert!(changes.iter().all(|change| change.alarm.id == 1), "one alarm");
    let alarm = only(&engine);
    assert_eq!((alarm.packets, alarm.lead().scope, alarm.parts.len()), (2000, Scope::Ports, 1));
    assert!(alarm.while_away);
    assert!(alarm.ports.is_estimate() && is_about(alarm.ports.len(), 2000));
    assert_eq!(alarm.technique().id, "T1046");
    let services = format!("tried about {} services at 198.51.100.", alarm.lead().services.len());
    assert!(alarm.seen().contains(&services), "{}", alarm.seen());
}

#[test]
fn a_worm_is_found_during_a_scan() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for number in 0..600_u16 {
        let now = after_ms(u64::from(number) * 100);
        // a scan of one host, and among it a worm at one port
        changes.extend(engine.observe(&attempt_at(1000 + number, 7, 40000, now), now));
        let worm = attempt_at(445, 1000 + u32::from(number), 40000, now);
        changes.extend(engine.observe(&worm, now));
    }
    let is_page = |change: &&Change| matches!(change.step, Step::Escalated { .. });
    assert!(changes.iter().filter(is_page).any(|change| change.alarm.kind() == Kind::Spread));
    let kinds: Vec<Kind> = only(&engine).parts.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [Kind::Spread, Kind::Scan]);
}

#[test]
fn one_destination_again_and_again_is_a_callback() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for number in 0..8_u16 {
        let now = at(u64::from(number) * 30);
        changes.extend(engine.observe(&attempt_at(4444, 7, 40000 + number, now), now));
    }
    let escalated: Vec<&Change> =
        changes.iter().filter(|change| matches!(change.step, Step::Escalated { .. })).collect();
    assert_eq!(escalated.len(), 1);
    let alarm = &escalated[0].alarm;
    assert_eq!((alarm.kind(), alarm.events), (Kind::Callback, 5));
    assert_eq!(alarm.lead().contacted, host(7));
    assert!(alarm.seen().contains("contacted tcp/4444 at 198.51.100.7 again and again"));
}

#[test]
fn a_beacon_that_is_slower_than_alarms_last_is_a_callback_too() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for number in 0..10_u16 {
        for second in 0..600 {
            let now = at(u64::from(number) * 600 + second);
            if second == 0 {
                changes.extend(engine.observe(&attempt_at(4444, 7, 40000 + number, now), now));
            }
            changes.extend(engine.tick(now));
        }
    }
    changes.retain(|change| change.step != Step::Updated);
    let callback = Kind::Callback;
    assert_eq!(
        steps(&changes),
        [
            ("opened", 1, Kind::Attempt),
            ("closed", 1, Kind::Attempt),
            // it is known to come again
            ("opened", 2, Kind::Attempt),
            ("escalated", 2, callback),
        ]
    );
}

#[test]
fn a_syn_that_is_sent_again_is_no_callback() {
    let mut engine = Engine::default();
    for seconds in [0, 1, 3, 7, 15, 31, 63] {
        engine.observe(&attempt_at(4444, 7, 40000, at(seconds)), at(seconds));
    }
    assert_eq!(only(&engine).kind(), Kind::Attempt);
}
