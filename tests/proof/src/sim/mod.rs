//! The seeded simulation: production's use cases and library, in one process, on one virtual clock.
//!
//! Time is driven by events, and every call of a port takes some, so that invocations interleave. An episode of some
//! minutes is simulated call by call, its sweeps a minute apart. When nothing is under way any more, and two whole
//! minutes changed nothing, the quiet weeks to the next episode are skipped; that the first sweep after the skip
//! changes nothing either is checked too. Organisation-years count both, the detailed hours are told apart.

mod checks;
mod deeds;
mod kms;
mod moving;
mod notices;
mod plane;
mod ports;
mod run;
mod scenarios;
mod script;
mod shape;
mod steps;
mod storage;
mod work;
mod world;

pub use run::{Options, Outcome, run, run_with_log};
pub use steps::{Broken, Step, broken_on_two_threads, every_step};
pub use world::Violation;
