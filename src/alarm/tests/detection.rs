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
    assert!(count("updated") <= 50);
    let escalated = &changes[1];
    assert_eq!(escalated.step, Step::Escalated { from: Kind::Attempt });
    assert_eq!(escalated.alarm.events, 10);
    assert_eq!(escalated.alarm.severity, Severity::Critical);
    assert_eq!(escalated.alarm.technique().id, "T1210");
    let alarm = engine.open_alarms()[0];
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
    assert_eq!(engine.open_alarms()[0].kind, Kind::Attempt);
}

#[test]
fn a_worm_at_a_download_port_escalates_the_fetch() {
    let mut engine = Engine::default();
    let mut kinds = Vec::new();
    for number in 0..12 {
        let now = at(u64::from(number));
        for change in engine.observe(&attempt_at(80, number, 40000, now), now) {
            kinds.push((change.step.name(), change.alarm.kind));
        }
    }
    assert_eq!(kinds, [("opened", Kind::Fetch), ("escalated", Kind::Spread), ("updated", Kind::Spread)][..2]);
}

#[test]
fn a_scan_takes_the_place_of_its_single_attempts() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for port in 1000..3000_u16 {
        let now = after_ms(u64::from(port) * 10);
        let mut one = attempt_at(port, 7, 40000, now);
        // the first one from before the daemon: its alarm takes that along
        one.while_away = port == 1000;
        changes.extend(engine.observe(&one, now));
    }
    let scans: Vec<&Change> = changes
        .iter()
        .filter(|change| change.step == Step::Opened && change.alarm.kind == Kind::Scan)
        .collect();
    assert_eq!(scans.len(), 1);
    let scan = scans[0].alarm.id;
    let folded = Step::Closed { folded_into: Some(scan) };
    let closed = changes.iter().filter(|change| change.step == folded).count();
    assert_eq!(closed, 19 + 1, "those before the scan was one, and the one from before the daemon");
    let open = engine.open_alarms();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].packets, open[0].scope), (2000, Scope::Ports));
    assert!(open[0].while_away);
    assert!(open[0].ports.is_estimate() && is_about(open[0].ports.len(), 2000));
    assert_eq!(open[0].technique().id, "T1046");
    let ports = format!("tried about {} ports at 198.51.100.", open[0].ports.len());
    assert!(open[0].seen().contains(&ports), "{}", open[0].seen());
}

#[test]
fn a_worm_is_found_during_a_scan() {
    let mut engine = Engine::default();
    let mut opened = Vec::new();
    for number in 0..600_u16 {
        let now = after_ms(u64::from(number) * 100);
        // a scan of one host, and among it a worm at one port
        engine.observe(&attempt_at(1000 + number, 7, 40000, now), now);
        let worm = attempt_at(445, 1000 + u32::from(number), 40000, now);
        opened.extend(engine.observe(&worm, now));
    }
    assert!(opened.iter().any(|change| change.alarm.kind == Kind::Spread));
    let kinds: Vec<Kind> = engine.open_alarms().iter().map(|alarm| alarm.kind).collect();
    assert!(kinds.contains(&Kind::Scan) && kinds.contains(&Kind::Spread), "{kinds:?}");
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
    assert_eq!((alarm.kind, alarm.events), (Kind::Callback, 5));
    assert_eq!(alarm.contacted, host(7));
    assert!(alarm.seen().contains("contacted tcp/4444 at 198.51.100.7 again and again"));
}

#[test]
fn a_syn_that_is_sent_again_is_no_callback() {
    let mut engine = Engine::default();
    for seconds in [0, 1, 3, 7, 15, 31, 63] {
        engine.observe(&attempt_at(4444, 7, 40000, at(seconds)), at(seconds));
    }
    assert_eq!(engine.open_alarms()[0].kind, Kind::Attempt);
}
