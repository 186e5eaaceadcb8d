//! What the deciding functions decide, and what values are accepted: one binary, so that the crate is linked once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "tests")]

mod access;
mod byok;
mod closing;
mod data_keys;
mod decide;
mod health;
mod heard;
mod instances;
mod lifecycle;
mod lost_key;
mod outlook;
mod records;
mod reencryption;
mod support;
mod tickets;
mod values;
mod words;
