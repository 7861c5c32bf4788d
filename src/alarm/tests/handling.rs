//! Acknowledgements, silences and severities of the policy.

use std::collections::BTreeMap;

use super::*;

/// An engine with what people say, as the daemon joins them.
struct Handled {
    engine: Engine,
    handling: Handling,
}

impl Handled {
    fn new() -> Handled {
        Handled { engine: Engine::default(), handling: Handling::default() }
    }

    fn apply(&mut self, changes: Vec<Change>, now: Clock) -> Vec<Change> {
        changes.into_iter().map(|change| self.handling.apply(change, now)).collect()
    }

    /// A SYN, and what is reported by two seconds later.
    fn attempt(&mut self, port: u16, destination: u32, seconds: u64) -> Vec<Change> {
        let now = at(seconds);
        let mut changes = self.engine.observe(&attempt_at(port, destination, 40_000, now), now);
        changes.extend(self.engine.flush(at(seconds + 2)));
        self.apply(changes, at(seconds + 2))
    }

    fn acknowledge(&mut self, id: u64) {
        let alarm = self.engine.open_alarm(id).unwrap();
        let (by, at) = ("anna".to_owned(), at(3).wall);
        self.handling.acknowledge(&alarm, Acknowledgement { by, at, note: Some("on it".to_owned()) });
    }

    fn silence(&mut self, target: Target, for_s: u64, force: bool, now: Clock) -> Result<Silence, String> {
        let (note, by) = ("known".to_owned(), "anna".to_owned());
        let new = NewSilence { target, for_s, note, by, force };
        self.handling.silence(new, &self.engine.open_alarms(), now)
    }

    fn tick(&mut self, now: Clock) -> Vec<Change> {
        let changes = self.engine.tick(now);
        self.apply(changes, now)
    }
}

fn server1() -> Target {
    Target::Server("web1".to_owned())
}

#[test]
fn an_acknowledged_alarm_says_so_and_calls_again_only_when_it_becomes_more() {
    let mut desk = Handled::new();
    // udp-like medium service first: tcp/53 is what policies forget
    assert_eq!(desk.attempt(4000, 1, 0)[0].alarm.severity(), Severity::High);
    desk.acknowledge(1);
    // as severe, and of the same kind: it would have escalated
    let changes = desk.attempt(4001, 1, 10);
    assert_eq!(steps(&changes), [("updated", 1, Kind::Attempt)]);
    let ack = changes[0].alarm.acknowledged.as_ref().unwrap();
    assert_eq!((&*ack.by, ack.note.as_deref()), ("anna", Some("on it")));
    assert!(changes[0].message().contains(". Acknowledged by anna at "), "{}", changes[0].message());
    // another kind
    let changes = desk.attempt(80, 1, 20);
    assert_eq!(steps(&changes), [("escalated", 1, Kind::Fetch)]);
    assert_eq!(changes[0].alarm.acknowledged, None);
    assert!(changes[0].news.contains("it is more than what was acknowledged"), "{}", changes[0].news);
    // again, and then something more severe
    desk.acknowledge(1);
    let changes = desk.attempt(445, 1, 30);
    assert_eq!(steps(&changes), [("escalated", 1, Kind::Attempt)]);
    assert_eq!(changes[0].alarm.acknowledged, None);
    // and a further critical service
    desk.acknowledge(1);
    assert!(desk.attempt(445, 2, 40).iter().all(|change| change.alarm.acknowledged.is_some()));
    let changes = desk.attempt(22, 1, 50);
    assert_eq!(changes.last().unwrap().alarm.acknowledged, None);
    assert!(matches!(changes.last().unwrap().step, Step::Escalated { .. }));
}

#[test]
fn an_acknowledgement_outlives_the_daemon_but_covers_no_more_than_it_did() {
    let mut desk = Handled::new();
    desk.attempt(4000, 1, 0);
    desk.acknowledge(1);
    let saved = desk.handling.take_unsaved().unwrap();
    assert_eq!(desk.handling.take_unsaved(), None);
    let restart =
        || Handled { engine: Engine::default(), handling: Handling::restore(&saved, at(60)).unwrap() };
    let mut same = restart();
    let changes = same.attempt(4000, 1, 60);
    assert!(changes[0].alarm.acknowledged.is_some() && changes[0].is_muted);
    let mut worse = restart();
    let changes = worse.attempt(445, 1, 60);
    assert!(changes[0].alarm.acknowledged.is_none() && !changes[0].is_muted);
    let mut late = restart();
    let changes = late.attempt(4000, 1, 60 + 3601);
    assert!(changes[0].alarm.acknowledged.is_none(), "after an hour it is another thing");
    let mut ended = restart();
    ended.attempt(80, 1, 60);
    assert!(Handling::restore("{}", at(0)).is_err());
    assert!(Handling::restore(&saved.replace("\"version\":1", "\"version\":2"), at(0)).is_err());
}

#[test]
fn an_alarm_that_closed_was_acknowledged_and_the_next_one_is_not() {
    let mut desk = Handled::new();
    desk.attempt(4000, 1, 0);
    desk.acknowledge(1);
    let changes = desk.tick(at(4000));
    assert_eq!(steps(&changes), [("closed", 1, Kind::Attempt)]);
    assert!(changes[0].alarm.acknowledged.is_some() && !changes[0].is_muted);
    assert_eq!(desk.attempt(4000, 1, 4001)[0].alarm.acknowledged, None);
}

#[test]
fn a_silence_covers_what_it_was_given_for_and_nothing_graver() {
    let mut desk = Handled::new();
    assert!(!desk.attempt(4000, 1, 0)[0].is_muted);
    let silence = desk.silence(server1(), 3600, false, at(3)).unwrap();
    assert_eq!(silence.severity, Severity::High);
    assert_eq!(desk.handling.find_changed(&desk.engine.open_alarms()), [1]);
    let changes = desk.attempt(4001, 1, 10);
    assert!(changes[0].is_muted && changes[0].alarm.silenced.is_some());
    let changes = desk.attempt(445, 1, 20);
    assert!(!changes.last().unwrap().is_muted, "critical");
    assert_eq!(changes.last().unwrap().alarm.silenced, None);
}

#[test]
fn what_is_critical_is_silenced_by_force_alone() {
    let mut desk = Handled::new();
    desk.attempt(445, 1, 0);
    let error = desk.silence(server1(), 60, false, at(3)).unwrap_err();
    assert!(error.contains("alarm #1 about web1 is critical") && error.contains("--force"), "{error}");
    assert_eq!(desk.silence(server1(), 60, true, at(3)).unwrap().severity, Severity::Critical);
    // where nothing is open, what is critical calls all the same
    let mut calm = Handled::new();
    calm.silence(server1(), 60, false, at(0)).unwrap();
    assert!(calm.attempt(4000, 1, 1)[0].is_muted);
    let mut calm = Handled::new();
    calm.silence(server1(), 60, false, at(0)).unwrap();
    assert!(!calm.attempt(445, 1, 1)[0].is_muted);
}

#[test]
fn an_alarm_that_opened_in_a_silence_calls_when_the_silence_ends_before_it() {
    let mut desk = Handled::new();
    desk.silence(server1(), 60, false, at(0)).unwrap();
    assert!(desk.attempt(4000, 1, 1)[0].is_muted);
    assert!(!desk.handling.end_silences(at(59)));
    assert!(desk.handling.end_silences(at(60)));
    assert_eq!(desk.handling.find_changed(&desk.engine.open_alarms()), [1]);
    let alarm = desk.engine.open_alarm(1).unwrap();
    let change = desk.handling.apply(Change::unnoted(at(60).wall, alarm), at(60));
    assert_eq!(change.step, Step::Escalated { from: Kind::Attempt });
    assert!(!change.is_muted && change.news == "it is no longer silenced", "{change:?}");
    // one that closes in its silence has never called, and does not call then
    let mut quiet = Handled::new();
    quiet.silence(server1(), 86_400, false, at(0)).unwrap();
    quiet.attempt(4000, 1, 1);
    assert!(quiet.tick(at(4000))[0].is_muted);
}

#[test]
fn a_silence_of_a_service_or_kind_leaves_the_rest_of_an_alarm_alone() {
    for target in [Target::Service("tcp/4000".to_owned()), Target::Kind(Kind::Attempt)] {
        let mut desk = Handled::new();
        desk.silence(target.clone(), 3600, false, at(0)).unwrap();
        assert!(desk.attempt(4000, 1, 1)[0].is_muted, "{target}");
        let changes = desk.attempt(80, 1, 10);
        assert!(!changes.last().unwrap().is_muted, "{target}: fetch of tcp/80");
    }
    let none = |_: &str| false;
    assert_eq!(Target::parse("scan", none), Ok(Target::Kind(Kind::Scan)));
    assert_eq!(Target::parse("web1", |name| name == "web1"), Ok(server1()));
    assert_eq!(Target::parse("udp/123", none), Ok(Target::Service("udp/123".to_owned())));
    assert!(Target::parse("web1", none).unwrap_err().contains("\nhelp: "));
}

#[test]
fn a_silence_has_a_note_an_end_within_a_week_and_none_beyond_it_after_a_step_of_the_clock() {
    let mut desk = Handled::new();
    for (for_s, note) in [(0, "x"), (604_801, "x"), (60, " ")] {
        let new = NewSilence {
            target: server1(),
            for_s,
            note: note.to_owned(),
            by: "anna".to_owned(),
            force: false,
        };
        assert!(desk.handling.silence(new, &[], at(0)).unwrap_err().contains("\nhelp: "));
    }
    desk.silence(server1(), 3600, false, at(0)).unwrap();
    let saved = desk.handling.take_unsaved().unwrap();
    // the clock was a year ahead when it was saved
    let back = Clock { wall: "2025-11-22T15:00:00Z".parse().unwrap(), ..at(10) };
    let mut restored = Handling::restore(&saved, back).unwrap();
    assert!(!restored.end_silences(Clock { mono_ns: at(10 + 3599).mono_ns, ..back }));
    assert!(restored.end_silences(Clock { mono_ns: at(10 + 3600).mono_ns, ..back }));
    let over = Handling::restore(&saved, at(3600)).unwrap();
    assert!(over.silences().is_empty());
}

#[test]
fn the_policy_says_how_grave_alarms_are_and_the_gate_judges_as_before() {
    let rated = Rated { server: Some("web1".to_owned()), kind: Some(Kind::Attempt) };
    let mut desk = Handled::new();
    desk.handling.set_ratings(Ratings(BTreeMap::from([(rated, Severity::Low)])));
    let changes = desk.attempt(4000, 1, 0);
    assert_eq!((changes[0].alarm.severity(), changes[0].alarm.rated), (Severity::Low, Some(Severity::High)));
    // the gate's own severity rises, and nobody is called for that
    let changes = desk.attempt(445, 1, 10);
    assert!(changes.iter().all(|change| change.step == Step::Updated), "{:?}", steps(&changes));
    assert_eq!(desk.engine.open_alarms()[0].severity(), Severity::Critical, "quarantine_on goes by this");
    // another kind has the gate's severity
    let changes = desk.attempt(80, 1, 20);
    let last = changes.last().unwrap();
    assert_eq!(
        (last.step.name(), last.alarm.severity(), last.alarm.kind()),
        ("escalated", Severity::High, Kind::Fetch)
    );
    assert_eq!(desk.handling.count_open(), BTreeMap::from([(Severity::High, 1)]));
}
