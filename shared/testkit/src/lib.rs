//! What tests stand on: every port in memory with the semantics of the real ones, a clock that is set by hand,
//! identifiers that count, keys that answer what they are told to, and builders that go through the domain.
//!
//! A differential test in `shared/aws` runs the same operations on [`MemoryWorld`] and on the DynamoDB store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed expectation is what a test says"
)]

pub mod builders;
mod clock;
mod ids;
mod keys;
mod world;

pub use self::clock::{FakeClock, VirtualClock};
pub use self::ids::SequentialIds;
pub use self::keys::{FakeKeys, KeyCall, a_description};
pub use self::world::{FenceItem, MemoryWorld};
