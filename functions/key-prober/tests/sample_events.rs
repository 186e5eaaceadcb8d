//! Every file in `events/key-prober` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use claviger_app::messages::ProbeMessage;
use claviger_key_prober::Input;

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/key-prober");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let input: Input = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        match (&input, name.as_str()) {
            (Input::Tick(_), "tick" | "describe") => {}
            (
                Input::Request(_),
                "probe-now"
                | "replacement-to-make"
                | "check-enrolment"
                | "data-keys-to-unwrap"
                | "permissions-to-prove",
            ) => {}
            (
                Input::Queue(event),
                "sweep"
                | "sweep-rest"
                | "describe-shard"
                | "describe-keys"
                | "hinted-probe"
                | "follow-up"
                | "refusal-met-by-broker",
            ) => {
                for record in &event.records {
                    let message: Result<ProbeMessage, _> =
                        serde_json::from_str(record.body.as_ref().unwrap());
                    assert!(message.is_ok(), "{name}: {message:?}");
                }
            }
            _ => unreachable!("{name} was understood as {input:?}"),
        }
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} samples");
}
