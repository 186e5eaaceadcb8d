//! The HTTP interface over stores in memory, with a verifier that takes a token for its bearer's name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a failed expectation is what a test says"
)]

mod authorisation;
mod bad_bodies;
mod closing;
mod console;
mod enrolment;
mod events;
mod form;
mod idempotency;
mod nearly_right;
mod openapi;
mod pages;
mod reencryptions;
mod sites;
mod stage;
mod usage;
mod versions;
mod way;
