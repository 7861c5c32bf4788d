//! A process dies while it gives rows of the ledger back: no count is lost, none is doubled, and the next
//! sweep ends what this one began.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;

use portcullis::abi::{ledger_row, quota_key, row_class, row_quota};
use portcullis::drops::ReportedRow;
use portcullis::gate::{Gate, GatePlace};

use super::fault_points::MOST_POINTS;
use crate::e2e::policies::{SETS_AND_SERVERS, dmz};
use crate::e2e::testbed::{NIC, Testbed, V4, ip, share_machine};
use crate::support::frame::{SYN, tcp};

/// Set for the process that is to give rows back, and to die.
const CHILD: &str = "PORTCULLIS_TEST_SWEEP";
const NAME: &str = "chaos::sweeps::a_sweep_that_dies_before_any_of_its_changes_loses_no_count";

fn reported(gate: &Gate) -> Vec<ReportedRow> {
    let rows = gate.ledger().expect("the ledger").into_iter().map(|(_, row)| row);
    rows.filter(|row| !row.overflow)
        .map(|row| ReportedRow {
            number: row.number,
            first_ns: row.first_ns,
            packets: row.packets,
            last_ns: row.last_ns,
        })
        .collect()
}

/// Packets and bytes by server and reason.
fn sums(gate: &Gate) -> BTreeMap<(u32, u8), (u64, u64)> {
    let mut sums: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (kind, row) in gate.ledger().expect("the ledger") {
        let sum = sums.entry((kind.server, kind.reason)).or_default();
        *sum = (sum.0 + row.packets, sum.1 + row.bytes);
    }
    sums
}

/// What the quotas of servers have given out, and how many rows there are with one.
fn count_rows(gate: &Gate) -> (u64, u64) {
    let quotas: Vec<(u32, row_quota)> = gate.maps.ledger_quotas.entries().expect("quotas");
    let used = quotas.iter().filter(|(key, _)| *key < quota_key::QUOTA_SHARED.0).map(|(_, quota)| quota.rows);
    (used.sum(), gate.maps.ledger.entries().expect("the ledger").len() as u64)
}

fn count_retired(gate: &Gate) -> usize {
    let rows = (0..gate.maps.ledger_rows.capacity()).filter_map(|number| {
        let row: ledger_row = gate.maps.ledger_rows.get(number).expect("a row")?;
        (u32::from(row.class) == row_class::ROW_RETIRED.0).then_some(())
    });
    rows.count()
}

/// SYNs of the web server to as many new ports as use its quota up.
fn flood(gate: &Gate, first: u16) -> u16 {
    let mut port = first;
    while !gate.is_ledger_crowded().expect("quotas") || port < first + 20 {
        let web: IpAddr = ip(V4.web);
        let frame = tcp((web, 40_000), (ip(V4.peer), port), SYN);
        gate.programs.run_filter(&frame, 1).expect("a run");
        port += 1;
    }
    port
}

#[test]
fn a_sweep_that_dies_before_any_of_its_changes_loses_no_count() {
    if env::var_os(CHILD).is_some() {
        let place = GatePlace::of(NIC).expect("a place");
        let _lock = place.lock().expect("the lock");
        let gate = Gate::open(&place).expect("the gate");
        let gone = gate.give_rows_back(&reported(&gate)).expect("a sweep");
        assert!(!gone.is_empty());
        return;
    }
    let _machine = share_machine();
    let testbed = Testbed::new();
    let policy = dmz().replace("ledger = 4096", "ledger = 256");
    assert!(policy.contains("ledger = 256") && policy.contains(SETS_AND_SERVERS));
    testbed.attach(&policy);
    let gate = testbed.open_gate();
    let mut port = 10_000;
    for point in 1..MOST_POINTS {
        port = flood(&gate, port);
        let before = sums(&gate);
        let mut child = testbed.router.command(env::current_exe().expect("this program"));
        child.args(["--exact", NAME]).env(CHILD, "1").env("PORTCULLIS_DIE_AT", point.to_string());
        let output = child.output().expect("the child");
        assert_eq!(sums(&gate), before, "point {point}");
        if output.status.success() {
            eprintln!("a sweep: {} points", point - 1);
            assert!(point > 6, "{point} points");
            let (used, rows) = count_rows(&gate);
            assert_eq!((used, count_retired(&gate)), (rows, 0));
            return;
        }
        assert!(output.status.code().is_none_or(|code| code == 128 + 9), "{point}: {output:?}");
        // whoever comes next ends it
        let place = testbed.place();
        let _lock = place.lock().expect("the lock");
        gate.give_rows_back(&reported(&gate)).expect("a sweep");
        assert_eq!(sums(&gate), before, "point {point}, after the next sweep");
        let (used, rows) = count_rows(&gate);
        assert_eq!((used, count_retired(&gate)), (rows, 0), "point {point}");
        assert!(!gate.is_ledger_crowded().expect("quotas"), "point {point}");
    }
    panic!("it never ran through");
}
