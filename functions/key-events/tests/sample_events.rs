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
            Heard::Hint { slug, account, change } => {
                assert_eq!(slug, name);
                assert_eq!(account.as_str(), "222222222222");
                assert_eq!(change.slug, name);
                assert!(change.at.is_some());
                let ada = "arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada";
                let by_somebody = event.detail.event_name.is_some();
                assert_eq!(change.by.map(String::from).as_deref(), by_somebody.then_some(ada), "{name}");
            }
            Heard::Ignored { .. } => assert!(name.starts_with("ignored-"), "{name} was ignored"),
        }
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} samples");
}

fn by(source: &str, name: &str, arn: &str) -> KeyEvent {
    let event = serde_json::json!({
        "source": source, "detail-type": "AWS API Call via CloudTrail", "account": "222222222222",
        "detail": { "eventName": name, "userIdentity": { "arn": arn } },
    });
    serde_json::from_value(event).unwrap()
}

#[test]
fn r1_every_call_that_can_take_a_key_or_a_role_away_or_give_it_back_is_a_hint() {
    for (source, names) in [
        (
            "aws.kms",
            &[
                "DisableKey",
                "EnableKey",
                "ScheduleKeyDeletion",
                "CancelKeyDeletion",
                "PutKeyPolicy",
                "CreateGrant",
                "RevokeGrant",
                "RetireGrant",
                "DeleteImportedKeyMaterial",
                "ImportKeyMaterial",
                "DisconnectCustomKeyStore",
                "ConnectCustomKeyStore",
            ][..],
        ),
        (
            "aws.iam",
            &[
                "UpdateAssumeRolePolicy",
                "DeleteRole",
                "CreateRole",
                "PutRolePolicy",
                "DeleteRolePolicy",
                "AttachRolePolicy",
                "DetachRolePolicy",
                "CreatePolicyVersion",
                "SetDefaultPolicyVersion",
                "DeletePolicyVersion",
                "PutRolePermissionsBoundary",
                "DeleteRolePermissionsBoundary",
            ][..],
        ),
    ] {
        for name in names {
            let heard = by(source, name, "arn:aws:iam::222222222222:user/ada").heard();
            assert!(matches!(heard, Heard::Hint { .. }), "{name}: {heard:?}");
        }
    }
}

#[test]
fn r8_a_caller_that_is_no_plain_arn_is_left_out_of_what_people_read() {
    let long = format!("arn:aws:iam::222222222222:user/{}", "a".repeat(600));
    for arn in [
        "ada",
        "arn:aws:s3:::bucket",
        "arn:aws:iam::2:user/a\n\nResolved by support",
        "arn:aws:iam::2:<b>",
        &long,
    ] {
        let Heard::Hint { change, .. } = by("aws.kms", "DisableKey", arn).heard() else { panic!("{arn}") };
        assert_eq!(change.by, None, "{arn}");
    }
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

#[test]
fn r8_a_change_names_its_key_or_its_role_so_that_it_is_told_to_the_right_organisation_only() {
    let key = "arn:aws:kms:eu-west-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let read = |value: serde_json::Value| {
        let event: KeyEvent = serde_json::from_value(value).unwrap();
        let Heard::Hint { change, .. } = event.heard() else { panic!("ignored") };
        change
    };
    let called = serde_json::json!({
        "source": "aws.kms", "detail-type": "AWS API Call via CloudTrail", "account": "222222222222",
        "detail": {"eventName": "DisableKey", "resources": [{"ARN": key}], "requestParameters": {"keyId": "alias/a"}},
    });
    assert_eq!(read(called).key.unwrap().as_str(), key);
    let own = serde_json::json!({
        "source": "aws.kms", "detail-type": "KMS CMK Deletion", "account": "222222222222", "resources": [key],
        "detail": {"key-id": "1234abcd-12ab-34cd-56ef-1234567890ab"},
    });
    assert_eq!(read(own).key.unwrap().as_str(), key);
    for (asked, role) in [
        (serde_json::json!({"roleName": "key-management"}), Some("key-management")),
        (serde_json::json!({"roleName": "no role\nat all"}), None),
        (serde_json::json!({"roleName": 7}), None),
        (serde_json::json!(null), None),
        (serde_json::json!("text"), None),
    ] {
        let of_role = serde_json::json!({
            "source": "aws.iam", "detail-type": "AWS API Call via CloudTrail", "account": "222222222222",
            "detail": {"eventName": "DeleteRole", "requestParameters": asked},
        });
        let change = read(of_role);
        assert_eq!((change.role.as_ref().map(|role| role.as_str()), change.key), (role, None));
    }
}
