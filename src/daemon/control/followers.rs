//! Clients that follow the alarms. Each has a bounded queue, so that the daemon waits for none.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answers::{render_audit, render_change};
use crate::alarm::Change;
use crate::audit::Event;
use crate::daemon::metrics::snapshot::{Snapshot, increment};
use crate::history::AlarmState;

/// Changes that wait for one client. A client that lets more pile up does not read, and is dropped.
pub(super) const MOST_WAITING: usize = 1024;

type Queues = Vec<SyncSender<Arc<str>>>;

/// The clients that follow. A clone is another handle to the same clients.
#[derive(Clone)]
pub(in crate::daemon) struct Followers {
    queues: Arc<Mutex<Queues>>,
    snapshot: Arc<Snapshot>,
}

impl Followers {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Followers {
        Followers { queues: Arc::default(), snapshot }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client. Its queue ends when it is dropped.
    pub(super) fn add(&self) -> Receiver<Arc<str>> {
        let (sender, receiver) = sync_channel(MOST_WAITING);
        self.queues().push(sender);
        receiver
    }

    /// Gives a change to every client that follows.
    pub(in crate::daemon) fn send(&self, change: &Change) {
        self.send_line(|| render_change(change, AlarmState::after(change.step)));
    }

    /// Gives an audit event to every client that follows.
    pub(in crate::daemon) fn send_audit(&self, event: &Event) {
        self.send_line(|| render_audit(event));
    }

    fn send_line(&self, render: impl FnOnce() -> Option<String>) {
        let mut queues = self.queues();
        if queues.is_empty() {
            return;
        }
        let Some(text) = render() else {
            return;
        };
        let text: Arc<str> = text.into();
        queues.retain(|queue| match queue.try_send(Arc::clone(&text)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                increment(&self.snapshot.clients_disconnected);
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queues().is_empty()
    }
}
