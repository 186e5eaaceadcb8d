//! Every file in `events/key-events` is understood as the situation that its name says.
#![allow(clippy::unwrap_used, reason = "tests")]

use claviger_key_events::{Heard, KeyEvent};

#[test]
fn r1_every_sample_event_is_a_hint_of_the_situation_that_its_file_name_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/key-events");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let event: KeyEvent = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        match event.heard() {
            Heard::Hint { slug, account } => {
                assert_eq!(slug, name);
                assert_eq!(account.as_str(), "222222222222");
            }
            Heard::Ignored { .. } => assert!(name.starts_with("ignored-"), "{name} was ignored"),
        }
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} samples");
}

#[test]
fn r9_an_event_of_another_shape_is_ignored_and_never_an_error() {
    for text in [
        r#"{"source":"aws.s3","detail-type":"Object Created","account":"222222222222","detail":{}}"#,
        r#"{"source":"aws.kms","detail-type":"KMS Something New","account":"222222222222"}"#,
        r#"{"source":"aws.iam","detail-type":"AWS API Call via CloudTrail","account":"x","detail":{"eventName":"DeleteRole"}}"#,
    ] {
        let event: KeyEvent = serde_json::from_str(text).unwrap();
        assert!(matches!(event.heard(), Heard::Ignored { .. }), "{text}");
    }
}
