//! On which processor a thread of a test runs. Counters, remembered verdicts and the free lists of LRU tables
//! are of a processor each.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Processors that this thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the affinity");
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect()
}

/// Keeps the calling thread on one processor to its end.
pub fn stay_on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a processor");
    sched_setaffinity(Pid::from_raw(0), &set).expect("the affinity");
}

/// Keeps the calling thread on one of the allowed processors, which are counted from 0 and go round.
pub fn stay_on_nth_cpu(number: usize) {
    let cpus = allowed_cpus();
    stay_on_cpu(cpus[number % cpus.len()]);
}

/// In a thread of its own, for with one test thread all tests share the runner's.
pub fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            stay_on_cpu(cpu);
            work()
        });
        working.join().expect("the work")
    })
}

/// On one processor from beginning to end.
pub fn on_one_cpu(test: impl FnOnce() + Send) {
    on_cpu(allowed_cpus()[0], test);
}
