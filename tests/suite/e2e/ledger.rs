//! Every drop is in the ledger, exactly.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags};
use nix::sys::signal::Signal;
use plain::Plain;
use portcullis::gate::Gate;
use serde_json::Value;

use super::policies::{dmz, dmz_with_eve};
use super::socket::udp;
use super::tap::UDP;
use super::testbed::{FAMILIES, Testbed, V4, V6, exclusive, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::frame::{SYN, tcp};
use crate::support::patience::{eventually, within};

const THREADS: u64 = 4;
const EACH: u64 = 5_000;
/// Less than a NIC's queue holds.
const BURST: u64 = 32;

/// Sends forbidden datagrams from several threads and two addresses into the same row, no faster
/// than the NIC takes them.
fn flood(testbed: &Testbed) {
    let gate = testbed.open_gate();
    let sum = || gate.ledger().expect("the ledger").iter().map(|(_, row)| row.packets).sum::<u64>();
    let (before, sent) = (sum(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let family = FAMILIES[thread as usize % 2];
            let socket = udp(&testbed.dmz, family.web, 0);
            let (sum, sent) = (&sum, &sent);
            scope.spawn(move || {
                for _ in 0..EACH.div_ceil(BURST) {
                    for _ in 0..BURST.min(EACH) {
                        socket
                            .send_to(b"out", SocketAddr::new(ip(family.peer), FORBIDDEN))
                            .expect("a datagram");
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    let all = sent.load(Ordering::SeqCst);
                    eventually("the gate has counted what was sent", || sum() >= before + all);
                }
            });
        }
    });
    let sent = sent.into_inner();
    assert!(sent >= THREADS * EACH);
    assert_eq!(sum() - before, sent, "the ledger");
    let rows = testbed.drops();
    assert_eq!(rows.len(), 1, "one kind of drop: {rows:#?}");
    assert_eq!(rows[0].packets(), before + sent);
    let counters = gate.counters(false).expect("counters");
    let total: u64 =
        counters.iter().filter(|(reason, ..)| reason.drops()).map(|(_, packets, _)| packets).sum();
    assert_eq!(total, before + sent, "the counters");
}

#[test]
fn the_ledger_counts_every_drop_of_several_senders_without_a_daemon() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let (sent, left) = (testbed.tap_dmz(), testbed.tap_internet());
    flood(&testbed);
    let put_out = || FAMILIES.iter().map(|family| sent.count_to(ip(family.web), UDP, FORBIDDEN)).sum::<u64>();
    let total = testbed.dropped("web1", "udp", FORBIDDEN, "new_flow");
    eventually("the tap has seen what was sent", || put_out() == total);
    testbed.catch_up(&left);
    assert_eq!(left.count(|one| one.destination_port == FORBIDDEN), 0);
    let bytes = testbed.drops()[0].0["bytes"].as_u64().expect("bytes");
    // Ethernet, IP, UDP, three bytes; half of them IPv4, half IPv6
    assert_eq!(bytes, total / 2 * (14 + 20 + 8 + 3) + total / 2 * (14 + 40 + 8 + 3));
}

#[test]
fn a_daemon_reports_every_drop_although_few_samples_reach_it() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let path = testbed.folder.join("eve.json");
    let mut daemon = testbed.daemon(&dmz_with_eve(&path.display().to_string()), &[]);
    flood(&testbed);
    let total = testbed.dropped("web1", "udp", FORBIDDEN, "new_flow");
    let reported = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line["portcullis"]["drops"].as_u64()).sum::<u64>()
    };
    eventually("all drops are reported", || reported() >= total);
    daemon.end(Signal::SIGTERM);
    assert_eq!(reported(), total, "each is reported once");
    let events = fs::read_to_string(&path).expect("the event file").lines().count();
    assert!(events < 100, "{events} events for {total} drops: the sampling does not hold");
}

#[test]
fn each_kind_of_drop_has_a_row_of_its_own() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    for (address, peer, count) in [(V4.web, V4.peer, 3), (V6.web, V6.peer, 4), (V4.mail, V4.peer, 5)] {
        let socket = udp(&testbed.dmz, address, 0);
        for port in [4000, 4001] {
            for _ in 0..count {
                socket.send_to(b"out", SocketAddr::new(ip(peer), port)).expect("a datagram");
            }
        }
        // a port that is permitted, elsewhere
        socket.send_to(b"log", SocketAddr::new(ip(peer), 514)).expect("a datagram");
    }
    eventually("all are counted", || {
        testbed.drops().iter().map(super::command::Row::packets).sum::<u64>() == 27
    });
    for port in [4000, 4001] {
        assert_eq!(testbed.dropped("web1", "udp", port, "new_flow"), 7);
        assert_eq!(testbed.dropped("mx1", "udp", port, "new_flow"), 5);
    }
    assert_eq!(testbed.dropped("web1", "udp", 514, "destination"), 2);
    assert_eq!(testbed.dropped("mx1", "udp", 514, "destination"), 1);
    assert_eq!(testbed.drops().len(), 6);
    testbed.catch_up(&tap);
    let servers = [V4.web, V6.web, V4.mail].map(ip);
    assert_eq!(tap.count(|one| servers.contains(&one.source)), 0);

    // nobody's address is nobody's row
    testbed.dmz.ip("address add 192.0.2.99/24 dev eth0\n");
    udp(&testbed.dmz, "192.0.2.99", 0)
        .send_to(b"out", SocketAddr::new(ip(V4.peer), 4000))
        .expect("a datagram");
    eventually("the unknown source is counted", || {
        testbed.drops().iter().any(|row| {
            row.0["reason"] == "unknown_source"
                && row.0["server"].is_null()
                && row.0["address"] == "192.0.2.99"
        })
    });
}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: rows and counts are integers and addresses without padding.
    unsafe { plain::as_bytes(value) }
}

/// Makes all rows look two minutes older.
fn age_rows(gate: &Gate) {
    const BY_NS: u64 = 120_000_000_000;
    let (rows, counts) = (&gate.maps.ledger_rows, &gate.maps.ledger_counts);
    for number in 0..rows.capacity() {
        let mut row = rows.get(number).expect("a row").expect("a row");
        if row.first_ns > BY_NS {
            row.first_ns -= BY_NS;
            rows.handle().update(&number.to_ne_bytes(), bytes_of(&row), MapFlags::EXIST).expect("an update");
        }
    }
    for index in 0..counts.capacity() {
        let mut count = counts.get(index).expect("counts").expect("counts");
        if count.last_ns > BY_NS {
            count.last_ns -= BY_NS;
            counts
                .handle()
                .update(&index.to_ne_bytes(), bytes_of(&count), MapFlags::EXIST)
                .expect("an update");
        }
    }
}

#[test]
fn a_daemon_gives_idle_rows_back_so_that_a_single_try_after_a_flood_of_ports_has_its_row_and_its_alarm() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let policy = dmz().replace("ledger = 4096", "ledger = 256");
    assert!(policy.contains("ledger = 256"));
    testbed.attach(&policy);
    let gate = testbed.open_gate();
    let syn = |port| tcp((ip(V4.web), 40_000), (ip(V4.peer), port), SYN);
    for port in 10_000..11_000 {
        gate.programs.run_filter(&syn(port), 1).expect("a run");
    }
    assert!(gate.is_ledger_crowded().expect("quotas"));
    age_rows(&gate);
    let mut daemon = testbed.daemon(&policy, &[]);
    // it looks every ten seconds
    let is_roomy = || !gate.is_ledger_crowded().expect("quotas");
    assert!(within(Duration::from_secs(30), is_roomy), "no row was given back");
    gate.programs.run_filter(&syn(445), 1).expect("a run");
    daemon.wait_for_line(&["web1", "1001 packets"]);
    assert_eq!(testbed.dropped("web1", "tcp", 445, "new_flow"), 1);
    let all: u64 = testbed.drops().iter().map(super::command::Row::packets).sum();
    assert_eq!(all, 1001);
    daemon.end(Signal::SIGTERM);
}
