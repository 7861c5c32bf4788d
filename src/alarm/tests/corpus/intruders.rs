//! What intruders do.

use super::*;
use crate::alarm::likely::tests::question;

/// The ports that nmap tries first.
const TOP_PORTS: [u16; 22] = [
    80, 23, 443, 21, 22, 25, 3389, 110, 445, 139, 143, 53, 135, 3306, 8080, 1723, 111, 995, 993, 5900, 1025,
    587,
];

#[test]
fn nmap_of_22_ports_on_one_host_is_one_alarm_that_is_a_scan_at_once() {
    let mut play = Play::new();
    for (number, port) in TOP_PORTS.into_iter().enumerate() {
        play.at(number as u64 * 5, &tcp(port, 7, 51000));
    }
    // nmap tries each port once more
    for (number, port) in TOP_PORTS.into_iter().enumerate() {
        play.at(1100 + number as u64 * 5, &tcp(port, 7, 51001));
    }
    play.until(60_000);
    assert_eq!(play.paged(), ["0.0 #1 opened high fetch", "0.5 #1 escalated critical scan"]);
    assert!(play.updates() <= 1, "{:#?}", play.reported());
    let alarm = play.alarm(1);
    assert_eq!((alarm.parts.len(), alarm.packets, alarm.ports.len()), (1, 44, 22));
    assert!(play.last_page().starts_with("web1 tried 22 services at 198.51.100.7 ("), "{}", play.last_page());
}

#[test]
fn the_other_kinds_of_nmap_join_its_alarm_and_page_once_each_at_most() {
    let mut play = Play::new();
    for (number, port) in TOP_PORTS.into_iter().enumerate() {
        play.at(number as u64 * 5, &tcp(port, 7, 51000));
    }
    // -sU
    for (number, port) in [53, 161, 123, 69, 500, 1434, 631, 4500].into_iter().enumerate() {
        play.at(10_000 + number as u64 * 50, &udp(port, 7, b""));
    }
    // -sX and the like
    for (number, port) in TOP_PORTS.into_iter().enumerate() {
        let malformed = DropEvent { reason: Reason::Malformed.into(), ..tcp(port, 7, 51000) };
        play.at(20_000 + number as u64 * 5, &malformed);
    }
    // -sO
    for protocol in (0..=255).filter(|protocol| ![1, 6, 17, 132].contains(protocol)) {
        let mut drop = DropEvent { protocol, port: 0, reason: Reason::Protocol.into(), ..tcp(0, 7, 0) };
        (drop.source_port, drop.destination_port, drop.tcp_flags) = (None, None, None);
        play.at(30_000 + u64::from(protocol) * 5, &drop);
    }
    // -sA
    let stray = DropEvent { reason: Reason::NoFlow.into(), tcp_flags: Some(0x10), ..tcp(80, 7, 51000) };
    play.at(40_000, &stray);
    play.until(90_000);
    let pages = play.paged();
    assert_eq!(
        pages,
        ["0.0 #1 opened high fetch", "0.5 #1 escalated critical scan", "40.0 #2 opened low stray"],
        "{:#?}",
        play.reported()
    );
    let alarm = play.alarm(1);
    assert_eq!(alarm.packets, 22 + 8 + 22 + 252);
    assert!(alarm.parts.len() <= 4, "{:#?}", alarm.seen());
}

#[test]
fn a_slow_scan_is_one_alarm_too() {
    let mut play = Play::new();
    // nmap -T1
    for (number, port) in TOP_PORTS.into_iter().enumerate() {
        play.at(number as u64 * 15_000, &tcp(port, 7, 51000));
    }
    play.until(600_000);
    let ids: Vec<u64> = play.changes.iter().map(|change| change.alarm.id).collect();
    assert!(ids.iter().all(|id| *id == 1), "{:#?}", play.reported());
    assert_eq!(play.alarm(1).kind(), Kind::Scan);
}

#[test]
fn a_worm_at_one_hit_in_ten_seconds_is_a_spread() {
    let mut play = Play::new();
    for number in 0..60 {
        play.at(u64::from(number) * 10_000, &tcp(445, number, 40000));
    }
    play.until(1_000_000);
    assert_eq!(
        play.paged(),
        [
            "0.0 #1 opened critical attempt",
            "90.0 #1 escalated critical spread",
            "890.0 #1 closed critical spread",
        ]
    );
    assert!(play.updates() <= 9, "{:#?}", play.reported());
    assert!(play.last_page().contains("tried tcp/445 at one destination after another: 198.51.100.0, "));
}

#[test]
fn thirty_one_hosts_on_ssh_in_two_seconds_are_a_spread_within_the_next_poll() {
    let mut play = Play::new();
    let mut row = tcp(22, 1, 40000);
    for tenth in 0..24_u64 {
        let hosts = 1 + tenth * 31 / 24;
        row.destination = host(hosts as u32);
        row.destinations = contacts((1..=hosts).filter_map(|number| host(number as u32)));
        match tenth % 10 {
            0 => play.at(tenth * 100, &DropEvent { destinations: None, ..row.clone() }),
            _ => play.poll(tenth * 100, &row, 1),
        }
    }
    play.until(60_000);
    let pages = play.paged();
    assert_eq!(pages.len(), 2, "{:#?}", play.reported());
    assert_eq!(pages[0], "0.0 #1 opened critical attempt");
    assert!(pages[1].ends_with("#1 escalated critical spread"), "{pages:?}");
    let seconds: f64 = pages[1].split(' ').next().unwrap().parse().unwrap();
    assert!(seconds <= 1.0, "{pages:?}");
    let destinations = play.alarm(1).destinations;
    assert!(destinations.len() >= 17, "{}", destinations.len());
    let json = serde_json::to_value(play.alarm(1)).unwrap();
    assert_eq!(json["parts"][0]["destinations"]["first"].as_array().unwrap().len(), 16);
}

#[test]
fn a_reverse_shell_pages_as_an_attempt_and_as_a_callback() {
    let mut play = Play::new();
    for number in 0..20_u16 {
        play.at(u64::from(number) * 30_000, &tcp(4444, 9, 40000 + number));
    }
    play.until(600_000);
    assert_eq!(play.paged(), ["0.0 #1 opened critical attempt", "120.0 #1 escalated critical callback"]);
    assert!(play.last_page().contains("contacted tcp/4444 at 198.51.100.9 again and again"));
    assert!(play.last_page().ends_with("Next: portcullis quarantine -i dmz0 web1"));
}

#[test]
fn a_beacon_to_the_port_of_name_servers_is_no_forgotten_resolver() {
    let mut play = Play::new();
    for number in 0..40 {
        play.at(number * 45_000, &udp(53, 9, b"\x01beacon of the day\x00\x7f\x13"));
    }
    play.until(1_800_000);
    assert_eq!(play.paged(), ["0.0 #1 opened high attempt", "180.0 #1 escalated high callback"]);
}

#[test]
fn a_tunnel_of_well_formed_questions_is_found_by_its_pace_or_its_names() {
    // short names, in a hurry
    let mut play = Play::new();
    for number in 0..200 {
        play.at(number * 1000, &udp(53, 9, &question(&format!("q{number}.t.example"), 1, true)));
    }
    play.until(210_000);
    let pages = play.paged();
    assert_eq!(pages[0], "0.0 #1 opened medium attempt");
    assert!(pages.iter().any(|page| page.ends_with("escalated high callback")), "{pages:#?}");
    // long names, at leisure
    let mut play = Play::new();
    for number in 0..10 {
        let name = format!("{}.{number}.t.example", "x".repeat(60));
        play.at(number * 60_000, &udp(53, 9, &question(&name, 1, true)));
    }
    play.until(660_000);
    assert_eq!(play.paged(), ["0.0 #1 opened high attempt", "240.0 #1 escalated high callback"]);
}
