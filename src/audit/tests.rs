use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::example::quarantine_by;
use super::parent::find_in_environment;
use super::who::{cut, find_name_in, read_client};
use super::*;

fn event(name: &str) -> Event {
    Entry::done(Action::Quarantine).about(name).into_event("dmz0")
}

fn subjects(reading: &Reading) -> Vec<String> {
    reading.events.iter().filter_map(|event| event.subject.clone()).collect()
}

fn write_raw(folder: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(folder.join("audit.jsonl")).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn an_event_comes_out_as_it_went_in_with_a_number_that_rises() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("dmz0");
    let log = Log::new(&folder);
    assert_eq!(log.read().unwrap(), Reading::default());
    let first = quarantine_by("web1");
    assert_eq!(log.append(first.clone()).unwrap(), 1);
    assert_eq!(log.append(event("web2")).unwrap(), 2);
    let reading = log.read().unwrap();
    assert_eq!(reading.events[0], Event { seq: 1, ..first });
    assert_eq!(
        (subjects(&reading), reading.damaged, reading.missing),
        (vec!["web1".into(), "web2".into()], 0, 0)
    );
    let mode = fs::metadata(log.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "who did what is for root alone");
}

#[test]
fn numbers_go_on_after_what_was_reported_also_when_the_files_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(folder.path());
    for _ in 0..3 {
        log.append(event("web1")).unwrap();
    }
    log.note_reported(3).unwrap();
    fs::remove_file(log.path()).unwrap();
    assert_eq!(log.append(event("web2")).unwrap(), 4, "the next daemon would take it for reported");
}

#[test]
fn a_full_file_becomes_the_older_one_and_the_oldest_events_go() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::with_limit(folder.path(), 2_000);
    for number in 1..=20 {
        assert_eq!(log.append(event(&number.to_string())).unwrap(), number);
        assert!(fs::metadata(log.path()).unwrap().len() <= 2_000);
    }
    let reading = log.read().unwrap();
    assert!(reading.events.len() >= 3 && reading.events.len() < 20, "{}", reading.events.len());
    assert_eq!((reading.events.last().unwrap().seq, reading.missing), (20, 0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "two files and the lock");
}

#[test]
fn a_line_that_was_cut_short_or_damaged_costs_no_other_event() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(folder.path());
    for name in ["first", "second", "third"] {
        log.append(event(name)).unwrap();
    }
    // a flipped byte in the middle
    let mut bytes = fs::read(log.path()).unwrap();
    let middle = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[middle] = b'#';
    fs::write(log.path(), &bytes).unwrap();
    let reading = log.read().unwrap();
    assert_eq!(
        (subjects(&reading), reading.damaged, reading.missing),
        (vec!["first".into(), "third".into()], 1, 1)
    );
    // a line that a power cut has cut
    write_raw(folder.path(), b"{\"seq\":4,\"time\":");
    assert_eq!(log.read().unwrap().damaged, 1, "it may be being written");
    assert_eq!(log.append(event("fourth")).unwrap(), 4);
    let reading = log.read().unwrap();
    assert_eq!((subjects(&reading).last().cloned(), reading.damaged), (Some("fourth".into()), 2));
}

#[test]
fn a_file_that_is_cut_anywhere_still_takes_the_next_event_and_has_whole_ones() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(folder.path());
    log.append(event("first")).unwrap();
    log.append(event("second")).unwrap();
    let whole = fs::read(log.path()).unwrap();
    for length in 0..whole.len() {
        fs::write(log.path(), &whole[..length]).unwrap();
        let seq = log.append(event("next")).unwrap();
        let reading = log.read().unwrap();
        assert_eq!(subjects(&reading).last().map(String::as_str), Some("next"), "{length}");
        assert_eq!(seq, reading.events.len() as u64, "{length}: no number twice");
    }
}

#[test]
fn writers_at_once_share_the_numbers_out() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = Log::new(folder.path());
            scope.spawn(move || {
                for number in 0..25 {
                    log.append(event(&format!("{writer}-{number}"))).unwrap();
                }
            });
        }
    });
    let reading = Log::new(folder.path()).read().unwrap();
    assert_eq!((reading.events.len(), reading.damaged, reading.missing), (100, 0, 0));
    assert!(reading.events.iter().map(|event| event.seq).eq(1..=100));
}

#[test]
fn an_event_of_a_newer_version_is_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(folder.path());
    log.append(event("first")).unwrap();
    let line = fs::read_to_string(log.path()).unwrap();
    let newer =
        line.replace("\"quarantine\"", "\"teleport\"").replace("\"seq\":1", "\"seq\":2,\"colour\":\"red\"");
    write_raw(folder.path(), newer.as_bytes());
    let reading = log.read().unwrap();
    assert_eq!((reading.events[1].action, reading.damaged), (Action::Other, 0));
}

#[test]
fn every_action_has_its_word() {
    for action in Action::ALL {
        assert_eq!(serde_json::to_value(action).unwrap(), action.name());
    }
}

#[test]
fn a_line_says_who_did_what_and_nothing_hostile_leaves_it() {
    assert_eq!(
        quarantine_by("web1").render_line(),
        "2026-11-22T15:00:00Z gate.example dmz0 audit: quarantine web1 done by web1 from 203.0.113.7 (process 4711, \
         under sudo), generation 3: for 1h (note: web1)"
    );
    let event = quarantine_by("x\u{1b}[2J\n\u{202e}\u{9b}y");
    let line = event.render_line();
    assert!(!line.chars().any(crate::escape::is_active), "{line:?}");
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(folder.path());
    log.append(event.clone()).unwrap();
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(!text.trim_end().chars().any(crate::escape::is_active), "{text:?}");
    assert_eq!(log.read().unwrap().events[0].note, event.note);
}

#[test]
fn a_refusal_has_the_first_line_of_its_reason_and_texts_have_bounds() {
    let entry = Entry::refused(Action::Apply, &"\n  2 errors in the policy\nhelp: see above");
    assert_eq!(entry.into_event("dmz0").why.as_deref(), Some("2 errors in the policy"));
    let long = "ü".repeat(5_000);
    let event =
        Entry::done(Action::Apply).about(&long).note(Some(&long)).file(Path::new(&long)).into_event("dmz0");
    assert!(serde_json::to_string(&event).unwrap().len() < 4_096);
    for most in 3..12 {
        assert!(cut(&long, most).len() <= most);
    }
    assert_eq!(cut("web1", 4), "web1");
}

#[test]
fn users_and_ssh_clients_are_found_where_they_stand() {
    let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
    assert_eq!(find_name_in(passwd, 1000).as_deref(), Some("alice"));
    assert_eq!(find_name_in(passwd, 1001), None);
    let environment = b"PATH=/bin\0SSH_CONNECTION=2001:db8:f::7 52000 2001:db8::1 22\0TERM=xterm\0";
    assert_eq!(find_in_environment(environment, read_client), Some("2001:db8:f::7".parse().unwrap()));
    for hostile in
        [&b"SSH_CONNECTION=\x1b[2J 1 2 3\0"[..], b"SSH_CONNECTION=", b"", b"\xff\0SSH_CONNECTION=\xff"]
    {
        assert_eq!(find_in_environment(hostile, read_client), None);
    }
}

#[test]
fn who_did_it_is_this_process_and_its_parent() {
    let who = Who::of_this_process();
    assert_eq!((who.pid, who.uid), (std::process::id(), nix::unistd::getuid().as_raw()));
    assert_eq!(who.parent.map(|parent| parent.pid), Some(std::os::unix::process::parent_id()));
    assert!(!who.command.is_empty());
}

#[test]
fn the_process_behind_a_socket_is_who_the_kernel_says_whatever_it_claims() {
    let own = Who::of_this_process();
    assert_eq!(Who::of_peer(own.uid, own.pid, own.clone()), own);
    let claim = Who {
        uid: 0,
        login_uid: Some(0),
        login: Some("root".to_owned()),
        pid: 1,
        command: "x".repeat(5_000),
        ..own.clone()
    };
    let found = Who::of_peer(65_534, own.pid, claim);
    assert!(!found.is_root());
    assert_eq!((found.pid, found.login_uid, &found.login), (own.pid, own.login_uid, &own.login));
    assert!(found.command.len() <= 512, "{}", found.command.len());
}
