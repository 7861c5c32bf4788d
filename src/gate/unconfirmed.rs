//! Marks of trials that nobody has confirmed. A mark is on the disk before the trial begins, so that no power cut
//! makes a text live that somebody only wanted to try: the file that it came from is usually the one that the
//! next boot attaches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Gate;
use super::error::GateError;
use super::fault;
use super::place::GatePlace;
use super::policy_facts::{Facts, hash_of};
use super::state_file::{in_time, replace};
use crate::policy::Policy;

const FILE: &str = "unconfirmed.json";
const THREAD: &str = "unconfirmed";
/// So many are kept.
const KEPT: usize = 20;
/// A trial does not begin before its mark is on the disk.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// A disk that does not answer must not keep the gate from being attached.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Notes on the disk that a policy is going to be on trial. The caller holds the lock.
///
/// # Errors
/// When the mark can't be written. Then the trial must not begin.
pub fn mark_trial(place: &GatePlace, policy: &Policy, note: Option<String>) -> Result<(), GateError> {
    let (state, facts) = (place.history(), Facts::of(policy, note));
    let noted = in_time(THREAD, WRITE_PATIENCE, move || add_mark(&state, facts));
    noted.and_then(|noted| noted).map_err(|error| GateError::Other {
        what: "the trial was not begun, and the live policy stays".to_owned(),
        why: format!(
            "it could not be noted in {} that nobody has confirmed this policy yet, so a power cut would make it \
             live: {error}",
            place.history().display()
        ),
    })
}

/// Takes back the mark of a trial that did not begin.
pub fn forget_trial(place: &GatePlace, policy: &Policy) {
    let (state, hash) = (place.history(), hash_of(&policy.text));
    let forgotten = in_time(THREAD, WRITE_PATIENCE, move || forget_mark(&state, &hash));
    if let Err(error) | Ok(Err(error)) = forgotten {
        log::debug!("{}: {error}", place.history().join(FILE).display());
    }
}

/// Refuses a policy whose text was on trial and was never confirmed. The caller holds the lock.
///
/// # Errors
/// When it was.
pub fn refuse_unconfirmed(place: &GatePlace, policy: &Policy) -> Result<(), GateError> {
    let (state, hash) = (place.history(), hash_of(&policy.text));
    let found = in_time(THREAD, READ_PATIENCE, move || find_mark(&state, &hash)).and_then(|found| found);
    let facts = match found {
        Ok(None) => return Ok(()),
        Ok(Some(facts)) => facts,
        Err(error) => {
            log::warn!(
                "it can't be known whether this policy was only on trial: {} can't be read: {error}",
                place.history().join(FILE).display()
            );
            return Ok(());
        }
    };
    // a `confirm` that was killed has made it the live one for good, and did not come to its mark
    if Gate::open(place).is_ok_and(|gate| gate.is_confirmed(&policy.text)) {
        return Ok(());
    }
    Err(GateError::Unconfirmed {
        interface: place.interface.clone(),
        file: policy.file.clone(),
        since: facts.since,
    })
}

impl Gate {
    /// Whether this is the text of the live policy, and not on trial.
    fn is_confirmed(&self, text: &str) -> bool {
        matches!(self.trial(), Ok(None))
            && self.live_source().ok().flatten().is_some_and(|(live, _)| live == text)
    }
}

fn path_in(state: &Path) -> PathBuf {
    state.join(FILE)
}

fn read_marks(state: &Path) -> io::Result<Vec<Facts>> {
    match fs::read(path_in(state)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn write_marks(state: &Path, marks: &[Facts]) -> io::Result<()> {
    replace(&path_in(state), &[&serde_json::to_vec(marks)?])
}

fn add_mark(state: &Path, facts: Facts) -> io::Result<()> {
    // a damaged file tells nothing, and must not keep anybody from a trial
    let mut marks = read_marks(state).unwrap_or_default();
    marks.retain(|mark| mark.hash != facts.hash);
    marks.push(facts);
    let surplus = marks.len().saturating_sub(KEPT);
    write_marks(state, marks.get(surplus..).unwrap_or_default())
}

/// The facts about the trial of a text that nobody has confirmed.
pub(super) fn find_mark(state: &Path, hash: &str) -> io::Result<Option<Facts>> {
    Ok(read_marks(state)?.into_iter().find(|mark| mark.hash == hash))
}

/// Somebody has made the text live for good.
pub(super) fn forget_mark(state: &Path, hash: &str) -> io::Result<()> {
    let mut marks = read_marks(state)?;
    let before = marks.len();
    marks.retain(|mark| mark.hash != hash);
    match (marks.len() == before, marks.is_empty()) {
        (true, _) => Ok(()),
        (false, false) => write_marks(state, &marks),
        (false, true) => {
            fault::point();
            fs::remove_file(path_in(state))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn facts(text: &str) -> Facts {
        let text = format!("{text}[servers.s]\naddresses = [\"192.0.2.1\"]\n");
        let policy = parse(&text, "dmz.toml").unwrap();
        Facts::of(&policy, Some("a note".to_owned()))
    }

    #[test]
    fn a_mark_stays_until_its_text_is_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("dmz0");
        let marks: Vec<Facts> = (0..3).map(|number| facts(&format!("# {number}\n"))).collect();
        let is_marked = |mark: &Facts| find_mark(&state, &mark.hash).unwrap().as_ref() == Some(mark);
        assert!(!is_marked(&marks[0]));
        for mark in &marks {
            add_mark(&state, mark.clone()).unwrap();
            add_mark(&state, mark.clone()).unwrap();
        }
        assert_eq!(read_marks(&state).unwrap(), marks);
        forget_mark(&state, &marks[1].hash).unwrap();
        assert_eq!(marks.iter().map(is_marked).collect::<Vec<_>>(), [true, false, true]);
        forget_mark(&state, &marks[0].hash).unwrap();
        forget_mark(&state, &marks[2].hash).unwrap();
        assert!(!path_in(&state).exists());
        forget_mark(&state, &marks[2].hash).unwrap();
    }

    #[test]
    fn the_last_twenty_marks_are_kept_and_a_damaged_file_keeps_nobody_from_a_trial() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..25 {
            add_mark(folder.path(), facts(&format!("# {number}\n"))).unwrap();
        }
        let marks = read_marks(folder.path()).unwrap();
        assert_eq!((marks.len(), &marks[0].hash), (20, &facts("# 5\n").hash));
        fs::write(path_in(folder.path()), "[{").unwrap();
        assert!(read_marks(folder.path()).is_err());
        add_mark(folder.path(), facts("# new\n")).unwrap();
        assert_eq!(read_marks(folder.path()).unwrap().len(), 1);
    }
}
