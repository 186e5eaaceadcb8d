//! What people and machines may ask for, on stores in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a failed expectation is what a test says"
)]

mod acknowledge_order;
mod check_enrolment;
mod enrol;
mod list_instances;
mod pass_deadlines;
mod put_organisation;
mod read_audit;
mod request_instance;
mod request_replacement;
mod request_restoration;
mod show_key_policy;
mod show_policy;
mod support_requests;
mod tickets;
mod usage;
mod validate_enrolment;
