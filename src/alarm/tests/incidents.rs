//! Incidents: what joins, what pages again, what stays by itself.

use super::*;
use crate::abi::Reason;
use crate::alarm::likely::tests::{datagram, ntp_query};

/// An attempt that is low by its service.
fn chatter(now: Clock) -> DropEvent {
    DropEvent { protocol: 17, tcp_flags: None, ..attempt_at(5353, 7, 5353, now) }
}

/// A medium attempt, of which nobody knows more.
fn directory(now: Clock) -> DropEvent {
    attempt_at(389, 7, 40000, now)
}

/// The packet of a time client, whose server the policy forgot.
fn clock_query(now: Clock) -> DropEvent {
    DropEvent { time: now.wall, since: now.wall, ..datagram(123, &ntp_query()) }
}

fn reported(changes: &[Change]) -> Vec<(&'static str, u64, Kind, Severity)> {
    let tell =
        |change: &Change| (change.step.name(), change.alarm.id, change.alarm.kind(), change.alarm.severity());
    changes.iter().map(tell).collect()
}

#[test]
fn what_one_server_does_is_one_alarm_and_another_server_has_its_own() {
    let mut engine = Engine::default();
    let mut changes = engine.observe(&directory(at(0)), at(0));
    changes.extend(engine.observe(&attempt_at(22, 9, 40000, at(60)), at(60)));
    changes.extend(engine.observe(&because(Reason::UnlistedService), at(120)));
    let other = DropEvent { server: server(2), ..directory(at(121)) };
    changes.extend(engine.observe(&other, at(121)));
    assert_eq!(
        reported(&changes),
        [
            ("opened", 1, Kind::Attempt, Severity::Medium),
            ("escalated", 1, Kind::Attempt, Severity::Critical),
            ("escalated", 1, Kind::Backdoor, Severity::Critical),
            ("opened", 2, Kind::Attempt, Severity::Medium),
        ]
    );
    let alarm = &changes[2].alarm;
    let parts: Vec<(Kind, String)> = alarm.parts.iter().map(|part| (part.kind, part.service())).collect();
    let wanted = [(Kind::Backdoor, "tcp/445"), (Kind::Attempt, "tcp/22"), (Kind::Attempt, "tcp/389")];
    assert_eq!(parts, wanted.map(|(kind, service)| (kind, service.to_owned())));
    assert!(
        alarm.seen().contains(", also: attempt tcp/22 to 198.51.100.9, attempt tcp/389"),
        "{}",
        alarm.seen()
    );
    assert_eq!(changes[2].news, "backdoor tcp/445 to 198.51.100.7");
}

#[test]
fn a_new_part_that_is_as_severe_or_dangerous_pages_and_a_lesser_one_is_an_update() {
    let mut engine = Engine::default();
    engine.observe(&attempt_at(31337, 7, 40000, at(0)), at(0));
    // as severe
    let changes = engine.observe(&attempt_at(31338, 7, 40000, at(1)), at(1));
    assert_eq!(reported(&changes), [("escalated", 1, Kind::Attempt, Severity::High)]);
    // less severe, and yet its first drop is news at once
    let changes = engine.observe(&directory(at(2)), at(2));
    assert_eq!(reported(&changes), [("updated", 1, Kind::Attempt, Severity::High)]);
    assert_eq!(changes[0].news, "attempt tcp/389 to 198.51.100.7");
    // more severe
    let changes = engine.observe(&attempt_at(22, 7, 40000, at(3)), at(3));
    assert_eq!(reported(&changes), [("escalated", 1, Kind::Attempt, Severity::Critical)]);
    // less severe than the alarm, but of a new kind; and then of a known one, but dangerous
    let changes = engine.observe(&attempt_at(80, 7, 40000, at(4)), at(4));
    assert_eq!(reported(&changes), [("escalated", 1, Kind::Attempt, Severity::Critical)]);
    let changes = engine.observe(&attempt_at(443, 7, 40000, at(5)), at(5));
    assert_eq!(reported(&changes), [("escalated", 1, Kind::Attempt, Severity::Critical)]);
    // and none of them twice
    for port in [31337, 31338, 389, 22, 80, 443] {
        assert!(engine.observe(&attempt_at(port, 7, 40001, at(7)), at(7)).is_empty(), "{port}");
    }
}

#[test]
fn what_comes_at_once_is_one_page() {
    let mut engine = Engine::default();
    let mut changes = engine.observe(&directory(at(0)), at(0));
    for port in [22, 80, 3389] {
        changes.extend(engine.observe(&attempt_at(port, 7, 40000, after_ms(100)), after_ms(100)));
        changes.extend(engine.flush(after_ms(100)));
    }
    assert_eq!(changes.len(), 1);
    assert!(engine.flush(after_ms(499)).is_empty());
    let page = engine.flush(after_ms(500));
    assert_eq!(reported(&page), [("escalated", 1, Kind::Attempt, Severity::Critical)]);
    assert_eq!(page[0].alarm.parts.len(), 4);
    assert!(engine.flush(after_ms(5_000)).is_empty() && engine.tick(after_ms(5_000)).is_empty());
}

#[test]
fn a_low_alarm_stays_by_itself_and_absorbs_nothing() {
    let mut engine = Engine::default();
    let mut changes = engine.observe(&chatter(at(0)), at(0));
    changes.extend(engine.observe(&because(Reason::NoFlow), at(1)));
    changes.extend(engine.observe(&directory(at(2)), at(2)));
    let (attempt, low) = (Kind::Attempt, Severity::Low);
    assert_eq!(
        reported(&changes),
        [
            ("opened", 1, attempt, low),
            ("opened", 2, Kind::Stray, low),
            ("opened", 3, attempt, Severity::Medium),
        ]
    );
    // low ones of the same kind join it, and never page
    let other = DropEvent { port: 1900, ..chatter(at(3)) };
    let changes = engine.observe(&other, at(3));
    assert_eq!(reported(&changes), [("updated", 1, attempt, low)]);
}

#[test]
fn chatter_is_no_scan_and_what_comes_among_it_is_one() {
    let mut engine = Engine::default();
    let ports = [67, 68, 137, 138, 546, 547, 1900, 5353, 5355];
    for (number, port) in (0..).zip(ports) {
        engine.observe(&DropEvent { port, ..chatter(at(number)) }, at(number));
    }
    let igmp = DropEvent { protocol: 2, port: 0, reason: Reason::Protocol.into(), ..chatter(at(9)) };
    engine.observe(&igmp, at(9));
    assert_eq!((only(&engine).kind(), only(&engine).severity()), (Kind::Attempt, Severity::Low));
    // the eleventh service of this host
    let changes = engine.observe(&directory(at(10)), at(10));
    assert_eq!(reported(&changes), [("opened", 2, Kind::Scan, Severity::High)]);
}

#[test]
fn a_part_joins_for_an_hour_and_a_later_one_opens_an_alarm_that_follows() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    // something harmless keeps the alarm open
    for minute in 0..130 {
        let now = at(minute * 60);
        if minute % 4 == 0 {
            changes.extend(engine.observe(&clock_query(now), now));
        }
        if minute == 59 {
            changes.extend(engine.observe(&attempt_at(22, 9, 40000, now), now));
        }
        if minute == 125 {
            changes.extend(engine.observe(&attempt_at(22, 9, 40001, now), now));
        }
        changes.extend(engine.tick(now));
    }
    changes.retain(|change| change.step != Step::Updated);
    let (attempt, critical) = (Kind::Attempt, Severity::Critical);
    assert_eq!(
        reported(&changes),
        [
            ("opened", 1, attempt, Severity::Medium),
            ("escalated", 1, attempt, critical),
            ("opened", 2, attempt, critical),
        ]
    );
    assert_eq!(changes[2].alarm.follows, Some(1));
    // what goes on from the first hour stays where it is
    let open = engine.open_alarms();
    assert_eq!(open.iter().map(|alarm| alarm.parts.len()).collect::<Vec<_>>(), [2, 1]);
    assert!(open[0].parts[0].is_over && !open[0].parts[1].is_over);
}

#[test]
fn a_part_that_comes_again_within_the_hour_is_news_and_no_page() {
    let mut engine = Engine::default();
    for second in 0..1500 {
        let now = at(second);
        if second % 60 == 0 {
            engine.observe(&clock_query(now), now);
        }
        if second == 10 {
            engine.observe(&attempt_at(22, 9, 40000, now), now);
        }
        engine.tick(now);
    }
    let ended = |alarm: Alarm| alarm.parts.iter().any(|part| part.service() == "tcp/22" && part.is_over);
    assert!(ended(only(&engine)));
    let changes = engine.observe(&attempt_at(22, 9, 40001, at(1500)), at(1500));
    assert_eq!(reported(&changes), [("updated", 1, Kind::Attempt, Severity::Critical)]);
    assert!(changes[0].news.ends_with("again"), "{}", changes[0].news);
    assert!(!ended(only(&engine)));
}

#[test]
fn incidents_of_one_server_are_bounded_and_the_oldest_goes_on_in_the_newest() {
    let mut engine = Engine::default();
    let mut folded = Vec::new();
    for hour in 0..30_u64 {
        // each hour something new, and nothing ever ends
        for minute in (0..60).step_by(4) {
            let now = at(hour * 3600 + minute * 60);
            for port in 0..=hour as u16 {
                let mut drop = because(Reason::UnlistedService);
                (drop.port, drop.own_port) = (10_000 + port, true);
                for change in engine.observe(&drop, now) {
                    if let Step::Closed { folded_into } = change.step {
                        folded.push((change.alarm.id, folded_into));
                    }
                }
            }
            engine.tick(now);
        }
    }
    assert!(engine.open_alarms().len() <= 16, "{}", engine.open_alarms().len());
    assert!(!folded.is_empty() && folded.iter().all(|(_, into)| into.is_some()), "{folded:?}");
}

#[test]
fn frames_that_are_not_ip_have_an_alarm_for_each_type_and_machine() {
    let frame = |ethertype: u16, mac: u8| {
        let mut drop = because(Reason::Ethertype);
        (drop.server, drop.source, drop.destination) = (None, None, None);
        (drop.protocol, drop.port, drop.ethertype) = (0, ethertype, Some(ethertype));
        drop.source_mac = Some([2, 0, 0, 0, 0, mac]);
        drop
    };
    let mut engine = Engine::default();
    // a keep-alive of one machine, and a tunnel of another
    let mut changes = engine.observe(&frame(0x88b5, 1), at(0));
    changes.extend(engine.observe(&frame(0x88b5, 2), at(1)));
    changes.extend(engine.observe(&frame(0x9000, 1), at(2)));
    assert_eq!(steps(&changes), [1, 2, 3].map(|id| ("opened", id, Kind::Attempt)));
    assert!(changes[1].alarm.seen().contains("(ethernet/0x88b5) from MAC 02:00:00:00:00:02"));
    let json = serde_json::to_value(&changes[2].alarm).unwrap();
    assert_eq!((&json["service"], &json["ports"]["count"]), (&"ethernet/0x9000".into(), &0.into()));
    // a row of the ledger does not have the MAC, and goes to the machine that was last seen
    let row = DropEvent { source_mac: None, drops: 7, from: Origin::Ledger, ..frame(0x88b5, 0) };
    assert!(engine.observe(&row, at(3)).is_empty());
    let packets: Vec<u64> = engine.open_alarms().iter().map(|alarm| alarm.packets).collect();
    assert_eq!(packets, [1, 8, 1]);
}

#[test]
fn a_packet_that_may_be_of_another_machine_joins_only_if_its_mac_is_the_same() {
    for (mac, joins) in [([2, 0, 0, 0, 0, 0x10], true), ([2, 0, 0, 0, 0, 0x66], false)] {
        let mut engine = Engine::default();
        engine.observe(&syn(), at(0));
        let malformed = DropEvent { source_mac: Some(mac), ..because(Reason::Malformed) };
        let changes = engine.observe(&malformed, at(1));
        assert_eq!(changes[0].step == Step::Opened, !joins, "{mac:?}");
        assert_eq!(engine.open_alarms().len(), if joins { 1 } else { 2 });
    }
    // a borrowed address is nobody's part
    let mut engine = Engine::default();
    engine.observe(&syn(), at(0));
    assert_eq!(engine.observe(&because(Reason::Spoofed), at(1))[0].step, Step::Opened);
}

#[test]
fn what_was_only_observed_and_is_dropped_now_pages() {
    let mut engine = Engine::default();
    let observed = DropEvent { verdict: DropVerdict::WouldDrop, ..attempt_at(31337, 7, 40000, at(0)) };
    engine.observe(&observed, at(0));
    let changes = engine.observe(&attempt_at(31337, 7, 40000, at(1)), at(1));
    assert_eq!(reported(&changes), [("escalated", 1, Kind::Attempt, Severity::High)]);
    assert_eq!(changes[0].alarm.mode(), Some("enforce"));
}
