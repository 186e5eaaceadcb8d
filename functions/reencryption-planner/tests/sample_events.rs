//! Every file in `events/reencryption-planner` is an invocation that the function understands.
#![allow(clippy::unwrap_used, reason = "tests")]

use claviger_app::reencryption::JobStep;
use claviger_lambda::work::Work;
use claviger_reencryption_planner::{Input, Tick};
use serde_json::Value;

#[test]
fn every_sample_event_is_understood() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/reencryption-planner");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let input: Input = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        match (input, name.as_str()) {
            (Input::Tick(Tick::Tick), "tick") => {}
            (Input::Queue(event), "reencryption-ordered" | "next-step") => {
                for record in event.records {
                    let mut body: Value = serde_json::from_str(&record.body.unwrap()).unwrap();
                    if let Some(detail) = body.get_mut("detail") {
                        body = detail.take();
                    }
                    let work: Result<Work<JobStep>, _> = serde_json::from_value(body);
                    let right = matches!(
                        (&work, name.as_str()),
                        (Ok(Work::Effect(_)), "reencryption-ordered") | (Ok(Work::Page(_)), "next-step")
                    );
                    assert!(right, "{name}: {work:?}");
                }
            }
            (input, _) => unreachable!("{name} was understood as {input:?}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}
