//! A week of a small DMZ: two web servers, a name server and a mail server, with all that such servers do. And the same
//! week with a web server that was taken over before anybody learnt.

use std::path::PathBuf;

use portcullis::policy_tests::run_tests;
use portcullis::replay::{Request, replay};

use super::scene::{Capture, Scene, needs};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

const WEB: [&str; 2] = ["192.0.2.80", "192.0.2.81"];
const DNS: &str = "192.0.2.53";
const MAIL: &str = "192.0.2.25";
const ATTACKER: &str = "198.51.100.66";

fn week() -> Capture {
    let mut capture = Capture::default();
    for day in 0..7 {
        let at = day * DAY + 60 * SECOND;
        for visitor in 0..20 {
            let network = ["198.51.100", "203.0.113"][visitor as usize % 2];
            let (address, at) = (format!("{network}.{}", 100 + visitor), at + visitor * SECOND);
            for server in WEB {
                capture.connect(at, &address, server, 443);
                capture.connect(at + 500, &address, server, 80);
            }
            capture.look_up(at + 100, &address, DNS, "www.dmz.example", &[WEB[0]]);
        }
        for exchanger in ["198.51.100.25", "198.51.100.26", "203.0.113.25"] {
            capture.connect(at + 200 * SECOND, exchanger, MAIL, 25);
        }
        for exchanger in ["198.51.100.25", "203.0.113.25"] {
            capture.connect(at + 230 * SECOND, MAIL, exchanger, 25);
        }
        for resolver in ["198.51.100.53", "203.0.113.53"] {
            capture.look_up(at + 260 * SECOND, DNS, resolver, "a.example", &["203.0.113.1"]);
        }
        for server in [WEB[0], WEB[1], DNS, MAIL] {
            for hour in 0..24 {
                let at = at + hour * HOUR + 300 * SECOND;
                capture.send(at, server, "198.51.100.20", 514);
                capture.exchange_from(at + 10 * SECOND, (server, 123), "198.51.100.30", 123);
                capture.connect(at + 20 * SECOND, "203.0.113.8", server, 9100);
            }
            capture.connect(at + 400 * SECOND, "203.0.113.7", server, 22);
        }
        let mirror = format!("198.51.100.{}", 80 + day % 4);
        for server in WEB {
            capture.look_up(at + 500 * SECOND, server, "198.51.100.53", "deb.vendor.example", &[&mirror]);
            capture.connect(at + 501 * SECOND, server, &mirror, 80);
        }
        capture.connect(at + 600 * SECOND, MAIL, "203.0.113.22", 22);
        capture.send(at + 700 * SECOND, WEB[0], "224.0.0.251", 5353);
    }
    capture
}

/// The worm, the download, the reverse shell and the bind shell of `scripts/demo`.
fn infect(capture: &mut Capture) {
    for day in 0..7 {
        let at = day * DAY + 90 * SECOND;
        for number in 0..60 {
            let victim = format!("198.51.100.{}", 130 + number);
            match number % 10 {
                0 => capture.connect(at + number * 50, WEB[0], &victim, 80),
                _ => capture.attempt(at + number * 50, WEB[0], &victim, 80),
            }
        }
        capture.connect(at + 100 * SECOND, WEB[0], ATTACKER, 21);
        capture.exchange(at + 101 * SECOND, WEB[0], ATTACKER, 69);
        for number in 0..8 {
            capture.connect(at + (110 + 2 * number) * SECOND, WEB[0], ATTACKER, 4444);
        }
        for number in 0..3 {
            capture.connect(at + (150 + number) * SECOND, ATTACKER, WEB[0], 31_337);
        }
    }
}

/// What a person who knows these servers would write.
fn truth() -> Vec<String> {
    let mut truth = vec!["all management tcp/22 from 203.0.113.7".to_owned()];
    for server in ["web1", "web2", "dns1", "mail1"] {
        truth.push(format!("{server} out udp/514 to 198.51.100.20"));
        truth.push(format!("{server} out udp/123 to 198.51.100.30"));
        truth.push(format!("{server} in tcp/9100 from 203.0.113.8"));
    }
    for server in ["web1", "web2"] {
        truth.push(format!("{server} in tcp/80"));
        truth.push(format!("{server} in tcp/443"));
        truth.push(format!("{server} out udp/53 to 198.51.100.53"));
        truth.push(format!("{server} out tcp/80 to deb.vendor.example"));
    }
    for need in [
        "dns1 in udp/53",
        "dns1 out udp/53 to 198.51.100.53, 203.0.113.53",
        "mail1 in tcp/25 from 198.51.100.25, 198.51.100.26, 203.0.113.25",
        "mail1 out tcp/25 to 198.51.100.25, 203.0.113.25",
        "mail1 out tcp/22 to 203.0.113.22",
        "web1 quiet udp/5353 to 224.0.0.251",
    ] {
        truth.push(need.to_owned());
    }
    truth.sort();
    truth
}

#[test]
fn a_week_teaches_what_a_person_would_write_and_the_policy_drops_nothing_of_it() {
    let (scene, capture) = (Scene::new(), week());
    let learned = scene.learn(&capture);
    assert_eq!(needs(&learned), truth(), "{}", learned.text);
    assert_eq!(learned.not_proposed.len(), 0, "{:#?}", learned.not_proposed);
    for role in ["[roles.web]", "[roles.dns]", "[roles.mail]", "[roles.monitored]"] {
        assert!(learned.text.contains(role), "{role}\n{}", learned.text);
    }

    let policy = scene.policy("dmz0.toml", &learned.text);
    let report = run_tests(&policy.policy, &policy.tables).expect("a run");
    assert_eq!((report.failed, report.tests.is_empty()), (0, false), "{}", report.describe());
    let enforced = learned.text.replace("mode = \"observe\"", "mode = \"enforce\"");
    let policy = scene.policy("dmz1.toml", &enforced);
    let files = [PathBuf::from(scene.path("dmz.pcap"))];
    let replayed = replay(&policy, &Request { files: &files, own_mac: None }).expect("a replay");
    let loud: Vec<_> = replayed.drops.iter().filter(|row| row.service != "udp/5353").collect();
    assert!(loud.is_empty() && replayed.alarms.is_empty(), "{loud:#?}");
}

#[test]
fn of_a_server_that_was_taken_over_before_not_one_need_of_its_worm_is_proposed() {
    let (scene, mut capture) = (Scene::new(), week());
    infect(&mut capture);
    let learned = scene.learn(&capture);
    let needs = needs(&learned);
    let bad: Vec<&String> = needs.iter().filter(|need| !truth().contains(need)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // what it has in common with a server that nobody took over is still a need
    assert_eq!(needs, truth(), "{:#?}", learned.not_proposed);
    let why = |need: &str| {
        let found = learned.not_proposed.iter().find(|refused| refused.need.starts_with(need));
        found
            .map(|refused| refused.why.clone())
            .unwrap_or_else(|| panic!("{need}: {:#?}", learned.not_proposed))
    };
    assert!(why("tcp/80").starts_with("spread: "), "{}", why("tcp/80"));
    assert!(why("tcp/21 to 198.51.100.66").starts_with("fetch: "), "{}", why("tcp/21"));
    assert!(why("udp/69 to 198.51.100.66").starts_with("fetch: "), "{}", why("udp/69"));
    assert!(why("tcp/4444 to 198.51.100.66").starts_with("callback: "), "{}", why("tcp/4444"));
    assert!(why("tcp/31337").starts_with("backdoor? "), "{}", why("tcp/31337"));
    assert!(learned.notes.iter().any(|note| note.starts_with("web1 had a part in ")), "{:?}", learned.notes);

    let policy = scene.policy("dmz0.toml", &learned.text);
    let report = run_tests(&policy.policy, &policy.tables).expect("a run");
    assert_eq!(report.failed, 0, "{}", report.describe());
    assert!(learned.text.contains("\"tcp/4444\""), "a test denies the reverse shell\n{}", learned.text);
    assert!(learned.text.contains("deny = [\"tcp/31337\"]"), "and the bind shell\n{}", learned.text);
}
