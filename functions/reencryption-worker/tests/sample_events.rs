//! Every file in `events/reencryption-worker` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::reencryption::ShardWork;

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/reencryption-worker");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let event: SqsEvent = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for record in event.records {
            let work: Result<ShardWork, _> = serde_json::from_str(&record.body.unwrap());
            assert!(work.is_ok(), "{}: {work:?}", path.display());
        }
        seen += 1;
    }
    assert_eq!(seen, 1);
}
