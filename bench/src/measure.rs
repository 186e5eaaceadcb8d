//! Times of several things against one another, in nanoseconds a call.

use std::time::Instant;

const RUNS: usize = 5;
const ROUNDS: usize = 41;
/// How long one thing is repeated before the next one has its turn.
const SLICE_NANOS: f64 = 40_000.0;

/// Medians of five runs. Within a run all things take turns in short slices and the median slice counts, so that
/// whatever else the machine does meets all of them alike.
pub fn medians<const N: usize>(mut things: [&mut dyn FnMut(); N]) -> [[f64; RUNS]; N] {
    let calls = things.each_mut().map(|thing| {
        let began = Instant::now();
        for _ in 0..20 {
            thing();
        }
        (SLICE_NANOS / (began.elapsed().as_nanos() as f64 / 20.0)).clamp(1.0, 1000.0) as u32
    });
    let mut figures = [[0.0; RUNS]; N];
    for run in 0..RUNS {
        let mut slices = [[0.0; ROUNDS]; N];
        for round in 0..ROUNDS {
            for ((thing, slices), calls) in things.iter_mut().zip(&mut slices).zip(calls) {
                thing();
                let began = Instant::now();
                for _ in 0..calls {
                    thing();
                }
                slices[round] = began.elapsed().as_nanos() as f64 / f64::from(calls);
            }
        }
        for (figures, slices) in figures.iter_mut().zip(&mut slices) {
            figures[run] = median(slices);
        }
    }
    figures
}

/// Sorts `values`, of which there is an odd number, and returns the one in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of what `ours` takes in units of `limit`, run by run.
pub fn ratio<const N: usize>(ours: &[f64; N], limit: &[f64; N]) -> f64 {
    let mut ratios = *ours;
    for (ours, limit) in ratios.iter_mut().zip(limit) {
        *ours /= limit;
    }
    median(&mut ratios)
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    if rustix::thread::sched_setaffinity(None, &cores).is_err() {
        eprintln!("could not pin to core {core}");
    }
}
