//! What healthy servers do when somebody forgot something.

use super::*;
use crate::alarm::likely::tests::{ntp_query, question};

#[test]
fn a_time_server_that_the_policy_forgot_is_one_medium_alarm_for_as_long_as_it_lasts() {
    let mut play = Play::new();
    // chrony: four servers, a burst at first, then ever slower
    let mut queries: Vec<(u64, u32)> = (0..16).map(|number| (number * 500, (number % 4) as u32)).collect();
    let mut seconds = 10;
    for poll in 0..40_u64 {
        seconds += 64 << (poll / 4).min(4);
        queries.extend((0..4).map(|number| (seconds * 1000 + u64::from(number), number)));
    }
    for (ms, server) in queries {
        play.at(ms, &udp(123, 30 + server, &ntp_query()));
    }
    play.until((seconds + 60) * 1000);
    assert_eq!(play.paged(), ["0.0 #1 opened medium attempt"]);
    assert!(play.updates() <= 3, "{:#?}", play.reported());
    let page = play.last_page();
    assert!(
        page.starts_with("web1 asks a time server that the policy does not know: udp/123 to 198.51.100.30")
    );
    assert!(
        page.ends_with(
            "Next: policy: if web1 may do this, give one of its roles out = [\"udp/123 to 198.51.100.30\"]"
        ),
        "{page}"
    );
    assert!(!play.alarm(1).next_commands().join("\n").contains("quarantine"));
    // and it ends like any other
    play.until((seconds + 3 * 3600) * 1000);
    assert_eq!(play.paged().len(), 2);
}

#[test]
fn a_client_that_goes_from_one_time_server_to_the_next_is_no_worm() {
    let mut play = Play::new();
    // systemd-timesyncd: the next address of the pool every ten seconds
    for number in 0..120 {
        play.at(number * 10_000, &udp(123, (number % 32) as u32, &ntp_query()));
    }
    play.until(1_300_000);
    assert_eq!(play.paged(), ["0.0 #1 opened medium attempt"]);
    assert!(play.updates() <= 8, "{:#?}", play.reported());
}

#[test]
fn a_resolver_that_is_down_makes_the_server_ask_another_one_and_that_is_one_medium_alarm() {
    let mut play = Play::new();
    // now and then a name: two types, two attempts, two suffixes
    for lookup in 0..20_u64 {
        for (number, kind) in [1, 28, 1, 28].into_iter().enumerate() {
            let question = question(&format!("host{lookup}.example"), kind, false);
            let drop = elsewhere(udp(53, 54, &question));
            play.at(lookup * 60_000 + number as u64 / 2 * 5_000, &drop);
        }
    }
    play.until(1_250_000);
    assert_eq!(play.paged(), ["0.0 #1 opened medium attempt"]);
    assert!(play.updates() <= 2, "{:#?}", play.reported());
    let page = play.last_page();
    assert!(
        page.starts_with("web1 asks a resolver that the policy does not know: udp/53 to 198.51.100.54"),
        "{page}"
    );
}

#[test]
fn a_mirror_that_the_policy_forgot_is_one_alarm_about_a_download() {
    let mut play = Play::new();
    // apt: four addresses of the mirror, half a minute each, four times, and again twelve hours later
    for run in 0..2_u64 {
        for attempt in 0..16_u64 {
            let start = run * 12 * 3_600_000 + attempt * 30_000;
            // each connection is retransmitted
            for retry_s in [0, 1, 3, 7, 15] {
                let source_port = (40_000 + run * 100 + attempt) as u16;
                play.at(start + retry_s * 1000, &tcp(80, 80 + (attempt % 4) as u32, source_port));
            }
        }
    }
    play.until(13 * 3_600_000);
    let pages = play.paged();
    let closed = pages.iter().filter(|page| page.contains(" closed ")).count();
    assert_eq!((pages.len(), closed), (4, 2), "{pages:#?}");
    assert!(pages.iter().all(|page| page.ends_with("high fetch")), "{pages:#?}");
    assert!(play.updates() <= 8, "{:#?}", play.reported());
}

#[test]
fn a_mail_queue_without_its_smart_host_is_no_worm() {
    let mut play = Play::new();
    // each exchanger once, and the first ones again after a while
    for number in 0..200_u16 {
        let destination = u32::from(number % 60);
        play.at(u64::from(number) * 2_000, &elsewhere(tcp(25, destination, 40000 + number)));
    }
    play.until(460_000);
    let pages = play.paged();
    assert_eq!(pages.len(), 2, "{pages:#?}");
    assert_eq!(pages[0], "0.0 #1 opened medium attempt");
    assert!(pages[1].ends_with("#1 escalated high attempt"), "{pages:#?}");
    let page = play.last_page();
    assert!(page.contains("sends mail past its smart host: tcp/25 to 198.51.100.0"), "{page}");
    assert!(page.contains("so does spam"), "{page}");
    let next = play.alarm(1).next_commands();
    assert!(next[0].starts_with("policy: ") && next[1] == "portcullis quarantine -i dmz0 web1", "{next:#?}");
    // mail of a server that has no business with mail is a worm like any other
    let mut play = Play::new();
    for number in 0..20 {
        play.at(u64::from(number) * 2_000, &tcp(25, number, 40000));
    }
    play.until(60_000);
    assert_eq!(play.alarm(1).kind(), Kind::Spread);
}
