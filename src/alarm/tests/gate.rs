//! Alarms about the gate itself.

use super::*;

fn report(engine: &mut Engine, trouble: GateTrouble, text: &str, now: Clock) -> Vec<Change> {
    engine.report_trouble(trouble, text, &"dmz0".into(), now)
}

#[test]
fn a_detached_gate_is_a_critical_alarm_until_it_is_attached_again() {
    let mut engine = Engine::default();
    let opened = report(&mut engine, GateTrouble::Detached, "the gate on dmz0 is off", at(0));
    assert_eq!(steps(&opened), [("opened", 1, Kind::Gate)]);
    let alarm = &opened[0].alarm;
    assert_eq!((alarm.severity(), &*alarm.interface), (Severity::Critical, "dmz0"));
    assert_eq!((alarm.reason(), alarm.verdict(), alarm.sample()), (None, None, None));
    assert!(alarm.seen().starts_with("the gate on dmz0 is off, since "), "{}", alarm.seen());
    assert!(alarm.next_commands()[0].starts_with("portcullis attach -i dmz0"));
    let json = serde_json::to_value(alarm).unwrap();
    assert_eq!(
        (&json["kind"], &json["reason"], &json["service"]),
        (&"gate".into(), &().into(), &"gate".into())
    );
    // however long that takes
    assert!(engine.tick(at(100_000)).is_empty());
    let closed = engine.end_trouble(GateTrouble::Detached, at(100_001));
    assert_eq!(steps(&closed), [("closed", 1, Kind::Gate)]);
    assert!(engine.end_trouble(GateTrouble::Detached, at(100_002)).is_empty());
}

#[test]
fn all_that_is_wrong_with_the_gate_is_one_alarm_and_each_part_pages() {
    let mut engine = Engine::default();
    report(&mut engine, GateTrouble::TrackerMissing, "no tracker", at(0));
    let changes = report(&mut engine, GateTrouble::Detached, "no filter", at(1));
    assert_eq!(steps(&changes), [("escalated", 1, Kind::Gate)]);
    assert_eq!(changes[0].alarm.parts.len(), 2);
    assert!(engine.end_trouble(GateTrouble::Detached, at(2)).is_empty());
    assert_eq!(engine.end_trouble(GateTrouble::TrackerMissing, at(3)).len(), 1);
}

#[test]
fn what_nobody_can_end_is_over_after_quiet_minutes() {
    let mut engine = Engine::default();
    report(&mut engine, GateTrouble::PolicyRefused, "p.toml:3:1: no such key", at(0));
    assert!(engine.tick(at(299)).is_empty());
    assert_eq!(steps(&engine.tick(at(300))), [("closed", 1, Kind::Gate)]);
}

#[test]
fn no_server_has_a_part_in_the_alarm_about_the_gate() {
    let mut engine = Engine::default();
    report(&mut engine, GateTrouble::Detached, "off", at(0));
    assert_eq!(steps(&engine.observe(&syn(), at(0))), [("opened", 2, Kind::Attempt)]);
    assert_eq!(engine.count_open(), [(Severity::Critical, 2)].into());
}
