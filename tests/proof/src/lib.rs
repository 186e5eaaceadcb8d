//! The invariants I1 to I8 (design), checked by machine over the code that runs.
//!
//! [`sim`] runs the whole system, seeded and on a virtual clock; [`model`] takes every order of every step over the
//! deciding functions; [`conform`] replays a running system's audit log through them; [`twin`] breaks the system on
//! purpose, to show that the checks can fail. `docs/ASSURANCE.md` says what each of them shows, and what they do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test support: a failed expectation is what a test says"
)]

pub mod conform;
pub mod model;
pub mod rng;
pub mod sim;
pub mod twin;

/// The line that a simulation ends with.
pub fn summary(seeds: u64, all: &sim::Outcome) -> String {
    const YEAR: f64 = 365.25 * 24.0 * 3600.0 * 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let years = all.organisation_millis as f64 / YEAR;
    format!(
        "proof simulation seeds={seeds} organisation_years={years:.1} faults={} violations={}",
        all.faults,
        all.violations.len()
    )
}
