//! Alarms about names and resolvers.

use super::*;
use crate::alarm::answers::MAX_ABOUT;
use crate::alarm::{About, AnswerReport, may_quarantine};

fn report(about: About, subject: &str, address: Option<&str>, at_s: u64) -> AnswerReport {
    AnswerReport {
        about,
        subject: subject.into(),
        answers: 1,
        resolvers: vec!["198.51.100.53".parse().unwrap()],
        addresses: address.into_iter().map(|address| address.parse().unwrap()).collect(),
        servers: ["web1", "web2", "web3", "web4"].map(Into::into).to_vec(),
        interface: "eth2".into(),
        first: at(at_s).wall,
        last: at(at_s).wall,
        while_away: false,
    }
}

fn rebinding(number: u32, address: &str, at_s: u64) -> AnswerReport {
    report(About::Name(number), &format!("name{number}.vendor.example"), Some(address), at_s)
}

fn forged(resolver: &str, at_s: u64) -> AnswerReport {
    report(About::Resolver(resolver.parse().unwrap()), resolver, None, at_s)
}

fn observe(engine: &mut Engine, report: &AnswerReport, at_s: u64) -> Vec<Change> {
    engine.report_answers(report, &"dmz0".into(), at(at_s))
}

#[test]
fn a_rebinding_is_a_low_alarm_about_the_name_and_no_server() {
    let mut engine = Engine::default();
    let opened = observe(&mut engine, &rebinding(1, "10.0.0.1", 0), 0);
    assert_eq!(steps(&opened), [("opened", 1, Kind::Rebinding)]);
    let alarm = &opened[0].alarm;
    assert_eq!((alarm.severity(), alarm.server.is_none()), (Severity::Low, true));
    let seen = "name1.vendor.example points to 10.0.0.1, which no name may have: 198.51.100.53 answered so to web1, web2, \
                web3 and 1 more (1 answer since 2026-11-22T15:00:00Z)";
    assert_eq!(alarm.seen(), seen);
    let next = alarm.next_commands();
    assert_eq!(next[0], "portcullis show -i dmz0 names");
    assert!(next[1].ends_with("add private = [\"10.0.0.1\"] to [names]"), "{next:?}");
    let json = serde_json::to_value(alarm).unwrap();
    assert_eq!(
        (&json["server"], &json["verdict"], &json["service"]),
        (&().into(), &().into(), &"dns".into())
    );
    // what never pages is not said to be dropped
    assert!(!opened[0].message().contains("dropped"), "{}", opened[0].message());
}

#[test]
fn an_ipv4_mapped_address_is_named_as_it_was_answered_and_no_line_would_permit_it() {
    let mut engine = Engine::default();
    let opened = observe(&mut engine, &rebinding(1, "::ffff:203.0.113.80", 0), 0);
    let alarm = &opened[0].alarm;
    assert!(
        alarm.seen().contains("points to ::ffff:203.0.113.80, which no name may have"),
        "{}",
        alarm.seen()
    );
    assert_eq!(alarm.next_commands(), ["portcullis show -i dmz0 names"]);
}

#[test]
fn a_forged_answer_is_a_low_alarm_about_the_resolver() {
    let mut engine = Engine::default();
    let opened = observe(&mut engine, &forged("198.51.100.53", 0), 0);
    assert_eq!(steps(&opened), [("opened", 1, Kind::ForgedAnswer)]);
    let alarm = &opened[0].alarm;
    let begin = "198.51.100.53 was impersonated: answers in its name to web1, web2, web3 and 1 more came by eth2, which does \
                 not lead to it (1 answer since ";
    assert!(alarm.seen().starts_with(begin), "{}", alarm.seen());
    assert_eq!((alarm.severity(), alarm.server.is_none()), (Severity::Low, true));
    assert_eq!(alarm.next_commands()[0], "ip route get 198.51.100.53");
}

/// Somebody outside may send as many as he likes.
#[test]
fn a_flood_is_one_alarm_with_few_updates_and_an_exact_count() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for second in 0..600 {
        let report = AnswerReport { answers: 1000, ..forged("198.51.100.53", second) };
        changes.extend(observe(&mut engine, &report, second));
        changes.extend(engine.tick(at(second)));
    }
    assert!(changes.len() <= 6, "{:?}", steps(&changes));
    assert!(changes.iter().all(|change| change.alarm.id == 1 && change.alarm.severity() == Severity::Low));
    assert_eq!(engine.open_alarms()[0].packets, 600_000);
    // it ends when it is quiet
    assert_eq!(steps(&engine.tick(at(900))), [("closed", 1, Kind::ForgedAnswer)]);
}

#[test]
fn names_beyond_a_bound_share_one_alarm_and_take_no_room_of_servers() {
    let mut engine = Engine::new(Thresholds { max_open_by_server: 2, ..Thresholds::default() });
    for number in 0..200 {
        observe(&mut engine, &rebinding(number, "10.0.0.1", 0), 0);
    }
    assert_eq!(engine.open_alarms().len(), MAX_ABOUT + 1);
    let rest = engine.open_alarms().pop().unwrap();
    assert_eq!((rest.subject(), rest.packets), ("another name", 184));
    // resolvers have room of their own, and so has an unknown host
    assert_eq!(steps(&observe(&mut engine, &forged("198.51.100.53", 1), 1)).len(), 1);
    let unknown = DropEvent { server: None, reason: Reason::UnknownSource.into(), ..syn() };
    assert_eq!(steps(&engine.observe(&unknown, at(1))).len(), 1);
    assert_eq!(engine.tick(at(1000)).len(), MAX_ABOUT + 3);
    assert_eq!(engine.indices_len(), 0);
}

#[test]
fn neither_kind_has_anybody_cut_off() {
    for kind in [Kind::Rebinding, Kind::ForgedAnswer] {
        assert!(kind.quarantine_refusal().is_some());
        assert_eq!(kind.severity(), Some(Severity::Low));
        for reason in REASONS {
            assert!(!may_quarantine(kind, *reason), "{kind} {reason}");
        }
    }
    let mut engine = Engine::default();
    observe(&mut engine, &rebinding(1, "10.0.0.1", 0), 0);
    observe(&mut engine, &forged("198.51.100.53", 0), 0);
    let commands: Vec<String> = engine.open_alarms().iter().flat_map(|alarm| alarm.next_commands()).collect();
    assert!(!commands.iter().any(|command| command.contains("quarantine")), "{commands:?}");
    assert!(engine.take_joined().is_empty());
}

#[test]
fn another_address_of_a_name_is_news() {
    let mut engine = Engine::default();
    observe(&mut engine, &rebinding(1, "10.0.0.1", 0), 0);
    assert!(observe(&mut engine, &rebinding(1, "10.0.0.2", 1), 1).is_empty());
    let changes = engine.tick(at(11));
    assert_eq!(steps(&changes), [("updated", 1, Kind::Rebinding)]);
    assert!(changes[0].news.contains("to more places"), "{}", changes[0].news);
}
