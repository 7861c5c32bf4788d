//! Where clients say what is to be done with alarms, and wait for the outcome.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::protocol::AlarmOrder;
use crate::audit::Who;

/// Orders that wait at a time: more than there are slots for clients.
const MOST_ORDERS: usize = 64;

/// What became of an order: its answer, or a sentence that says why not.
pub(in crate::daemon) type Handled = Result<serde_json::Value, String>;

/// An order, and where its outcome goes.
pub(in crate::daemon) struct PendingOrder {
    pub(in crate::daemon) order: AlarmOrder,
    /// Who gave it, as the kernel says.
    pub(in crate::daemon) who: Who,
    pub(in crate::daemon) answer: SyncSender<Handled>,
}

/// A clone is another handle to the same desk.
#[derive(Clone)]
pub(in crate::daemon) struct OrderDesk {
    give: SyncSender<PendingOrder>,
    take: Arc<Mutex<Receiver<PendingOrder>>>,
}

impl Default for OrderDesk {
    fn default() -> OrderDesk {
        let (give, take) = sync_channel(MOST_ORDERS);
        OrderDesk { give, take: Arc::new(Mutex::new(take)) }
    }
}

impl OrderDesk {
    /// Gives an order, and waits until it is carried out and saved. `None`: that took too long.
    pub(super) fn ask(&self, order: AlarmOrder, who: Who, patience: Duration) -> Option<Handled> {
        let (answer, outcome) = sync_channel(1);
        match self.give.try_send(PendingOrder { order, who, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return None,
        }
        outcome.recv_timeout(patience).ok()
    }

    /// The next order that waits.
    pub(in crate::daemon) fn take(&self) -> Option<PendingOrder> {
        self.take.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }
}
