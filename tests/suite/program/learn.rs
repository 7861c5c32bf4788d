//! What captures teach: a week of a DMZ, and what must never come of it.

mod increments;
mod scene;
mod weeks;

use portcullis::learn::{Learned, Servers};
use portcullis::policy_tests::run_tests;

use self::scene::{Capture, Scene, needs};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// Why a need of this service is not proposed.
#[track_caller]
fn refusal<'l>(learned: &'l Learned, server: &str, need: &str) -> &'l str {
    let found = learned
        .not_proposed
        .iter()
        .find(|refused| refused.server == server && refused.need.starts_with(need));
    &found.unwrap_or_else(|| panic!("{need} of {server} in {:#?}", learned.not_proposed)).why
}

/// An hour in which web1 is visited, and whatever else.
fn hour(more: impl FnOnce(&mut Capture)) -> Capture {
    let mut capture = Capture::default();
    capture.connect(0, "198.51.100.9", "192.0.2.80", 443);
    more(&mut capture);
    capture.connect(60 * MINUTE, "198.51.100.9", "192.0.2.80", 443);
    capture
}

#[test]
fn an_opening_that_nobody_answered_is_not_proposed() {
    let capture = hour(|capture| {
        capture.attempt(MINUTE, "192.0.2.80", "198.51.100.66", 4444);
        capture.send(2 * MINUTE, "192.0.2.80", "198.51.100.40", 4000);
        capture.attempt(3 * MINUTE, "198.51.100.9", "192.0.2.80", 3306);
        capture.connect(4 * MINUTE, "192.0.2.80", "198.51.100.80", 5432);
        capture.attempt(4 * MINUTE, "192.0.2.80", "198.51.100.81", 5432);
    });
    let learned = Scene::new().learn(&capture);
    assert_eq!(needs(&learned), ["web1 in tcp/443 from 198.51.100.9", "web1 out tcp/5432 to 198.51.100.80"]);
    assert_eq!(refusal(&learned, "web1", "tcp/5432 to 198.51.100.81"), "nobody answered there");
    assert_eq!(refusal(&learned, "web1", "tcp/4444"), "nobody answered");
    assert_eq!(refusal(&learned, "web1", "udp/4000"), "nobody answered");
}

#[test]
fn a_log_line_needs_no_answer() {
    let capture = hour(|capture| {
        capture.send(MINUTE, "192.0.2.80", "198.51.100.20", 514);
    });
    let needs = needs(&Scene::new().learn(&capture));
    assert_eq!(needs, ["web1 in tcp/443 from 198.51.100.9", "web1 out udp/514 to 198.51.100.20"]);
}

#[test]
fn a_destination_is_named_where_every_opening_followed_an_answer_and_has_its_address_elsewhere() {
    const WEB: &str = "192.0.2.80";
    let capture = hour(|capture| {
        for minute in [1, 20] {
            let mirror = format!("198.51.100.{}", 90 + minute);
            capture.look_up(minute * MINUTE, WEB, "198.51.100.53", "deb.vendor.example", &[&mirror]);
            capture.connect(minute * MINUTE + SECOND, WEB, &mirror, 80);
        }
        // once after the time of the answer
        capture.look_up(2 * MINUTE, WEB, "198.51.100.53", "late.vendor.example", &["198.51.100.81"]);
        capture.connect(10 * MINUTE, WEB, "198.51.100.81", 5432);
        // somebody else has asked, and nobody
        capture.look_up(
            11 * MINUTE,
            "192.0.2.81",
            "198.51.100.53",
            "other.vendor.example",
            &["198.51.100.83"],
        );
        capture.connect(11 * MINUTE + SECOND, WEB, "198.51.100.83", 3306);
        capture.connect(12 * MINUTE, WEB, "198.51.100.82", 3306);
    });
    let scene = Scene::new();
    let learned = scene.learn(&capture);
    let of_web: Vec<String> =
        needs(&learned).into_iter().filter(|need| need.starts_with("web1 out")).collect();
    assert_eq!(
        of_web,
        [
            "web1 out tcp/3306 to 198.51.100.82, 198.51.100.83",
            "web1 out tcp/5432 to 198.51.100.81",
            "web1 out tcp/80 to deb.vendor.example",
            "web1 out udp/53 to 198.51.100.53",
        ]
    );
    let text = &learned.text;
    assert!(text.contains("resolvers = [\"198.51.100.53\"]"), "{text}");
    assert!(text.contains("private = [\"198.51.100.91\", \"198.51.100.110\"]"), "{text}");
    let policy = scene.policy("dmz0.toml", text);
    let report = run_tests(&policy.policy, &policy.tables).expect("a run");
    assert_eq!(report.failed, 0, "{}", report.describe());
    // a policy that has no resolvers gets addresses
    let bare = scene.policy(
        "bare.toml",
        "[roles.web]\nin = [\"tcp/443\"]\n[servers.web1]\naddresses = [\"192.0.2.80\"]\nroles = [\"web\"]\n",
    );
    let patch = scene.learn_against(&capture, &bare, None).text;
    assert!(patch.contains("tcp/80 to 198.51.100.91, 198.51.100.110"), "{patch}");
}

#[test]
fn who_opened_is_said_by_the_first_packet_and_never_by_ports() {
    let capture = hour(|capture| {
        // from a port of a service to one of a client
        capture.connect_from(MINUTE, ("192.0.2.80", 443), "198.51.100.8", 40_000);
        capture.exchange_from(2 * MINUTE, ("192.0.2.80", 53), "198.51.100.8", 41_000);
    });
    let needs = needs(&Scene::new().learn(&capture));
    assert_eq!(
        needs,
        [
            "web1 in tcp/443 from 198.51.100.9",
            "web1 out tcp/40000 to 198.51.100.8",
            "web1 out udp/41000 to 198.51.100.8"
        ]
    );
}

#[test]
fn what_began_before_the_capture_is_no_evidence_and_is_named() {
    let capture = hour(|capture| {
        capture.go_on(MINUTE, "198.51.100.70", "192.0.2.80", 8080);
    });
    let learned = Scene::new().learn(&capture);
    assert_eq!(needs(&learned), ["web1 in tcp/443 from 198.51.100.9"]);
    let note = learned.notes.iter().find(|note| note.contains("began before the capture"));
    assert!(
        note.is_some_and(|note| note.starts_with("1 connections") && note.contains("198.51.100.70")),
        "{note:?}"
    );
}

#[test]
fn one_direction_tells_of_tcp_and_says_what_it_cannot_know() {
    let mut both = hour(|capture| {
        capture.connect(MINUTE, "192.0.2.80", "198.51.100.80", 5432);
        capture.exchange(2 * MINUTE, "192.0.2.80", "198.51.100.30", 123);
    });
    let tcp = ["web1 in tcp/443 from 198.51.100.9", "web1 out tcp/5432 to 198.51.100.80"];
    let mut half = both.clone();
    both.keep(|frame| frame[6..12] == [2, 0, 0, 0, 0, 80]);
    let learned = Scene::new().learn(&both);
    assert_eq!(needs(&learned), tcp);
    assert!(refusal(&learned, "web1", "udp/123").starts_with("only one direction was captured"));
    assert!(
        learned.notes.iter().any(|note| note.starts_with("no packet goes to a server")),
        "{:?}",
        learned.notes
    );

    half.keep(|frame| frame[6..12] != [2, 0, 0, 0, 0, 80]);
    let learned = Scene::new().learn(&half);
    // who sends nothing has no name for what it offers, but an offer is one
    assert_eq!(needs(&learned), tcp);
    assert!(learned.notes.iter().any(|note| note.starts_with("no packet comes from a server")));
}

#[test]
fn what_began_in_the_last_tenth_of_the_time_is_not_proposed() {
    let capture = hour(|capture| {
        capture.connect(MINUTE, "192.0.2.80", "198.51.100.80", 5432);
        capture.connect(55 * MINUTE, "192.0.2.80", "198.51.100.81", 5432);
        capture.connect(56 * MINUTE, "192.0.2.80", "198.51.100.82", 3306);
        capture.connect(57 * MINUTE, "198.51.100.10", "192.0.2.80", 443);
    });
    let learned = Scene::new().learn(&capture);
    assert_eq!(needs(&learned), ["web1 in tcp/443 from 198.51.100.9", "web1 out tcp/5432 to 198.51.100.80"]);
    assert_eq!(refusal(&learned, "web1", "tcp/3306"), "it began in the last tenth of the time");
    let why = "this destination began in the last tenth of the time";
    assert_eq!(refusal(&learned, "web1", "tcp/5432 to 198.51.100.81"), why);
    assert!(refusal(&learned, "web1", "tcp/443 from 198.51.100.10").contains("last tenth"));
}

#[test]
fn what_one_of_many_like_servers_does_alone_is_not_proposed() {
    let mut capture = Capture::default();
    for round in 0..2 {
        for number in 0..10 {
            let server = format!("192.0.2.{}", 100 + number);
            capture.connect(round * 60 * MINUTE + number * SECOND, "198.51.100.9", &server, 443);
            capture.connect(round * MINUTE + number * SECOND + 500, &server, "198.51.100.80", 5432);
        }
    }
    capture.connect(5 * MINUTE, "192.0.2.103", "198.51.100.66", 8443);
    capture.connect(6 * MINUTE, "192.0.2.103", "198.51.100.67", 5432);
    let learned = Scene::new().learn(&capture);
    let needs = needs(&learned);
    assert_eq!(needs.len(), 20, "{needs:#?}");
    assert!(needs.contains(&"web4 out tcp/5432 to 198.51.100.80".to_owned()), "{needs:#?}");
    assert_eq!(
        refusal(&learned, "web4", "tcp/8443"),
        "of 10 servers that offer the same, only web4 does this"
    );
    assert!(refusal(&learned, "web4", "tcp/5432 to 198.51.100.67").contains("only web4 has this one"));
    assert_eq!(learned.text.matches("[roles.").count(), 1, "equal needs are one role\n{}", learned.text);
}

#[test]
fn servers_that_have_only_their_administrator_in_common_are_not_alike() {
    let capture = hour(|capture| {
        for round in [0, 50 * MINUTE] {
            for (server, port) in [("192.0.2.25", 25), ("192.0.2.53", 53), ("192.0.2.80", 80)] {
                capture.connect(round + MINUTE, "203.0.113.7", server, 22);
                capture.connect(round + 2 * MINUTE, "203.0.113.8", server, 9100);
                capture.connect(round + 3 * MINUTE, "198.51.100.9", server, port);
            }
        }
    });
    let learned = Scene::new().learn(&capture);
    assert_eq!(learned.not_proposed.len(), 0, "{:#?}", learned.not_proposed);
    let needs = needs(&learned);
    for need in ["mail1 in tcp/25", "dns1 in tcp/53", "web1 in tcp/80", "all management tcp/22"] {
        assert!(needs.iter().any(|found| found.starts_with(need)), "{need}: {needs:#?}");
    }
}

#[test]
fn the_tests_hold_where_one_server_asks_another_and_may_not() {
    let capture = hour(|capture| {
        capture.connect(MINUTE, "198.51.100.9", "192.0.2.81", 443);
        // a download that nothing excuses
        capture.connect(2 * MINUTE, "192.0.2.81", "192.0.2.80", 80);
        capture.connect(3 * MINUTE, "192.0.2.81", "192.0.2.80", 22);
    });
    let scene = Scene::new();
    let learned = scene.learn(&capture);
    assert!(needs(&learned).contains(&"web1 in tcp/80 from 192.0.2.81".to_owned()), "{:#?}", needs(&learned));
    assert!(refusal(&learned, "web2", "tcp/80 to 192.0.2.80").starts_with("fetch: "));
    let policy = scene.policy("dmz0.toml", &learned.text);
    let report = run_tests(&policy.policy, &policy.tables).expect("a run");
    assert_eq!(report.failed, 0, "{}", report.describe());
}

#[test]
fn peers_become_a_prefix_only_when_asked_and_never_a_wide_one() {
    let capture = hour(|capture| {
        for host in [16, 17, 20, 31] {
            capture.connect(MINUTE + host, "192.0.2.80", &format!("198.51.100.{host}"), 5432);
        }
        for host in [1, 2, 3] {
            capture.connect(2 * MINUTE + host, "192.0.2.80", &format!("203.0.113.{host}"), 5432);
        }
    });
    let scene = Scene::new();
    let out = |learned: &Learned| {
        needs(learned).into_iter().find(|need| need.starts_with("web1 out")).unwrap_or_default()
    };
    let exact = scene.learn(&capture);
    assert_eq!(out(&exact).matches("/32").count(), 0);
    assert_eq!(out(&exact).split(", ").count(), 7, "{}", out(&exact));
    let joined = scene.learn_with(&capture, |request| request.aggregate = true);
    let expected = "web1 out tcp/5432 to 198.51.100.16/28, 203.0.113.1, 203.0.113.2, 203.0.113.3";
    assert_eq!(out(&joined), expected);
    assert!(joined.text.contains("198.51.100.16/28: seen 4 of 16"), "{}", joined.text);
}

#[test]
fn another_servers_address_is_a_spoof_and_no_evidence() {
    let capture = hour(|capture| {
        capture.connect(1, "198.51.100.9", "192.0.2.81", 443);
        capture.connect(60 * MINUTE, "198.51.100.9", "192.0.2.81", 443);
        capture.connect_by(MINUTE, [2, 0, 0, 0, 0, 81], "192.0.2.80", "198.51.100.40", 25);
    });
    let learned = Scene::new().learn(&capture);
    assert!(!needs(&learned).iter().any(|need| need.contains("tcp/25")), "{:#?}", needs(&learned));
    let note = "packets of 192.0.2.80 came from the MAC of 192.0.2.81";
    assert!(learned.notes.iter().any(|text| text.contains(note)), "{:?}", learned.notes);
}

#[test]
fn names_from_dns_answers_stand_beside_the_addresses_and_cannot_write_into_the_policy() {
    let capture = hour(|capture| {
        capture.look_up(MINUTE, "192.0.2.80", "198.51.100.53", "deb.vendor.example", &["198.51.100.80"]);
        capture.connect(MINUTE + 10, "192.0.2.80", "198.51.100.80", 80);
        capture.look_up(2 * MINUTE, "192.0.2.80", "198.51.100.53", "a\n\"b", &["198.51.100.81"]);
        capture.connect(2 * MINUTE + 10, "192.0.2.80", "198.51.100.81", 5432);
    });
    let learned = Scene::new().learn(&capture);
    assert!(learned.text.contains("198.51.100.80 (deb.vendor.example) 1x"), "{}", learned.text);
    assert!(learned.text.contains(": 198.51.100.81 1x"), "{}", learned.text);
}

#[test]
fn addresses_that_no_policy_may_have_are_no_servers_and_no_peers() {
    let capture = hour(|capture| {
        capture.connect(MINUTE, "198.51.100.9", "0.64.6.141", 80);
        capture.connect(2 * MINUTE, "127.0.0.1", "192.0.2.80", 22);
        capture.connect(3 * MINUTE, "224.0.0.9", "192.0.2.80", 25);
        capture.connect(4 * MINUTE, "::ffff:198.51.100.9", "2001:db8:1::80", 80);
        capture.connect(5 * MINUTE, "::", "2001:db8:1::80", 443);
    });
    let learned = Scene::new().learn_with(&capture, |request| {
        let networks =
            ["0.0.0.0/1", "192.0.2.0/24", "2001:db8:1::/64"].map(|text| text.parse().expect("a network"));
        request.servers = Servers::Networks { networks: networks.to_vec(), except: Vec::new() };
    });
    assert!(!learned.text.contains("ffff") && !learned.text.contains("0.64.6.141"), "{}", learned.text);
    let policy = Scene::new().policy("dmz0.toml", &learned.text);
    let report = run_tests(&policy.policy, &policy.tables).expect("a run");
    assert_eq!(report.failed, 0, "{}", report.describe());
}

#[test]
fn a_damaged_capture_teaches_what_stands_before_the_damage() {
    let scene = Scene::new();
    let mut bytes = hour(|_| ()).bytes();
    let end = bytes.len() - 7;
    bytes.truncate(end);
    let path = scene.write("cut.pcap", &bytes);
    let (status, out, err) = scene.run(&["learn", "--servers", "192.0.2.0/24", &path]);
    assert_eq!(status, Some(1), "{err}");
    assert!(out.contains("\"tcp/443 from 198.51.100.9\""), "{out}");
    assert!(err.contains("damaged at byte") && err.contains("what comes before was learnt from"), "{err}");
}

#[test]
fn without_a_word_about_servers_nothing_is_guessed_but_a_network_is_suggested() {
    let scene = Scene::new();
    let capture = hour(|capture| {
        for host in 1..9 {
            capture.connect(MINUTE + host, &format!("198.51.100.{host}"), "192.0.2.81", 443);
        }
    });
    let path = scene.write("dmz.pcap", &capture.bytes());
    let (status, out, err) = scene.run(&["learn", &path]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.contains("does not say which addresses are servers"), "{err}");
    assert!(err.contains("--servers 192.0.2.0/24\n"), "{err}");
}

#[test]
fn a_policy_is_written_to_a_new_file_and_never_over_another() {
    let scene = Scene::new();
    let path = scene.write("dmz.pcap", &hour(|_| ()).bytes());
    let new = scene.path("new.toml");
    let arguments = ["learn", "--servers", "192.0.2.0/24", "-o", &new, &path];
    let (status, out, err) = scene.run(&arguments);
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("1 need of 1 server proposed, 0 not proposed"), "{out}");
    let (status, _, err) = scene.run(&["check", &new]);
    assert_eq!(status, Some(0), "{err}");
    let (status, _, err) = scene.run(&arguments);
    assert_eq!(status, Some(1));
    assert!(err.contains("exists, and learn replaces nothing"), "{err}");
}

#[test]
fn a_million_packets_take_less_than_64_mib() {
    let high = scene::learn_from_a_flood(1_000_000);
    assert!(high < 64 << 10, "{high} KiB");
}
