//! Many kinds of drops for minutes, and then damage: how large the file and the process become, and how long a start
//! takes. `scripts/measure history` runs it for longer, alone, and with a disk whose fsync fails.
//!
//! `PORTCULLIS_HISTORY_MINUTES=N` is how long. `PORTCULLIS_HISTORY_FAULTS=1` says that writes fail now and then.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::*;
use crate::drops::example::{after_ms, syn};

/// 24,000 kinds a minute, of servers that each stay below their share.
const SERVERS: u32 = 100;
const ROWS_A_SECOND: u32 = 400;
/// What [`Limits::of_days`] promises.
const MOST_BYTES: u64 = 128 << 20;
const MOST_ATTEMPTS: usize = 200;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn size_of(path: &Path) -> u64 {
    let folder = path.parent().unwrap();
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Memory of this process, KiB: now, and at most.
fn read_memory() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    ["VmRSS:", "VmHWM:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    })
}

/// Tries as often as the writer of the daemon does where it is said that a disk fails. That is never damage.
fn insist<T>(failed: &mut u64, mut act: impl FnMut() -> Result<T, StoreError>) -> T {
    let may_fail = from_env("PORTCULLIS_HISTORY_FAULTS").is_some();
    for _ in 0..MOST_ATTEMPTS {
        match act() {
            Ok(done) => return done,
            Err(error) => {
                assert!(may_fail && !matches!(error, StoreError::Damaged { .. }), "{error}");
                *failed += 1;
            }
        }
    }
    panic!("the disk never takes it");
}

/// What one second brings: kinds that no other second of its minute has.
fn second(minute: u64, second: u64) -> Pending {
    let mut pending = Pending::default();
    let names: Vec<std::sync::Arc<str>> = (0..SERVERS).map(|number| format!("s{number}").into()).collect();
    for row in 0..ROWS_A_SECOND {
        let mut drop = syn();
        let server = row % SERVERS;
        drop.server = Some(crate::drops::ServerRef { id: server + 1, name: names[server as usize].clone() });
        drop.port = (second * 4) as u16 + (row / SERVERS) as u16;
        drop.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + row).into());
        drop.time = after_ms((minute * 60 + second) * 1_000).wall;
        drop.frame = Vec::new();
        pending.add_drop(&drop);
    }
    pending.checkpoint(Baseline::default());
    pending
}

#[test]
fn kinds_beyond_all_bounds_for_minutes_leave_file_and_sums_as_promised_and_a_damaged_file_is_soon_replaced() {
    let minutes = from_env("PORTCULLIS_HISTORY_MINUTES").unwrap_or(1);
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut written, mut failed, mut largest, mut longest) = (0, 0_u64, 0, Duration::ZERO);
    let begun = read_memory();
    for minute in 0..minutes {
        for part in 0..60 {
            let pending = second(minute, part);
            let now = after_ms((minute * 60 + part) * 1_000).wall;
            insist(&mut failed, || {
                let started = Instant::now();
                let outcome = store.write(&pending, &Limits::of_days(90), now);
                longest = longest.max(started.elapsed());
                outcome
            });
            written += u64::from(ROWS_A_SECOND);
            largest = largest.max(size_of(store.path()));
        }
    }
    assert!(largest < MOST_BYTES, "{largest}");
    let end = after_ms(minutes * 60_000).wall;
    let sums = |store: &Store| {
        let rows = store.counts(after_ms(0).wall, end).unwrap();
        (rows.len(), rows.iter().map(|row| row.packets).sum::<u64>())
    };
    let (rows, packets) = sums(&store);
    assert_eq!((packets, store.damaged()), (written, 0));
    let memory = read_memory();
    drop(store);
    if from_env("PORTCULLIS_HISTORY_FAULTS").is_some() {
        println!("{minutes} min, {written} kinds, {failed} writes failed, and each drop is counted once");
        return;
    }

    // a start reads every page and every row
    let started = Instant::now();
    let store = insist(&mut failed, || Store::open(folder.path()));
    let whole = started.elapsed();
    assert_eq!((sums(&store), store.damaged()), ((rows, packets), 0));
    let path = store.path().to_owned();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    // the last row that is read is the worst place
    let at = bytes.len() - 2_048;
    bytes[at..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&path, &bytes).unwrap();
    let started = Instant::now();
    let store = insist(&mut failed, || Store::open(folder.path()));
    let damaged = started.elapsed();
    if store.damaged() == 0 {
        // that page was free
        assert_eq!(sums(&store), (rows, packets));
    }
    insist(&mut failed, || store.write(&second(minutes, 0), &Limits::of_days(90), end));
    println!(
        "{minutes} min, {written} kinds, {failed} writes failed\n\
         file and log, at most: {} KiB, with {rows} rows\n\
         memory: {} KiB before, {} KiB after, {} KiB at most\n\
         longest write: {longest:.1?}, start on the whole file: {whole:.1?}, on a damaged one: {damaged:.1?}",
        largest >> 10,
        begun[0],
        memory[0],
        memory[1],
    );
}
