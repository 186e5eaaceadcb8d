//! Every file in `events/outbox` is an invocation that the function understands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use claviger_app::webhooks::WebhookMessage;
use claviger_domain::effect::OutboxRow;
use claviger_outbox::{Input, Tick};

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/outbox");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let input: Input = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        match (&input, name.as_str()) {
            (Input::Tick(Tick::Sweep), "sweep") | (Input::Tick(Tick::Redrive), "redrive") => {}
            (Input::Queue(event), "webhook-to-send") => {
                for record in &event.records {
                    let message: Result<WebhookMessage, _> =
                        serde_json::from_str(record.body.as_ref().unwrap());
                    assert!(message.is_ok(), "{name}: {message:?}");
                }
            }
            (Input::Stream(event), _) => {
                for record in &event.records {
                    let image = record.change.new_image.clone();
                    let stored: std::collections::BTreeMap<String, String> =
                        serde_dynamo::from_item(image).unwrap();
                    let row: Result<OutboxRow, _> = serde_json::from_str(&stored["doc"]);
                    assert!(row.is_ok(), "{name}: {row:?}");
                }
            }
            _ => unreachable!("{name} was understood as {input:?}"),
        }
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} samples");
}
