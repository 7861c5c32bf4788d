//! EVE, ECS, CEF and pcapng side by side.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{count_reported, dmz_with_alarms, json_lines, output_of};
use crate::e2e::testbed::{Testbed, V6, share_machine};
use crate::support::patience::eventually;

/// What tshark reads of a capture: interface, seconds, port, comment.
fn packets(path: &str) -> Vec<Vec<String>> {
    let fields = ["frame.interface_name", "frame.time_epoch", "udp.dstport", "frame.comment"];
    let mut arguments = vec!["-n", "-r", path, "-T", "fields", "-E", "separator=|"];
    fields.iter().for_each(|field| arguments.extend(["-e", field]));
    let text = output_of("tshark", &arguments);
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

#[test]
fn all_files_tell_of_the_same_drops_and_wireshark_reads_the_samples() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = |name: &str| testbed.folder.join("new-folder").join(name).display().to_string();
    let (eve, ecs, cef, pcapng) = (path("eve.json"), path("ecs.json"), path("e.cef"), path("s.pcapng"));
    let lines = format!("eve = \"{eve}\"\necs = \"{ecs}\"\ncef = \"{cef}\"\npcapng = \"{pcapng}\"\n");
    let mut daemon = testbed.daemon(&dmz_with_alarms(&lines), &[]);
    testbed.prove_drops(&tap, 5);
    let reported = || (count_reported(&eve), count_reported(&ecs));
    eventually("both files have all drops", || reported() == (5, 5));
    eventually("the samples are there", || fs::metadata(&pcapng).is_ok_and(|file| file.len() > 0));

    let alert = |value: &&Value| value["event"]["kind"] == "alert";
    let alerts = json_lines(&ecs);
    let alert = alerts.iter().find(alert).expect("an alert");
    assert_eq!(
        (&alert["event"]["action"], &alert["rule"]["ruleset"]),
        (&"opened".into(), &"portcullis".into())
    );
    assert_eq!((&alert["source"]["ip"], &alert["destination"]["port"]), (&"192.0.2.80".into(), &4000.into()));
    let text = fs::read_to_string(&cef).expect("a file");
    assert!(text.lines().all(|line| line.starts_with("CEF:0|portcullis|portcullis|")), "{text}");
    for word in ["|drop/47|", "src=192.0.2.80 ", " dpt=4000 ", " act=blocked "] {
        assert!(text.contains(word), "{word} in {text}");
    }

    // each sampled packet, its time to the nanosecond
    let found = packets(&pcapng);
    assert!(!found.is_empty());
    for packet in &found {
        assert_eq!((&*packet[0], &*packet[2]), ("dmz0", "4000"), "{packet:?}");
        assert!(packet[3].starts_with("drop new_flow: web1 udp/4000"), "{packet:?}");
        let fraction = packet[1].split_once('.').expect("a fraction").1;
        assert_eq!(fraction.len(), 9, "{packet:?}");
    }
    let about = output_of("capinfos", &["-M", &pcapng]);
    assert!(about.contains("nanoseconds (9)") && about.contains("Name = dmz0"), "{about}");

    // log rotation by somebody else
    for file in [&eve, &ecs, &cef, &pcapng] {
        fs::rename(file, format!("{file}.old")).expect("a rename");
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["generation 2 is live"]);
    testbed.prove_drops(&tap, 3);
    eventually("the new files have the new drops", || reported() == (3, 3));
    eventually("the new samples are there", || fs::metadata(&pcapng).is_ok_and(|file| file.len() > 0));
    assert!(!packets(&pcapng).is_empty());
    assert_eq!(packets(&format!("{pcapng}.old")).len(), found.len());

    // and the next daemon goes on in the same file
    let before = packets(&pcapng).len();
    daemon.end(Signal::SIGTERM);
    let mut daemon = testbed.daemon(&dmz_with_alarms(&lines), &[]);
    testbed.prove_drops(&tap, 1);
    eventually("a packet more", || packets(&pcapng).len() > before);
    daemon.end(Signal::SIGTERM);
}

#[test]
fn a_hangup_puts_changed_sinks_into_force_and_loses_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = |name: &str| testbed.folder.join(name).display().to_string();
    let (first, second) = (path("first.json"), path("second.json"));
    let mut daemon = testbed.daemon(&dmz_with_alarms(&format!("eve = \"{first}\"")), &[]);
    testbed.prove_drops(&tap, 4);
    eventually("the first file has them", || count_reported(&first) == 4);
    testbed.write("daemon.toml", &dmz_with_alarms(&format!("eve = \"{second}\"")));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["alarms.eve", "second.json"]);
    daemon.wait_for_line(&["generation 2 is live"]);
    testbed.prove_drops(&tap, 3);
    eventually("the second file has the rest", || count_reported(&second) == 3);
    assert_eq!(count_reported(&first), 4);
    daemon.end(Signal::SIGTERM);
}

#[test]
fn a_worm_that_samples_show_little_of_is_found_out_by_a_few_of_them() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let eve = testbed.folder.join("eve.json").display().to_string();
    let mut daemon = testbed.daemon(&dmz_with_alarms(&format!("eve = \"{eve}\"")), &[]);
    let socket = testbed.dmz.enter(|| UdpSocket::bind((V6.web, 0)).expect("a socket"));
    let escalated = || {
        let is_spread = |line: &Value| line["portcullis"]["kind"] == "spread";
        json_lines(&eve).into_iter().find(is_spread)
    };
    let mut hosts = 0_u16;
    eventually("it is called a spread", || {
        for _ in 0..100 {
            hosts = hosts.wrapping_add(1);
            let host = Ipv6Addr::new(0x2001, 0xdb8, 0x2, 0, 0, 0, 0, hosts);
            // a queue that is full on the way is no matter
            let _ = socket.send_to(b"worm", (host, 8291));
        }
        escalated().is_some()
    });
    let alert = escalated().expect("an alert");
    let own = &alert["portcullis"];
    assert_eq!(
        (&own["change"], &own["was"], &own["severity"]),
        (&"escalated".into(), &"attempt".into(), &"critical".into())
    );
    // One sample a second, and each shows one destination: the others are the ledger's last ones.
    let count = |value: &Value| value.as_u64().expect("a count");
    assert!(count(&own["destinations"]["count"]) > count(&own["events"]), "{own}");
    assert!(count(&own["packets"]) > 50, "{own}");
    assert_eq!(alert["alert"]["metadata"]["mitre_technique_id"][0], "T1210");
    daemon.end(Signal::SIGTERM);
}
