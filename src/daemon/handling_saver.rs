//! Handling saver: a thread that saves acknowledgements and silences for the next daemon, because a disk may hang.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use log::warn;

use super::control::Handled;
use crate::alarm::Handling;
use crate::clock::Clock;
use crate::state_file::{MOST_BYTES, PATIENCE, in_time, replace};
use crate::stderr::notice;

/// Its name in the gate's state folder.
const FILE: &str = "handling.json";
/// How long the end of the daemon waits for the disk.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// Texts that wait to be saved.
const MOST_WAITING: usize = 64;

/// A text to save, and who is to hear of it.
struct Job {
    text: String,
    answer: Option<(SyncSender<Handled>, Handled)>,
}

/// The thread, as the daemon has it.
pub(super) struct HandlingSaver {
    /// `None`: no more is asked.
    jobs: Option<SyncSender<Job>>,
    ended: Receiver<()>,
}

impl HandlingSaver {
    /// Starts the thread, for a gate's state folder.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn start(folder: &Path) -> std::io::Result<HandlingSaver> {
        let path = folder.join(FILE);
        let (jobs, asked) = mpsc::sync_channel::<Job>(MOST_WAITING);
        let (end, ended) = mpsc::sync_channel(1);
        thread::Builder::new().name("handling".to_owned()).spawn(move || {
            while let Ok(Job { text, answer }) = asked.recv() {
                let saved = replace(&path, &[text.as_bytes()]);
                if let Err(error) = &saved {
                    warn!("acknowledgements and silences hold, but are not saved: {error}");
                }
                if let Some((sender, handled)) = answer {
                    let _ = sender.send(match saved {
                        Ok(()) => handled,
                        Err(error) => handled.map(|value| with_warning(value, &error.to_string())),
                    });
                }
            }
            let _ = end.send(());
        })?;
        Ok(HandlingSaver { jobs: Some(jobs), ended })
    }

    /// Has a text saved, soon.
    pub(super) fn save(&self, text: String) {
        let _ = self.give(Job { text, answer: None });
    }

    /// Has a text saved, and answers an order then.
    pub(super) fn save_and_answer(&self, text: String, answer: SyncSender<Handled>, handled: Handled) {
        let job = Job { text, answer: Some((answer, handled)) };
        let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.give(job) else { return };
        if let Some((answer, handled)) = job.answer {
            let _ = answer.send(handled.map(|value| with_warning(value, "its disk does not answer")));
        }
    }

    fn give(&self, job: Job) -> Result<(), TrySendError<Job>> {
        match &self.jobs {
            Some(jobs) => jobs.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        }
    }
}

impl Drop for HandlingSaver {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.ended.recv_timeout(LAST_PATIENCE);
    }
}

fn with_warning(mut value: serde_json::Value, why: &str) -> serde_json::Value {
    value["warning"] = format!("it holds, but it is not saved for the next daemon: {why}").into();
    value
}

/// What the daemon before has saved. What can't be read is nothing: an alarm too many is better than one too few.
pub(super) fn load(folder: &Path) -> Handling {
    let path: PathBuf = folder.join(FILE);
    let read = move || match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(file) if file.len() > MOST_BYTES => Err("it is too large".to_owned()),
        Ok(_) => std::fs::read_to_string(&path).map(Some).map_err(|error| error.to_string()),
    };
    let text = match in_time("handling", PATIENCE, read) {
        Ok(text) => text,
        Err(error) => Err(error.to_string()),
    };
    let restored = text.and_then(|text| {
        text.map_or_else(|| Ok(Handling::default()), |text| Handling::restore(&text, Clock::now()))
    });
    restored.unwrap_or_else(|why| {
        notice!(
            "portcullis: warning: {} can't be read: {why}; no alarm is acknowledged and none is silenced",
            folder.join(FILE).display()
        );
        Handling::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_silences_nothing_and_a_good_one_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).silences().is_empty(), "no file is no mistake");
        let handling_saver = HandlingSaver::start(folder.path()).unwrap();
        let now = Clock::now();
        let mut handling = Handling::default();
        let new = crate::alarm::NewSilence {
            target: crate::alarm::Target::Server("web1".to_owned()),
            for_s: 60,
            note: "moved".to_owned(),
            by: "anna".to_owned(),
            force: false,
        };
        handling.silence(new, &[], now).unwrap();
        let text = handling.take_unsaved().unwrap();
        let (answer, outcome) = mpsc::sync_channel(1);
        handling_saver.save_and_answer(text.clone(), answer, Ok(serde_json::json!({})));
        assert_eq!(outcome.recv().unwrap(), Ok(serde_json::json!({})));
        assert_eq!(load(folder.path()).silences().len(), 1);
        for end in [0, 1, text.len() / 2, text.len() - 1] {
            std::fs::write(folder.path().join(FILE), &text[..end]).unwrap();
            assert!(load(folder.path()).silences().is_empty(), "{end}");
        }
        drop(handling_saver);
    }
}
