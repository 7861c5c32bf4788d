//! The CPU that is kept free for the measurement.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

static TAKEN: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Keeps this thread on one CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    TAKEN.store(cpu, Ordering::Relaxed);
    stay_on(&[cpu])
}

/// Moves this thread off the CPU of [`pin_to`], if there is another.
pub fn avoid_pinned() -> Result<()> {
    let taken = TAKEN.load(Ordering::Relaxed);
    let others: Vec<usize> = (0..count()).filter(|cpu| *cpu != taken).collect();
    if others.is_empty() { Ok(()) } else { stay_on(&others) }
}

/// The CPUs of [`avoid_pinned`], as taskset(1) reads them.
pub fn list_others() -> String {
    let taken = TAKEN.load(Ordering::Relaxed);
    let others: Vec<String> = (0..count()).filter(|cpu| *cpu != taken).map(|cpu| cpu.to_string()).collect();
    if others.is_empty() { "0".to_owned() } else { others.join(",") }
}

/// Number of CPUs of the machine.
pub fn count() -> usize {
    libbpf_rs::num_possible_cpus().unwrap_or(1)
}

/// The CPUs that this process may run on, the pinned one among them.
pub fn allowed() -> Result<Vec<usize>> {
    // of the parent: this thread is pinned
    let parent =
        nix::sched::sched_getaffinity(nix::unistd::getppid()).context("could not ask for the CPUs")?;
    Ok((0..count()).filter(|cpu| parent.is_set(*cpu).unwrap_or(false)).collect())
}

/// Keeps this thread on some CPUs.
pub fn stay_on(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).with_context(|| format!("no CPU {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("could not stay on CPU {cpus:?}"))
}
