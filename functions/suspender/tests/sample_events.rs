//! Every file in `events/suspender` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn every_sample_event_is_understood() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/suspender"));
    let seen = claviger_lambda::work::understand_samples::<claviger_suspender::Work>(folder).unwrap();
    assert!(seen >= 2, "only {seen} samples");
}
