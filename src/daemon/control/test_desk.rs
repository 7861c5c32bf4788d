//! Where clients ask the daemon to send a test alarm, and get its receipt.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::sink::Receipt;

/// A clone is another handle to the same desk.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct TestDesk(Arc<Mutex<Vec<SyncSender<Receipt>>>>);

impl TestDesk {
    /// Asks for a test, and waits until it is sent. `None`: that took too long.
    pub(super) fn ask(&self, patience: Duration) -> Option<Receipt> {
        let (sender, receiver) = sync_channel(1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver.recv_timeout(patience).ok()
    }

    /// Sends a test for everybody who asked.
    pub(in crate::daemon) fn answer(&self, mut send: impl FnMut() -> Receipt) {
        let askers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for asker in askers {
            // one that has gone needs no receipt
            let _ = asker.try_send(send());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_gets_a_receipt_and_nobody_waits_for_ever() {
        let desk = TestDesk::default();
        assert!(desk.ask(Duration::ZERO).is_none());
        let asked = desk.clone();
        let client = std::thread::spawn(move || asked.ask(Duration::from_secs(60)).is_some());
        while !client.is_finished() {
            desk.answer(Receipt::default);
            std::thread::yield_now();
        }
        assert!(client.join().unwrap());
    }
}
