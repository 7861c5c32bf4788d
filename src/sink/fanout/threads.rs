//! How many sinks have a thread. A sink of an earlier policy keeps its thread while it hangs, so reloads could make
//! any number of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// Threads of sinks in a process, for many more sinks than a policy can have.
pub(super) const MAX_THREADS: usize = 64;

static OF_PROCESS: LazyLock<Arc<Threads>> = LazyLock::new(|| Arc::new(Threads::new(MAX_THREADS)));

/// The threads of sinks, counted.
#[derive(Debug)]
pub(super) struct Threads {
    running: AtomicUsize,
    most: usize,
}

/// A thread that runs, or is to run.
#[derive(Debug)]
pub(super) struct ThreadSlot(Arc<Threads>);

impl Threads {
    pub(super) fn new(most: usize) -> Threads {
        Threads { running: AtomicUsize::new(0), most }
    }

    /// Those of all fan-outs of this process.
    pub(super) fn of_process() -> Arc<Threads> {
        Arc::clone(&OF_PROCESS)
    }

    /// `None`: there are too many already.
    pub(super) fn take_slot(self: &Arc<Self>) -> Option<ThreadSlot> {
        let slot = ThreadSlot(Arc::clone(self));
        // A slot too many is given back at once.
        (self.running.fetch_add(1, Ordering::SeqCst) < self.most).then_some(slot)
    }
}

impl Drop for ThreadSlot {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
