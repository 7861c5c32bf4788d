//! Names: what servers ask resolvers, what these answer, and what is said of addresses that were looked up.

use super::*;
use crate::alarm::likely::tests::question;
use crate::alarm::{About, AnswerReport};
use crate::drops::LookedUp;

const TXT: u16 = 16;
const A: u16 = 1;

/// A question that a role with `dns = "named"` does not permit.
fn asks(name: &str, kind: u16) -> DropEvent {
    DropEvent { reason: Reason::Question.into(), ..udp(53, 53, &question(name, kind, false)) }
}

/// With what its address was looked up as, at this time.
fn looked_up(drop: DropEvent, name: &str, ms: u64) -> DropEvent {
    DropEvent { looked_up: Some(LookedUp { name: name.into(), at: after_ms(ms).wall }), ..drop }
}

impl Play {
    /// What the gate counted of answers until this time.
    fn answers(&mut self, ms: u64, report: &AnswerReport) {
        self.until(ms);
        let now = after_ms(ms);
        let report = AnswerReport { first: now.wall, last: now.wall, ..report.clone() };
        self.changes.extend(self.engine.report_answers(&report, &"dmz0".into(), now));
    }
}

fn report(about: About, subject: &str, address: Option<&str>, answers: u64) -> AnswerReport {
    let now = after_ms(0).wall;
    AnswerReport {
        about,
        subject: subject.into(),
        answers,
        resolvers: vec!["198.51.100.53".parse().unwrap()],
        addresses: address.into_iter().map(|address| address.parse().unwrap()).collect(),
        servers: vec!["web1".into()],
        interface: "eth2".into(),
        first: now,
        last: now,
        while_away: false,
    }
}

#[test]
fn a_tunnel_through_the_resolver_is_one_medium_question_with_a_name_of_the_tunnel() {
    let mut play = Play::new();
    for number in 0..6_000_u64 {
        play.at(number * 20, &asks(&format!("{number:032x}.t.evil.example"), TXT));
    }
    play.until(600_000);
    assert_eq!(play.paged(), ["0.0 #1 opened medium question", "420.0 #1 closed medium question"]);
    assert!(play.updates() <= 6, "{:#?}", play.reported());
    let page = play.last_page();
    let begin = "web1 asked 198.51.100.53 for 00000000000000000000000000000000.t.evil.example (TXT), outside";
    assert!(page.starts_with(begin) || page.contains(begin), "{page}");
    assert_eq!(play.alarm(1).packets, 6_000);
}

#[test]
fn a_program_that_the_role_forgot_is_one_medium_question_however_long_it_asks() {
    let mut play = Play::new();
    for number in 0..200_u64 {
        // both families, and a second attempt
        for kind in [A, 28, A, 28] {
            play.at(number * 60_000, &asks("telemetry.vendor.example", kind));
        }
    }
    assert_eq!(play.paged(), ["0.0 #1 opened medium question"]);
    assert!(play.updates() <= 4, "{:#?}", play.reported());
    let page = play.last_page();
    assert!(page.contains("asked 198.51.100.53 for telemetry.vendor.example (A), outside"), "{page}");
}

#[test]
fn a_name_that_rebinds_is_one_low_alarm_and_hides_nothing_of_the_server_that_asked() {
    let mut play = Play::new();
    let rebinding = report(About::Name(3), "deb.vendor.example", Some("10.0.0.1"), 1);
    for number in 0..30 {
        play.answers(number * 60_000, &rebinding);
    }
    assert_eq!(play.paged(), ["0.0 #1 opened low rebinding"]);
    assert!(play.updates() <= 4, "{:#?}", play.reported());
    play.at(1_800_000, &tcp(22, 66, 40000));
    assert_eq!(play.paged()[1..], ["1800.0 #2 opened critical attempt"]);
    assert!(play.alarm(2).follows.is_none(), "a low alarm about a name is no beginning of it");
}

#[test]
fn a_flood_of_forged_answers_is_one_low_alarm_and_the_intruder_behind_it_another() {
    let mut play = Play::new();
    let resolver = "198.51.100.53";
    let forged = report(About::Resolver(resolver.parse().unwrap()), resolver, None, 50_000);
    for second in 0..120 {
        play.answers(second * 1000, &forged);
        if second == 60 {
            let fetch = tcp(443, 9, 40000);
            play.at(second * 1000, &looked_up(elsewhere(fetch), "cdn.evil.example", second * 1000 - 2_000));
        }
    }
    let pages = play.paged();
    assert_eq!(pages.len(), 2, "{pages:#?}");
    assert_eq!(pages[0], "0.0 #1 opened low forged_answer");
    assert!(pages[1].starts_with("60.0 #2 opened ") && !pages[1].contains(" low "), "{pages:#?}");
    assert_eq!(play.alarm(1).packets, 120 * 50_000);
}

#[test]
fn a_download_says_as_what_its_address_was_looked_up() {
    let mut play = Play::new();
    play.at(2_000, &looked_up(tcp(443, 9, 40000), "evil.example", 0));
    assert_eq!(play.paged(), ["2.0 #1 opened high fetch"]);
    let page = play.last_page();
    assert!(page.contains("from 198.51.100.9, looked up as evil.example 2 s before"), "{page}");
    // the name is the kernel's last word on that address, and the next one may be another
    play.at(30_000, &looked_up(tcp(443, 9, 40001), "next.evil.example", 29_000));
    assert!(
        play.alarm(1).seen().contains("looked up as next.evil.example 1 s before"),
        "{:#?}",
        play.alarm(1)
    );
}
