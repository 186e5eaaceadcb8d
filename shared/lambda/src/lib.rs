//! What every function shares: its start, its settings, its log lines, its answers to trouble, whom it
//! trusts, and the runners of batches.
//!
//! A function's `main.rs` wires these to one use case and decides nothing.

pub mod adapters;
pub mod auth;
pub mod batch;
pub mod env;
pub mod observe;
pub mod problem;
pub mod start;
pub mod usage;
pub mod webhooks;
pub mod work;
