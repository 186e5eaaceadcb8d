//! The bounded run of the simulation. A seed that fails is replayed, with its trace, by
//! `cargo run -p claviger-proof -- --seed N`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use claviger_proof::sim::{Options, Outcome, run};

const SEEDS: u64 = 40;
const EPISODES: u32 = 16;

#[test]
fn i1_to_i8_hold_for_a_hundred_organisation_years_of_faults() {
    let next = AtomicU64::new(0);
    let all = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= SEEDS {
                        return;
                    }
                    let outcome = run(Options { seed, episodes: EPISODES, twin: None, traced: false });
                    for violation in &outcome.violations {
                        println!(
                            "seed {seed}: {} at {}: {}",
                            violation.invariant, violation.at, violation.what
                        );
                    }
                    all.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", claviger_proof::summary(SEEDS, &all));
    assert!(all.violations.is_empty());
    assert!(
        all.organisation_millis >= 100 * 366 * 24 * 3_600_000,
        "it ran for less than 100 organisation-years"
    );
    assert!(all.faults > 1_000 && all.cut_offs > 50, "it did not hurt enough");
    assert!(all.moved > 20, "only {} re-encryptions ended", all.moved);
    println!("newer data keys: {}, removed with their last backup: {}", all.newer_keys, all.removed);
    assert!(all.removed > 20, "only {} data keys were removed", all.removed);
    assert!(all.newer_keys > 20, "only {} newer data keys were made", all.newer_keys);
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let once = |_| run(Options { seed: 5, episodes: 3, twin: None, traced: true }).trace;
    let (first, second) = (once(1), once(2));
    assert!(first.len() > 100);
    assert_eq!(first, second);
}
