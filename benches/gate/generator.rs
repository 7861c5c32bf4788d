//! The traffic generator: the kernel takes each frame from a program of ours and sends it on.
//!
//! `BPF_PROG_TEST_RUN` in live-frames mode runs `benches/bpf/live.bpf.c` for each frame and obeys its
//! verdict, which hands the frame to a NIC. One core makes ten million frames a second in this way. A
//! sender in user space makes a fiftieth of that. The calling thread does all the work: in its network
//! namespace, and on its CPU, where the other end of a veth runs as well.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::engine::{Engine, Turn};
use crate::environment::Environment;
use crate::traffic::{Macs, Traffic};

/// `linux/bpf.h`
pub const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// Sends the traffic of one plan out of one NIC.
pub struct Generator {
    engine: Engine,
    frame: Vec<u8>,
}

impl Generator {
    pub fn load(environment: &Environment) -> Result<Generator> {
        Ok(Generator { engine: Engine::load(environment, "live", |_| ())?, frame: Vec::new() })
    }

    /// Sets what [`Generator::send`] sends, and the index of the NIC in the caller's namespace.
    pub fn aim(&mut self, traffic: &Traffic, macs: Macs, interface: u32) -> Result<()> {
        self.frame = traffic.blank_frame();
        self.engine.plan(&[*traffic], macs)?;
        self.engine.schedule_one(Turn { target: interface, plan: 0 })
    }

    /// Sends frames from this thread's network namespace. On return they have been received, except for those
    /// that the kernel left to ksoftirqd.
    pub fn send(&self, frames: u32) -> Result<()> {
        self.engine.run("generate", &self.frame, BPF_F_TEST_XDP_LIVE_FRAMES, frames).map(drop)
    }

    /// Sends for a while, with or without a limit. Returns the number of frames sent.
    pub fn send_for(&self, time: Duration, frames_per_second: Option<u32>) -> Result<u64> {
        // A call alone takes 20 ms, for the kernel waits until no CPU runs the program any more.
        const MOST_AT_ONCE: u64 = 1 << 18;
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < time {
            let due = match frames_per_second {
                Some(rate) => (start.elapsed().as_secs_f64() * f64::from(rate)) as u64 - sent,
                None => MOST_AT_ONCE,
            };
            if due == 0 {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            let frames = due.min(MOST_AT_ONCE);
            self.send(frames as u32)?;
            sent += frames;
        }
        Ok(sent)
    }

    /// Number of frames written since the last [`Generator::aim`].
    pub fn sent(&self) -> Result<u64> {
        self.engine.sent(0)
    }
}
