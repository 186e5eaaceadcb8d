//! The customers' side of AWS on one machine: KMS, STS and the IAM that a customer needs, for any number of accounts
//! and regions, over the real protocols.
//!
//! A request enters at [`server`], which picks the service by the credential scope. [`identity`] says who calls,
//! [`policy`] whether they may, [`kms`], [`sts`] and [`iam`] do the work on the state in [`cloud`]. [`vendor`] asks the
//! vendor's AWS (ministack) about its roles and passes on what is not ours; [`events`] tells the vendor about changes;
//! [`faults`] break things on request and [`admin`] is the door for tests.

#![allow(
    clippy::indexing_slicing,
    reason = "a test server: it indexes JSON values, which does not panic, and text at positions it has just checked"
)]

pub mod admin;
pub mod calls;
pub mod cloud;
pub mod events;
pub mod faults;
pub mod iam;
pub mod identity;
pub mod key_operations;
pub mod kms;
pub mod policy;
pub mod server;
pub mod sts;
pub mod vault;
pub mod vendor;
pub mod wire;
