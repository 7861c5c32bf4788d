use super::*;
use crate::alarm::Engine;
use crate::drops::ReasonCode;
use crate::drops::example::{after_ms, syn};
use crate::policy::parse;

fn by_policy(policy: &Policy) -> Responder {
    Responder::new("dmz0".into(), policy, Arc::default())
}

fn responder(extra: &str) -> Responder {
    let text = format!(
        "[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}\n[alarms]\nquarantine_on = [\"attempt\"]\n"
    );
    by_policy(&parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")))
}

fn opened() -> Change {
    Engine::default().observe(&syn(), after_ms(0)).remove(0)
}

#[test]
fn an_alarm_that_becomes_what_the_policy_names_has_a_culprit_once() {
    let mut responder = responder("");
    let mut change = opened();
    assert_eq!(responder.find_culprit(&change), Some(("web1", None)));
    change.step = Step::Updated;
    assert_eq!(responder.find_culprit(&change), None);
    change.alarm.kind = Kind::Scan;
    change.step = Step::Escalated { from: Kind::Attempt };
    assert_eq!(responder.find_culprit(&change), None, "no kind of the policy's");
    change.step = Step::Closed { folded_into: None };
    assert_eq!(responder.find_culprit(&change), None);
    assert!(responder.answered.is_empty());
    assert_eq!(responder.find_culprit(&opened()), Some(("web1", None)), "the next alarm");
}

#[test]
fn an_alarm_below_medium_has_no_culprit_and_a_more_severe_one_has() {
    let mut responder = responder("");
    let mut change = opened();
    change.alarm.severity = Severity::Low;
    assert_eq!(responder.find_culprit(&change), None);
    for severity in [Severity::Medium, Severity::High, Severity::Critical] {
        (change.alarm.severity, change.alarm.id) = (severity, change.alarm.id + 1);
        assert_eq!(responder.find_culprit(&change), Some(("web1", None)), "{severity:?}");
    }
    // the same alarm, more severe now
    change.alarm.severity = Severity::Low;
    change.alarm.id += 1;
    assert_eq!(responder.find_culprit(&change), None);
    (change.alarm.severity, change.step) = (Severity::Medium, Step::Updated);
    assert_eq!(responder.find_culprit(&change), Some(("web1", None)));
}

#[test]
fn nobody_is_cut_off_without_a_mac_unless_the_policy_has_one() {
    let mut change = opened();
    let mut sample = (*change.alarm.sample).clone();
    sample.source_mac = None;
    change.alarm.sample = Arc::new(sample);
    assert_eq!(responder("").find_culprit(&change), None);
    assert_eq!(responder("mac = \"02:00:00:00:00:10\"").find_culprit(&change), Some(("web1", None)));
}

#[test]
fn a_refused_alarm_tells_of_each_sender_once_and_is_answered_by_the_next_packet() {
    let mut responder = responder("");
    let mut change = opened();
    let alarm = change.alarm.id;
    for _ in 0..2 {
        responder.consider(&change);
        let pending = responder.take_pending().remove(0);
        let reported = responder.refuse(&pending, "it is forged");
        assert_eq!(reported.is_some(), change.step != Step::Updated, "{reported:?}");
        change.step = Step::Updated;
    }
    let mut sample = (*change.alarm.sample).clone();
    sample.source_mac = Some([2, 0, 0, 0, 0, 9]);
    change.alarm.sample = Arc::new(sample);
    responder.consider(&change);
    let pending = responder.take_pending().remove(0);
    assert!(responder.refuse(&pending, "it is forged").unwrap().contains("web1 was NOT put into quarantine"));
    assert!(!responder.answered[&alarm].whole);
}

#[test]
fn forged_addresses_do_not_add_up_to_the_whole_server() {
    let text = "[servers.farm]\naddresses = [\"192.0.2.128/26\"]\n[alarms]\nquarantine_on = [\"attempt\"]\n";
    let mut responder = by_policy(&parse(text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")));
    let mut send = |last: u8| {
        let mut change = opened();
        change.alarm.server.as_mut().unwrap().name = "farm".into();
        let mut sample = (*change.alarm.sample).clone();
        sample.source = Some(IpAddr::from([192, 0, 2, last]));
        change.alarm.sample = Arc::new(sample);
        responder.consider(&change);
    };
    (130..=130 + MOST_ADDRESSES as u8).for_each(&mut send);
    let mut pending = responder.take_pending();
    let mut last = pending.pop().unwrap();
    assert_eq!((pending.len(), last.address), (MOST_ADDRESSES, None), "the whole farm");
    assert!(pending.iter().filter_map(|one| responder.refuse(one, "it is forged")).count() > 0);
    responder.narrow(&mut last);
    assert_eq!(last.address, Some(IpAddr::from([192, 0, 2, 130 + MOST_ADDRESSES as u8])));
    assert!(!responder.answered[&last.alarm].whole);
}

#[test]
fn an_alarm_of_a_time_without_a_daemon_is_answered_when_it_goes_on() {
    let mut engine = Engine::default();
    let mut responder = responder("");
    let mut drop = syn();
    (drop.while_away, drop.from) = (true, crate::drops::Origin::Ledger);
    assert_eq!(responder.find_culprit(&engine.observe(&drop, after_ms(0))[0]), None);
    let change = engine.observe(&syn(), after_ms(11_000)).remove(0);
    assert_eq!(change.step, Step::Updated);
    assert_eq!(responder.find_culprit(&change), Some(("web1", None)));
}

#[test]
fn an_alarm_that_is_open_is_answered_when_a_policy_asks_for_it_and_not_twice() {
    let policy = |extra: &str| {
        let text = format!("[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}");
        parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}"))
    };
    let asks = policy("[alarms]\nquarantine_on = [\"attempt\"]\n");
    let mut responder = by_policy(&policy(""));
    let mut change = opened();
    assert_eq!(responder.find_culprit(&change), None);
    responder.follow(&asks);
    change.step = Step::Updated;
    assert_eq!(responder.find_culprit(&change), Some(("web1", None)));
    responder.follow(&asks);
    assert_eq!(responder.find_culprit(&change), None);
}

#[test]
fn nobody_is_cut_off_for_a_frame_that_may_have_borrowed_its_address() {
    let mut drop = syn();
    let of_a_newer_gate = ReasonCode::Unknown(63);
    for (reason, culprit) in [
        (Reason::Malformed.into(), None),
        (Reason::Protocol.into(), Some(("web1", None))),
        (of_a_newer_gate, None),
    ] {
        drop.reason = reason;
        let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
        assert_eq!(change.alarm.kind, Kind::Attempt);
        assert_eq!(responder("").find_culprit(&change), culprit, "{reason:?}");
    }
}

#[test]
fn of_a_server_that_is_a_prefix_each_machine_is_cut_off_once_and_at_last_the_server() {
    let text = "[servers.web1]\naddresses = [\"192.0.2.10\", \"192.0.2.128/26\"]\n\
                [alarms]\nquarantine_on = [\"attempt\", \"spread\"]\n";
    let mut responder = by_policy(&parse(text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")));
    let sent_by = |last: u8| {
        let mut change = opened();
        let mut sample = (*change.alarm.sample).clone();
        sample.source = Some(IpAddr::from([192, 0, 2, last]));
        change.alarm.sample = Arc::new(sample);
        change
    };
    for last in 130..130 + MOST_ADDRESSES as u8 {
        let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, last]))));
        assert_eq!(responder.find_culprit(&sent_by(last)), machine);
        assert_eq!(responder.find_culprit(&sent_by(last)), None, "once");
    }
    assert_eq!(responder.find_culprit(&sent_by(200)), Some(("web1", None)));
    assert_eq!(responder.find_culprit(&sent_by(201)), None, "it is cut off with the server");
    // as a more severe kind the alarm is answered anew
    let mut worse = sent_by(130);
    (worse.alarm.kind, worse.step) = (Kind::Spread, Step::Escalated { from: Kind::Attempt });
    let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, 130]))));
    assert_eq!(responder.find_culprit(&worse), machine);
    // without an address it is the server
    let mut change = sent_by(130);
    let mut sample = (*change.alarm.sample).clone();
    sample.source = None;
    (change.alarm.id, change.alarm.sample) = (99, Arc::new(sample));
    assert_eq!(responder.find_culprit(&change), Some(("web1", None)));
}

#[test]
fn a_server_in_observe_is_left_alone() {
    assert_eq!(responder("mode = \"observe\"").find_culprit(&opened()), None);
    let mut change = opened();
    change.alarm.verdict = DropVerdict::WouldDrop;
    assert_eq!(responder("").find_culprit(&change), None);
}

#[test]
fn nobody_is_cut_off_for_what_happened_while_no_daemon_ran_or_for_a_strangers_deed() {
    let mut drop = syn();
    drop.while_away = true;
    let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
    assert_eq!(responder("").find_culprit(&change), None);
    let mut change = opened();
    change.alarm.server = None;
    assert_eq!(responder("").find_culprit(&change), None);
}

#[test]
fn pending_quarantines_are_bounded_and_taken_in_their_order() {
    let mut responder = responder("");
    let mut change = opened();
    for id in 1..=MOST_PENDING as u64 + 10 {
        change.alarm.id = id;
        responder.consider(&change);
    }
    let pending = responder.take_pending();
    let ids: Vec<u64> = pending.iter().map(|pending| pending.alarm).collect();
    assert_eq!(ids, (1..=MOST_PENDING as u64).collect::<Vec<_>>());
    assert!(responder.take_pending().is_empty());
}
