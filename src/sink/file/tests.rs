//! Files that move, fill up or are torn, and paths that are no files.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::tempdir;

use super::*;

const NEVER: Rotation = Rotation { size: 0, keep: 0 };

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn lines_are_appended_and_what_was_there_stays() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    for line in ["one", "two"] {
        LogFile::new(&path, NEVER).append_line(line).unwrap();
    }
    assert_eq!(read(&path), "one\ntwo\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn after_a_rotation_by_others_reopen_goes_on_in_the_new_file() {
    let folder = tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("moved"));
    let mut log = LogFile::new(&path, NEVER);
    log.append_line("one").unwrap();
    fs::rename(&path, &old).unwrap();
    log.append_line("two").unwrap();
    log.reopen().unwrap();
    log.append_line("three").unwrap();
    assert_eq!((read(&old).as_str(), read(&path).as_str()), ("one\ntwo\n", "three\n"));
}

#[test]
fn a_reopen_that_fails_leaves_the_old_file_in_use() {
    let folder = tempdir().unwrap();
    let (place, moved) = (folder.path().join("place"), folder.path().join("moved"));
    fs::create_dir(&place).unwrap();
    let mut log = LogFile::new(place.join("log"), NEVER);
    log.append_line("one").unwrap();
    fs::rename(&place, &moved).unwrap();
    assert!(log.reopen().is_err());
    log.append_line("two").unwrap();
    assert_eq!(read(moved.join("log")), "one\ntwo\n");
    // and as soon as the folder is there, the new file is used
    fs::create_dir(&place).unwrap();
    log.append_line("three").unwrap();
    assert_eq!(read(place.join("log")), "three\n");
}

#[test]
fn a_file_that_is_too_long_is_rotated_and_the_oldest_one_goes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = LogFile::new(&path, Rotation { size: 12, keep: 2 });
    for line in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
        log.append_line(line).unwrap();
    }
    let aside = |number: u32| read(folder.path().join(format!("log.{number}")));
    assert_eq!(read(&path), "seven\neight\n");
    assert_eq!((aside(1).as_str(), aside(2).as_str()), ("five\nsix\n", "three\nfour\n"));
    assert!(!folder.path().join("log.3").exists());
}

#[test]
fn a_record_longer_than_a_file_may_be_is_written_all_the_same() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = LogFile::new(&path, Rotation { size: 4, keep: 1 });
    log.append_line("longer than that").unwrap();
    log.append_line("and again").unwrap();
    assert_eq!(read(&path), "and again\n");
}

#[test]
fn a_file_that_another_program_moved_is_not_moved_once_more() {
    let folder = tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let mut log = LogFile::new(&path, Rotation { size: 8, keep: 3 });
    log.append_line("one").unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, "new\n").unwrap();
    log.append_line("long line").unwrap();
    assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("one\n", "new\nlong line\n"));
    assert!(!folder.path().join("log.1").exists());
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    // a folder that is not empty can't be replaced by a file
    fs::create_dir_all(folder.path().join("log.1/full")).unwrap();
    let mut log = LogFile::new(&path, Rotation { size: 8, keep: 1 });
    for line in ["one", "two", "three"] {
        log.append_line(line).unwrap();
    }
    assert_eq!(read(&path), "one\ntwo\nthree\n");
}

#[test]
fn every_file_begins_with_the_preamble_and_so_does_what_a_reopen_adds() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let rotation = Rotation { size: 12, keep: 1 };
    let mut log = LogFile::new(&path, rotation).with_preamble(b"[head]".to_vec());
    for record in [b"abcd", b"efgh", b"ijkl"] {
        log.append(record).unwrap();
    }
    assert_eq!(read(folder.path().join("log.1")), "[head]efgh");
    assert_eq!(read(&path), "[head]ijkl");
    log.reopen().unwrap();
    log.append(b"mn").unwrap();
    assert_eq!(read(&path), "[head]ijkl[head]mn");
}

#[test]
fn a_missing_folder_is_an_error_that_says_so_and_can_be_made_later() {
    let folder = tempdir().unwrap();
    let place = folder.path().join("later");
    let mut log = LogFile::new(place.join("log"), NEVER);
    let error = format!("{:#}", log.append_line("one").unwrap_err());
    assert!(error.contains("does its folder exist"), "{error}");
    fs::create_dir(&place).unwrap();
    log.append_line("two").unwrap();
    assert_eq!(read(place.join("log")), "two\n");
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let mut log = LogFile::new("/dev/full", Rotation { size: 1, keep: 1 });
    let error = format!("{:#}", log.append_line("one").unwrap_err());
    assert!(error.contains("No space left"), "{error}");
}

#[test]
fn a_fifo_without_a_reader_does_not_hang() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(LogFile::new(&path, NEVER).append_line("one").is_err());
}

#[test]
fn half_a_record_is_cut_off() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "{}\n{\"half").unwrap();
    let file = open(&path).unwrap();
    cut_off(&file, 3, 6).unwrap();
    assert_eq!(read(&path), "{}\n");
    assert!(cut_off(&file, 3, 6).is_err(), "bytes of others stay");
}

#[test]
fn a_line_after_half_a_line_begins_on_its_own_and_other_records_wait() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "half").unwrap();
    let mut log = LogFile::new(&path, NEVER);
    log.reopen().unwrap();
    log.torn = Some((1, 9));
    log.append_line("one").unwrap();
    assert_eq!((read(&path).as_str(), log.torn), ("half\none\n", None));

    let mut records = LogFile::new(&path, NEVER).with_preamble(b"[head]".to_vec());
    records.reopen().unwrap();
    records.torn = Some((1, 99));
    assert!(records.append(b"two").unwrap_err().to_string().contains("half a record"));
    records.torn = Some((5, 4));
    records.append(b"two").unwrap();
    assert_eq!(read(&path), "half\n[head]two");
}

#[test]
fn two_writers_that_share_a_file_rotate_it_once_and_lose_no_line() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let rotation = Rotation { size: 400, keep: 50 };
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let path = &path;
            scope.spawn(move || {
                let mut log = LogFile::new(path, rotation);
                for number in 0..200 {
                    log.append_line(&format!("{writer}{number}")).unwrap();
                }
            });
        }
    });
    let files: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| read(entry.unwrap().path())).collect();
    let mut lines: Vec<&str> = files.iter().flat_map(|text| text.lines()).collect();
    let mut expected: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|writer| (0..200).map(move |number| format!("{writer}{number}")))
        .collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn a_file_that_another_process_keeps_locked_is_an_error_and_no_hang() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let held = File::create(&path).unwrap();
    held.lock().unwrap();
    let mut log = LogFile::new(&path, NEVER);
    assert!(log.append_line("one").unwrap_err().to_string().contains("locked"));
    held.unlock().unwrap();
    log.append_line("two").unwrap();
    assert_eq!(read(&path), "two\n");
}

#[test]
fn a_link_a_hard_link_and_what_belongs_to_somebody_else_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    let refusal = |path: &Path| {
        let error = format!("{:#}", LogFile::new(path, NEVER).append_line("one").unwrap_err());
        assert!(check_log_file(path).is_err(), "check does not see it: {error}");
        error
    };
    fs::write(folder.path().join("target"), "").unwrap();
    std::os::unix::fs::symlink(folder.path().join("target"), &path).unwrap();
    assert!(refusal(&path).contains("symbolic link"));
    assert_eq!(read(folder.path().join("target")), "");
    fs::remove_file(&path).unwrap();

    fs::hard_link(folder.path().join("target"), &path).unwrap();
    assert!(refusal(&path).contains("another name"));
    fs::remove_file(&path).unwrap();

    assert!(nix::unistd::geteuid().is_root(), "the tests run as root");
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    assert!(refusal(&path).contains("belongs to another user"));
    assert_eq!(read(&path), "");
    fs::remove_file(&path).unwrap();

    let place = folder.path().join("place");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refusal(&place.join("log")).contains("everybody may write"));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
    LogFile::new(place.join("log"), NEVER).append_line("one").unwrap();
    std::os::unix::fs::chown(&place, Some(65534), None).unwrap();
    assert!(refusal(&place.join("log")).contains("belongs to another user"));
}

#[test]
fn two_sinks_that_reach_one_file_by_different_folders_are_kept_apart() {
    let folder = tempdir().unwrap();
    let (place, link) = (folder.path().join("place"), folder.path().join("link"));
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::symlink(&place, &link).unwrap();
    let text = |path: &Path| path.join("log").display().to_string();
    let alarms = Alarms { eve: Some(text(&place)), ecs: Some(text(&link)), ..Alarms::default() };
    let mut first = LogFile::from_policy(&text(&place), &alarms);
    first.append_line("eve").unwrap();
    let error = LogFile::from_policy(&text(&link), &alarms).append_line("ecs").unwrap_err().to_string();
    assert!(error.contains("by another name"), "{error}");
    // the one that takes its place has the same path, and a file that is closed is free
    LogFile::from_policy(&text(&place), &alarms).append_line("eve again").unwrap();
    drop(first);
    LogFile::from_policy(&text(&link), &alarms).append_line("ecs").unwrap();
    assert_eq!(read(place.join("log")), "eve\neve again\necs\n");
}
