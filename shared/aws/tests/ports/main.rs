//! The adapters against real protocols: DynamoDB embedded, the other services as answers on a loopback socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed expectation is what a test says; clippy exempts only functions marked as tests"
)]

mod differential;
mod keys;
mod messages;
mod store;
mod support;
mod usage;
