//! Every file in `events/provisioner` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use aws_lambda_events::event::sqs::SqsEvent;
use serde_json::Value;

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/provisioner");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let event: SqsEvent = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for record in event.records {
            let mut body: Value = serde_json::from_str(&record.body.unwrap()).unwrap();
            if let Some(detail) = body.get_mut("detail") {
                body = detail.take();
            }
            let work: Result<claviger_provisioner::Work, _> = serde_json::from_value(body);
            assert!(work.is_ok(), "{}: {work:?}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} samples");
}
