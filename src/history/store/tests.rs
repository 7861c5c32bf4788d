use std::fs;

use tempfile::tempdir;

use super::*;
use crate::alarm::Engine;
use crate::drops::DropEvent;
use crate::drops::example::{after_ms, syn};
use crate::history::pending::SHARE_PER_MINUTE;

const LIMITS: Limits = Limits { alarms: 3, counts: 5, samples: 4, age_s: 3600 };

fn now() -> Timestamp {
    after_ms(0).wall
}

fn drop_at(port: u16, ms: u64) -> Pending {
    let mut drop = syn();
    drop.port = port;
    drop.time = after_ms(ms).wall;
    drop.frame = vec![port as u8];
    let mut pending = Pending::default();
    pending.add_drop(&drop);
    pending.checkpoint(Baseline::default());
    pending
}

#[test]
fn records_are_read_by_the_next_process_that_opens_the_history() {
    let place = tempdir().unwrap();
    let folder = place.path().join("not/made/yet");
    {
        let store = Store::open(&folder).unwrap();
        assert_eq!(store.begin().unwrap(), 0);
        let mut pending = drop_at(445, 0);
        let mut engine = Engine::default();
        pending.add_alarm(&engine.observe(&syn(), after_ms(0))[0]);
        store.write(&pending, &LIMITS, now()).unwrap();
    }
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.begin().unwrap(), 1);
    let alarms = store.alarms(&AlarmFilter::default()).unwrap();
    assert_eq!((alarms.len(), alarms[0].state), (1, AlarmState::CutOff), "its daemon has ended");
    assert_eq!(alarms[0].text("server"), "web1");
    let rows = store.counts(now(), now()).unwrap();
    assert_eq!((rows[0].packets, &*rows[0].service), (1, "tcp/445"));
    assert_eq!(store.samples(now(), now(), 10).unwrap()[0].frame, "bd");
}

#[test]
fn counts_of_one_kind_in_one_minute_are_one_row_and_other_kinds_have_their_own() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for (port, ms) in [(445, 0), (445, 59_000), (445, 60_000), (80, 0)] {
        store.write(&drop_at(port, ms), &LIMITS, now()).unwrap();
    }
    let rows = store.counts(now(), after_ms(120_000).wall).unwrap();
    let counts: Vec<(&str, u64)> = rows.iter().map(|row| (&*row.service, row.packets)).collect();
    assert_eq!(counts, [("tcp/445", 2), ("tcp/80", 1), ("tcp/445", 1)]);
    assert_eq!(store.counts(after_ms(60_000).wall, after_ms(60_000).wall).unwrap().len(), 1);
    let hostile = "a\",\"b";
    let mut drop = syn();
    drop.server = Some(crate::drops::ServerRef { id: 9, name: hostile.into() });
    let mut pending = Pending::default();
    pending.add_drop(&drop);
    pending.checkpoint(Baseline::default());
    store.write(&pending, &LIMITS, now()).unwrap();
    let rows = store.counts(now(), now()).unwrap();
    assert!(rows.iter().any(|row| row.server.as_deref() == Some(hostile)));
}

#[test]
fn rows_are_bounded_and_the_oldest_are_folded_or_removed() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for number in 0..20_u64 {
        store.write(&drop_at(number as u16, number * 60_000), &LIMITS, now()).unwrap();
    }
    let end = after_ms(3_600_000).wall;
    let rows = store.counts(now(), end).unwrap();
    assert!(rows.len() <= 5, "{rows:#?}");
    assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 20);
    assert!(rows.iter().any(|row| row.folded && row.span_s == 3600), "{rows:#?}");
    assert_eq!(rows.last().map(|row| &*row.service), Some("tcp/19"));
    assert_eq!(store.samples(now(), end, 100).unwrap().len(), 4);
}

/// One drop of a server.
fn drop_of(server: &str, port: u16, last: u32, ms: u64) -> DropEvent {
    let mut drop = syn();
    drop.server = Some(crate::drops::ServerRef { id: u32::from(port), name: server.into() });
    drop.port = port;
    drop.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + last).into());
    drop.time = after_ms(ms).wall;
    drop.frame = vec![1];
    drop
}

#[test]
fn a_noisy_server_for_days_takes_nothing_from_another_and_the_sums_are_exact() {
    const DAY_MS: u64 = 86_400_000;
    let limits = Limits { alarms: 10, counts: 2_000, samples: 200, age_s: 90 * 86_400 };
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut noisy, mut quiet, mut last) = (0, 0, now());
    for day in 0..20_u64 {
        for minute in 0..4_u64 {
            let ms = day * DAY_MS + minute * 60_000;
            // a minute of it comes in several writes
            for part in 0..2_u32 {
                let mut pending = Pending::default();
                for number in 0..300_u32 {
                    pending.add_drop(&drop_of("noisy", number as u16, part * 300 + number, ms));
                    noisy += 1;
                }
                if part == 0 {
                    pending.add_drop(&drop_of("quiet", 25, day as u32, ms));
                    quiet += 1;
                }
                pending.checkpoint(Baseline::default());
                last = after_ms(ms).wall;
                store.write(&pending, &limits, last).unwrap();
            }
        }
    }
    let rows = store.counts(now(), last).unwrap();
    assert!(rows.len() <= 2_000, "{}", rows.len());
    let of = |name: &str| rows.iter().filter(|row| row.server.as_deref() == Some(name)).collect::<Vec<_>>();
    let sum = |rows: &[&MinuteCount]| rows.iter().map(|row| row.packets).sum::<u64>();
    assert_eq!(sum(&of("noisy")), noisy);
    let kept = of("quiet");
    assert_eq!((kept.len() as u64, sum(&kept)), (quiet, quiet));
    assert!(kept.iter().all(|row| !row.folded && row.span_s == 60 && row.destination.is_some()));
    let newest: Vec<_> =
        of("noisy").into_iter().filter(|row| row.minute + 60 > last.as_second() && !row.folded).collect();
    let most = SHARE_PER_MINUTE as usize;
    assert!((most - 1..=most).contains(&newest.len()), "the newest minute has its share: {}", newest.len());
    let samples = store.samples(now(), last, 1_000).unwrap();
    let quiet_samples = samples.iter().filter(|row| row.server.as_deref() == Some("quiet")).count() as u64;
    assert!(samples.len() <= 200 && quiet_samples == quiet, "{quiet_samples} of {}", samples.len());
}

#[test]
fn packets_whose_counts_have_no_room_are_counted_and_listed_by_server_and_time() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let limits = Limits { counts: 6, ..LIMITS };
    // nothing of different servers can be folded into one
    for number in 0..20_u32 {
        let mut pending = Pending::default();
        pending.add_drop(&drop_of(&format!("s{number:02}"), 25, number, u64::from(number) * 60_000));
        pending.checkpoint(Baseline::default());
        store.write(&pending, &limits, now()).unwrap();
    }
    let end = after_ms(3_600_000).wall;
    let kept: u64 = store.counts(now(), end).unwrap().iter().map(|row| row.packets).sum();
    let removed = store.removed(now(), end).unwrap();
    let gone: u64 = removed.iter().map(|row| row.packets).sum();
    assert!(kept <= 6 && gone >= 14, "{kept} {gone}");
    assert_eq!((kept + gone, store.removed_packets()), (20, gone));
    let first = removed.iter().find(|row| row.server.as_deref() == Some("s00")).expect("the oldest");
    assert!((first.from..first.to).contains(&now().as_second()), "{first:?}");
    // of another time, nothing
    let before = after_ms(0).wall.checked_sub(jiff::SignedDuration::from_hours(24 * 60)).unwrap();
    assert_eq!(store.removed(before, before).unwrap(), []);
    // it outlives the process, and its time
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.removed(now(), end).unwrap(), store.removed_packets()), (removed, 0));
}

#[test]
fn old_records_are_removed() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut pending = drop_at(445, 0);
    pending.add_alarm(&Engine::default().observe(&syn(), after_ms(0))[0]);
    store.write(&pending, &LIMITS, now()).unwrap();
    assert_eq!(store.alarms(&AlarmFilter::default()).unwrap().len(), 1);
    let later = after_ms(2 * 3_600_000).wall;
    store.write(&drop_at(80, 2 * 3_600_000), &LIMITS, later).unwrap();
    assert!(store.alarms(&AlarmFilter::default()).unwrap().is_empty());
    let rows = store.counts(now(), later).unwrap();
    assert_eq!((rows.len(), &*rows[0].service), (1, "tcp/80"));
    assert_eq!(store.samples(now(), later, 100).unwrap().len(), 1);
}

#[test]
fn half_of_a_new_history_that_a_kill_left_is_neither_damaged_nor_in_the_way() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("history.db.new"), [0; 4096]).unwrap();
    fs::write(folder.path().join("history.db.new-journal"), [7; 600]).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.begin().unwrap(), 0);
    assert_eq!(store.damaged(), 0);
    drop(store);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["history.db"]);
    assert_eq!(Store::open(folder.path()).unwrap().begin().unwrap(), 0);
}

#[test]
fn the_history_of_an_earlier_version_is_kept_aside() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("history.redb"), "redb, once").unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(&drop_at(445, 0), &LIMITS, now()).unwrap();
    assert_eq!(store.damaged(), 0);
    assert_eq!(fs::read_to_string(folder.path().join("history.redb.old")).unwrap(), "redb, once");
}

#[test]
fn a_full_history_stays_below_its_bound() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let limits = Limits::of_days(90);
    let mut drop = syn();
    drop.frame = vec![0xa5; 128];
    let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
    for round in 0..30_u64 {
        let mut pending = Pending::default();
        for number in 0..4096_u32 {
            drop.time = after_ms(round * 60_000 + u64::from(number)).wall;
            drop.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into());
            drop.server = Some(crate::drops::ServerRef {
                id: number,
                name: format!("name-of-usual-length-{number}").into(),
            });
            pending.add_drop(&drop);
        }
        pending.checkpoint(Baseline::default());
        for id in 0..400 {
            let mut change = change.clone();
            change.alarm.id = round * 400 + id;
            pending.add_alarm(&change);
        }
        store.write(&pending, &limits, now()).unwrap();
    }
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let bytes = size(store.path()) + size(&aside::companion(store.path(), "-wal"));
    println!("{bytes} bytes, {} alarms", store.alarms(&AlarmFilter::default()).unwrap().len());
    assert!(bytes < 128 << 20, "{bytes}");
    assert_eq!(store.alarms(&AlarmFilter::default()).unwrap().len(), 5_000);
    let rows = store.counts(now(), after_ms(3_600_000).wall).unwrap();
    assert!(rows.len() <= 100_000, "{}", rows.len());
    assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 30 * 4096);
}
