use super::*;
use crate::abi::Reason;
use crate::alarm::Engine;
use crate::drops::example::{after_ms, syn};
use crate::drops::{DropEvent, ReasonCode, ServerRef};
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

/// The name of a server to cut off; with an address: that machine of it alone.
type Culprit<'c> = (&'c str, Option<IpAddr>);

/// Servers to cut off for a change, each with the address if it is one machine.
fn find_culprits<'c>(responder: &mut Responder, change: &'c Change) -> Vec<Culprit<'c>> {
    let server = change.alarm.server.as_ref().map_or("", |server| &*server.name);
    responder.find_due(change).iter().map(|due| (server, due.address)).collect()
}

/// The one culprit of a change of an alarm with one part.
fn find_culprit<'c>(responder: &mut Responder, change: &'c Change) -> Option<Culprit<'c>> {
    let culprits = find_culprits(responder, change);
    assert!(culprits.len() < 2, "{culprits:?}");
    culprits.first().copied()
}

fn opened() -> Change {
    Engine::default().observe(&syn(), after_ms(0)).remove(0)
}

#[test]
fn an_alarm_that_becomes_what_the_policy_names_has_a_culprit_once() {
    let mut responder = responder("");
    let mut change = opened();
    assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
    change.step = Step::Updated;
    assert_eq!(find_culprit(&mut responder, &change), None);
    change.alarm.parts[0].kind = Kind::Scan;
    change.step = Step::Escalated { from: Kind::Attempt };
    assert_eq!(find_culprit(&mut responder, &change), None, "no kind of the policy's");
    change.step = Step::Closed { folded_into: None };
    assert_eq!(find_culprit(&mut responder, &change), None);
    assert!(responder.answered.is_empty());
    assert_eq!(find_culprit(&mut responder, &opened()), Some(("web1", None)), "the next alarm");
}

#[test]
fn an_alarm_of_a_time_without_a_daemon_is_answered_when_it_goes_on() {
    let mut engine = Engine::default();
    let mut responder = responder("");
    let mut drop = syn();
    (drop.while_away, drop.from) = (true, crate::drops::Origin::Ledger);
    assert_eq!(find_culprit(&mut responder, &engine.observe(&drop, after_ms(0))[0]), None);
    let change = engine.observe(&syn(), after_ms(11_000)).remove(0);
    assert_eq!(change.step, Step::Updated);
    assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
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
    assert_eq!(find_culprit(&mut responder, &change), None);
    responder.follow(&asks);
    change.step = Step::Updated;
    assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
    responder.follow(&asks);
    assert_eq!(find_culprit(&mut responder, &change), None);
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
        assert_eq!(change.alarm.kind(), Kind::Attempt);
        assert_eq!(find_culprit(&mut responder(""), &change), culprit, "{reason:?}");
    }
}

#[test]
fn of_a_server_that_is_a_prefix_each_machine_is_cut_off_once_and_at_last_the_server() {
    let text = "[servers.web1]\naddresses = [\"192.0.2.10\", \"192.0.2.128/26\"]\n\
                [alarms]\nquarantine_on = [\"attempt\", \"spread\"]\n";
    let mut responder = by_policy(&parse(text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")));
    let sent_by = |last: u8| {
        let mut change = opened();
        let drop = DropEvent { source: Some(IpAddr::from([192, 0, 2, last])), ..syn() };
        change.alarm.parts = Engine::default().observe(&drop, after_ms(0)).remove(0).alarm.parts;
        change
    };
    for last in 130..130 + MOST_ADDRESSES as u8 {
        let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, last]))));
        assert_eq!(find_culprit(&mut responder, &sent_by(last)), machine);
        assert_eq!(find_culprit(&mut responder, &sent_by(last)), None, "once");
    }
    assert_eq!(find_culprit(&mut responder, &sent_by(200)), Some(("web1", None)));
    assert_eq!(find_culprit(&mut responder, &sent_by(201)), None, "it is cut off with the server");
    // as a more severe kind the alarm is answered anew
    let mut worse = sent_by(130);
    (worse.alarm.parts[0].kind, worse.step) = (Kind::Spread, Step::Escalated { from: Kind::Attempt });
    let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, 130]))));
    assert_eq!(find_culprit(&mut responder, &worse), machine);
    // without an address it is the server
    let mut change = sent_by(130);
    change.alarm.id = 99;
    let drop = DropEvent { source: None, ..syn() };
    change.alarm.parts = Engine::default().observe(&drop, after_ms(0)).remove(0).alarm.parts;
    assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
}

/// An alarm about `farm`, whose machines tried the same one after the other.
fn opened_by_machines(senders: &[(u8, u8)]) -> Change {
    let mut engine = Engine::default();
    engine.set_prefix_servers(["farm".into()]);
    for (number, (address, mac)) in senders.iter().enumerate() {
        let drop = DropEvent {
            server: Some(ServerRef { id: 5, name: "farm".into() }),
            source: Some(machine(*address)),
            source_mac: Some([2, 0, 0, 0, 0, *mac]),
            ..syn()
        };
        engine.observe(&drop, after_ms(number as u64 * 1000));
    }
    let alarm = engine.open_alarms().remove(0);
    Change::unnoted(after_ms(0).wall, alarm)
}

fn machine(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn of_farm() -> Responder {
    let text = "[servers.farm]\naddresses = [\"192.0.2.128/26\"]\n[alarms]\nquarantine_on = [\"attempt\"]\n";
    by_policy(&parse(text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")))
}

#[test]
fn every_machine_of_a_prefix_that_took_part_is_cut_off_and_not_the_last_one_alone() {
    let change = opened_by_machines(&[(130, 1), (131, 2), (132, 3), (133, 4), (134, 5), (135, 6), (136, 7)]);
    let culprits = find_culprits(&mut of_farm(), &change);
    let wanted: Vec<Culprit<'_>> = (130..137).map(|last| ("farm", Some(machine(last)))).collect();
    assert_eq!(culprits, wanted);
}

#[test]
fn a_machine_that_was_refused_for_anothers_packet_is_answered_for_its_own() {
    let mut responder = of_farm();
    responder.consider(&opened_by_machines(&[(131, 1)]));
    let pending = responder.take_pending().remove(0);
    assert!(responder.refuse(&pending, "it is forged").is_some());
    let change = opened_by_machines(&[(131, 2)]);
    assert_eq!(find_culprits(&mut responder, &change), [("farm", Some(machine(131)))]);
}

#[test]
fn nobody_is_cut_off_without_a_mac_unless_the_policy_has_one() {
    let drop = DropEvent { source_mac: None, ..syn() };
    let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
    assert_eq!(find_culprit(&mut responder(""), &change), None);
    let mut bound = responder("mac = \"02:00:00:00:00:10\"");
    assert_eq!(find_culprit(&mut bound, &change), Some(("web1", None)));
}

#[test]
fn a_refused_alarm_tells_of_each_sender_once_and_is_answered_by_the_next_packet() {
    let mut responder = responder("");
    let mut change = opened();
    for _ in 0..2 {
        responder.consider(&change);
        let pending = responder.take_pending().remove(0);
        let refused = responder.refuse(&pending, "it is forged");
        assert_eq!(refused.is_some(), change.step != Step::Updated, "{refused:?}");
        change.step = Step::Updated;
    }
    let other = DropEvent { source_mac: Some([2, 0, 0, 0, 0, 9]), ..syn() };
    change.alarm.parts = Engine::default().observe(&other, after_ms(0)).remove(0).alarm.parts;
    responder.consider(&change);
    let pending = responder.take_pending().remove(0);
    assert!(responder.refuse(&pending, "it is forged").unwrap().contains("web1 was NOT put into quarantine"));
    assert!(!responder.find_answered(&pending).unwrap().whole);
}

#[test]
fn forged_addresses_do_not_add_up_to_the_whole_server() {
    let mut responder = of_farm();
    let last_address = 130 + MOST_ADDRESSES as u8;
    let senders: Vec<(u8, u8)> = (130..=last_address).map(|address| (address, 9)).collect();
    responder.consider(&opened_by_machines(&senders));
    let mut pending = responder.take_pending();
    let mut last = pending.pop().unwrap();
    assert_eq!((pending.len(), last.address), (MOST_ADDRESSES, None), "the whole farm");
    assert!(pending.iter().filter_map(|one| responder.refuse(one, "it is forged")).count() > 0);
    responder.narrow(&mut last);
    assert_eq!(last.address, Some(machine(last_address)));
    assert!(!responder.find_answered(&last).unwrap().whole);
}

#[test]
fn an_alarm_below_medium_cuts_nobody_off() {
    // chatter between neighbours is an attempt as well
    let chatter = DropEvent { protocol: 17, port: 5353, tcp_flags: None, ..syn() };
    let change = Engine::default().observe(&chatter, after_ms(0)).remove(0);
    assert_eq!((change.alarm.kind(), change.alarm.severity()), (Kind::Attempt, Severity::Low));
    assert_eq!(find_culprit(&mut responder(""), &change), None);
    let question = DropEvent { protocol: 17, port: 53, tcp_flags: None, ..syn() };
    let change = Engine::default().observe(&question, after_ms(0)).remove(0);
    assert_eq!(change.alarm.severity(), Severity::Medium);
    assert_eq!(find_culprit(&mut responder(""), &change), Some(("web1", None)));
}

#[test]
fn a_server_in_observe_is_left_alone() {
    assert_eq!(find_culprit(&mut responder("mode = \"observe\""), &opened()), None);
    let mut change = opened();
    change.alarm.parts[0].verdict = Some(DropVerdict::WouldDrop);
    assert_eq!(find_culprit(&mut responder(""), &change), None);
}

#[test]
fn nobody_is_cut_off_for_what_happened_while_no_daemon_ran_or_for_a_strangers_deed() {
    let mut drop = syn();
    drop.while_away = true;
    let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
    assert_eq!(find_culprit(&mut responder(""), &change), None);
    let mut change = opened();
    change.alarm.server = None;
    assert_eq!(find_culprit(&mut responder(""), &change), None);
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
