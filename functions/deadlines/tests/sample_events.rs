//! Every file in `events/deadlines` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use claviger_deadlines::Input;

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/deadlines");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input: Result<Input, _> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap());
        assert!(matches!(input, Ok(Input::Tick)), "{}: {input:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 1, "only {seen} samples");
}
