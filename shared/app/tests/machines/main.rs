//! The use cases of the functions together, on stores, keys and queues in memory: what is queued is
//! carried by hand, so that a test can lose, double, delay and reorder it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "tests")]

mod access;
mod broker;
mod byok;
mod closing;
mod cut_off;
mod describe;
mod former_data_keys;
mod hints;
mod late_orders;
mod lost_key;
mod newer_data_keys;
mod records;
mod reencryption;
mod sites;
mod slow_region;
mod steps;
mod undelivered;
mod webhooks;
mod world;
