//! The perf buffer of samples. It has one reader, so only the daemon opens it, under a lock of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use libbpf_rs::{PerfBuffer, PerfBufferBuilder};

use super::Gate;
use super::error::GateError;

/// Pages of 4 KiB for each CPU: some 1,000 samples between two polls.
const PAGES_PER_CPU: usize = 64;
/// Samples taken out of the buffer at once. The others count as lost, and the ledger makes up for them.
const MOST_AT_ONCE: usize = 16_384;

/// The result of one poll.
#[derive(Debug, Default)]
pub struct Received {
    /// Undecoded: a `struct sample` and the frame's beginning behind it.
    pub samples: Vec<Vec<u8>>,
    /// Samples that the perf buffer, or this reader, had no room for.
    pub lost: u64,
}

/// The reader of the perf buffer.
pub struct Consumer<'gate> {
    buffer: PerfBuffer<'gate>,
    received: Rc<RefCell<Received>>,
}

impl Gate {
    /// Opens the perf buffer. The caller holds the daemon's lock.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn consume_samples(&self) -> Result<Consumer<'_>, GateError> {
        let received = Rc::new(RefCell::new(Received::default()));
        let (samples, losses) = (Rc::clone(&received), Rc::clone(&received));
        // Both are called from C, where a panic would abort: they only copy.
        let buffer = PerfBufferBuilder::new(&self.maps.samples)
            .pages(PAGES_PER_CPU)
            .sample_cb(move |_cpu, bytes| {
                if let Ok(mut received) = samples.try_borrow_mut() {
                    if received.samples.len() < MOST_AT_ONCE {
                        received.samples.push(bytes.to_vec());
                    } else {
                        received.lost += 1;
                    }
                }
            })
            .lost_cb(move |_cpu, count| {
                if let Ok(mut received) = losses.try_borrow_mut() {
                    received.lost += count;
                }
            })
            .build()
            .map_err(|error| GateError::from_libbpf("could not open the perf buffer", &error))?;
        Ok(Consumer { buffer, received })
    }
}

impl Consumer<'_> {
    /// Takes the samples that are there, without waiting for others.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn take(&self) -> Result<Received, GateError> {
        let read = self.buffer.consume();
        read.map_err(|error| GateError::from_libbpf("could not read the perf buffer", &error))?;
        Ok(self.received.take())
    }

    /// Waits up to `timeout` for samples and takes those that are there.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn poll(&self, timeout: Duration) -> Result<Received, GateError> {
        match self.buffer.poll(timeout) {
            Ok(()) => {}
            // a signal, which the caller looks at
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(GateError::from_libbpf("could not read the perf buffer", &error));
            }
        }
        Ok(self.received.take())
    }
}
