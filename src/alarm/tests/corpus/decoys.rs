//! Attempts to hide one thing behind another.

use super::*;
use crate::alarm::likely::tests::ntp_query;

#[test]
fn a_decoy_of_sixteen_harmless_kinds_does_not_hide_what_comes_after_it() {
    let mut play = Play::new();
    for number in 0..16_u64 {
        // protocols that nobody watches, and services that policies forget
        let drop = match number {
            0..6 => tcp([53, 88, 389, 514, 636, 853][number as usize], 40 + number as u32, 40000),
            6..12 => udp([88, 161, 162, 514, 853, 53][number as usize - 6], 40 + number as u32, b"hello"),
            _ => DropEvent { reason: Reason::Protocol.into(), protocol: 200 + number as u8, ..tcp(0, 50, 0) },
        };
        play.at(number * 20_000, &drop);
    }
    play.until(350_000);
    let before = play.paged().len();
    assert!(play.changes.iter().all(|change| change.alarm.id == 1), "{:#?}", play.reported());
    for number in 0..6_u16 {
        play.at(360_000 + u64::from(number) * 30_000, &tcp(8443, 66, 41000 + number));
    }
    play.until(600_000);
    let pages = play.paged();
    // sixteen services within an hour are a scan, and the seventeenth is no part of it
    assert_eq!(pages[before..], ["360.0 #1 escalated high scan +1"], "{pages:#?}");
    let page = play.last_page();
    assert!(page.contains(", also: fetch tcp/8443 to 198.51.100.66 ("), "{page}");
    assert!(
        page.contains("New: scan of 16 services") && page.contains(", fetch tcp/8443 to 198.51.100.66. "),
        "{page}"
    );
}

#[test]
fn an_incident_that_is_kept_open_hides_nothing() {
    for ssh_after_min in [30, 90, 300] {
        let mut play = Play::new();
        for number in 0..=ssh_after_min / 4 + 2 {
            let ms = number * 240_000;
            if ms > ssh_after_min * 60_000 && ms <= (ssh_after_min + 4) * 60_000 {
                play.at(ssh_after_min * 60_000, &tcp(22, 66, 40000));
            }
            play.at(ms, &udp(123, 30, &ntp_query()));
        }
        play.until((ssh_after_min + 20) * 60_000);
        let seconds = ssh_after_min * 60;
        let page = match ssh_after_min {
            30 => format!("{seconds}.0 #1 escalated critical attempt +1"),
            _ => format!("{seconds}.0 #2 opened critical attempt"),
        };
        assert_eq!(
            play.paged()[..2],
            ["0.0 #1 opened medium attempt".to_owned(), page],
            "{:#?}",
            play.reported()
        );
        if ssh_after_min > 60 {
            assert_eq!(play.alarm(2).follows, Some(1));
        }
    }
}

#[test]
fn a_login_elsewhere_during_a_scan_of_one_host_pages() {
    let mut play = Play::new();
    for number in 0..400_u16 {
        play.at(u64::from(number) * 100, &tcp(1 + number, 7, 40000));
        if number == 300 {
            play.at(u64::from(number) * 100, &tcp(22, 99, 40000));
        }
    }
    play.until(60_000);
    let pages = play.paged();
    assert!(pages.iter().any(|page| page.starts_with("30.0 #1 escalated critical")), "{pages:#?}");
    let services: Vec<String> = play.alarm(1).parts.iter().map(Part::service).collect();
    assert_eq!(services, ["many", "tcp/22"]);
}

#[test]
fn an_alarm_that_somebody_has_seen_pages_again_when_it_grows_and_not_for_more_of_the_same() {
    let mut play = Play::new();
    for number in 0..30_u16 {
        play.at(u64::from(number) * 10_000, &tcp(31337, 9, 40000 + number));
    }
    // seen, and acknowledged
    play.until(300_000);
    let seen = play.paged().len();
    for number in 0..100_u16 {
        play.at(300_000 + u64::from(number) * 10_000, &tcp(31337, 9, 41000 + number));
    }
    assert_eq!(play.paged().len(), seen, "more of the same: {:#?}", play.reported());
    let news: Vec<&str> = play.changes[seen..].iter().map(|change| &*change.news).collect();
    assert!(news.iter().all(|news| !news.is_empty()), "no update without news: {news:?}");
    // a new kind, though less severe
    play.at(1_310_000, &tcp(80, 9, 42000));
    // a service that is as dangerous as any
    play.at(1_320_000, &tcp(22, 9, 42000));
    // more severe
    let backdoor = DropEvent { reason: Reason::UnlistedService.into(), own_port: true, ..tcp(2222, 9, 2222) };
    play.at(1_330_000, &backdoor);
    play.until(1_400_000);
    assert_eq!(
        play.paged()[seen..],
        [
            "1310.0 #1 escalated high callback +1",
            "1320.0 #1 escalated critical attempt +2",
            "1330.0 #1 escalated critical backdoor +3",
        ]
    );
}

#[test]
fn a_flood_of_all_ports_does_not_hide_a_worm_on_one_of_them() {
    let mut play = Play::new();
    let rest = DropEvent { any_protocol: true, protocol: 0, port: 0, from: Origin::Ledger, ..tcp(0, 7, 0) };
    for second in 0..30_u64 {
        // samples that are fair by port, and the row for the rest
        for number in 0..16_u16 {
            let port = (second as u16 * 2_111).wrapping_add(number * 4_093);
            play.at(second * 1000 + u64::from(number) * 60, &tcp(port, 7, 40000));
        }
        play.at(second * 1000 + 970, &DropEvent { drops: 30_000, ..rest.clone() });
        if second >= 10 {
            // the worm has a row by now
            let hosts = (second - 9) * 13;
            let row = DropEvent {
                destinations: contacts((1..=hosts).filter_map(|number| host(100 + number as u32))),
                from: Origin::Ledger,
                drops: 13,
                destination: host(100 + hosts as u32),
                ..tcp(445, 0, 0)
            };
            play.at(second * 1000 + 990, &row);
        }
    }
    play.until(60_000);
    let spread = play.changes.iter().find(|change| change.alarm.kind() == Kind::Spread).expect("a spread");
    assert!(matches!(spread.step, Step::Escalated { .. }));
    assert!(spread.time <= after_ms(13_000).wall, "{:#?}", play.reported());
    let alarm = play.alarm(1);
    assert_eq!(alarm.packets, 30 * 16 + 30 * 30_000 + 20 * 13);
    assert_eq!(alarm.parts.iter().map(|part| part.kind).collect::<Vec<_>>(), [Kind::Spread, Kind::Scan]);
}
