//! Damage of every kind to the history's files: before the daemon opens them, and while it has them open.
//! `PORTCULLIS_DAMAGES=N` makes N trials of each.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};

use super::aside::companion;
use super::*;
use crate::alarm::Engine;
use crate::drops::example::{after_ms, syn};

const PAGE: usize = 4096;

fn trials() -> u64 {
    std::env::var("PORTCULLIS_DAMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn limits() -> Limits {
    Limits::of_days(90)
}

fn drop_on(port: u16) -> Pending {
    let mut drop = syn();
    drop.port = port;
    drop.frame = vec![0x5a; 64];
    let mut pending = Pending::default();
    pending.add_drop(&drop);
    pending.checkpoint(Baseline::default());
    pending
}

/// All that a history says.
#[derive(Debug, PartialEq)]
struct Content {
    alarms: Vec<u64>,
    counts: Vec<MinuteCount>,
    samples: Vec<SampleRow>,
}

fn read_all(store: &Store) -> Result<Content, StoreError> {
    Ok(Content {
        alarms: store.alarms(&AlarmFilter::default())?.iter().map(|entry| entry.id).collect(),
        counts: store.counts(Timestamp::UNIX_EPOCH, Timestamp::MAX)?,
        samples: store.samples(Timestamp::UNIX_EPOCH, Timestamp::MAX, 10_000)?,
    })
}

/// A history of some hundred pages, as a kill leaves it: a part is in the log alone.
struct Whole {
    file: Vec<u8>,
    log: Vec<u8>,
    content: Content,
}

impl Whole {
    fn new() -> Whole {
        let folder = tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let change = Engine::default().observe(&syn(), after_ms(0)).remove(0);
        let fill = |ids: std::ops::Range<u64>| {
            let mut pending = Pending::default();
            for id in ids {
                let mut change = change.clone();
                change.alarm.id = id;
                pending.add_alarm(&change);
                let mut drop = syn();
                drop.port = id as u16;
                drop.frame = vec![id as u8; 100];
                drop.time = after_ms(id * 10_000).wall;
                pending.add_drop(&drop);
            }
            pending.checkpoint(Baseline::default());
            store.write(&pending, &limits(), after_ms(0).wall).unwrap();
        };
        fill(1..150);
        lock(&store.writer)
            .as_ref()
            .unwrap()
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        fill(150..200);
        let file = fs::read(store.path()).unwrap();
        let log = fs::read(companion(store.path(), "-wal")).unwrap();
        assert!(file.len() > 50 * PAGE && log.len() > 10 * PAGE, "{} {}", file.len(), log.len());
        Whole { file, log, content: read_all(&store).unwrap() }
    }

    /// A copy in a folder of its own.
    fn place(&self) -> (TempDir, PathBuf) {
        let folder = tempdir().unwrap();
        let path = folder.path().join(crate::history::FILE);
        for (path, bytes) in [(path.clone(), &self.file), (companion(&path, "-wal"), &self.log)] {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        (folder, path)
    }
}

/// Damages some bytes, in one of the ways of disks and people. Its name.
fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) -> String {
    let length = bytes.len();
    let page = chance.below(length / PAGE) * PAGE;
    match chance.below(9) {
        0 => {
            let at = chance.below(length);
            bytes[at] ^= 1 << chance.below(8);
            format!("a flipped bit at {at}")
        }
        1 => {
            for _ in 0..32 {
                let at = chance.below(length);
                bytes[at] ^= 1 << chance.below(8);
            }
            "32 flipped bits".to_owned()
        }
        2 => {
            bytes[page..page + PAGE].fill(0);
            format!("zeros from {page}")
        }
        3 => {
            bytes[page..page + PAGE].fill_with(|| chance.next() as u8);
            format!("noise from {page}")
        }
        4 => {
            let other = chance.below(length / PAGE) * PAGE;
            bytes.copy_within(other..other + PAGE, page);
            format!("the page from {other} at {page}")
        }
        5 => {
            bytes.truncate(chance.below(length));
            format!("cut to {}", bytes.len())
        }
        6 => {
            bytes.truncate(page);
            format!("cut to {page}, a page's end")
        }
        7 => {
            let more = chance.below(3 * PAGE);
            bytes.extend((0..more).map(|_| chance.next() as u8));
            format!("{more} bytes more")
        }
        _ => {
            let at = chance.below(100.min(length));
            bytes[at] = chance.next() as u8;
            format!("another byte at {at} of the header")
        }
    }
}

/// The daemon writes and reads, and the next daemon does, whatever was there.
fn expect_usable(folder: &Path, what: &str) -> Content {
    let started = Instant::now();
    let store = Store::new(folder);
    store.begin().unwrap_or_else(|error| panic!("{what}: {error}"));
    for port in [7_001, 7_002] {
        store
            .write(&drop_on(port), &limits(), after_ms(0).wall)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let content = read_all(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    for service in ["tcp/7001", "tcp/7002"] {
        assert!(content.counts.iter().any(|row| row.service == service), "{what}: {service} is lost");
    }
    assert_eq!(store.damaged() > 0, !list_damaged(folder).is_empty(), "{what}");
    assert_eq!(store.take_news().len() as u64, store.damaged(), "{what}: each is reported");
    drop(store);
    let next = Store::new(folder);
    next.begin().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read_all(&next).unwrap_or_else(|error| panic!("{what}: {error}")), content, "{what}");
    assert!(started.elapsed() < Duration::from_secs(60), "{what}: it hangs");
    content
}

#[test]
fn whatever_was_done_to_the_file_it_is_read_whole_or_called_damaged_and_the_daemon_goes_on() {
    let whole = Whole::new();
    let mut found = 0;
    for trial in 0..trials() {
        let mut chance = Chance(trial);
        let (folder, path) = whole.place();
        let mut bytes = whole.file.clone();
        let what = format!("trial {trial}: {}", damage(&mut bytes, &mut chance));
        fs::write(&path, &bytes).unwrap();

        // a command: all of it or an error, and never less
        match read_all(&Store::for_reading(folder.path())) {
            Ok(content) => assert_eq!(content, whole.content, "{what}"),
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: a command changes nothing");

        let content = expect_usable(folder.path(), &what);
        if list_damaged(folder.path()).is_empty() {
            assert_eq!(content.alarms, whole.content.alarms, "{what}");
            assert_eq!(content.counts.len(), whole.content.counts.len() + 2, "{what}");
        } else {
            found += 1;
            assert!(content.alarms.is_empty(), "{what}");
        }
    }
    println!("{found} of {} were put aside", trials());
    assert!(found * 3 > trials(), "most of these are damages: {found}");
}

#[test]
fn whatever_was_done_to_the_log_the_daemon_goes_on() {
    let whole = Whole::new();
    for trial in 0..trials() {
        let mut chance = Chance(trial + 1_000_000);
        let (folder, path) = whole.place();
        let mut bytes = whole.log.clone();
        let what = format!("trial {trial}: {} of the log", damage(&mut bytes, &mut chance));
        fs::write(companion(&path, "-wal"), &bytes).unwrap();
        for suffix in ["-shm", "-journal"] {
            if chance.below(2) == 0 {
                let mut left = whole.file[..2 * PAGE].to_vec();
                damage(&mut left, &mut chance);
                fs::write(companion(&path, suffix), left).unwrap();
            }
        }
        // a log that breaks off is that of a power cut: what was written before is there
        let content = expect_usable(folder.path(), &what);
        if list_damaged(folder.path()).is_empty() {
            assert!(content.alarms.len() >= 149, "{what}: {:?}", content.alarms);
        }
    }
}

#[test]
fn whatever_is_done_to_the_files_of_a_running_daemon_it_goes_on() {
    let whole = Whole::new();
    for trial in 0..trials() {
        let mut chance = Chance(trial + 2_000_000);
        let (folder, path) = whole.place();
        let store = Store::new(folder.path());
        store.begin().unwrap();
        let name = if chance.below(3) == 0 { companion(&path, "-wal") } else { path.clone() };
        let mut bytes = fs::read(&name).unwrap_or_default();
        if bytes.len() < PAGE {
            continue;
        }
        let mut what = format!("trial {trial}: {} of {}", damage(&mut bytes, &mut chance), name.display());
        match chance.below(4) {
            0 => {
                let other = folder.path().join("other");
                fs::write(&other, &bytes).unwrap();
                fs::rename(&other, &name).unwrap();
                what.push_str(", as another file");
            }
            1 => {
                fs::remove_file(&name).unwrap();
                what = format!("trial {trial}: {} removed", name.display());
            }
            _ => fs::write(&name, &bytes).unwrap(),
        }
        let started = Instant::now();
        let mut written = 0;
        for port in 8_000..8_010 {
            let _ = read_all(&store);
            let _ = store.heal();
            written += u32::from(store.write(&drop_on(port), &limits(), after_ms(0).wall).is_ok());
        }
        assert!(written >= 8, "{what}: {written} writes of 10");
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: it hangs");
        let reported = store.take_news().len() as u64;
        assert_eq!(reported, store.damaged(), "{what}: each is reported");
        drop(store);
        expect_usable_again(folder.path(), &what);
    }
}

/// As [`expect_usable`], where earlier damages were put aside already.
fn expect_usable_again(folder: &Path, what: &str) {
    let store = Store::new(folder);
    store.begin().unwrap_or_else(|error| panic!("{what}: {error}"));
    store
        .write(&drop_on(7_001), &limits(), after_ms(0).wall)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let content = read_all(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(content.counts.iter().any(|row| row.service == "tcp/7001"), "{what}");
}

#[test]
fn every_length_of_the_file_is_survived() {
    let whole = Whole::new();
    let lengths = [0, 1, 15, 16, 99, 100, 101, 511, 512, 4095, 4096, 4097, 8191, 8192, whole.file.len() - 1];
    for length in lengths {
        let (folder, path) = whole.place();
        // the log would have the pages that are missing
        fs::remove_file(companion(&path, "-wal")).unwrap();
        fs::write(&path, &whole.file[..length]).unwrap();
        let error = read_all(&Store::for_reading(folder.path())).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{length}: {error}");
        expect_usable(folder.path(), &format!("{length} bytes"));
        assert_eq!(list_damaged(folder.path()).len(), 1, "{length}");
    }
}

#[test]
fn what_lies_in_the_place_of_the_file_or_its_log_is_put_aside_unopened() {
    type Place = fn(&Path);
    let fifo: Place =
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let kinds: [(&str, Place); 6] = [
        ("a folder", |path| fs::create_dir_all(path.join("full")).unwrap()),
        ("a FIFO", fifo),
        ("a link", |path| symlink("/etc/hostname", path).unwrap()),
        ("a dangling link", |path| symlink("nowhere", path).unwrap()),
        ("somebody else's file", |path| {
            fs::write(path, "x").unwrap();
            std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
        }),
        ("a file that all may write", |path| {
            fs::write(path, "x").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    let whole = Whole::new();
    for (what, place) in kinds {
        for suffix in ["", "-wal"] {
            let (folder, path) = whole.place();
            let path = companion(&path, suffix);
            fs::remove_file(&path).unwrap();
            place(&path);
            let error = read_all(&Store::for_reading(folder.path())).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{what}{suffix}: {error}");
            expect_usable(folder.path(), what);
            assert_eq!(list_damaged(folder.path()).len(), 1, "{what}{suffix}");
        }
    }
    assert!(fs::read_to_string("/etc/hostname").is_ok());
}

#[test]
fn a_log_without_its_file_is_not_taken_for_that_of_a_new_one() {
    let whole = Whole::new();
    let (folder, path) = whole.place();
    fs::remove_file(&path).unwrap();
    expect_usable(folder.path(), "a log alone");
    let aside = list_damaged(folder.path());
    assert_eq!(fs::read(companion(&aside[0], "-wal")).unwrap(), whole.log);
}

#[test]
fn no_more_than_a_few_damaged_histories_are_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join(crate::history::FILE);
    for round in 0..6 {
        fs::write(&path, format!("this is no database: {round}")).unwrap();
        Store::open(folder.path()).unwrap();
        fs::remove_file(&path).unwrap();
    }
    let kept = list_damaged(folder.path());
    let last: Vec<String> = kept.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_eq!(last, [3, 4, 5].map(|round| format!("this is no database: {round}")));
}

#[test]
fn a_reader_that_goes_on_while_the_file_is_put_aside_spoils_nothing() {
    let whole = Whole::new();
    let (folder, path) = whole.place();
    let store = Store::new(folder.path());
    store.begin().unwrap();
    // what it has in memory may be enough for it
    let _ = store.each_alarm(|entry| {
        if entry.id == 1 {
            fs::write(&path, "cut").unwrap();
            store.write(&drop_on(9_001), &limits(), after_ms(0).wall).unwrap();
        }
        Ok(())
    });
    // the reader has ended, and the log of the new file is still there
    store.write(&drop_on(9_002), &limits(), after_ms(0).wall).unwrap();
    let ports = |store: &Store| -> Vec<String> {
        read_all(store).unwrap().counts.into_iter().map(|row| row.service).collect()
    };
    assert_eq!(ports(&store), ["tcp/9001", "tcp/9002"]);
    // as a kill would leave it
    let (kept, path) = (folder.path().join("kept"), folder.path().join(crate::history::FILE));
    fs::create_dir(&kept).unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(companion(&path, suffix), companion(&kept.join(crate::history::FILE), suffix)).unwrap();
    }
    assert_eq!(ports(&Store::for_reading(&kept)), ["tcp/9001", "tcp/9002"]);
}
