//! Servers that are prefixes, with many machines each.

use super::*;
use crate::alarm::likely::tests::ntp_query;

fn farm() -> Play {
    let mut play = Play::new();
    play.engine.set_prefix_servers(["farm".into()]);
    play
}

#[test]
fn one_bad_machine_of_a_tenant_is_named_and_the_others_are_left_alone() {
    let mut play = farm();
    for number in 0..60_u64 {
        // thirty machines ask for the time, and one of them is a worm
        let honest = machine(129 + (number % 30) as u8, udp(123, 30, &ntp_query()));
        play.at(number * 2_000, &honest);
        if number >= 30 {
            play.at(number * 2_000 + 500, &machine(150, tcp(445, number as u32, 40000)));
        }
    }
    play.until(180_000);
    assert_eq!(
        play.paged(),
        [
            "0.0 #1 opened medium attempt",
            "60.5 #1 escalated critical attempt +1",
            "78.5 #1 escalated critical spread +1",
        ]
    );
    let next = play.alarm(1).next_commands();
    assert_eq!(next[0], "portcullis quarantine -i dmz0 192.0.2.150", "{next:#?}");
    assert!(!next[1].contains("quarantine"), "{next:#?}");
}

#[test]
fn each_of_seven_machines_of_one_prefix_is_named_and_can_be_cut_off() {
    let mut play = farm();
    for number in 0..7_u8 {
        play.at(u64::from(number) * 3_000, &machine(130 + number, tcp(31337, 9, 40000)));
    }
    play.until(60_000);
    let alarm = play.alarm(1);
    let machines: Vec<String> = (130..137).map(|number| format!("192.0.2.{number}")).collect();
    assert!(
        alarm.seen().starts_with(&format!("farm at {} tried tcp/31337", machines.join(", "))),
        "{}",
        alarm.seen()
    );
    let page = play.last_page();
    assert!(page.ends_with("Next: portcullis quarantine -i dmz0 192.0.2.130"), "{page}");
    let next = alarm.next_commands();
    for (command, machine) in next.iter().zip(&machines) {
        assert_eq!(*command, format!("portcullis quarantine -i dmz0 {machine}"));
    }
    let json = serde_json::to_value(&alarm).unwrap();
    assert_eq!(json["sources"]["first"].as_array().unwrap().len(), 7);
    // a new machine is news at once
    assert_eq!(play.changes.len(), 7, "{:#?}", play.reported());
    let news: Vec<&str> = play.changes.iter().map(|change| &*change.news).collect();
    assert!(
        news.iter().any(|news| news.contains("from more machines: 192.0.2.130, 192.0.2.131")),
        "{news:?}"
    );
    // the next page says how many there are
    play.at(70_000, &machine(130, tcp(22, 9, 40001)));
    let page = play.last_page();
    assert!(
        page.ends_with("Next: portcullis quarantine -i dmz0 192.0.2.130 (and 6 more machines)"),
        "{page}"
    );
}

#[test]
fn a_machine_that_joins_is_handed_over_once_also_if_its_address_is_no_news() {
    let mut play = farm();
    play.at(0, &machine(130, tcp(31337, 9, 40000)));
    // its page hands it over
    assert!(play.engine.take_joined().is_empty());
    play.at(1_000, &machine(130, tcp(31337, 9, 40001)));
    assert!(play.engine.take_joined().is_empty(), "more of the same");
    // the same address from another machine
    let forged = DropEvent { source_mac: Some([2, 0, 0, 0, 0, 66]), ..machine(130, tcp(31337, 9, 40002)) };
    play.at(2_000, &forged);
    let joined = play.engine.take_joined();
    let senders: Vec<_> = joined[0].parts[0].senders.iter().map(|(_, mac)| mac[5]).collect();
    assert_eq!((joined.len(), senders), (1, vec![130, 66]));
    assert_eq!(play.changes.len(), 1, "{:#?}", play.reported());
    // neither rows of the ledger nor what only would have been dropped show a machine
    play.poll(3_000, &machine(131, tcp(31337, 9, 40003)), 5);
    play.at(4_000, &DropEvent { verdict: DropVerdict::WouldDrop, ..machine(132, tcp(31337, 9, 40003)) });
    assert!(play.engine.take_joined().is_empty());
}

#[test]
fn machines_that_call_one_place_each_are_neither_a_worm_nor_a_scan() {
    let mut play = farm();
    for number in 0..60_u8 {
        let port = 8000 + u16::from(number % 25);
        play.at(u64::from(number) * 1_000, &machine(130 + number, tcp(port, u32::from(number), 40000)));
        play.at(u64::from(number) * 1_000 + 100, &machine(130 + number, tcp(6000, u32::from(number), 40000)));
    }
    play.until(120_000);
    let kinds: Vec<Kind> = play.changes.iter().map(|change| change.alarm.kind()).collect();
    assert!(!kinds.contains(&Kind::Spread) && !kinds.contains(&Kind::Scan), "{:#?}", play.reported());
}

#[test]
fn the_most_frequent_machines_are_in_the_record_and_an_estimate_is_called_one() {
    let mut play = farm();
    let row = DropEvent {
        from: Origin::Ledger,
        drops: 900,
        frame: Vec::new(),
        sources: Some(Arc::new(Contacts {
            first: (130..146).map(|number| [192, 0, 2, number].into()).collect(),
            frequent: vec![([192, 0, 2, 180].into(), 800)],
            is_estimate: true,
            is_full: true,
        })),
        ..machine(130, tcp(31337, 9, 0))
    };
    play.at(0, &row);
    let json = serde_json::to_value(play.alarm(1)).unwrap();
    let sources = &json["parts"][0]["sources"];
    assert_eq!((&sources["count"], &sources["estimate"]), (&17.into(), &true.into()), "{sources}");
    let frequent = serde_json::json!([{"address": "192.0.2.180", "packets": 800, "estimate": true}]);
    assert_eq!(sources["frequent"], frequent);
}
