//! Median of five runs, in nanoseconds a call.

use std::time::Instant;

pub fn median(rounds: u32, mut f: impl FnMut()) -> f64 {
    for _ in 0..rounds / 10 + 1 {
        f();
    }
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..rounds {
                f();
            }
            began.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[2]
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    if rustix::thread::sched_setaffinity(None, &cores).is_err() {
        eprintln!("could not pin to core {core}");
    }
}
