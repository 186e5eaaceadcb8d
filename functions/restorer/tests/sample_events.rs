//! Every file in `events/restorer` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn every_sample_event_is_understood() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/restorer"));
    let seen = claviger_lambda::work::understand_samples::<claviger_restorer::Work>(folder).unwrap();
    assert!(seen >= 2, "only {seen} samples");
}
