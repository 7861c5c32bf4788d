//! The confirmed policies of a gate: those that were live, and not on trial alone. `attach` and `run` fall back to
//! the last one, and `rollback` makes an earlier one live.
//!
//! Each is a file `policies/NUMBER.toml` in the gate's state folder. Its first line is a comment with the
//! facts, the rest is the text as it was live, with the members of set files in it. So it stands alone, and a
//! person may apply it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault;
use super::place::GatePlace;
use super::policy_facts::{Facts, hash_of};
use super::state_file::{in_time, replace};
use super::unconfirmed::{find_mark, forget_mark};
use crate::policy::Policy;
use crate::state_folder::make_state_folder;

const FOLDER: &str = "policies";
const THREAD: &str = "policies";
const MARK: &str = "# portcullis confirmed: ";
/// So many are kept.
const KEPT: usize = 20;
/// More than the largest policy with all its set files.
const MOST_BYTES: u64 = 256 << 20;
/// A disk that does not answer must not hold up an attach for longer.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// Without this answer the NIC may get no gate, so it is waited for longer.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A policy that was live once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedPolicy {
    /// Who made it live, and when.
    pub facts: Facts,
    /// The text, with the members of set files in it.
    pub text: String,
    /// Where it is kept.
    pub path: PathBuf,
}

/// Keeps a policy that has just become live. The caller holds the lock. `Some` is a warning: it could not be
/// kept.
pub fn confirm_policy(place: &GatePlace, policy: &Policy) -> Option<String> {
    confirm_policy_as(place, policy, None)
}

/// As [`confirm_policy`], with the note of whoever made it live. If its trial was begun by somebody, that person
/// and that note stay.
pub fn confirm_policy_as(place: &GatePlace, policy: &Policy, note: Option<String>) -> Option<String> {
    let folder = place.history().join(FOLDER);
    let state = place.history();
    let (facts, text) = (Facts::of(policy, note), policy.text.clone());
    let kept = in_time(THREAD, WRITE_PATIENCE, move || {
        fault::point();
        make_state_folder(&state)?;
        let begun = find_mark(&state, &facts.hash).ok().flatten();
        let facts = match begun {
            Some(begun) => Facts {
                since: facts.since,
                file: facts.file,
                hash: facts.hash,
                note: facts.note.or(begun.note),
                ..begun
            },
            None => facts,
        };
        let hash = facts.hash.clone();
        keep(&folder, facts, &text)?;
        // last: whoever dies before has a text that is both kept and marked, and the mark counts
        forget_mark(&state, &hash)
    });
    kept.and_then(|kept| kept).err().map(|error| {
        format!(
            "the policy is live, but it could not be kept in {}: {error}; `--fall-back` would attach the one \
             before it",
            place.history().join(FOLDER).display()
        )
    })
}

/// The confirmed policies, the last one first. Each inner error is a sentence about a damaged one.
///
/// # Errors
/// When their folder can't be read in time.
pub fn read_confirmed(place: &GatePlace) -> io::Result<Vec<Result<ConfirmedPolicy, String>>> {
    let folder = place.history().join(FOLDER);
    in_time(THREAD, READ_PATIENCE, move || read_all(&folder))?
}

fn read_all(folder: &Path) -> io::Result<Vec<Result<ConfirmedPolicy, String>>> {
    let numbers = list_numbers(folder)?.into_iter().rev();
    Ok(numbers
        .map(|number| {
            let path = path_of(folder, number);
            read(&path).map_err(|error| format!("{} can't be used: {error}", path.display()))
        })
        .collect())
}

/// The same policy again is no news: its file and the time since when it was live stay.
fn keep(folder: &Path, facts: Facts, text: &str) -> io::Result<()> {
    let numbers = list_numbers(folder)?;
    let last = numbers.last().copied();
    let known = last.and_then(|number| read(&path_of(folder, number)).ok());
    if known.is_some_and(|known| known.facts.hash == facts.hash && known.facts.file == facts.file) {
        return Ok(());
    }
    let head = format!("{MARK}{}\n", serde_json::to_string(&facts)?);
    replace(&path_of(folder, last.unwrap_or(0) + 1), &[head.as_bytes(), text.as_bytes()])?;
    let surplus = (numbers.len() + 1).saturating_sub(KEPT);
    for number in numbers.into_iter().take(surplus) {
        fault::point();
        fs::remove_file(path_of(folder, number))?;
    }
    Ok(())
}

/// The numbers of the files in a folder, rising. A folder that is not there has none.
fn list_numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".toml")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.toml"))
}

fn read(path: &Path) -> io::Result<ConfirmedPolicy> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if !fs::metadata(path)?.is_file() {
        return Err(damaged("it is no regular file"));
    }
    let mut whole = String::new();
    File::open(path)?.take(MOST_BYTES).read_to_string(&mut whole)?;
    let (head, text) = whole.split_once('\n').ok_or_else(|| damaged("it is cut short"))?;
    let facts = head.strip_prefix(MARK).ok_or_else(|| damaged("its first line is damaged"))?;
    let facts: Facts = serde_json::from_str(facts).map_err(|error| damaged(&error.to_string()))?;
    if hash_of(text) != facts.hash {
        return Err(damaged("its text is not the one that was live"));
    }
    Ok(ConfirmedPolicy { facts, text: text.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(folder: &Path, file: &str, text: &str) -> io::Result<()> {
        super::keep(folder, Facts::of_text(file, text, None), text)
    }

    fn texts(folder: &Path) -> Vec<Result<String, String>> {
        let all = read_all(folder).unwrap().into_iter();
        all.map(|confirmed| confirmed.map(|confirmed| confirmed.text)).collect()
    }

    #[test]
    fn the_last_confirmed_policy_comes_first_and_the_same_again_is_no_news() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("policies");
        assert_eq!(texts(&folder), []);
        keep(&folder, "dmz.toml", "a\nb\n").unwrap();
        let first = read(&path_of(&folder, 1)).unwrap();
        keep(&folder, "dmz.toml", "a\nb\n").unwrap();
        assert_eq!(texts(&folder), [Ok("a\nb\n".to_owned())]);
        assert_eq!(read(&path_of(&folder, 1)).unwrap(), first);
        keep(&folder, "dmz.toml", "").unwrap();
        keep(&folder, "other.toml", "").unwrap();
        assert_eq!(texts(&folder), [Ok(String::new()), Ok(String::new()), Ok("a\nb\n".to_owned())]);
    }

    #[test]
    fn twenty_are_kept_and_numbers_are_never_used_again() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..25 {
            keep(folder.path(), "dmz.toml", &number.to_string()).unwrap();
        }
        let kept = texts(folder.path());
        assert_eq!((kept.len(), &kept[0], &kept[19]), (20, &Ok("24".to_owned()), &Ok("5".to_owned())));
        assert_eq!(list_numbers(folder.path()).unwrap(), (6..=25).collect::<Vec<u64>>());
    }

    #[test]
    fn a_policy_that_was_cut_anywhere_counts_as_damaged_and_is_kept_anew() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), "dmz.toml", "first").unwrap();
        keep(folder.path(), "dmz.toml", "second").unwrap();
        let path = path_of(folder.path(), 2);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let found = texts(folder.path());
            assert!(found[0].as_ref().is_err_and(|why| why.contains("2.toml can't be used")), "{found:?}");
            assert_eq!(found[1], Ok("first".to_owned()));
        }
        keep(folder.path(), "dmz.toml", "second").unwrap();
        assert_eq!(texts(folder.path())[0], Ok("second".to_owned()));
    }
}
