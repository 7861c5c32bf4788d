//! Runs the programs of `benches/bpf`: plans say what is sent, slices let programs take turns.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{MapCore as _, MapFlags, Object, OpenObject, ProgramInput};

use crate::btf::{Record, read_enum};
use crate::environment::{Environment, find_program};
use crate::traffic::{Macs, Traffic, Version};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the next test run fail. The signal itself may reach another thread than the one that is in a test run.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// The length of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A multiple of the 64 that the kernel sends at once.
    pub frames: u32,
    /// The first frames, which are not timed. They refill the caches after the programs before them.
    pub warm: u32,
}

/// What one slice runs: a target of the program, with the traffic of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub target: u32,
    pub plan: u32,
}

/// A loaded object that includes `slices.h`.
pub struct Engine {
    object: Object,
    plan: Record,
    slice: Record,
    progress: Record,
    kinds: HashMap<String, u32>,
    limits: HashMap<String, u32>,
    random: u64,
}

impl Engine {
    pub fn load(
        environment: &Environment,
        name: &str,
        prepare: impl FnOnce(&mut OpenObject),
    ) -> Result<Engine> {
        let path = environment.compile(name)?;
        Ok(Engine {
            object: environment.load(name, prepare)?,
            plan: Record::of(&path, "plan")?,
            slice: Record::of(&path, "slice")?,
            progress: Record::of(&path, "progress")?,
            kinds: read_enum(&path, "kind")?,
            limits: read_enum(&path, "engine_limit")?,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Sets the plans. Turns refer to them by their index.
    pub fn plan(&mut self, plans: &[Traffic], macs: Macs) -> Result<()> {
        if plans.len() > self.limits["PLANS_MOST"] as usize {
            bail!("{} plans do not fit", plans.len());
        }
        for (number, traffic) in plans.iter().enumerate() {
            let version: u32 = if traffic.version == Version::V4 { 4 } else { 6 };
            let random = self.next_random() | 1;
            let record = &mut self.plan;
            record.bytes.fill(0);
            record.set("random", &random.to_ne_bytes());
            record.set("next", &u64::from(traffic.first).to_ne_bytes());
            record.set("kind", &self.kinds[traffic.kind.symbol()].to_ne_bytes());
            record.set("version", &version.to_ne_bytes());
            record.set("servers", &traffic.servers.to_ne_bytes());
            record.set("flows", &traffic.flows.to_ne_bytes());
            record.set("worms_in_1024", &traffic.worms_in_1024.to_ne_bytes());
            record.set("port", &traffic.port.to_ne_bytes());
            record.set("service", &traffic.service.to_ne_bytes());
            record.set("need", &traffic.need.to_ne_bytes());
            record.set("destination_mac", &macs.destination);
            record.set("source_mac", &macs.source);
            let bytes = self.plan.bytes.clone();
            self.put("plans", number as u32, &bytes)?;
        }
        Ok(())
    }

    /// Number of frames that were written from a plan.
    pub fn sent(&self, plan: u32) -> Result<u64> {
        let mut record = self.plan.clone();
        record.bytes = self.get("plans", plan)?;
        Ok(record.read_u64("sent"))
    }

    /// Sends all frames to one target.
    pub fn schedule_one(&mut self, turn: Turn) -> Result<()> {
        self.schedule(&[turn], Pace { frames: u32::MAX, warm: 0 })
    }

    fn schedule(&mut self, turns: &[Turn], pace: Pace) -> Result<()> {
        if turns.len() > self.limits["SLICES_MOST"] as usize {
            bail!("{} slices do not fit", turns.len());
        }
        let last = turns.last().context("no slice")?;
        for (number, turn) in turns.iter().chain([last]).enumerate() {
            self.slice.bytes.fill(0);
            self.slice.set("target", &turn.target.to_ne_bytes());
            self.slice.set("plan", &turn.plan.to_ne_bytes());
            let bytes = self.slice.bytes.clone();
            self.put("slices", number as u32, &bytes)?;
        }
        self.progress.bytes.fill(0);
        self.progress.set("frames_per_slice", &pace.frames.to_ne_bytes());
        self.progress.set("warm_frames", &pace.warm.to_ne_bytes());
        let bytes = self.progress.bytes.clone();
        self.put("progresses", 0, &bytes)
    }

    /// Fills an array of programs.
    pub fn install(&self, map: &str, programs: &[(u32, BorrowedFd<'_>)]) -> Result<()> {
        for (number, program) in programs {
            self.put(map, *number, &program.as_raw_fd().to_ne_bytes())?;
        }
        Ok(())
    }

    /// Runs a program of the object `repeat` times and returns its last return value.
    pub fn run(&self, program: &str, frame: &[u8], flags: u32, repeat: u32) -> Result<u32> {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let input = ProgramInput { data_in: Some(frame), flags, repeat, ..ProgramInput::default() };
        let output = find_program(&self.object, program)?.test_run(input);
        Ok(output.with_context(|| format!("a test run of `{program}`"))?.return_value)
    }

    /// Runs each turn `slices_each` times, in an order that is shuffled anew each time. Returns nanoseconds a
    /// frame, for each turn slice by slice.
    pub fn interleave(
        &mut self,
        program: &str,
        frame: &[u8],
        flags: u32,
        turns: &[Turn],
        pace: Pace,
        slices_each: u32,
    ) -> Result<Vec<Vec<f64>>> {
        let mut times = vec![Vec::new(); turns.len()];
        let at_once = (self.limits["SLICES_MOST"] as usize / turns.len()).min(slices_each as usize).max(1);
        let mut left = slices_each as usize;
        while left > 0 {
            let rotations = left.min(at_once);
            let mut order = Vec::new();
            for _ in 0..rotations {
                let begin = order.len();
                order.extend(0..turns.len());
                self.shuffle(&mut order[begin..]);
            }
            let slices: Vec<Turn> = order.iter().map(|turn| turns[*turn]).collect();
            self.schedule(&slices, pace)?;
            // one more frame ends the last slice
            self.run(program, frame, flags, slices.len() as u32 * pace.frames + 1)?;
            for (number, turn) in order.iter().enumerate() {
                let mut record = self.slice.clone();
                record.bytes = self.get("slices", number as u32)?;
                let ns = record.read_u64("ns") as f64 / f64::from(pace.frames - pace.warm);
                times[*turn].push(ns);
            }
            left -= rotations;
        }
        Ok(times)
    }

    fn shuffle(&mut self, list: &mut [usize]) {
        for end in (1..list.len()).rev() {
            let other = self.next_random() % (end as u64 + 1);
            list.swap(end, other as usize);
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub fn put(&self, map: &str, key: u32, value: &[u8]) -> Result<()> {
        let found = self.object.maps().find(|found| found.name() == map);
        let found = found.with_context(|| format!("no map `{map}`"))?;
        found.update(&key.to_ne_bytes(), value, MapFlags::ANY).with_context(|| format!("an entry of `{map}`"))
    }

    fn get(&self, map: &str, key: u32) -> Result<Vec<u8>> {
        let found = self.object.maps().find(|found| found.name() == map);
        let found = found.with_context(|| format!("no map `{map}`"))?;
        found.lookup(&key.to_ne_bytes(), MapFlags::ANY)?.with_context(|| format!("no entry {key} in `{map}`"))
    }
}
