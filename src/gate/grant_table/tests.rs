//! Tests of what needs no kernel: times, and the places of a share.

use super::saved::{Saved, SavedConnection, SavedGrant, Times, read_each, to_wall_s, write};
use super::*;
use crate::clock::Clock;
use crate::gate::saved_file;

const CAP_NS: u64 = 86_400 * NS_PER_S;

fn clock(mono_s: u64, wall_s: i64) -> Clock {
    Clock { mono_ns: mono_s * NS_PER_S, wall: jiff::Timestamp::from_second(wall_s).unwrap() }
}

fn grant_of(answered_s: i64, until_s: i64) -> SavedGrant {
    SavedGrant {
        server: Some("web1".to_owned()),
        name: "deb.vendor.example".to_owned(),
        address: "203.0.113.80".parse().unwrap(),
        answered_s,
        until_s,
        used_s: None,
    }
}

fn connection_of(last_s: i64) -> SavedConnection {
    SavedConnection {
        server: "web1".to_owned(),
        name: "deb.vendor.example".to_owned(),
        address: "192.0.2.10".parse().unwrap(),
        port: 50_000,
        peer: "203.0.113.80".parse().unwrap(),
        peer_port: 443,
        last_s,
    }
}

/// Saved at second 1,000,000.
fn saved(grant: SavedGrant) -> Saved {
    Saved::new(&clock(5_000, 1_000_000), vec![grant], vec![connection_of(999_990)])
}

#[test]
fn a_grant_has_what_is_left_of_its_time_and_its_answer_is_as_old_as_it_was() {
    let row = grant_of(999_900, 1_000_230);
    let file = saved(row.clone());
    // the machine has been up for 20 seconds, and was off for 100
    let times = file.find_times(&row, &clock(20, 1_000_100)).unwrap();
    assert_eq!(times.until_ns, 150 * NS_PER_S);
    assert_eq!(times.answered_ns, (20 * NS_PER_S).wrapping_sub(200 * NS_PER_S));
    assert_eq!(times.used_ns, 0);
    assert!(file.find_times(&row, &clock(20, 1_000_230)).is_none(), "its end");
    assert!(file.find_times(&row, &clock(20, 2_000_000)).is_none(), "a clock that is far ahead");
}

#[test]
fn a_clock_behind_the_one_of_the_file_puts_nothing_back() {
    let row = grant_of(999_900, 1_000_230);
    let file = saved(row.clone());
    for second in [999_999, 999_950, 999_800, 0] {
        let now = clock(20, second);
        assert!(file.is_of_the_future(&now) && file.find_times(&row, &now).is_none(), "{second}");
        assert_eq!(file.find_last_ns(&file.connections[0], 432_000, &now), None);
    }
    assert!(!file.is_of_the_future(&clock(20, 1_000_000)));
    assert!(!Saved::default().is_of_the_future(&clock(20, -1)));
    // what a broken file may say
    let wrong = grant_of(1_000_001, i64::MAX);
    assert!(saved(wrong.clone()).find_times(&wrong, &clock(20, 1_000_100)).is_none());
    let old = grant_of(i64::MIN, 1_000_230);
    assert!(saved(old.clone()).find_times(&old, &clock(20, 1_000_100)).is_none());
}

#[test]
fn a_connection_is_put_back_until_it_has_been_idle_for_too_long() {
    let file = saved(grant_of(999_900, 1_000_230));
    let row = &file.connections[0];
    let last = |second| file.find_last_ns(row, 432_000, &clock(500_000, second));
    assert_eq!(last(1_000_100), Some((500_000 - 110) * NS_PER_S));
    assert_eq!(last(999_990 + 432_000), None);
}

#[test]
fn a_moment_before_boot_comes_back_as_it_went() {
    let now = clock(20, 1_000_100);
    let Times { answered_ns, until_ns, .. } =
        saved(grant_of(999_900, 1_000_230)).find_times(&grant_of(999_900, 1_000_230), &now).unwrap();
    assert_eq!((to_wall_s(answered_ns, &now), to_wall_s(until_ns, &now)), (999_900, 1_000_230));
    let row = grant { answered_ns, open_until_ns: until_ns, ..grant::default() };
    assert!(is_open(&row, now.mono_ns, CAP_NS) && !is_open(&row, until_ns, CAP_NS));
    assert!(!is_open(&row, now.mono_ns, 199 * NS_PER_S), "its answer is older than that");
    assert_eq!(find_age_ns(&row, now.mono_ns), 200 * NS_PER_S);
}

#[test]
fn what_is_saved_is_read_again_and_a_bad_row_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state").join("grants.json");
    let mut warnings = Vec::new();
    let (nothing, is_kept) = saved_file::take("grants", &path, read_each, &mut warnings);
    assert!(nothing.is_empty() && is_kept);
    let mut file = saved(SavedGrant { server: None, used_s: Some(999_950), ..grant_of(999_900, 1_000_230) });
    file.grants.push(grant_of(999_901, 1_000_231));
    write(&path, &file).unwrap();
    assert_eq!(saved_file::take("grants", &path, read_each, &mut warnings), (file.clone(), true));
    assert_eq!(warnings, Vec::<String>::new());

    let text = std::fs::read_to_string(&path).unwrap().replacen("203.0.113.80", "203.0.113", 1);
    #[expect(clippy::disallowed_methods, reason = "a test")]
    std::fs::write(&path, text).unwrap();
    let (rest, _) = saved_file::take("grants", &path, read_each, &mut warnings);
    assert_eq!((rest.grants.len(), rest.connections.len()), (1, 1));
    assert!(warnings[0].contains("1 of the grants") && warnings[0].contains("damaged now"), "{warnings:?}");

    write(&path, &file).unwrap();
    write(&path, &Saved::default()).unwrap();
    assert!(!path.exists(), "no grant, no file");
}

fn row(name: u32, answered_s: u64, until_s: u64) -> grant {
    grant { answered_ns: answered_s * NS_PER_S, open_until_ns: until_s * NS_PER_S, name, ..grant::default() }
}

#[test]
fn a_full_share_gives_the_place_of_what_is_over_and_then_of_what_is_longest_unused() {
    let now_ns = 1_000 * NS_PER_S;
    let mut share = Share::default();
    for (place, known) in [row(1, 990, 2_000), row(2, 980, 2_000), row(3, 995, 999)].iter().enumerate() {
        share.add(place as u32, known);
    }
    let fresh = row(9, 985, 2_000);
    let mut find = |row: &grant| {
        share.find_place(row, 4, now_ns, CAP_NS).map(|(place, gone)| (place, gone.map(|gone| gone.name)))
    };
    assert_eq!(find(&fresh), Some((3, None)), "an empty place");
    assert_eq!(find(&fresh), Some((2, Some(3))), "one that is over");
    assert_eq!(find(&fresh), Some((1, Some(2))), "the oldest");
    assert_eq!(find(&fresh), None, "none is older");
}
