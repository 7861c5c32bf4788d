//! Sequences of drops, and the changes that they become.

mod answers;
mod corpus;
mod detection;
mod gate;
mod handling;
mod incidents;
mod pressure;

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::abi::{REASONS, Reason};
use crate::clock::Clock;
use crate::drops::example::{after_ms, syn};
use crate::drops::{Origin, ServerRef};
use crate::net::VRRP;

fn at(seconds: u64) -> Clock {
    after_ms(seconds * 1000)
}

fn host(number: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from(0xc633_6400 + number).into())
}

/// A SYN to a port of a host, from a port of its own.
fn attempt_at(port: u16, destination: u32, source_port: u16, now: Clock) -> DropEvent {
    let mut drop = syn();
    drop.port = port;
    drop.destination_port = Some(port);
    drop.source_port = Some(source_port);
    drop.destination = host(destination);
    (drop.time, drop.since) = (now.wall, now.wall);
    drop
}

fn because(reason: Reason) -> DropEvent {
    let mut drop = syn();
    drop.reason = reason.into();
    drop
}

fn server(id: u32) -> Option<ServerRef> {
    Some(ServerRef { id, name: format!("server{id}").into() })
}

/// Five times the usual error of the sketch, whose hash has another key in every run.
fn is_about(count: usize, wanted: usize) -> bool {
    (wanted * 17 / 20..=wanted * 23 / 20).contains(&count)
}

fn steps(changes: &[Change]) -> Vec<(&'static str, u64, Kind)> {
    let step = |change: &Change| (change.step.name(), change.alarm.id, change.alarm.kind());
    changes.iter().map(step).collect()
}

/// The only alarm that is open.
#[track_caller]
fn only(engine: &Engine) -> Alarm {
    let mut open = engine.open_alarms();
    assert_eq!(open.len(), 1, "{open:#?}");
    open.remove(0)
}

#[test]
fn the_first_drop_opens_an_alarm_at_once() {
    let mut engine = Engine::default();
    let changes = engine.observe(&syn(), at(0));
    assert_eq!(steps(&changes), [("opened", 1, Kind::Attempt)]);
    let alarm = &changes[0].alarm;
    assert_eq!((alarm.packets, alarm.events, alarm.parts.len()), (1, 1, 1));
    assert_eq!(alarm.severity(), Severity::Critical);
    assert_eq!(alarm.destinations.len(), 1);
    assert_eq!(alarm.next_commands()[0], "portcullis quarantine -i dmz0 web1");
    assert_eq!(
        alarm.next_commands()[1],
        "portcullis explain -i dmz0 --from 192.0.2.10 --to 198.51.100.7 tcp/445"
    );
}

#[test]
fn quiet_drops_and_noise_open_nothing() {
    let mut engine = Engine::default();
    let mut quiet = syn();
    quiet.quiet = true;
    for drop in [quiet, because(Reason::Backscatter), because(Reason::Stranger)] {
        assert!(engine.observe(&drop, at(0)).is_empty());
    }
    assert!(engine.open_alarms().is_empty());
    assert!(engine.tick(at(1000)).is_empty());
}

#[test]
fn an_update_that_says_nothing_new_is_not_sent_and_no_packet_is_lost() {
    let mut engine = Engine::default();
    let mut emitted = engine.observe(&syn(), at(0));
    for ms in 1..60_000 {
        emitted.extend(engine.observe(&syn(), after_ms(ms)));
        if ms % 1000 == 0 {
            emitted.extend(engine.tick(after_ms(ms)));
        }
    }
    assert_eq!(steps(&emitted), [("opened", 1, Kind::Attempt), ("updated", 1, Kind::Attempt)]);
    assert_eq!(emitted[1].news, "more than 9999 packets");
    assert!(engine.tick(at(200)).is_empty(), "there is no news");
    assert_eq!(only(&engine).packets, 60_000);
    let closed = engine.tick(at(360)).remove(0);
    assert_eq!((closed.step, closed.alarm.packets), (Step::Closed { folded_into: None }, 60_000));
}

#[test]
fn the_history_gets_what_there_is_no_news_of_at_most_once_in_ten_seconds() {
    let mut engine = Engine::default();
    engine.observe(&syn(), at(0));
    engine.observe(&syn(), at(1));
    assert!(engine.take_unrecorded(at(9)).is_empty());
    let record = engine.take_unrecorded(at(10)).remove(0);
    assert_eq!((record.step, record.alarm.packets), (Step::Updated, 2));
    engine.observe(&syn(), at(11));
    assert!(engine.take_unrecorded(at(19)).is_empty());
    assert_eq!(engine.take_unrecorded(at(20)).len(), 1);
    assert!(engine.take_unrecorded(at(60)).is_empty(), "nothing came since");
}

#[test]
fn an_alarm_is_closed_after_five_quiet_minutes_and_opens_anew() {
    let mut engine = Engine::default();
    engine.observe(&syn(), at(0));
    assert!(engine.tick(at(299)).is_empty());
    let closed = engine.tick(at(300));
    assert_eq!(steps(&closed), [("closed", 1, Kind::Attempt)]);
    assert!(closed[0].alarm.lead().is_over);
    assert!(engine.open_alarms().is_empty());
    let again = engine.observe(&syn(), at(301));
    assert_eq!(steps(&again), [("opened", 2, Kind::Attempt)]);
    assert_eq!(again[0].alarm.follows, Some(1));
    assert!(again[0].alarm.seen().contains("It follows #1"), "{}", again[0].alarm.seen());
}

#[test]
fn a_drop_keeps_its_alarm_open() {
    let mut engine = Engine::default();
    for minute in 0..20 {
        engine.observe(&syn(), at(minute * 240));
        assert!(engine.tick(at(minute * 240 + 239)).iter().all(|change| change.step == Step::Updated));
    }
    assert_eq!(engine.open_alarms().len(), 1);
}

#[test]
fn a_server_that_announces_itself_as_the_master_router_is_critical() {
    let vrrp = DropEvent { protocol: VRRP, ..because(Reason::RogueRouter) };
    assert_eq!(Engine::default().observe(&vrrp, at(0))[0].alarm.severity(), Severity::Critical);
}

#[test]
fn each_reason_becomes_the_kind_that_users_read_of() {
    for (reason, kind, severity) in [
        (Reason::UnlistedService, Kind::Backdoor, Severity::Critical),
        (Reason::UnknownSource, Kind::Spoof, Severity::Medium),
        (Reason::Spoofed, Kind::Spoof, Severity::Critical),
        (Reason::RogueRouter, Kind::Spoof, Severity::High),
        (Reason::Rate, Kind::Burst, Severity::High),
        (Reason::NoFlow, Kind::Stray, Severity::Low),
        (Reason::Fragment, Kind::Stray, Severity::Low),
        (Reason::Quarantined, Kind::Attempt, Severity::Medium),
        (Reason::Malformed, Kind::Attempt, Severity::Medium),
        (Reason::Question, Kind::Question, Severity::Medium),
    ] {
        let changes = Engine::default().observe(&because(reason), at(0));
        let alarm = &changes[0].alarm;
        assert_eq!((alarm.kind(), alarm.severity()), (kind, severity), "{reason}");
    }
}

#[test]
fn a_quarantined_server_is_one_alarm_whatever_it_sends() {
    let mut engine = Engine::default();
    for port in 0..1000 {
        let mut drop = attempt_at(port, u32::from(port), 40000, at(1));
        drop.reason = Reason::Quarantined.into();
        engine.observe(&drop, at(1));
    }
    let alarm = only(&engine);
    assert_eq!((alarm.packets, alarm.parts.len()), (1000, 1));
    let commands = alarm.next_commands().join("\n");
    assert!(!commands.contains("quarantine -i"), "it is there already: {commands}");
}

#[test]
fn the_victim_of_a_spoof_is_not_to_be_quarantined_and_the_sender_is_named() {
    let changes = Engine::default().observe(&because(Reason::Spoofed), at(0));
    let alarm = &changes[0].alarm;
    assert!(alarm.seen().contains("02:00:00:00:00:10"), "{}", alarm.seen());
    assert!(!alarm.next_commands().join("\n").contains("quarantine"));
}

#[test]
fn addresses_that_nobody_has_are_one_alarm() {
    let mut engine = Engine::default();
    for number in 0..1000 {
        let mut drop = because(Reason::UnknownSource);
        drop.server = None;
        drop.source = host(number);
        drop.port = number as u16;
        engine.observe(&drop, at(1));
    }
    let alarm = only(&engine);
    assert!(alarm.sources.is_estimate() && is_about(alarm.sources.len(), 1000));
    assert_eq!((alarm.server, alarm.parts.len()), (None, 1));
}

#[test]
fn the_answer_of_a_backdoor_is_explained_as_what_it_is() {
    let mut drop = because(Reason::UnlistedService);
    drop.own_port = true;
    drop.port = 4444;
    (drop.source_port, drop.destination_port) = (Some(4444), Some(51000));
    drop.tcp_flags = Some(0x12);
    let changes = Engine::default().observe(&drop, at(0));
    let commands = changes[0].alarm.next_commands();
    assert_eq!(
        commands[1],
        "portcullis explain -i dmz0 --from 192.0.2.10 --to 198.51.100.7 tcp/51000 \
         --sport 4444 --flags SA"
    );
}

#[test]
fn drops_from_before_the_daemon_say_when_they_came_and_are_no_worm() {
    let mut engine = Engine::default();
    let mut away = syn();
    away.from = Origin::Ledger;
    away.while_away = true;
    away.drops = 900;
    away.since = "2026-11-20T01:00:00Z".parse().unwrap();
    away.time = "2026-11-21T01:00:00Z".parse().unwrap();
    let changes = engine.observe(&away, at(0));
    let alarm = &changes[0].alarm;
    assert_eq!((alarm.packets, alarm.events, alarm.while_away), (900, 1, true));
    assert!(alarm.seen().contains("in part while no daemon ran"));
    assert!(alarm.seen().contains("since 2026-11-20T01:00:00Z"));
    assert_eq!(alarm.last, away.time);
    // that it goes on is news
    let mut changes = engine.observe(&syn(), at(1));
    changes.extend(engine.tick(at(11)));
    assert_eq!(steps(&changes), [("updated", 1, Kind::Attempt)]);
    assert!(changes[0].news.ends_with("goes on"), "{}", changes[0].news);
}

#[test]
fn a_drop_that_is_reported_late_adds_to_an_open_alarm_and_leaves_its_present_alone() {
    let mut engine = Engine::default();
    let opened = engine.observe(&syn(), at(1_000)).remove(0).alarm;
    let mut away = syn();
    away.from = Origin::Ledger;
    away.while_away = true;
    away.verdict = DropVerdict::WouldDrop;
    away.drops = 900;
    away.since = "2026-11-20T01:00:00Z".parse().unwrap();
    away.time = "2026-11-21T01:00:00Z".parse().unwrap();
    engine.observe(&away, at(1_200));
    let alarm = only(&engine);
    assert_eq!((alarm.packets, alarm.while_away, alarm.first), (901, true, away.since));
    assert_eq!((alarm.verdict(), alarm.last), (Some(DropVerdict::Drop), opened.last));
    assert_eq!(alarm.sample(), opened.sample());
    // nor does it keep it open
    assert_eq!(engine.tick(at(1_000 + 300)).len(), 1);
    assert!(engine.open_alarms().is_empty());
}

#[test]
fn an_id_that_an_earlier_daemon_has_given_is_given_to_no_other_alarm() {
    let mut engine = Engine::default();
    engine.observe(&syn(), at(0));
    engine.skip_ids(57);
    engine.skip_ids(3);
    let other = engine.observe(&DropEvent { server: server(2), ..syn() }, at(0)).remove(0);
    assert_eq!(other.alarm.id, 58);
}

#[test]
fn a_sample_is_kept_when_the_ledger_adds_to_its_alarm() {
    let mut engine = Engine::default();
    let mut sampled = syn();
    sampled.frame = vec![1, 2, 3];
    engine.observe(&sampled, at(0));
    let mut row = syn();
    row.from = Origin::Ledger;
    row.drops = 7;
    engine.observe(&row, at(1));
    let alarm = only(&engine);
    assert_eq!(alarm.sample().unwrap().frame, [1, 2, 3]);
    assert_eq!(alarm.packets, 8);
}

#[test]
fn a_clock_that_goes_backwards_does_no_harm() {
    let mut engine = Engine::default();
    engine.observe(&syn(), at(100));
    engine.observe(&syn(), at(50));
    assert!(engine.tick(at(10)).is_empty());
    assert_eq!(engine.open_alarms().len(), 1);
}

#[test]
fn a_wall_clock_that_is_stepped_either_way_leaves_no_alarm_open_and_ends_none_early() {
    for step_h in [-9_000, 9_000] {
        let stepped = |seconds: u64| {
            let now = at(seconds);
            Clock { wall: now.wall.checked_add(jiff::SignedDuration::from_hours(step_h)).unwrap(), ..now }
        };
        let mut engine = Engine::default();
        engine.observe(&syn(), at(0));
        assert!(engine.tick(stepped(1)).iter().all(|change| !matches!(change.step, Step::Closed { .. })));
        assert!(engine.tick(stepped(299)).iter().all(|change| !matches!(change.step, Step::Closed { .. })));
        let closed = engine.tick(stepped(300)).remove(0);
        assert!(matches!(closed.step, Step::Closed { .. }), "{step_h} h");
        let alarm = closed.alarm;
        assert_eq!(closed.time.duration_since(alarm.last).as_secs(), 300, "the time by which it was quiet");
        assert!(alarm.first <= alarm.last && engine.open_alarms().is_empty());
    }
}

#[test]
fn every_reason_and_kind_has_its_words() {
    for &reason in REASONS {
        for &kind in KINDS {
            let mut changes = Engine::default().observe(&syn(), at(0));
            let alarm = &mut changes[0].alarm;
            let part = &mut alarm.parts[0];
            (part.reason, part.kind) = (Some(reason.into()), kind);
            assert!(alarm.seen().starts_with("web1 "));
            assert!(!alarm.seen().contains(['{', '}']), "{}", alarm.seen());
            assert!(!alarm.why().is_empty() && !alarm.next_commands().is_empty());
            assert!(alarm.technique().id.starts_with('T'));
        }
    }
}

#[test]
fn a_response_to_an_alarm_is_emitted_at_once_and_stays_in_it() {
    let mut engine = Engine::default();
    let opened = engine.observe(&syn(), after_ms(0)).remove(0);
    let noted = engine.note_response(opened.alarm.id, "put into quarantine", after_ms(1)).unwrap();
    assert_eq!(noted.step, Step::Updated);
    assert!(noted.alarm.seen().ends_with(". put into quarantine"), "{}", noted.alarm.seen());
    assert_eq!(engine.note_response(99, "nothing", after_ms(1)), None);
    let closed = engine.tick(after_ms(10_000_000)).remove(0);
    assert_eq!(closed.alarm.response, "put into quarantine");
}

#[test]
fn a_packet_that_passed_in_observe_is_said_not_to_be_dropped_and_is_one_severity_lower() {
    let lower = [
        (445, Severity::Critical, Severity::High),
        (31337, Severity::High, Severity::Medium),
        (389, Severity::Medium, Severity::Low),
    ];
    for (port, enforced, observed) in lower {
        let drop = attempt_at(port, 7, 40000, at(0));
        let first = |drop: &DropEvent| Engine::default().observe(drop, at(0)).remove(0).alarm;
        assert_eq!((first(&drop).severity(), first(&drop).mode()), (enforced, Some("enforce")), "{port}");
        let alarm = first(&DropEvent { verdict: DropVerdict::WouldDrop, ..drop });
        assert_eq!((alarm.severity(), alarm.mode()), (observed, Some("observe")), "{port}");
        assert!(alarm.seen().contains("NOT dropped in mode observe"));
        // the first step permits it, and only then somebody is cut off
        let next = alarm.next_commands();
        let need = format!("out = [\"tcp/{port} to 198.51.100.7\"]");
        assert!(next[0].starts_with("policy: ") && next[0].ends_with(&need), "{next:#?}");
        assert_eq!(next[1], "portcullis quarantine -i dmz0 web1");
    }
}
