//! Times of several things against one another, in nanoseconds a call.

use rustix::time::{ClockId, clock_gettime};

pub const RUNS: usize = 5;
const ROUNDS: usize = 41;
/// How long one thing is repeated before the next one has its turn.
const SLICE_NANOS: f64 = 40_000.0;

/// One run: all things take turns in short slices, so that whatever else the machine does meets all of them alike.
pub struct Run<const N: usize> {
    slices: Vec<[f64; N]>,
}

impl<const N: usize> Run<N> {
    pub fn new(things: &mut [&mut dyn FnMut(); N]) -> Self {
        let calls = things.each_mut().map(|thing| {
            let began = cpu_nanos();
            for _ in 0..20 {
                thing();
            }
            (SLICE_NANOS / ((cpu_nanos() - began) / 20.0).max(1.0)).clamp(1.0, 1000.0) as u32
        });
        let mut slices = vec![[0.0; N]; ROUNDS];
        for slice in &mut slices {
            for ((thing, nanos), calls) in things.iter_mut().zip(slice).zip(calls) {
                thing();
                let began = cpu_nanos();
                for _ in 0..calls {
                    thing();
                }
                *nanos = (cpu_nanos() - began) / f64::from(calls);
            }
        }
        Self { slices }
    }

    /// The median over the rounds of what `of` makes of the times of one round.
    pub fn median(&self, of: impl FnMut(&[f64; N]) -> f64) -> f64 {
        median(self.slices.iter().map(of).collect())
    }
}

/// The middle of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the calling thread has computed so far: what others do on its core meanwhile is not its own time.
pub fn cpu_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    if rustix::thread::sched_setaffinity(None, &cores).is_err() {
        eprintln!("could not pin to core {core}");
    }
}
